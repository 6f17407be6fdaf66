//! The time and the id of each message. Both follow from [`Origin`], since this crate reads no clock and no
//! randomness.

use std::time::{Duration, Instant};

use crate::message::MessageId;

/// The time and the seed of a channel, which reads no clock and no randomness itself.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Any number; two channels with the same seed make the same message ids.
    pub seed: u64,
    /// The time since the Unix epoch at `now`.
    pub unix_time: Duration,
    /// The clock of all later calls, at `unix_time`.
    pub now: Instant,
}

pub(super) struct Stamp {
    origin: Origin,
    random: u64,
}

impl Stamp {
    pub(super) fn new(origin: Origin) -> Self {
        Self { origin, random: origin.seed }
    }

    pub(super) fn unix_millis(&self, now: Instant) -> u64 {
        let time = self.origin.unix_time + now.saturating_duration_since(self.origin.now);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A version 4 UUID from SplitMix64: it only has to be unique within a session.
    pub(super) fn next_id(&mut self) -> MessageId {
        let (high, low) = (u128::from(self.next_random()), u128::from(self.next_random()));
        let random = (high << 64) | low;
        let uuid = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        MessageId::from_bytes(uuid.to_be_bytes())
    }

    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
