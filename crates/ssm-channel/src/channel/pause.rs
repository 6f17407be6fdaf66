//! The gateway's pause: from `pause_publication` to `start_publication`, or to a message of the peer.

use std::time::{Duration, Instant};

#[derive(Default)]
pub(super) struct Pause {
    /// Until when nothing is sent, set again by each `pause_publication`.
    until: Option<Instant>,
    /// When the pause began; later pauses without a message of the peer in between count as the same.
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

    /// Allows messages again after [`PAUSE_PROBE`]. [`since`](Self::since) stays, since the peer has sent
    /// nothing.
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

    /// The least timeout before the oldest message is repeated.
    pub(super) fn repeat_floor(&self) -> Duration {
        if self.is_on() { PAUSED_REPEAT } else { Duration::ZERO }
    }
}

/// How long a pause lasts if no `start_publication` comes. The official client ignores pauses altogether.
const PAUSE_PROBE: Duration = Duration::from_secs(5);
/// Slow, since the gateway does not deliver: a repeat only tests whether it does again.
const PAUSED_REPEAT: Duration = Duration::from_secs(1);
