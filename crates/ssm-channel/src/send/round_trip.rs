//! An estimate of the round trip, for the timeout of the oldest message.

use std::time::Duration;

/// The estimator of the official programs (RFC 6298 with other limits): SRTT 7/8, RTTVAR 3/4.
pub(super) struct RoundTrip {
    smoothed: Option<Duration>,
    variation: Duration,
    timeout: Duration,
}

impl RoundTrip {
    pub(super) fn new() -> Self {
        Self { smoothed: None, variation: Duration::ZERO, timeout: MIN_TIMEOUT }
    }

    pub(super) fn sample(&mut self, round_trip: Duration) {
        let Some(smoothed) = self.smoothed else {
            (self.smoothed, self.variation) = (Some(round_trip), round_trip / 2);
            return self.set_timeout(round_trip);
        };
        self.variation = (self.variation * 3 + smoothed.abs_diff(round_trip)) / 4;
        let smoothed = (smoothed * 7 + round_trip) / 8;
        self.smoothed = Some(smoothed);
        self.set_timeout(smoothed);
    }

    fn set_timeout(&mut self, smoothed: Duration) {
        // On a steady path the variation becomes small, and every acknowledgement would race with the
        // timeout.
        let margin = (self.variation * 4).max(smoothed / 2);
        self.timeout = (smoothed + margin).clamp(MIN_TIMEOUT, MAX_TIMEOUT);
    }

    pub(super) fn timeout(&self, backoff: u32) -> Duration {
        self.timeout.saturating_mul(1 << backoff.min(8)).min(MAX_TIMEOUT)
    }
}

/// The official programs start at 200 ms; below it the peer's own 100 ms ticks would cause needless repeats.
const MIN_TIMEOUT: Duration = Duration::from_millis(200);
/// With a longer time-out, a user who types would notice a lost acknowledgement.
const MAX_TIMEOUT: Duration = Duration::from_secs(3);
