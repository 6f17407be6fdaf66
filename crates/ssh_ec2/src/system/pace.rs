//! A rate limit that all our processes share: a burst of calls, and then some calls a second.
//!
//! The bucket is a number in a file: the time at which it would be full again (GCRA). A process that cannot
//! use the file does not wait: the service throttles calls beyond its own limits, and they are tried again.

use std::fs::{DirBuilder, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::sleep;

use crate::system::private_file;

/// A bucket in a file, and its rate.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    /// The file. None if no file can be trusted: then no call waits.
    path: Option<PathBuf>,
    rate: Rate,
}

/// The number of calls that may come at once, and the time after which one more may come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    /// The interval between calls, in microseconds.
    interval: u64,
    burst: u64,
}

impl Pace {
    /// The bucket in `path`, which is created at the first call. Without a path no call waits.
    pub(crate) fn new(path: Option<PathBuf>, rate: Rate) -> Self {
        Self { path, rate }
    }

    /// Returns when this process may make its call.
    pub(crate) async fn turn(&self) {
        let Some(path) = &self.path else { return };
        match take(path, self.rate).await {
            Ok(Duration::ZERO) => {}
            Ok(wait) => {
                tracing::info!("waiting {wait:.0?}, since many connections begin at once");
                sleep(wait).await;
            }
            Err(error) => tracing::info!("cannot use the rate limit in {}: {error}", path.display()),
        }
    }
}

/// Takes one call from the bucket, and returns the time until it may be made.
async fn take(path: &Path, rate: Rate) -> io::Result<Duration> {
    let mut file = open(path)?;
    let _lock = private_file::lock_file(file.try_clone()?, PATIENCE).await?;
    take_from(&mut file, rate, SystemTime::now())
}

fn take_from(file: &mut File, rate: Rate, now: SystemTime) -> io::Result<Duration> {
    let mut bytes = [0; 8];
    // A file of fewer bytes is new.
    let full_at = if file.read_exact(&mut bytes).is_ok() { u64::from_le_bytes(bytes) } else { 0 };
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
    let (full_at, wait) = rate.step(full_at, now);
    file.rewind()?;
    file.write_all(&full_at.to_le_bytes())?;
    Ok(Duration::from_micros(wait))
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    private_file::open(path)
}

impl Rate {
    /// The time at which the bucket will be full again, and the wait, in microseconds.
    fn step(self, full_at: u64, now: u64) -> (u64, u64) {
        // If the clock was set back, no call must wait until it has caught up.
        let full_at = if full_at > now + MAX_WAIT { now } else { full_at.max(now) };
        let wait = (full_at + self.interval).saturating_sub(now + self.burst * self.interval);
        (full_at + self.interval, wait)
    }
}

/// The rate for pushes of keys. EC2 Instance Connect's limits are not published. Ten a second, after a burst
/// of twenty, were enough for Ansible's forks.
pub(crate) const PUSHES: Rate = Rate { interval: 100_000, burst: 20 };
/// The rate for sessions that Session Manager has throttled. It starts three a second in an account and
/// region (<https://docs.aws.amazon.com/general/latest/gr/ssm.html>), some of which are left to others.
pub(crate) const REFUSED_SESSIONS: Rate = Rate { interval: 400_000, burst: 1 };
/// The longest wait, in microseconds. A longer one comes from a clock that was set back.
const MAX_WAIT: u64 = 60_000_000;
/// The lock is held for microseconds, unless its process was stopped. Then the call does not wait.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_the_rest_is_spread() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/pace");
        let now = SystemTime::now();
        let take = |now| take_from(&mut open(&path).unwrap(), PUSHES, now).unwrap();
        let waits: Vec<_> = (0..50).map(|_| take(now)).collect();
        assert!(waits[..20].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[20], Duration::from_millis(100));
        assert_eq!(waits[49], Duration::from_secs(3));
        assert!(take(now + Duration::from_secs(60)).is_zero());
    }

    #[tokio::test]
    async fn a_lock_that_nobody_releases_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pace");
        let held = open(&path).unwrap();
        held.lock().unwrap();
        assert_eq!(take(&path, PUSHES).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        held.unlock().unwrap();
        assert!(take(&path, PUSHES).await.unwrap().is_zero());
    }

    #[test]
    fn a_clock_that_was_set_back_costs_no_wait() {
        assert_eq!(PUSHES.step(10_000_000_000, 5), (5 + PUSHES.interval, 0));
    }
}
