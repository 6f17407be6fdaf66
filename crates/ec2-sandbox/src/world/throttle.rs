//! How often an action may be called: token buckets, as AWS's own throttling is described.
//!
//! A bucket holds a burst of calls and refills at its rate; a call that finds it empty is refused. Each
//! region has its own buckets. Time comes in as an argument.

use std::{collections::BTreeMap, str::FromStr, time::SystemTime};

use super::aws_region::AwsRegion;

/// How often one action may be called.
#[derive(Clone, Debug, PartialEq)]
pub struct Throttle {
    /// The bare name of the action, such as `SendSSHPublicKey`.
    pub action: String,
    /// Calls a second in the long run.
    pub rate: f64,
    /// Calls that may come at once.
    pub burst: u32,
}

impl Throttle {
    /// Reads `SendSSHPublicKey:5/10`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (action, numbers) = text.split_once(':')?;
        let (rate, burst) = numbers.split_once('/')?;
        let rate = f64::from_str(rate).ok().filter(|rate| rate.is_finite() && *rate >= 0.0)?;
        let burst = burst.parse().ok().filter(|burst| *burst > 0)?;
        let is_name = !action.is_empty() && action.bytes().all(|byte| byte.is_ascii_alphanumeric());
        is_name.then(|| Self { action: action.to_owned(), rate, burst })
    }
}

/// The buckets of every action that is throttled.
#[derive(Debug, Default)]
pub(super) struct Buckets {
    throttles: Vec<Throttle>,
    levels: BTreeMap<(String, AwsRegion), Level>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    calls: f64,
    at: SystemTime,
}

impl Buckets {
    /// Makes buckets for `throttles`, and with AWS's default limits for all other actions.
    pub(super) fn new(mut throttles: Vec<Throttle>) -> Self {
        let (action, calls) = START_SESSION;
        if throttles.iter().all(|throttle| throttle.action != action) {
            throttles.push(Throttle { action: action.to_owned(), rate: f64::from(calls), burst: calls });
        }
        Self { throttles, levels: BTreeMap::new() }
    }

    /// Whether a call of `action` is within its limit. Counts it, if so.
    pub(super) fn admit(&mut self, action: &str, region: AwsRegion, now: SystemTime) -> bool {
        let Some(throttle) = self.throttles.iter().find(|throttle| throttle.action == action) else {
            return true;
        };
        let burst = f64::from(throttle.burst);
        let full = Level { calls: burst, at: now };
        let level = self.levels.entry((action.to_owned(), region)).or_insert(full);
        // A clock that was set back does not refill a bucket.
        let passed = now.duration_since(level.at).unwrap_or_default();
        let calls = (level.calls + passed.as_secs_f64() * throttle.rate).min(burst);
        let admitted = calls >= 1.0;
        *level = Level { calls: if admitted { calls - 1.0 } else { calls }, at: now };
        admitted
    }
}

/// Calls a second, of an account in a region: a quota of Session Manager.
///
/// <https://docs.aws.amazon.com/general/latest/gr/ssm.html>
const START_SESSION: (&str, u32) = ("StartSession", 3);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn buckets(text: &str) -> Buckets {
        Buckets::new(vec![Throttle::parse(text).unwrap()])
    }

    fn at(seconds: f64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_secs_f64(seconds)
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut buckets = buckets("StartSession:5/10");
        let mut admitted = |seconds, calls| {
            (0..calls).filter(|_| buckets.admit("StartSession", AwsRegion::HOME, at(seconds))).count()
        };
        assert_eq!(admitted(0.0, 20), 10);
        assert_eq!(admitted(0.1, 1), 0);
        assert_eq!(admitted(1.0, 20), 5);
        assert_eq!(admitted(100.0, 20), 10);
        assert_eq!(admitted(50.0, 1), 0);
    }

    #[test]
    fn each_region_and_each_action_has_its_own_bucket() {
        let mut buckets = buckets("StartSession:0/1");
        assert!(buckets.admit("StartSession", AwsRegion::HOME, at(0.0)));
        assert!(!buckets.admit("StartSession", AwsRegion::HOME, at(0.0)));
        assert!(buckets.admit("StartSession", AwsRegion::EuWest1, at(0.0)));
        assert!(buckets.admit("ResumeSession", AwsRegion::HOME, at(0.0)));
    }

    #[test]
    fn sessions_are_started_at_the_rate_of_aws_unless_another_is_asked_for() {
        let admitted = |buckets: &mut Buckets, action: &str| {
            (0..50).filter(|_| buckets.admit(action, AwsRegion::HOME, at(0.0))).count()
        };
        let mut usual = Buckets::new(Vec::new());
        assert_eq!([admitted(&mut usual, "StartSession"), admitted(&mut usual, "SendSSHPublicKey")], [3, 50]);
        assert_eq!(admitted(&mut buckets("StartSession:20/20"), "StartSession"), 20);
    }

    #[test]
    fn what_is_no_rate_is_refused() {
        for text in ["", "A", "A:5", ":5/10", "A:/10", "A:-1/10", "A:NaN/1", "A:5/0", "A:5/1.5", "ec2:A:5/10"]
        {
            assert_eq!(Throttle::parse(text), None, "{text}");
        }
    }
}
