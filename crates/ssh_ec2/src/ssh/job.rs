//! Runs a program so that its caller sees no difference from `exec`, while this process outlives the program.
//!
//! The program is a child in our process group, with our terminal, descriptors and environment. Signals to
//! this process alone are passed on to the program; when the program is stopped, this process stops too; this
//! process ends with the program's exit status, or by the signal that killed it. On Linux the program does
//! not outlive this process, even if this process is killed.

mod ignored;
mod signals;

use std::ffi::OsString;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process;
use std::time::Instant;

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, getppid, kill_process, wait};

pub(crate) use self::ignored::IgnoredSignals;
use self::signals::{Arrival, Signals};
use crate::ssh::client::Command;
use crate::system::memory;

/// How a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// It exited with this status.
    Exited(u8),
    /// It was killed by the signal with this number.
    Killed(i32),
}

/// A program that was started, and the signals to pass on to it.
pub(crate) struct Job {
    /// The process. None once it has ended, since another process may get its id.
    child: Option<Pid>,
    signals: Signals,
    /// Whether a signal asked this process to end.
    is_asked_to_end: bool,
}

impl Job {
    /// Starts the program through `own_program`, this executable, which calls [`Child::exec`].
    ///
    /// To be called on the main thread: the kernel ends the program together with the thread that started it.
    ///
    /// # Errors
    ///
    /// Errors of the operating system. If there is no such program, the child prints the error and exits.
    pub(crate) fn start(own_program: &Path, command: &Command) -> io::Result<Self> {
        // Before the start, or a signal in between would end this process alone.
        let signals = Signals::catch()?;
        let child = process::Command::new(own_program)
            .arg0("ssh_ec2")
            .args([CHILD, &process::id().to_string()])
            .arg(&command.program)
            .args(&command.arguments)
            .spawn()?;
        let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        Ok(Self { child, signals, is_asked_to_end: false })
    }

    /// Waits until the program has ended.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub(crate) fn wait(&mut self) -> io::Result<End> {
        loop {
            // Before waitpid: a stop that is seen only after SIGCONT would stop us again.
            self.take_signals();
            while let Some((id, status)) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)? {
                if Some(id) != self.child {
                    continue;
                }
                if let Some(end) = End::of(status) {
                    self.child = None;
                    // Signals that came before the program ended were meant for the program, not for us: sftp
                    // continues after an interrupt.
                    self.is_asked_to_end = false;
                    return Ok(end);
                }
                if let Some(signal) = status.stopping_signal() {
                    self.stop(signal);
                }
            }
            self.signals.sleep(&[], None)?;
        }
    }

    /// Sleeps until a signal comes, or one of `others` can be read. Returns whether the caller may continue
    /// to wait: false after `deadline`, and once a signal has asked this process to end.
    pub(crate) fn sleep(&mut self, others: &[BorrowedFd<'_>], deadline: Instant) -> bool {
        let slept = !self.is_asked_to_end && self.signals.sleep(others, Some(deadline)).is_ok();
        self.take_signals();
        slept && !self.is_asked_to_end && Instant::now() < deadline
    }

    /// Stops this process by the signal that stopped the program, for the shell, which waits for this process
    /// and not for the program. These signals are not caught, so the shell sees the signal's number as well.
    fn stop(&self, signal: i32) {
        let stops = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
        // SIGSTOP was sent to the program alone, so its sender will continue the program alone.
        let Some(signal) = stops.into_iter().find(|stop| stop.as_raw() == signal) else { return };
        let _ = kill_process(getpid(), signal);
        // Reached when the shell continues this process; or at once, since the kernel stops no process of an
        // orphaned process group.
        self.send(Signal::CONT);
    }

    fn take_signals(&mut self) {
        for Arrival { signal, is_for_group } in self.signals.arrived() {
            self.is_asked_to_end |= ENDING.contains(&signal);
            if !is_for_group {
                self.send(signal);
            }
        }
    }

    fn send(&self, signal: Signal) {
        if let Some(child) = self.child {
            // It may have ended. Until it is waited for, no other process gets its id.
            let _ = kill_process(child, signal);
        }
    }
}

impl End {
    fn of(status: WaitStatus) -> Option<Self> {
        let exited = status.exit_status().map(|code| Self::Exited(u8::try_from(code).unwrap_or(u8::MAX)));
        exited.or_else(|| status.terminating_signal().map(Self::Killed))
    }

    /// The program's exit status. If a signal killed the program, it kills this process as well, and this
    /// does not return.
    pub(crate) fn imitate(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => {
                // The program has dumped its own core. Ours could contain credentials.
                memory::forbid_dumps();
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                // The status by which shells report a signal.
                u8::try_from(128 + signal).unwrap_or(u8::MAX)
            }
        }
    }
}

/// The program that the child is to become.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Child {
    parent: u32,
    /// The program, with its arguments.
    pub command: Command,
}

impl Child {
    /// Reads the command line that [`Job::start`] writes. None for any other.
    pub(crate) fn parse(arguments: &[OsString]) -> Option<Self> {
        let [first, parent, program, arguments @ ..] = arguments else { return None };
        if first != CHILD {
            return None;
        }
        let parent = parent.to_str()?.parse().ok()?;
        Some(Self { parent, command: Command { program: program.clone(), arguments: arguments.to_vec() } })
    }

    /// Becomes the program, which gets SIGTERM when the parent ends. That setting survives `exec`, and a
    /// process can make it only for itself. Processes that the program forks do not inherit it, such as the
    /// background process of `ssh -f`.
    ///
    /// Returns the reason for which the program cannot be started; None if the parent has already ended.
    pub(crate) fn exec(&self) -> Option<io::Error> {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
            return Some(error.into());
        }
        // The parent may have ended before that. A parent outside of our PID namespace has no id.
        let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
        if parent.is_some_and(|parent| parent != self.parent) {
            return None;
        }
        self.command.exec().err()
    }
}

/// The first word of the child's command line.
const CHILD: &str = "__child";
/// After these, this process no longer waits for the proxy's report.
const ENDING: [Signal; 4] = [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_childs_command_line_is_known_by_its_first_word() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        let child = Child::parse(&words("__child 7 ssh -v __child")).unwrap();
        let command = Command { program: "ssh".into(), arguments: words("-v __child") };
        assert_eq!(child, Child { parent: 7, command });
        for line in ["__child", "__child 7", "__child x ssh", "web-1 __child 7 ssh"] {
            assert_eq!(Child::parse(&words(line)), None, "{line}");
        }
    }
}
