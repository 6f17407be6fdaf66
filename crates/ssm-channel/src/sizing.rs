//! The largest size of payloads that is proven to pass, and how a larger one is tested without risking data.
//!
//! The official client sends 1 KiB. Larger messages are far cheaper and were seen to pass, but no source says
//! that the service accepts them everywhere. A message that is too large could close the websocket or be
//! lost, and then it is unknown whether its bytes arrived: its number has to be used, and sending part of its
//! content under that number could deliver bytes twice. So a size is tested with a message without meaning: a
//! probe, of a payload type that SSM agents acknowledge and ignore. Once it is acknowledged, data may be as
//! large. If it is not, its number is sent again with one byte of payload, and data stays small.
//!
//! Probes cost bandwidth, so they are sent only between many full messages; data does not wait for them.

use std::time::{Duration, Instant};

/// The payload sizes of one direction.
pub(crate) struct PayloadSize {
    /// The largest payload that is proven to pass.
    proven: usize,
    /// The index of the next size in [`LADDER`].
    next: usize,
    probe: Option<Probe>,
    /// Full messages since the last that was not full, or the last probe.
    full: u32,
    failures: u32,
}

struct Probe {
    number: i64,
    size: usize,
    sent_at: Option<Instant>,
    /// It was replaced by a small message; its acknowledgement proves nothing.
    withdrawn: bool,
}

impl PayloadSize {
    pub(crate) fn new() -> Self {
        Self { proven: SAFE, next: 0, probe: None, full: 0, failures: 0 }
    }

    /// The largest payload that data should have.
    pub(crate) fn limit(&self) -> usize {
        self.proven
    }

    /// A data message was sent. Returns the size of a probe that should follow it.
    pub(crate) fn sent(&mut self, length: usize) -> Option<usize> {
        self.full = if length >= self.proven { self.full.saturating_add(1) } else { 0 };
        let size = *LADDER.get(self.next)?;
        if self.probe.is_some() || self.full < FULL_MESSAGES {
            return None;
        }
        self.full = 0;
        Some(size)
    }

    /// The requested probe got this number.
    pub(crate) fn probing(&mut self, number: i64, size: usize) {
        self.probe = Some(Probe { number, size, sent_at: None, withdrawn: false });
    }

    /// The probe, if it is not sent yet: a whole window may be before it.
    pub(crate) fn unsent(&self) -> Option<i64> {
        self.probe.as_ref().filter(|probe| probe.sent_at.is_none()).map(|probe| probe.number)
    }

    /// The probe was sent.
    pub(crate) fn probe_sent(&mut self, now: Instant) {
        if let Some(probe) = &mut self.probe {
            probe.sent_at = Some(now);
        }
    }

    /// A message was acknowledged.
    pub(crate) fn acknowledged(&mut self, number: i64) {
        let Some(probe) = self.probe.take_if(|probe| probe.number == number) else { return };
        if !probe.withdrawn {
            self.proven = probe.size;
            self.next += 1;
            self.failures = 0;
            self.full = 0;
        }
    }

    /// The websocket was lost, perhaps because of the probe. Returns the number to send again with a small
    /// payload.
    pub(crate) fn closed(&mut self) -> Option<i64> {
        // Websockets are lost for other reasons, too, so the same size is tried once more.
        self.withdraw(1)
    }

    /// The number of a probe that may be too large to pass.
    pub(crate) fn unproven(&self) -> Option<i64> {
        self.probe.as_ref().filter(|probe| !probe.withdrawn).map(|probe| probe.number)
    }

    /// When the probe counts as lost, on a live websocket.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let probe = self.probe.as_ref().filter(|probe| !probe.withdrawn)?;
        Some(probe.sent_at? + PATIENCE)
    }

    /// Handles [`deadline`](Self::deadline). Returns the number to send again with a small payload.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<i64> {
        if self.deadline().is_some_and(|deadline| deadline <= now) {
            self.withdraw(FAILURE_LIMIT)
        } else {
            None
        }
    }

    /// Restarts the deadline: a missing acknowledgement proves nothing during a pause.
    pub(crate) fn excuse(&mut self, now: Instant) {
        if let Some(sent_at) = self.probe.as_mut().and_then(|probe| probe.sent_at.as_mut()) {
            *sent_at = now;
        }
    }

    fn withdraw(&mut self, failures: u32) -> Option<i64> {
        let probe = self.probe.as_mut().filter(|probe| !probe.withdrawn)?;
        probe.withdrawn = true;
        self.failures += failures;
        if self.failures >= FAILURE_LIMIT {
            self.next = LADDER.len();
        }
        Some(probe.number)
    }
}

/// The size that the official client sends.
const SAFE: usize = 1024;
/// 8 KiB has an overhead of 5 % and was seen to pass the live service, as was 32 KiB; beyond 64 KiB nothing
/// is gained, and the SSM agent's own settings suggest a limit of the service near 128 KiB. With the last one
/// the whole record is smaller than 65,536 bytes, since a relay may have 16 bits for its length.
const LADDER: [usize; 3] = [8 * 1024, 32 * 1024, 64 * 1024 - 512];
/// A sender with this many full messages in a row probably has more.
const FULL_MESSAGES: u32 = 16;
/// Longer than any round trip.
const PATIENCE: Duration = Duration::from_secs(3);
const FAILURE_LIMIT: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "any instant will do")]
    fn now() -> Instant {
        Instant::now()
    }

    fn send_until_probe(sizes: &mut PayloadSize) -> Option<usize> {
        (0..=FULL_MESSAGES).find_map(|_| sizes.sent(sizes.limit()))
    }

    #[test]
    fn a_size_is_used_only_after_its_probe_is_acknowledged() {
        let mut sizes = PayloadSize::new();
        let size = send_until_probe(&mut sizes).unwrap();
        sizes.probing(16, size);
        assert_eq!((size, sizes.limit()), (8192, 1024));
        sizes.acknowledged(15);
        assert_eq!(sizes.limit(), 1024);
        sizes.acknowledged(16);
        assert_eq!(sizes.limit(), 8192);
        assert_eq!(send_until_probe(&mut sizes), Some(32_768));
    }

    #[test]
    fn keystrokes_never_probe() {
        let mut sizes = PayloadSize::new();
        for _ in 0..1000 {
            assert_eq!(sizes.sent(1), None);
            assert_eq!(sizes.sent(1024), None);
        }
    }

    #[test]
    fn a_silent_probe_ends_the_climb() {
        let (mut sizes, start) = (PayloadSize::new(), now());
        let size = send_until_probe(&mut sizes).unwrap();
        sizes.probing(16, size);
        assert_eq!(sizes.handle_timeout(start + PATIENCE), None, "it has not left");
        sizes.probe_sent(start);
        assert_eq!(sizes.handle_timeout(start + PATIENCE / 2), None);
        assert_eq!(sizes.handle_timeout(start + PATIENCE), Some(16));
        assert_eq!(sizes.deadline(), None);
        sizes.acknowledged(16);
        assert_eq!((sizes.limit(), send_until_probe(&mut sizes)), (1024, None));
    }

    #[test]
    fn one_lost_websocket_is_forgiven_and_a_second_is_not() {
        let mut sizes = PayloadSize::new();
        for (number, again) in [(16, Some(8192)), (40, None)] {
            sizes.probing(number, 8192);
            assert_eq!(sizes.closed(), Some(number));
            assert_eq!(sizes.closed(), None, "withdrawn once");
            sizes.acknowledged(number);
            assert_eq!((sizes.limit(), send_until_probe(&mut sizes)), (1024, again));
        }
    }
}
