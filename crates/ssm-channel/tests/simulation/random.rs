//! The only source of randomness: SplitMix64, and the bytes to send.

use std::ops::Range;
use std::sync::LazyLock;

#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // So that neighbouring seeds give different sequences.
        Self(mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    pub(crate) fn within(&mut self, range: Range<u64>) -> u64 {
        range.start + self.next() % (range.end - range.start)
    }

    pub(crate) fn per_mille(&mut self, share: u64) -> bool {
        share > 0 && self.next() % 1000 < share
    }

    pub(crate) fn one_in(&mut self, count: u64) -> bool {
        self.next().is_multiple_of(count)
    }

    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        let index = self.next() % choices.len() as u64;
        choices[usize::try_from(index).unwrap()]
    }
}

fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

/// The bytes from `position` on, at most `limit` of them. Every eighth is a newline, so that pieces of one
/// byte are often a newline; the period is a prime larger than every message, so that every shift is
/// detected.
pub(crate) fn tape(position: usize, limit: usize) -> &'static [u8] {
    let from = &TAPE[position % TAPE.len()..];
    &from[..limit.min(from.len())]
}

static TAPE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(1);
    let byte = |_| match random.next().to_le_bytes() {
        [least, ..] if least % 8 == 0 => b'\n',
        [_, next, ..] => next,
    };
    (0..131_071).map(byte).collect()
});
