//! The gateway's pause: from `pause_publication` to `start_publication`, or to a message of the peer.

use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Pause {
    /// Until when nothing is sent. After that one message may try whether the pause is still meant.
    until: Option<Instant>,
    /// When the first of several pauses began between which the peer itself has sent nothing.
    since: Option<Instant>,
}

impl Pause {
    pub(super) fn begin(&mut self, now: Instant) {
        self.until = Some(now + PAUSE_PROBE);
        self.since.get_or_insert(now);
    }

    pub(super) fn end(&mut self) {
        *self = Self::default();
    }

    /// Lets messages out again when the pause has lasted too long. [`since`](Self::since) goes on.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.until = self.until.filter(|until| *until > now);
    }

    pub(super) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    pub(super) fn since(&self) -> Option<Instant> {
        self.since
    }
}

/// A pause that nobody ends is ended after this: the official client ignores pauses altogether.
const PAUSE_PROBE: Duration = Duration::from_secs(5);
