//! The sending half of one direction: numbers, the window of what is not acknowledged yet, and when to
//! repeat.
//!
//! Acknowledgements are one for each message and come in any order. What was accepted stays here until it is
//! acknowledged, across websockets. After a new websocket everything is repeated at once, in order. On a live
//! one the oldest message is repeated when it is overdue: the peer was not ready for it, its acknowledgement
//! is missing, or it was lost with the peer's own websocket. When that repeat is acknowledged, the others
//! that are overdue are repeated at once. This file knows nothing of handshakes or payloads.

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
    /// Number of the first entry; entries are consecutive.
    first: i64,
    /// Index of the next entry that was not sent on this websocket.
    cursor: usize,
    unacknowledged: usize,
    /// Bytes of all entries, acknowledged or not.
    span: usize,
    round_trip: RoundTrip,
    delivery: Delivery,
    /// Repeats of the head since the round trip was last measured; each doubles the timeout.
    backoff: u32,
    repeat_head: bool,
    /// Numbers to repeat now, since they are overdue and the peer is there again.
    overdue: VecDeque<i64>,
    batch: Batch,
    /// Whether this batch repeats something.
    repeats: bool,
    /// The messages behind batches that repeat something; their acknowledgements tell that the batch has
    /// arrived.
    confirmations: VecDeque<(i64, Batch)>,
    /// When an acknowledgement last came, or the websocket, or the first message after silence.
    progress_at: Option<Instant>,
    /// When the first message came that had none before it.
    waiting_since: Option<Instant>,
}

/// What is sent without a break: until a new message follows on repeats, nothing is left, or a new websocket.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Batch(u64);

/// Which messages may leave.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Permit {
    All,
    /// For the time of a pause.
    OnlyHead,
}

struct Entry {
    /// None once acknowledged, while an older entry is not.
    record: Option<Bytes>,
    length: usize,
    sent_at: Option<Instant>,
    /// Transmissions on all websockets: a sample of the round trip is only unambiguous after one (Karn).
    transmissions: u32,
    /// Repeats on this websocket.
    repeats: u32,
    first_sent_at: Option<Instant>,
    /// The last batches in which it was sent and that are not confirmed. Two, since on a path that is slower
    /// than any timeout it is sent again before the first can be.
    batches: [Option<Batch>; 2],
    /// How often it must have arrived by now.
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

    /// The number that the next message gets.
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

    /// Bytes that may follow. Two bounds: on what is unacknowledged, twice what the path holds; and on what
    /// is behind the oldest of it, since the peer has to keep all of that when the oldest is lost, and
    /// refuses what it cannot.
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

    /// Takes an acknowledgement. Returns false when it tells nothing: unknown, repeated, or of a message that
    /// was never sent.
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

    /// A repeat was answered. The path keeps order, so what is overdue as well is lost, and one repeat for
    /// each round trip would take seconds for a burst. A wrong guess costs duplicates.
    ///
    /// An answer in less than half the time of any before is the one to an earlier transmission: nothing is
    /// lost, and the path has become slower. Half, since a path that was measured under load is quicker when
    /// it is idle. The same is assumed while nothing is known of it, or on a slow one nothing ever would be.
    fn find_lost(&mut self, now: Instant) {
        let timeout = self.round_trip.timeout(0);
        let sent = (self.first..).zip(self.entries.iter().take(self.cursor));
        let old = sent.take_while(|(_, entry)| {
            entry.record.is_none() || entry.sent_at.is_some_and(|sent_at| sent_at + timeout <= now)
        });
        self.overdue.extend(old.filter(|(_, entry)| entry.record.is_some()).map(|(number, _)| number));
    }

    /// Only this ends the backoff (RFC 6298, section 5), or a path slower than the timeout would never be
    /// measured.
    fn measured(&mut self, round_trip: Duration) {
        self.round_trip.sample(round_trip);
        self.backoff = 0;
    }

    /// Whether what was sent repeats something, and nothing follows that would confirm it.
    pub(crate) fn lacks_confirmation(&self) -> bool {
        self.repeats && self.overdue.is_empty() && self.cursor == self.entries.len()
    }

    /// Old SSM agents never acknowledge a duplicate. The path keeps order, so when what was sent right behind
    /// a batch is acknowledged, the batch has arrived, and what still lacks its own acknowledgement had that
    /// lost; or it was itself lost, with a websocket of the peer that came back within the batch. It is
    /// therefore sent again, and counts as delivered only when it must have arrived several times. Returns
    /// the numbers of those.
    ///
    /// The caller makes sure that the peer takes data at all; while it does not, it acknowledges later
    /// messages (which it keeps) and not the head (which it drops). It also knows which message may have been
    /// too large to pass.
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

    /// Puts another record in the place of one that is not acknowledged, and repeats it at once if it is the
    /// head.
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

    /// The next record for the websocket: a due repeat of the head, else what was not sent yet. None ends the
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

    /// The index of an entry that is not acknowledged.
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

    /// The index of what is to be repeated, unless it was acknowledged.
    fn repeat(&mut self, number: i64) -> Option<usize> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let entry = self.entries.get_mut(index).filter(|entry| entry.record.is_some())?;
        entry.repeats = entry.repeats.saturating_add(1);
        Some(index)
    }

    /// When the head is due again, if it was sent. `floor` raises the timeout.
    pub(crate) fn repeat_at(&self, floor: Duration) -> Option<Instant> {
        if self.cursor == 0 || self.repeat_head {
            return None;
        }
        let sent_at = self.entries.front()?.sent_at?;
        Some(sent_at + self.round_trip.timeout(self.backoff).max(floor))
    }

    /// Marks the head for [`poll_transmit`](Self::poll_transmit) when it is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, floor: Duration) {
        if self.repeat_at(floor).is_some_and(|due| due <= now) {
            self.repeat_head = true;
        }
    }

    /// Since when nothing was acknowledged although something waits for it.
    pub(crate) fn stalled_since(&self) -> Option<Instant> {
        if self.entries.is_empty() { None } else { self.progress_at }
    }

    /// Since when something waits to be acknowledged.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        self.waiting_since.filter(|_| !self.entries.is_empty())
    }

    /// Restarts the clock of [`stalled_since`](Self::stalled_since).
    pub(crate) fn excuse_stall(&mut self, now: Instant) {
        self.progress_at = Some(now);
    }

    /// A new websocket: everything unacknowledged is to be sent again, oldest first.
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

/// Messages from the oldest that is not acknowledged to the newest. The SSM agent keeps 10,000 that came
/// early.
const MAX_SPAN: usize = 8 * 1024;
/// For a wrong guess the peer's websocket would have to be lost this often, each time within a batch.
const CONFIRMATIONS: u32 = 3;
