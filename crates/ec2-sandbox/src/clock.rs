//! The region's clock, which may be ahead of or behind this machine's. Everything in the region uses it.

use std::time::{Duration, SystemTime};

/// The difference between the region's clock and this machine's.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Clock {
    /// No difference.
    #[default]
    Right,
    /// It is ahead of this machine's.
    Ahead(Duration),
    /// It is behind this machine's.
    Behind(Duration),
}

impl Clock {
    /// Reads `+10m` or `-10m`.
    pub(crate) fn parse(text: &str, parse_time: fn(&str) -> Option<Duration>) -> Option<Self> {
        match text.split_at_checked(1)? {
            ("+", time) => parse_time(time).filter(|time| *time <= MOST).map(Self::Ahead),
            ("-", time) => parse_time(time).filter(|time| *time <= MOST).map(Self::Behind),
            _ => None,
        }
    }

    /// The time that it shows.
    pub(crate) fn now(self) -> SystemTime {
        let now = SystemTime::now();
        match self {
            Self::Right => now,
            Self::Ahead(offset) => now + offset,
            Self::Behind(offset) => now - offset,
        }
    }
}

/// A century: far from the ends of what system time can hold.
const MOST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
