//! The speed of the whole tunnel, compared with the machine's limit and with other clients, in one run.
//!
//! ```text
//! bench ─pipe─▶ ssh_ec2 proxy ─websocket─▶ region: gateway, SSM agent ─TCP─▶ bench
//! ```
//!
//! Each box is a process of its own. There is no ssh, whose ciphers would hide the tunnel's cost. The limit
//! is the same bytes through a bare websocket with one SHA-256 of each message at each end, which every
//! implementation of the protocol needs. Words on the command line select sections: `cargo bench --bench
//! tunnel -- up down`.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark talks, and ends when something breaks"
)]

mod carrier;
mod limit;
mod region;
mod table;

use std::time::Duration;

use carrier::{Carrier, PIECE, Run};
use region::Region;
use table::{Samples, Table};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    if arguments.first().is_some_and(|first| first == region::COMMAND) {
        return region::serve(&arguments[1..]);
    }
    // `cargo test --benches` only checks that it starts.
    if arguments.iter().any(|argument| argument == "--test") {
        return;
    }
    let carriers = Carrier::found();
    let mut table = Table::new(&carriers);
    let run = |name: &str, section: fn(&[Carrier], &mut Table), table: &mut Table| {
        if arguments.is_empty() || arguments.iter().any(|word| word == name) {
            section(&carriers, table);
        }
    };
    run("connect", connect, &mut table);
    run("round-trips", round_trips, &mut table);
    run("keystroke", keystroke, &mut table);
    run("up", up, &mut table);
    run("down", down, &mut table);
    run("faults", faults, &mut table);
    println!("{table}");
}

/// From the start of the process to the first byte of the server.
fn connect(carriers: &[Carrier], table: &mut Table) {
    let region = Region::start(&[WITHOUT_QUOTA]);
    for carrier in carriers {
        let times = Samples::take(CONNECTS, || carrier.connect(&region).as_secs_f64() * 1e3);
        table.add("start to first byte, ms", carrier.name, &times);
    }
}

/// With 50 ms for each round trip: the time divided by that is the number of round trips that wait for each
/// other.
fn round_trips(carriers: &[Carrier], table: &mut Table) {
    let region = Region::start(&["delay=25ms", "latency=50ms", WITHOUT_QUOTA]);
    for carrier in carriers {
        let times = Samples::take(SAMPLES, || carrier.connect(&region).as_secs_f64() * 1e3);
        table.add("start to first byte, 50 ms a round trip, ms", carrier.name, &times);
    }
}

/// One byte to a server that sends it back.
fn keystroke(carriers: &[Carrier], table: &mut Table) {
    let region = Region::start(&[]);
    let direct = limit::keystrokes(KEYSTROKES);
    table.add_each("keystroke and its echo, idle", "TCP", &direct);
    for carrier in carriers {
        let times = carrier.keystrokes(&region, KEYSTROKES);
        table.add_each("keystroke and its echo, idle", carrier.name, &times);
    }
    for carrier in carriers {
        let load = carrier.load(&region, LOAD);
        let times = carrier.keystrokes(&region, KEYSTROKES);
        let was_loaded = load.is_running();
        load.stop();
        table.add_each("keystroke and its echo, another session uploads", carrier.name, &times);
        if !was_loaded {
            println!("note: the upload of {} ended before the keystrokes did", carrier.name);
        }
    }
}

fn up(carriers: &[Carrier], table: &mut Table) {
    let tcp = Samples::take(SAMPLES, || limit::tcp(BULK));
    table.add("TCP, MiB/s", "limit", &tcp);
    for kibibytes in SIZES {
        let region = Region::start(&[&format!("size-limit={}", kibibytes * 1024)]);
        let what = format!("up, {kibibytes} KiB messages");
        bulk(
            &what,
            carriers,
            table,
            || limit::up(BULK, kibibytes * 1024),
            |carrier| carrier.up(&region, carrier.bulk.0, kibibytes * 1024),
        );
    }
}

fn down(carriers: &[Carrier], table: &mut Table) {
    for kibibytes in SIZES {
        let region = Region::start(&[&format!("agent-payload={}", kibibytes * 1024)]);
        let what = format!("down, {kibibytes} KiB messages");
        bulk(
            &what,
            carriers,
            table,
            || limit::down(BULK, kibibytes * 1024),
            |carrier| carrier.down(&region, carrier.bulk.1),
        );
    }
}

/// The limit and all carriers in turns, so that other load on the machine affects all of them.
fn bulk(
    what: &str,
    carriers: &[Carrier],
    table: &mut Table,
    limit: impl Fn() -> f64,
    run: impl Fn(&Carrier) -> Option<Run>,
) {
    let mut limits = Samples::default();
    let mut runs: Vec<Vec<Option<Run>>> = carriers.iter().map(|_| Vec::new()).collect();
    for _ in 0..SAMPLES {
        limits.push(limit());
        for (carrier, runs) in carriers.iter().zip(&mut runs) {
            if runs.len() < FAILURES || runs.iter().any(Option::is_some) {
                runs.push(run(carrier));
            }
        }
    }
    table.add(&format!("{what}, MiB/s"), "limit", &limits);
    for (carrier, runs) in carriers.iter().zip(&runs) {
        table.add_runs(what, carrier.name, runs);
    }
}

/// Transfers on a long path with frequent faults.
fn faults(_: &[Carrier], table: &mut Table) {
    let faults = ["close=2s", "delay=50ms", "duplicate=2%", "reorder=2%"];
    let region = Region::start(&faults);
    let ours = Carrier::ours();
    let what = "a websocket closed every 2 s, 100 ms round trip, 2 % doubled, 2 % overtaken";
    let up: Vec<_> = (0..FAULT_SAMPLES).map(|_| ours.up(&region, FAULTY, PIECE)).collect();
    table.add_runs(&format!("up, {what}"), ours.name, &up);
    let down: Vec<_> = (0..FAULT_SAMPLES).map(|_| ours.down(&region, FAULTY)).collect();
    table.add_runs(&format!("down, {what}"), ours.name, &down);
}

const SAMPLES: usize = 5;
const CONNECTS: usize = 21;
const KEYSTROKES: usize = 1000;
const SIZES: [usize; 3] = [1, 8, 64];
const MEBIBYTE: usize = 1024 * 1024;
const BULK: usize = 512 * MEBIBYTE;
const FAULTY: usize = 512 * MEBIBYTE;
const FAULT_SAMPLES: usize = 3;
/// An upload that lasts longer than a thousand keystrokes.
const LOAD: usize = 64 * MEBIBYTE;
/// A carrier that takes longer than this for one run has hung.
const PATIENCE: Duration = Duration::from_secs(40);
/// Runs after which one that hung each time is not tried again.
const FAILURES: usize = 2;
/// More sessions than AWS starts for an account: the queue for them is not what these rows measure.
const WITHOUT_QUOTA: &str = "throttle=StartSession:1000/1000";
