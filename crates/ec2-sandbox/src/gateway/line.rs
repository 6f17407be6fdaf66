//! One direction of one session, in which messages are delayed, doubled, reordered or lost.
//!
//! Messages are lost only where they can be in reality: acknowledgements, on request, and messages under way
//! when a websocket is lost.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;

use super::record::is_acknowledgement;
use crate::{faults::Faults, world::FaultCount};

/// One direction of a session, from sender to receiver.
#[derive(Debug)]
pub(super) struct Line {
    delay: Duration,
    duplicate: f64,
    reorder: f64,
    lose_acknowledgements: f64,
    /// Delayed messages, by time of arrival and order of sending.
    waiting: BTreeMap<(Instant, u64), Bytes>,
    /// Messages without a delay.
    straight: VecDeque<Bytes>,
    bytes: usize,
    sent: u64,
    random: u64,
    /// How many more messages to lose before a websocket is lost.
    swallow: usize,
    count: FaultCount,
}

impl Line {
    pub(super) fn new(faults: &Faults, seed: u64, count: FaultCount) -> Self {
        Self {
            delay: faults.delay,
            duplicate: faults.duplicate,
            reorder: faults.reorder,
            lose_acknowledgements: faults.lose_acknowledgements,
            waiting: BTreeMap::new(),
            straight: VecDeque::new(),
            bytes: 0,
            sent: 0,
            random: seed,
            swallow: 0,
            count,
        }
    }

    /// Whether another message may be pushed. Delayed bytes fill a long path, as in reality.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < LINE_LIMIT
    }

    pub(super) fn push(&mut self, now: Instant, record: Bytes) {
        if self.swallow > 0 {
            self.swallow -= 1;
            self.count.add();
            return;
        }
        if is_acknowledgement(&record) && self.chance(self.lose_acknowledgements) {
            return;
        }
        if self.chance(self.duplicate) {
            self.insert(now, record.clone());
        }
        self.insert(now, record);
    }

    /// Adds a message that the gateway made: it is delayed, but never doubled or lost.
    pub(super) fn push_own(&mut self, now: Instant, record: Bytes) {
        self.bytes += record.len();
        if self.delay.is_zero() && self.reorder <= 0.0 {
            return self.straight.push_back(record);
        }
        self.sent += 1;
        self.waiting.insert((now + self.delay, self.sent), record);
    }

    fn insert(&mut self, now: Instant, record: Bytes) {
        let overtaken = if self.chance(self.reorder) { OVERTAKEN_BY } else { Duration::ZERO };
        self.bytes += record.len();
        if self.delay.is_zero() && self.reorder <= 0.0 {
            return self.straight.push_back(record);
        }
        self.sent += 1;
        self.waiting.insert((now + self.delay + overtaken, self.sent), record);
    }

    /// The next message that has arrived.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Bytes> {
        let record = match self.straight.pop_front() {
            Some(record) => record,
            None => self.waiting.first_entry().filter(|first| first.key().0 <= now)?.remove(),
        };
        self.bytes -= record.len();
        Some(record)
    }

    /// When the next message arrives.
    pub(super) fn next_arrival(&self) -> Option<Instant> {
        self.waiting.keys().next().map(|(at, _)| *at)
    }

    /// Loses the next `messages`, as if they were under way when the websocket is lost.
    pub(super) fn swallow(&mut self, messages: usize) {
        self.swallow = messages;
    }

    /// Whether all messages of [`swallow`](Self::swallow) have been lost.
    pub(super) fn has_swallowed(&self) -> bool {
        self.swallow == 0
    }

    /// Loses all messages under way, since the websocket at one end is lost.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.straight.clear();
        self.bytes = 0;
        self.swallow = 0;
    }

    /// True with the probability `share`. SplitMix64, so that a seed replays a run if the timing is the same.
    fn chance(&mut self, share: f64) -> bool {
        if share <= 0.0 {
            return false;
        }
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let thousandths = u16::try_from((mixed ^ (mixed >> 31)) % 1000).unwrap_or(0);
        let happens = f64::from(thousandths) / 1000.0 < share;
        if happens {
            self.count.add();
        }
        happens
    }
}

/// Longer than the gap between messages under load.
const OVERTAKEN_BY: Duration = Duration::from_millis(3);
/// Bytes under way in one direction of a session.
const LINE_LIMIT: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_delays_and_keeps_order() {
        let now = Instant::now();
        let delay = Duration::from_millis(5);
        let mut line = Line::new(&Faults { delay, ..Faults::default() }, 1, FaultCount::default());
        line.push(now, Bytes::from_static(b"one"));
        line.push(now, Bytes::from_static(b"two"));
        assert_eq!(line.pop(now), None);
        assert_eq!(line.next_arrival(), Some(now + delay));
        assert_eq!(line.pop(now + delay).as_deref(), Some(&b"one"[..]));
        assert_eq!(line.pop(now + delay).as_deref(), Some(&b"two"[..]));
    }

    #[test]
    fn only_acknowledgements_vanish_on_a_line() {
        let now = Instant::now();
        let mut line =
            Line::new(&Faults { lose_acknowledgements: 1.0, ..Faults::default() }, 1, FaultCount::default());
        line.push(now, Bytes::from_static(b"\0\0\0\x74acknowledge          "));
        line.push(now, Bytes::from_static(b"\0\0\0\x74input_stream_data    "));
        assert_eq!(line.pop(now).unwrap()[4], b'i');
        assert_eq!(line.pop(now), None);
    }
}
