//! The sending half of one direction: numbers, the window of unacknowledged messages, and their repeats.
//!
//! Each message is acknowledged separately, in any order, and stays here until then, across websockets. On a
//! new websocket all unacknowledged messages are repeated at once, in order. On a live websocket the oldest
//! message (the head) is repeated after a timeout: the peer was not ready for it, its acknowledgement was
//! lost, or it was lost with the peer's own websocket. When that repeat is acknowledged, all other overdue
//! messages are repeated at once. Handshakes and payloads are handled elsewhere.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::delivery::Delivery;
pub use self::delivery::{MAX_WINDOW, WINDOW};
use self::round_trip::RoundTrip;

mod delivery;
mod round_trip;

pub(crate) struct SendStream {
    entries: VecDeque<Entry>,
    /// The number of the first entry; the numbers of entries are consecutive.
    first: i64,
    /// The index of the first entry that was not sent on this websocket.
    cursor: usize,
    unacknowledged: usize,
    /// Bytes of all entries, acknowledged or not.
    span: usize,
    round_trip: RoundTrip,
    delivery: Delivery,
    /// How often the head was repeated since the round trip was last measured; each repeat doubles the
    /// timeout.
    backoff: u32,
    repeat_head: bool,
    /// Numbers to repeat now: their timeout is over, and the peer acknowledges again.
    overdue: VecDeque<i64>,
    batch: Batch,
    /// Whether this batch repeats something.
    repeats: bool,
    /// For each batch with a repeat, the new message sent after it: when it is acknowledged, the batch has
    /// arrived.
    confirmations: VecDeque<(i64, Batch)>,
    /// When the last acknowledgement or websocket came, or a message was pushed while none waited.
    progress_at: Option<Instant>,
    /// When a message was last pushed while none waited.
    waiting_since: Option<Instant>,
}

/// Messages that are sent without a break. A batch ends with the first new message after a repeat, when
/// nothing is left to send, or with the websocket.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Batch(u64);

/// Which messages may be sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Permit {
    All,
    /// Only the oldest message: during a pause.
    OnlyHead,
}

struct Entry {
    /// None after the acknowledgement; the entry stays while an older one is unacknowledged.
    record: Option<Bytes>,
    length: usize,
    sent_at: Option<Instant>,
    /// Transmissions on all websockets. Only after exactly one is the round trip unambiguous (Karn's
    /// algorithm).
    transmissions: u32,
    /// Repeats on this websocket.
    repeats: u32,
    first_sent_at: Option<Instant>,
    /// The last unconfirmed batches in which it was sent. Two, since on a path slower than the timeout it is
    /// repeated before the first batch can be confirmed.
    batches: [Option<Batch>; 2],
    /// How many of its batches have been confirmed.
    confirmations: u32,
}

impl SendStream {
    pub(crate) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            first: 0,
            cursor: 0,
            unacknowledged: 0,
            span: 0,
            round_trip: RoundTrip::new(),
            delivery: Delivery::default(),
            backoff: 0,
            repeat_head: false,
            overdue: VecDeque::new(),
            batch: Batch(0),
            repeats: false,
            confirmations: VecDeque::new(),
            progress_at: None,
            waiting_since: None,
        }
    }

    /// The number of the next message.
    pub(crate) fn next_sequence_number(&self) -> i64 {
        self.first + self.entries.len() as i64
    }

    /// The number of the oldest message that is not acknowledged.
    pub(crate) fn first_unacknowledged(&self) -> i64 {
        self.first
    }

    /// Bytes of records that are not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.unacknowledged
    }

    /// Bytes that may be pushed. Two limits: unacknowledged bytes, to twice what the path holds; and bytes of
    /// all entries from the oldest on, since the peer must keep all of those if the oldest is lost, and
    /// refuses what it has no room for.
    pub(crate) fn capacity(&self) -> usize {
        if self.entries.len() >= MAX_SPAN {
            return 0;
        }
        let window = self.delivery.window().saturating_sub(self.unacknowledged);
        window.min(MAX_WINDOW.saturating_sub(self.span))
    }

    pub(crate) fn push(&mut self, now: Instant, record: Bytes) {
        if self.entries.is_empty() {
            self.progress_at = Some(now);
            self.waiting_since = Some(now);
        }
        self.unacknowledged += record.len();
        self.span += record.len();
        self.entries.push_back(Entry {
            length: record.len(),
            record: Some(record),
            sent_at: None,
            transmissions: 0,
            repeats: 0,
            first_sent_at: None,
            batches: [None; 2],
            confirmations: 0,
        });
    }

    /// Handles an acknowledgement. Returns false if it is for an unknown, acknowledged or unsent message.
    pub(crate) fn acknowledge(&mut self, now: Instant, number: i64) -> bool {
        let Some(entry) = number
            .checked_sub(self.first)
            .and_then(|index| usize::try_from(index).ok())
            .and_then(|index| self.entries.get_mut(index))
        else {
            return false;
        };
        if entry.transmissions == 0 {
            return false;
        }
        let Some(record) = entry.record.take() else {
            return false;
        };
        self.unacknowledged -= record.len();
        let (length, sent_at) = (record.len(), entry.sent_at);
        let (transmissions, repeats) = (entry.transmissions, entry.repeats);
        let first_sent_at = entry.first_sent_at;
        if let (1, Some(sent_at)) = (transmissions, sent_at) {
            let round_trip = now.saturating_duration_since(sent_at);
            self.delivery.sample(now, length, round_trip);
            self.measured(round_trip);
        }
        self.progress_at = Some(now);
        if number == self.first {
            self.repeat_head = false;
        }
        self.drop_acknowledged();
        if repeats > 0 && self.overdue.is_empty() {
            let since_repeat = sent_at.map(|sent_at| now.saturating_duration_since(sent_at));
            let is_needless = self.delivery.shortest.is_none_or(|shortest| since_repeat < Some(shortest / 2));
            match first_sent_at.filter(|_| is_needless) {
                Some(first) => self.measured(now.saturating_duration_since(first)),
                None => self.find_lost(now),
            }
        }
        true
    }

    /// Marks all messages whose timeout is over for repeats, after a repeat was acknowledged. The path keeps
    /// the order, so these messages are lost too, and one repeat for each round trip would take seconds for a
    /// burst. A wrong guess costs duplicates.
    ///
    /// Not called if the acknowledgement came in less than half of the shortest round trip: then it belongs
    /// to an earlier transmission, nothing is lost, and the path has become slower. Half, since a path that
    /// was measured under load is faster when it is idle. Before the first measurement the same is assumed,
    /// or the round trip of a slow path would never be measured.
    fn find_lost(&mut self, now: Instant) {
        let timeout = self.round_trip.timeout(0);
        let sent = (self.first..).zip(self.entries.iter().take(self.cursor));
        let old = sent.take_while(|(_, entry)| {
            entry.record.is_none() || entry.sent_at.is_some_and(|sent_at| sent_at + timeout <= now)
        });
        self.overdue.extend(old.filter(|(_, entry)| entry.record.is_some()).map(|(number, _)| number));
    }

    /// Adds a sample of the round trip. Only this ends the backoff (RFC 6298, section 5), or a path slower
    /// than the timeout would never be measured.
    fn measured(&mut self, round_trip: Duration) {
        self.round_trip.sample(round_trip);
        self.backoff = 0;
    }

    /// Whether the batch has a repeat and no new message is left that would confirm it.
    pub(crate) fn lacks_confirmation(&self) -> bool {
        self.repeats && self.overdue.is_empty() && self.cursor == self.entries.len()
    }

    /// Old SSM agents never acknowledge a duplicate. The path keeps the order, so when the message sent
    /// directly after a batch is acknowledged, the batch has arrived. A message of the batch that is still
    /// unacknowledged was received before and its acknowledgement was lost; or it was lost itself, if the
    /// peer's websocket was replaced during the batch. It is therefore repeated, and counts as delivered only
    /// after [`CONFIRMATIONS`] batches. Returns the numbers of delivered messages.
    ///
    /// To be called only after the peer has accepted data: before that it acknowledges later messages, which
    /// it keeps, and not the head, which it drops. `except` is a message that may be too large to pass.
    pub(crate) fn confirm(&mut self, now: Instant, number: i64, except: Option<i64>) -> Vec<i64> {
        let mut delivered = Vec::new();
        let Some(index) = self.confirmations.iter().position(|(last, _)| *last == number) else {
            return delivered;
        };
        let Some((_, batch)) = self.confirmations.remove(index) else { return delivered };
        let mut again = Vec::new();
        for (number, entry) in (self.first..).zip(self.entries.iter_mut().take(self.cursor)) {
            if entry.record.is_none() || !entry.batches.contains(&Some(batch)) || except == Some(number) {
                continue;
            }
            entry.batches = entry.batches.map(|sent| sent.filter(|sent| *sent > batch));
            entry.confirmations += 1;
            if entry.confirmations >= CONFIRMATIONS { delivered.push(number) } else { again.push(number) }
        }
        again.retain(|number| !self.overdue.contains(number));
        self.overdue.extend(again);
        for number in &delivered {
            self.acknowledge(now, *number);
        }
        delivered
    }

    /// When a message was first sent on this websocket.
    pub(crate) fn first_sent_at(&self, number: i64) -> Option<Instant> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get(index)?.first_sent_at
    }

    /// Replaces the record of an unacknowledged message, and repeats it at once if it is the head.
    pub(crate) fn replace(&mut self, number: i64, record: Bytes) {
        let index = number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
        let Some(entry) = index.and_then(|index| self.entries.get_mut(index)) else { return };
        let Some(kept) = &mut entry.record else { return };
        self.unacknowledged = self.unacknowledged + record.len() - kept.len();
        self.span = self.span + record.len() - kept.len();
        entry.length = record.len();
        *kept = record;
        entry.confirmations = 0;
        entry.batches = [None; 2];
        if index == Some(0) && self.cursor > 0 {
            self.repeat_head = true;
        }
    }

    /// The next record for the websocket: a repeat that is due, else the next unsent message. None ends the
    /// batch.
    pub(crate) fn poll_transmit(&mut self, now: Instant, permit: Permit) -> Option<Bytes> {
        let index = self.next_to_send(permit);
        let number = self.first + index.unwrap_or_default() as i64;
        let is_new =
            index.and_then(|index| self.entries.get(index)).is_some_and(|entry| entry.transmissions == 0);
        if self.repeats && is_new {
            self.confirmations.push_back((number, self.batch));
        }
        if index.is_none() || self.repeats && is_new {
            self.end_batch();
        }
        let entry = index.and_then(|index| self.entries.get_mut(index))?;
        self.repeats |= entry.transmissions > 0;
        if entry.batches[0] != Some(self.batch) {
            entry.batches = [Some(self.batch), entry.batches[0]];
        }
        entry.sent_at = Some(now);
        entry.first_sent_at.get_or_insert(now);
        entry.transmissions = entry.transmissions.saturating_add(1);
        entry.record.clone()
    }

    /// The index of the next entry to send, which is unacknowledged.
    fn next_to_send(&mut self, permit: Permit) -> Option<usize> {
        let only_head = permit == Permit::OnlyHead;
        if std::mem::take(&mut self.repeat_head) {
            self.backoff = self.backoff.saturating_add(1);
            return self.repeat(self.first);
        }
        while !only_head && let Some(number) = self.overdue.pop_front() {
            if let Some(index) = self.repeat(number) {
                return Some(index);
            }
        }
        if only_head && self.cursor > 0 {
            return None;
        }
        let waiting = self.entries.iter().skip(self.cursor);
        let skipped = waiting.take_while(|entry| entry.record.is_none()).count();
        let index = self.cursor + skipped;
        self.cursor = self.entries.len().min(index + 1);
        (index < self.entries.len()).then_some(index)
    }

    fn end_batch(&mut self) {
        self.batch.0 += 1;
        self.repeats = false;
    }

    /// The index of a message to repeat; None if it is acknowledged.
    fn repeat(&mut self, number: i64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let entry = self.entries.get_mut(index).filter(|entry| entry.record.is_some())?;
        entry.repeats = entry.repeats.saturating_add(1);
        Some(index)
    }

    /// When to repeat the head, if it was sent. The timeout is at least `floor`.
    pub(crate) fn repeat_at(&self, floor: Duration) -> Option<Instant> {
        if self.cursor == 0 || self.repeat_head {
            return None;
        }
        let sent_at = self.entries.front()?.sent_at?;
        Some(sent_at + self.round_trip.timeout(self.backoff).max(floor))
    }

    /// Makes [`poll_transmit`](Self::poll_transmit) repeat the head when its timeout is over.
    pub(crate) fn handle_timeout(&mut self, now: Instant, floor: Duration) {
        if self.repeat_at(floor).is_some_and(|due| due <= now) {
            self.repeat_head = true;
        }
    }

    /// Since when nothing was acknowledged, while a message waits.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        if self.entries.is_empty() { None } else { self.progress_at }
    }

    /// Since when messages have waited for acknowledgements, without a break.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since.filter(|_| !self.entries.is_empty())
    }

    /// Restarts the time of [`stalled_since`](Self::stalled_since).
    pub(crate) fn excuse_stall(&mut self, now: Instant) {
        self.progress_at = Some(now);
    }

    /// Sends everything unacknowledged again, oldest first, on a new websocket.
    pub(crate) fn rewind(&mut self, now: Instant) {
        self.cursor = 0;
        self.backoff = 0;
        self.repeat_head = false;
        self.overdue.clear();
        self.confirmations.clear();
        self.end_batch();
        self.progress_at = Some(now);
        for entry in &mut self.entries {
            entry.sent_at = None;
            entry.first_sent_at = None;
            entry.batches = [None; 2];
            entry.repeats = 0;
        }
    }

    fn drop_acknowledged(&mut self) {
        while let Some(entry) = self.entries.pop_front_if(|entry| entry.record.is_none()) {
            self.span -= entry.length;
            self.first += 1;
            self.cursor = self.cursor.saturating_sub(1);
        }
        while self.confirmations.front().is_some_and(|(number, _)| *number < self.first) {
            self.confirmations.pop_front();
        }
    }
}

/// Messages from the oldest unacknowledged one to the newest. The SSM agent keeps 10,000 that came early.
const MAX_SPAN: usize = 8 * 1024;
/// How many confirmations show that a message has arrived. They would all be wrong only if the peer had lost
/// its websocket so many times, each time during a batch.
const CONFIRMATIONS: u32 = 3;
