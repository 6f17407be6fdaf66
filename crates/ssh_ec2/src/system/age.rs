//! Spans of time in the largest unit that fits: `3d` in a column, "3 days" in a sentence.

use std::fmt;
use std::time::{Duration, SystemTime};

/// How long ago something was, or how long it still lasts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Age(Duration);

impl Age {
    /// The time from `then` to `now`; zero if `then` is later.
    pub(crate) fn between(then: SystemTime, now: SystemTime) -> Self {
        Self(now.duration_since(then).unwrap_or_default())
    }

    /// The form for sentences: "1 hour", "3 days".
    pub(crate) fn in_words(self) -> String {
        let (number, unit) = self.number_and_unit();
        format!("{number} {unit}{}", if number == 1 { "" } else { "s" })
    }

    fn number_and_unit(self) -> (u64, &'static str) {
        let seconds = self.0.as_secs();
        match seconds {
            ..60 => (seconds, "second"),
            60..3_600 => (seconds / 60, "minute"),
            3_600..86_400 => (seconds / 3_600, "hour"),
            _ => (seconds / 86_400, "day"),
        }
    }
}

impl From<Duration> for Age {
    fn from(time: Duration) -> Self {
        Self(time)
    }
}

/// The form for columns: `12m`, `5h`, `3d`.
impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = self.number_and_unit();
        write!(f, "{number}{}", &unit[..1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_unit() {
        let now = SystemTime::now();
        for (seconds, column, words) in [
            (0, "0s", "0 seconds"),
            (61, "1m", "1 minute"),
            (3_600, "1h", "1 hour"),
            (7_200, "2h", "2 hours"),
            (200_000, "2d", "2 days"),
        ] {
            let age = Age::between(now - Duration::from_secs(seconds), now);
            assert_eq!((age.to_string().as_str(), age.in_words().as_str()), (column, words));
        }
        assert_eq!(Age::between(now + Duration::from_secs(5), now), Age::from(Duration::ZERO));
    }
}
