//! An estimate of the bytes that the path holds, for the send window.

use std::time::{Duration, Instant};

/// The bytes that the path holds: the highest rate of acknowledgements times the shortest round trip. The
/// shortest, since longer ones come from this sender's own bytes in queues.
#[derive(Default)]
pub(super) struct Delivery {
    since: Option<Instant>,
    bytes: usize,
    /// The highest rate so far, in bytes a second.
    rate: u64,
    pub(super) shortest: Option<Duration>,
}

impl Delivery {
    pub(super) fn sample(&mut self, now: Instant, bytes: usize, round_trip: Duration) {
        let shortest = self.shortest.map_or(round_trip, |shortest| shortest.min(round_trip));
        self.shortest = Some(shortest);
        let since = *self.since.get_or_insert(now);
        self.bytes += bytes;
        let elapsed = now.saturating_duration_since(since);
        if elapsed >= shortest.max(RATE_INTERVAL) {
            let rate = self.bytes as u128 * 1_000_000 / elapsed.as_micros().max(1);
            self.rate = self.rate.max(u64::try_from(rate).unwrap_or(u64::MAX));
            self.since = Some(now);
            self.bytes = 0;
        }
    }

    pub(super) fn window(&self) -> usize {
        let held = self.shortest.unwrap_or_default().as_micros() * u128::from(self.rate) / 1_000_000;
        usize::try_from(held * 2).unwrap_or(usize::MAX).clamp(WINDOW, MAX_WINDOW)
    }
}

/// Unacknowledged bytes that a side may always have: 100 MB/s at 10 ms, 10 MB/s at 100 ms.
pub const WINDOW: usize = 1024 * 1024;
/// The most unacknowledged bytes, on a path that holds as many: 40 MB/s at 100 ms. Bounds the memory of a
/// channel.
pub const MAX_WINDOW: usize = 8 * 1024 * 1024;
/// The shortest interval over which the rate is measured. In a shorter one, a burst would count as the rate.
const RATE_INTERVAL: Duration = Duration::from_millis(20);
