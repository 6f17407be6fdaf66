//! The receiving half of one direction: puts messages in order, detects duplicates, and limits its memory.
//!
//! Reordering is normal: after a reconnect the SSM agent's new messages overtake the lost ones, which it
//! repeats ten a second. A message that is not kept must not be acknowledged; then the peer sends it again.
//! This file decides what to keep; `channel/incoming.rs` acknowledges it.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::message::{HEADER_LENGTH, PayloadType};

pub(crate) struct ReceiveStream {
    /// The number of the next message in order.
    expected: i64,
    /// Messages that came early, by number.
    early: BTreeMap<i64, (PayloadType, Bytes)>,
    early_bytes: usize,
    /// Stream bytes in order, not read yet.
    ready: VecDeque<Bytes>,
    /// The same for standard error.
    ready_errors: VecDeque<Bytes>,
    /// The cost of both.
    ready_bytes: usize,
}

/// What to do with a stream message.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    /// It is the next one in order.
    Next,
    /// It was received before.
    Duplicate,
    /// It came early and is kept.
    Early,
    /// There is no room for it: it must not be acknowledged.
    Refused,
}

impl ReceiveStream {
    pub(crate) fn new() -> Self {
        Self {
            expected: 0,
            early: BTreeMap::new(),
            early_bytes: 0,
            ready: VecDeque::new(),
            ready_errors: VecDeque::new(),
            ready_bytes: 0,
        }
    }

    /// Classifies a message and keeps it if it came early. After [`Arrival::Next`] the caller delivers it and
    /// calls [`advance`](Self::advance).
    pub(crate) fn arrive(&mut self, number: i64, payload_type: PayloadType, payload: &Bytes) -> Arrival {
        if number < self.expected || self.early.contains_key(&number) {
            return Arrival::Duplicate;
        }
        let cost = cost(payload);
        if number == self.expected {
            return if self.ready_bytes + cost > READY_LIMIT { Arrival::Refused } else { Arrival::Next };
        }
        if self.early_bytes + cost > EARLY_LIMIT || self.ready_bytes > READY_LIMIT {
            return Arrival::Refused;
        }
        self.early_bytes += cost;
        // A copy: the slice would keep the whole websocket buffer in memory, which is much larger.
        self.early.insert(number, (payload_type, Bytes::copy_from_slice(payload)));
        Arrival::Early
    }

    /// Counts the expected message as handled.
    pub(crate) fn advance(&mut self) {
        self.expected += 1;
    }

    /// The next message in order, if it came early. The caller calls [`advance`](Self::advance) for it.
    pub(crate) fn pop_early(&mut self) -> Option<(PayloadType, Bytes)> {
        let (payload_type, payload) = self.early.remove(&self.expected)?;
        self.early_bytes -= cost(&payload);
        Some((payload_type, payload))
    }

    /// Appends stream bytes for the reader.
    pub(crate) fn deliver(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.ready_bytes += cost(&payload);
            self.ready.push_back(payload);
        }
    }

    /// Appends bytes of standard error.
    pub(crate) fn deliver_error(&mut self, payload: Bytes) {
        if !payload.is_empty() {
            self.ready_bytes += cost(&payload);
            self.ready_errors.push_back(payload);
        }
    }

    pub(crate) fn read(&mut self) -> Option<Bytes> {
        let payload = self.ready.pop_front()?;
        self.ready_bytes -= cost(&payload);
        Some(payload)
    }

    pub(crate) fn read_error(&mut self) -> Option<Bytes> {
        let payload = self.ready_errors.pop_front()?;
        self.ready_bytes -= cost(&payload);
        Some(payload)
    }

    /// Bytes that wait for the reader, with the cost of keeping them.
    pub(crate) fn backlog(&self) -> usize {
        self.ready_bytes
    }
}

/// The memory of a payload, with its header, so that a flood of empty messages counts too.
fn cost(payload: &Bytes) -> usize {
    payload.len() + HEADER_LENGTH
}

/// Bytes in order that are kept until they are read. Together with [`EARLY_LIMIT`] this bounds the memory of
/// a channel for any peer. A driver stops reading its websocket at much less, see
/// [`Channel::backlog`](crate::Channel::backlog).
pub(crate) const READY_LIMIT: usize = 12 * 1024 * 1024;
/// Bytes out of order. An SSM agent sends new data at 0.7 MiB/s while it repeats the messages lost with a
/// websocket: one at a tick of 100 ms, and not before the last repeat is acknowledged. Each message refused
/// here has to be repeated too. On a path of 200 ms the loss of all messages under way needs 20 MiB here, on
/// one of 350 ms all of this.
pub(crate) const EARLY_LIMIT: usize = 64 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(stream: &mut ReceiveStream, number: i64, length: usize) -> Arrival {
        stream.arrive(number, PayloadType::Output, &Bytes::from(vec![0; length]))
    }

    #[test]
    fn a_message_that_does_not_fit_is_refused_and_not_counted() {
        let mut stream = ReceiveStream::new();
        assert_eq!(arrive(&mut stream, 1, EARLY_LIMIT - HEADER_LENGTH), Arrival::Early);
        assert_eq!(arrive(&mut stream, 2, 0), Arrival::Refused);
        assert_eq!(arrive(&mut stream, 0, 1), Arrival::Next);
    }

    #[test]
    fn what_an_ssm_agent_sends_while_it_repeats_is_kept() {
        // 500 messages were lost, and 700 a second follow until they have come again.
        let mut stream = ReceiveStream::new();
        let (lost, payload) = (500, 1024);
        for number in lost..lost + 50 * 700 {
            assert_eq!(arrive(&mut stream, number, payload), Arrival::Early, "{number}");
        }
        for _ in 0..lost {
            let number = stream.expected;
            assert_eq!(arrive(&mut stream, number, payload), Arrival::Next, "{number}");
            stream.advance();
        }
        let mut delivered = 0;
        while let Some((_, payload)) = stream.pop_early() {
            stream.deliver(payload);
            stream.advance();
            delivered += 1;
        }
        assert_eq!((delivered, stream.early_bytes), (50 * 700, 0));
    }

    #[test]
    fn a_reader_who_does_not_read_stops_acceptance() {
        let mut stream = ReceiveStream::new();
        let payload = Bytes::from(vec![0; READY_LIMIT - HEADER_LENGTH]);
        assert_eq!(stream.arrive(0, PayloadType::Output, &payload), Arrival::Next);
        stream.deliver(payload);
        stream.advance();
        assert_eq!(arrive(&mut stream, 1, 0), Arrival::Refused);
        assert!(stream.read().is_some());
        assert_eq!(arrive(&mut stream, 1, 0), Arrival::Next);
    }

    #[test]
    fn numbers_of_the_past_are_duplicates() {
        let mut stream = ReceiveStream::new();
        stream.advance();
        assert_eq!(arrive(&mut stream, 0, 1), Arrival::Duplicate);
        assert_eq!(arrive(&mut stream, -1, 1), Arrival::Duplicate);
        assert_eq!(arrive(&mut stream, 5, 1), Arrival::Early);
        assert_eq!(arrive(&mut stream, 5, 1), Arrival::Duplicate);
    }
}
