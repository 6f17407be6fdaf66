//! Whether a websocket is still alive: when to ping, and how long a silence means that it is dead.
//!
//! A computer that slept has a websocket that the gateway may have closed hours ago. The monotonic clock
//! stands still while Linux sleeps, so nothing seems overdue afterwards; only the wall clock shows that time
//! has passed. This file reads no clock.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

#[derive(Debug)]
pub(super) struct Liveness {
    heard_at: Instant,
    ping_at: Instant,
    /// A ping is due, and not sent yet.
    owes_ping: bool,
    /// This computer has slept, and no ping was sent since.
    slept: bool,
    /// When the ping after a sleep was sent, until it is answered. Other bytes are no answer: they may have
    /// arrived before the sleep.
    suspect_since: Option<Instant>,
    observed_at: (Instant, SystemTime),
}

impl Liveness {
    /// The state of a websocket that was opened just now.
    pub(super) fn new(now: Instant, wall: SystemTime) -> Self {
        Self {
            heard_at: now,
            ping_at: now + PING_INTERVAL,
            owes_ping: false,
            slept: false,
            suspect_since: None,
            observed_at: (now, wall),
        }
    }

    /// To be called when bytes came.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// To be called when a ping was answered.
    pub(super) fn answered(&mut self) {
        self.suspect_since = None;
    }

    /// To be called while the websocket is not read, because too many bytes wait for ssh: then no bytes can
    /// come.
    pub(super) fn excuse(&mut self, now: Instant) {
        self.heard(now);
        self.answered();
    }

    /// To be called in every pass: compares the clocks, and checks whether a ping is due. Setting the wall
    /// clock forward causes one ping; setting it back has no effect.
    pub(super) fn observe(&mut self, now: Instant, wall: SystemTime) {
        let (monotonic_before, wall_before) = std::mem::replace(&mut self.observed_at, (now, wall));
        let by_the_wall = wall.duration_since(wall_before).unwrap_or_default();
        if by_the_wall > now.saturating_duration_since(monotonic_before) + SLEEP {
            tracing::info!("this machine seems to have slept; asking whether the gateway is still there");
            self.slept = true;
            self.ping_at = now;
        }
        if now >= self.ping_at {
            self.owes_ping = true;
            self.ping_at = now + PING_INTERVAL;
        }
    }

    /// Whether a ping must be sent now; the caller then sends it.
    pub(super) fn take_ping(&mut self, now: Instant) -> bool {
        let takes = std::mem::take(&mut self.owes_ping);
        if takes && std::mem::take(&mut self.slept) {
            self.suspect_since = Some(now);
        }
        takes
    }

    /// When the websocket counts as lost, unless something comes.
    pub(super) fn dead_at(&self) -> Instant {
        let silent = self.heard_at + SILENCE_LIMIT;
        self.suspect_since.map_or(silent, |since| silent.min(since + ANSWER_LIMIT))
    }

    /// When the next ping is due or the websocket counts as lost.
    pub(super) fn next_deadline(&self) -> Instant {
        self.dead_at().min(self.ping_at)
    }
}

/// Short enough for HTTP proxies, which drop idle connections after a minute or more.
const PING_INTERVAL: Duration = Duration::from_secs(25);
/// Two pings without an answer.
const SILENCE_LIMIT: Duration = Duration::from_secs(60);
/// A jump of the wall clock that counts as sleep: more than usual clock corrections, and less than a sleep
/// after which a gateway drops the connection.
const SLEEP: Duration = Duration::from_secs(5);
/// How long to wait for the answer to a ping after sleep. The user is waiting, but the network may just be
/// coming up.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn pings_keep_an_idle_websocket_alive_and_silence_ends_it_within_a_minute() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut liveness = Liveness::new(start, wall);
        assert_eq!(liveness.next_deadline(), start + seconds(25));
        liveness.observe(start + seconds(24), wall + seconds(24));
        assert!(!liveness.take_ping(start + seconds(24)));
        liveness.observe(start + seconds(25), wall + seconds(25));
        assert_eq!(
            liveness.next_deadline(),
            start + seconds(50),
            "whether or not the websocket takes the ping"
        );
        assert!(liveness.take_ping(start + seconds(25)));
        assert!(!liveness.take_ping(start + seconds(25)), "once");
        liveness.heard(start + seconds(26));
        assert_eq!(liveness.dead_at(), start + seconds(86));
    }

    #[test]
    fn after_sleep_the_gateway_is_asked_at_once_and_given_seconds() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut liveness = Liveness::new(start, wall);
        let awake = start + seconds(3);
        liveness.observe(awake, wall + seconds(3600));
        liveness.heard(awake);
        assert!(liveness.take_ping(awake));
        liveness.heard(awake + seconds(1));
        assert_eq!(liveness.dead_at(), awake + seconds(5), "what lay there is no answer");
        liveness.answered();
        assert_eq!(liveness.dead_at(), awake + seconds(61));
    }

    #[test]
    fn corrections_of_the_wall_clock_are_no_sleep() {
        let (start, wall) = (Instant::now(), SystemTime::now());
        let mut liveness = Liveness::new(start, wall);
        liveness.observe(start + seconds(1), wall + seconds(5));
        liveness.observe(start + seconds(2), wall - seconds(1000));
        liveness.observe(start + seconds(12), wall - seconds(990));
        assert!(!liveness.take_ping(start + seconds(12)));
        assert_eq!(liveness.dead_at(), start + seconds(60));
    }
}
