//! Runs a program so that its caller sees no difference to `exec`, and this process is still there at its end.
//!
//! The program is a child in our process group, with our terminal, descriptors and environment. Signals that reach
//! this process alone are passed on, a stop of the program stops us as well, and its exit status, or the signal that
//! killed it, becomes ours. On Linux the program does not outlive us, whatever ends us.

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
use crate::memory;
use crate::openssh::Command;

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
    /// None once it has ended: its number may be given to another process.
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
    /// Those of the operating system. That there is no such program becomes known only by the child's exit status.
    pub fn start(own_program: &Path, command: &Command) -> io::Result<Self> {
        // Before the start: a signal in between would end us alone.
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

    /// Sleeps until a signal comes, or one of these can be read. Returns whether to go on waiting: false from `deadline`
    /// on, or once a signal has asked for the end.
    pub fn sleep(&mut self, others: &[BorrowedFd<'_>], deadline: Instant) -> bool {
        let slept = !self.is_asked_to_end && self.signals.sleep(others, Some(deadline)).is_ok();
        self.take_signals();
        slept && !self.is_asked_to_end && Instant::now() < deadline
    }

    /// The shell that started us waits for this process and not for the program, and is to see a stopped job. These
    /// signals are not caught, so that it also sees which one it was.
    fn stop(&self, signal: i32) {
        let stops = [Signal::TSTP, Signal::TTIN, Signal::TTOU];
        // Who sends SIGSTOP means that process, and would not know to continue this one.
        let Some(signal) = stops.into_iter().find(|stop| stop.as_raw() == signal) else { return };
        let _ = kill_process(getpid(), signal);
        // Here the job goes on, or was not stopped: the kernel stops nobody whom no shell could continue.
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

    /// The exit status that says the same. Does not return after a signal, by which this process dies as well.
    pub fn imitate(self) -> u8 {
        match self {
            Self::Exited(code) => code,
            Self::Killed(signal) => {
                // One core is enough, and ours could hold credentials.
                memory::forbid_dumps();
                let _ = signal_hook::low_level::emulate_default_handler(signal);
                // As a shell gives it.
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

    /// Becomes the program, which gets SIGTERM when the parent ends: this outlasts `exec`, and nobody can set it for
    /// another process. It does not hold for what the program forks, such as the background of `ssh -f`.
    ///
    /// Returns why the program cannot be started; none when the parent has ended already.
    pub fn exec(&self) -> Option<io::Error> {
        #[cfg(target_os = "linux")]
        if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::TERM)) {
            return Some(error.into());
        }
        // It may have ended before that. One outside of our namespace has no number.
        let parent = getppid().map(|parent| parent.as_raw_nonzero().get().unsigned_abs());
        if parent.is_some_and(|parent| parent != self.parent) {
            return None;
        }
        self.command.exec().err()
    }
}

/// The first word of the child's command line.
const CHILD: &str = "__child";
/// After these nobody waits for anything.
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
