//! The signals that end a proxy in good order.

use std::fmt;
use std::io;

use tokio::signal::unix::{self, SignalKind};

/// Why a process is asked to end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Signal {
    Hangup,
    Interrupt,
    Terminate,
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hangup => "SIGHUP, which ssh sends when it is done",
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

pub(crate) struct Signals {
    hangup: unix::Signal,
    interrupt: unix::Signal,
    terminate: unix::Signal,
    seen: Vec<Signal>,
}

impl Signals {
    /// From here on the signals no longer kill.
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: unix::signal(SignalKind::hangup())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
            terminate: unix::signal(SignalKind::terminate())?,
            seen: Vec::new(),
        })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        let signal = self.any().await;
        self.seen.push(signal);
        signal
    }

    /// SIGINT or SIGTERM once more, from somebody who does not want to wait. Cancel-safe.
    ///
    /// One event brings several signals: a terminal and `timeout` send them to ssh and to us, so that ssh's
    /// end may be noticed before the signal, and a shell and ssh send SIGHUP besides. Only a signal
    /// that comes twice is a demand to end at once.
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
        tokio::select! {
            _ = self.hangup.recv() => Signal::Hangup,
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}
