//! The SSM agent's own messages, kept until they are acknowledged, and when each is repeated.
//!
//! There is no window: a message is sent at once, however many are unacknowledged. Each tick of a tenth of a
//! second repeats at most the oldest message that is not acknowledged, so that lost messages come back at ten
//! a second.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use bytes::Bytes;

pub(super) struct SendList {
    next_number: i64,
    /// Unacknowledged messages by number, with gaps.
    kept: VecDeque<Kept>,
    round_trip: Duration,
    variation: Duration,
    timeout: Duration,
}

struct Kept {
    number: i64,
    record: Bytes,
    sent_at: Instant,
}

impl SendList {
    pub(super) fn new() -> Self {
        Self {
            next_number: 0,
            kept: VecDeque::new(),
            round_trip: FIRST_ROUND_TRIP,
            variation: Duration::ZERO,
            timeout: FIRST_TIMEOUT,
        }
    }

    /// The number of the next message.
    pub(super) fn next_number(&self) -> i64 {
        self.next_number
    }

    /// Counts a message that is sent now, and keeps it if there is room. Without room it is never repeated.
    pub(super) fn push(&mut self, now: Instant, record: Bytes) {
        if self.kept.len() < CAPACITY {
            self.kept.push_back(Kept { number: self.next_number, record, sent_at: now });
        }
        self.next_number += 1;
    }

    /// Whether all kept messages are acknowledged.
    pub(super) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn acknowledge(&mut self, now: Instant, number: i64) {
        let Ok(index) = self.kept.binary_search_by_key(&number, |kept| kept.number) else { return };
        if let Some(kept) = self.kept.remove(index) {
            self.measure(now.saturating_duration_since(kept.sent_at));
        }
    }

    /// The message to repeat at this tick.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Bytes> {
        let oldest = self.kept.front_mut()?;
        if now.saturating_duration_since(oldest.sent_at) <= self.timeout {
            return None;
        }
        oldest.sent_at = now;
        Some(oldest.record.clone())
    }

    /// RFC 6298's estimator without its floor. A repeated message is measured too, from its last
    /// transmission.
    fn measure(&mut self, sample: Duration) {
        self.variation = (self.variation * 3 + self.round_trip.abs_diff(sample)) / 4;
        self.round_trip = (self.round_trip * 7 + sample) / 8;
        self.timeout = (self.round_trip + (self.variation * 4).max(GRANULARITY)).min(LONGEST_TIMEOUT);
    }
}

/// `OutgoingMessageBufferCapacity` in `agent/session/config/config.go`, where the other numbers are as well.
const CAPACITY: usize = 100_000;
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(100);
const FIRST_TIMEOUT: Duration = Duration::from_millis(200);
const GRANULARITY: Duration = Duration::from_millis(10);
const LONGEST_TIMEOUT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn list(messages: i64) -> (SendList, Instant) {
        let (mut list, now) = (SendList::new(), Instant::now());
        for number in 0..messages {
            list.push(now, Bytes::from(number.to_string()));
        }
        (list, now)
    }

    #[test]
    fn only_the_oldest_is_repeated() {
        let (mut list, now) = list(3);
        assert_eq!(list.overdue(now + FIRST_TIMEOUT), None);
        let later = now + FIRST_TIMEOUT + Duration::from_millis(1);
        assert_eq!(list.overdue(later).as_deref(), Some(&b"0"[..]));
        assert_eq!(list.overdue(later), None, "it was just sent");
        list.acknowledge(later, 0);
        assert_eq!(list.overdue(later).as_deref(), Some(&b"1"[..]));
    }

    #[test]
    fn an_answer_that_is_late_raises_the_timeout_to_a_second_at_most() {
        let (mut list, now) = list(2);
        list.acknowledge(now + Duration::from_secs(60), 0);
        assert_eq!(list.overdue(now + LONGEST_TIMEOUT), None);
        assert!(list.overdue(now + LONGEST_TIMEOUT + Duration::from_millis(1)).is_some());
    }

    #[test]
    fn what_finds_no_room_is_counted_and_forgotten() {
        let (mut list, now) = list(100_001);
        assert_eq!(list.next_number(), 100_001);
        for number in 0..100_000 {
            list.acknowledge(now, number);
        }
        assert!(list.is_empty());
        list.acknowledge(now, 100_000);
    }
}
