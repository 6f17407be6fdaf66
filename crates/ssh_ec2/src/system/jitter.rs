//! Random waits between tries.

use std::time::Duration;

/// A random time up to `delay`: clients that were refused together do not try again together.
pub(crate) fn up_to(delay: Duration) -> Duration {
    // Without random bytes it is the whole delay, which is only slower.
    let mut random = [u8::MAX; 1];
    let _ = getrandom::fill(&mut random);
    delay.mul_f64(f64::from(random[0]) / f64::from(u8::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_differ_and_are_bounded() {
        let delay = Duration::from_secs(1);
        let waits: Vec<_> = (0..100).map(|_| up_to(delay)).collect();
        assert!(waits.iter().all(|wait| *wait <= delay));
        assert!(waits.iter().any(|wait| *wait != waits[0]));
    }
}
