//! Long random schedules of faults, each from one seed, on a virtual clock.
//!
//! A schedule is a session from its first websocket to its end: a client channel, a gateway that delays,
//! doubles, reorders, loses, pauses, refuses and cuts, and on the other side either a second channel or a
//! model of AWS's SSM agent ([`agent`]). Everything random comes from the seed, so a failure replays exactly:
//!
//! ```text
//! SSM_CHANNEL_SEED=4711 cargo test -p ssm-channel --test simulation -- --nocapture
//! ```
//!
//! [`world`] checks: bytes out are bytes in, once and in order; memory stays under its bounds; no timer fires
//! without end; everything sent is acknowledged in the end; both sides notice the end.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a panic in a helper of a test is a failed test"
)]

mod agent;
mod plan;
mod random;
mod world;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, fmt, thread};

use plan::Plan;
use world::World;

#[test]
fn every_schedule_delivers_every_byte_once_and_in_order() {
    if let Some(seed) = number("SSM_CHANNEL_SEED") {
        let plan = Plan::from_seed(seed);
        eprintln!("{plan:#?}");
        World::new(plan).traced().run().unwrap();
        return;
    }
    let schedules = number("SSM_CHANNEL_SCHEDULES").unwrap_or(SCHEDULES);
    let next = AtomicU64::new(0);
    let failures = Mutex::new(BTreeMap::new());
    let work = || {
        while let seed = next.fetch_add(1, Ordering::Relaxed)
            && seed < schedules
        {
            let _replay = Replay(seed);
            if let Err(fault) = World::new(Plan::from_seed(seed)).run() {
                failures.lock().unwrap().insert(seed, fault);
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap();
    for (seed, fault) in failures.iter().take(FAILURES_SHOWN) {
        eprintln!("{fault}\n{}", Replay(*seed));
    }
    assert!(failures.is_empty(), "{} of {schedules} schedules failed", failures.len());
}

/// Prints how to replay a failure, also when the channel itself panics.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{self}");
        }
    }
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let test = "cargo test -p ssm-channel --test simulation -- --nocapture";
        write!(f, "replay: SSM_CHANNEL_SEED={} {test}", self.0)
    }
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}

const SCHEDULES: u64 = 10_000;
const FAILURES_SHOWN: usize = 8;
