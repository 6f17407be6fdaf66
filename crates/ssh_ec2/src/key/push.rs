//! Pushes the public key to the instance, again whenever the last push is too old for ssh to use the key.
//!
//! EC2 Instance Connect keeps a key for 60 seconds, and sshd reads it when a user authenticates, which may be
//! long after the connection began: the user may have to type a code first. So each time ssh asks for the
//! key, the age of the push is checked.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Mutex;

use crate::aws::{Aws, AwsError};
use crate::system::pace::Pace;
use crate::target::{InstanceId, OsUser};

/// A public key to push, for one user of one instance.
pub(crate) struct Push<'a> {
    aws: &'a Aws,
    instance: &'a InstanceId,
    user: &'a OsUser,
    public_line: String,
    pace: Pace,
    /// The time of the last push. Locked during a push, so that two requests at once make one call.
    pushed: Mutex<Option<Stamp>>,
}

impl<'a> Push<'a> {
    /// Pushes nothing yet: [`ensure`](Self::ensure) does.
    pub(crate) fn new(
        aws: &'a Aws,
        instance: &'a InstanceId,
        user: &'a OsUser,
        public_line: String,
        pace: Pace,
    ) -> Self {
        Self { aws, instance, user, public_line, pace, pushed: Mutex::new(None) }
    }

    /// Pushes the key, unless the last push is younger than [`MAX_AGE`].
    ///
    /// # Errors
    ///
    /// When the call to EC2 Instance Connect fails.
    pub(crate) async fn ensure(&self) -> Result<(), AwsError> {
        let mut pushed = self.pushed.lock().await;
        if pushed.as_ref().is_some_and(|stamp| Stamp::now().since(stamp) < MAX_AGE) {
            return Ok(());
        }
        self.pace.turn().await;
        // The minute begins at AWS, not before the request leaves: counting from here errs on the safe side.
        let now = Stamp::now();
        let request_id = self.aws.push_key(self.instance, self.user, &self.public_line).await?;
        tracing::info!(%request_id, "pushed the public key for {} to {}", self.user, self.instance);
        *pushed = Some(now);
        Ok(())
    }
}

/// A time on both clocks: the monotonic clock stands still while a laptop sleeps, the other one can be set.
struct Stamp {
    instant: Instant,
    time: SystemTime,
}

impl Stamp {
    fn now() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    /// The longer of the times that the two clocks measured.
    fn since(&self, earlier: &Self) -> Duration {
        let slept = self.time.duration_since(earlier.time).unwrap_or_default();
        self.instant.saturating_duration_since(earlier.instant).max(slept)
    }
}

/// EC2 Instance Connect keeps a key for 60 seconds. The rest is for ssh to sign, and for sshd to read the
/// key.
pub const MAX_AGE: Duration = Duration::from_secs(45);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_laptop_that_slept_and_a_clock_that_was_set_back_both_age_a_push() {
        let minute = Duration::from_secs(60);
        let pushed = Stamp::now();
        let slept = Stamp { instant: pushed.instant, time: pushed.time + minute };
        let set_back = Stamp { instant: pushed.instant + minute, time: pushed.time - minute };
        assert_eq!(slept.since(&pushed), minute);
        assert_eq!(set_back.since(&pushed), minute);
        assert_eq!(pushed.since(&pushed), Duration::ZERO);
    }
}
