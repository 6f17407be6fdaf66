//! Runs a program so that its caller sees no difference to `exec`, and this process is still there when it
//! ends.
//!
//! The program is a child in our process group, with our terminal, descriptors and environment. Signals to
//! this process alone are passed on, a stop of the program stops this process as well, and its exit status,
//! or the signal that killed it, becomes ours. On Linux the program does not outlive this process, even if
//! that is killed.

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

pub use self::ignored::IgnoredSignals;
use self::signals::{Arrival, Signals};
use crate::ssh::client::Command;
use crate::system::memory;

/// How a program ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    /// With this exit status.
    Exited(u8),
    /// By this signal.
    Killed(i32),
}

/// A program that was started, and the signals that come for it.
pub struct Job {
    /// None once it has ended, since its number may be given to another process.
    child: Option<Pid>,
    signals: Signals,
    /// Whether a signal asked for the end.
    is_asked_to_end: bool,
}

impl Job {
    /// Starts the program, by way of `own_program`, which is this one: it calls [`Child::exec`].
    ///
    /// To be called on the main thread, since the program is ended together with the thread that started it.
    ///
    /// # Errors
    /// Those of the operating system. If there is no such program, the child prints that and exits.
    pub fn start(own_program: &Path, command: &Command) -> io::Result<Self> {
        // Before the start: a signal in between would end this process alone.
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

    /// Waits for the program's end.
    ///
    /// # Errors
    /// Those of the operating system.
    pub fn wait(&mut self) -> io::Result<End> {
        loop {
            // Before the child is looked at: after SIGCONT a stop that was seen late would stop us again.
            self.take_signals();
            while let Some((id, status)) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED)? {
                if Some(id) != self.child {
                    continue;
                }
                if let Some(end) = End::of(status) {
                    self.child = None;
                    // What came before was for the program: sftp goes on after an interrupt.
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

    /// Sleeps until a signal comes, or one of `others` can be read. Returns whether to go on waiting: false
    /// from `deadline` on, or once a signal has asked for the end.
    pub fn sleep(&mut self, others: &[BorrowedFd<'_>], deadline: Instant) -> bool {
        let slept = !self.is_asked_to_end && self.signals.sleep(others, Some(deadline)).is_ok();
        self.take_signals();
        slept && !self.is_asked_to_end && Instant::now() < deadline
    }

    /// Stops this process as the program was stopped, for the shell that waits for this process and not for
    /// the program. The signals are not caught, so that the shell also sees which one it was.
    fn stop(&self, signal: i32) {
        let stops = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
        // SIGSTOP was sent to the program alone, and its sender would continue the program alone.
        let Some(signal) = stops.into_iter().find(|stop| stop.as_raw() == signal) else { return };
        let _ = kill_process(getpid(), signal);
        // Reached when the shell continues this process, or at once: the kernel stops no process of an
        // orphaned group.
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
            // It may have ended; until it is waited for, its number is not given to another.
            let _ = kill_process(child, signal);
        }
    }
}

impl End {
    fn of(status: WaitStatus) -> Option<Self> {
        let exited = status.exit_status().map(|code| Self::Exited(u8::try_from(code).unwrap_or(u8::MAX)));
        exited.or_else(|| status.terminating_signal().map(Self::Killed))
    }

    /// The program's exit status. After a signal this does not return: this process dies by it as well.
    pub fn imitate(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => {
                // The program dumps a core of its own, and ours could hold credentials.
                memory::forbid_dumps();
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                // As shells report it.
                u8::try_from(128 + signal).unwrap_or(u8::MAX)
            }
        }
    }
}

/// What the child is asked to become.
#[derive(Debug, Eq, PartialEq)]
pub struct Child {
    parent: u32,
    /// The program, and its arguments.
    pub command: Command,
}

impl Child {
    /// Reads the command line that [`Job::start`] writes; none for any other.
    pub fn parse(arguments: &[OsString]) -> Option<Self> {
        let [first, parent, program, arguments @ ..] = arguments else { return None };
        if first != CHILD {
            return None;
        }
        let parent = parent.to_str()?.parse().ok()?;
        Some(Self { parent, command: Command { program: program.clone(), arguments: arguments.to_vec() } })
    }

    /// Becomes the program, which gets SIGTERM when the parent ends. That setting outlasts `exec`, and a
    /// process can only make it for itself. Processes that the program forks do not inherit it, such as the
    /// background of `ssh -f`.
    ///
    /// Returns why the program cannot be started; none if the parent has ended already.
    pub fn exec(&self) -> Option<io::Error> {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
            return Some(error.into());
        }
        // The parent may have ended before that. A parent outside of our namespace has no number.
        let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
        if parent.is_some_and(|parent| parent != self.parent) {
            return None;
        }
        self.command.exec().err()
    }
}

/// The first word of the child's command line.
const CHILD: &str = "__child";
/// After these the wait for explanations ends.
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
