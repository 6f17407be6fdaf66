//! The signals for a job, and whether its whole process group got each.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use signal_hook::iterator::backend::SignalDelivery;
use signal_hook::iterator::exfiltrator::origin::WithOrigin;
use signal_hook::low_level::siginfo::Cause;

use super::ignored::IgnoredSignals;

/// A signal that this process got.
pub(super) struct Arrival {
    pub(super) signal: Signal,
    /// Whether every process of the group got it, the program included.
    pub(super) is_for_group: bool,
}

/// The signals, caught until the process ends.
pub(super) struct Signals(SignalDelivery<UnixStream, WithOrigin>);

impl Signals {
    /// Catches them: from here on they neither kill this process nor are lost.
    pub(super) fn catch() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        let ignored = IgnoredSignals::read();
        // Signals that are ignored stay ignored: `exec` would reset a caught one to its default, and ssh is
        // to ignore it as well. Where the mask is unknown, none is caught.
        let is_caught = |signal: &Signal| ignored.contain(signal.as_raw()) == Some(false);
        let passed_on = PASSED_ON.into_iter().filter(is_caught);
        let signals = [Signal::CHILD, Signal::CONT].into_iter().chain(passed_on);
        let signals = signals.map(Signal::as_raw);
        Ok(Self(SignalDelivery::with_pipe(reader, writer, WithOrigin::default(), signals)?))
    }

    /// The signals since the last call, without SIGCHLD, which only ends the sleep.
    pub(super) fn arrived(&mut self) -> Vec<Arrival> {
        let arrived = self.0.pending().filter_map(|origin| {
            let known = |signal: &Signal| signal.as_raw() == origin.signal;
            let signal = PASSED_ON.into_iter().chain([Signal::CONT]).find(known)?;
            // The terminal's signals for keys and its size go to the foreground group. When it hangs up, the
            // kernel may signal the session leader alone (`tty_signal_session_leader` in Linux's
            // tty_jobctrl.c).
            let of_terminal = [Signal::INT, Signal::QUIT, Signal::WINCH].contains(&signal);
            Some(Arrival { signal, is_for_group: of_terminal && matches!(origin.cause, Cause::Kernel) })
        });
        arrived.collect()
    }

    /// Sleeps until a signal comes, one of `others` can be read, or `deadline`.
    pub(super) fn sleep(&self, others: &[BorrowedFd<'_>], deadline: Option<Instant>) -> io::Result<()> {
        let all = [self.0.get_read().as_fd()].into_iter().chain(others.iter().copied());
        let mut all: Vec<_> = all.map(|one| PollFd::from_borrowed_fd(one, PollFlags::IN)).collect();
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut all, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The signals that users send to ssh, but for those that stop: these stop this process by default, and a
/// process that catches one is not stopped by it.
const PASSED_ON: [Signal; 8] = [
    Signal::ALARM,
    Signal::HUP,
    Signal::INT,
    Signal::QUIT,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
    Signal::WINCH,
];
