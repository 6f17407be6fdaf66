//! The signals that end the program in good order, unless it was started with them ignored.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::signal::unix::{self, SignalKind};

use crate::ssh::job::IgnoredSignals;

/// A signal that asks a process to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    Alarm,
    Hangup,
    Interrupt,
    Quit,
    Terminate,
    User1,
    User2,
}

impl Signal {
    const ALL: [Self; 7] =
        [Self::Alarm, Self::Hangup, Self::Interrupt, Self::Quit, Self::Terminate, Self::User1, Self::User2];

    fn kind(self) -> SignalKind {
        match self {
            Self::Alarm => SignalKind::alarm(),
            Self::Hangup => SignalKind::hangup(),
            Self::Interrupt => SignalKind::interrupt(),
            Self::Quit => SignalKind::quit(),
            Self::Terminate => SignalKind::terminate(),
            Self::User1 => SignalKind::user_defined1(),
            Self::User2 => SignalKind::user_defined2(),
        }
    }

    pub(crate) fn number(self) -> i32 {
        self.kind().as_raw_value()
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alarm => "SIGALRM",
            Self::Hangup => "SIGHUP, which ssh sends when it ends",
            Self::Interrupt => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Terminate => "SIGTERM",
            Self::User1 => "SIGUSR1",
            Self::User2 => "SIGUSR2",
        })
    }
}

pub(crate) struct Signals {
    watched: Vec<(Signal, unix::Signal)>,
    seen: Vec<Signal>,
}

impl Signals {
    /// Catches the signals, so that they no longer kill this process.
    pub(crate) fn new() -> io::Result<Self> {
        Self::without(&[])
    }

    /// Catches all of them but `left_alone`.
    pub(crate) fn without(left_alone: &[Signal]) -> io::Result<Self> {
        let ignored = IgnoredSignals::read();
        let mut watched = Vec::new();
        for signal in Signal::ALL {
            if !left_alone.contains(&signal) && !is_ignored(ignored, signal.kind()) {
                watched.push((signal, unix::signal(signal.kind())?));
            }
        }
        Ok(Self { watched, seen: Vec::new() })
    }

    /// The next signal. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        let signal = self.any().await;
        self.seen.push(signal);
        signal
    }

    /// The same signal a second time, from a user who does not want to wait. Cancel-safe.
    ///
    /// One event causes several signals: a terminal and `timeout` send theirs to ssh and to this process, so
    /// that ssh's end may be noticed before the signal, and a shell and ssh send SIGHUP besides. Only a
    /// signal that comes twice means to end at once.
    pub(crate) async fn insisted(&mut self) -> Signal {
        loop {
            let signal = self.any().await;
            if self.seen.contains(&signal) && signal != Signal::Hangup {
                return signal;
            }
            self.seen.push(signal);
        }
    }

    async fn any(&mut self) -> Signal {
        poll_fn(|cx| {
            for (signal, arrivals) in &mut self.watched {
                if arrivals.poll_recv(cx).is_ready() {
                    return Poll::Ready(*signal);
                }
            }
            Poll::Pending
        })
        .await
    }
}

/// Catches SIGCHLD where the caller ignores it: children inherit that, and then the kernel does not keep
/// their exit statuses (waitpid(2), NOTES).
pub(crate) fn keep_exit_statuses() -> io::Result<()> {
    if is_ignored(IgnoredSignals::read(), SignalKind::child()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        // The handler stays installed after the runtime is dropped.
        let _entered = runtime.enter();
        drop(unix::signal(SignalKind::child())?);
    }
    Ok(())
}

/// False where the system does not report it: it is better that nohup has no effect than that a session is
/// left open at AWS.
fn is_ignored(ignored: IgnoredSignals, kind: SignalKind) -> bool {
    ignored.contain(kind.as_raw_value()) == Some(true)
}
