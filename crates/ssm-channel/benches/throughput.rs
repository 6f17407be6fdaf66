//! The cost of the protocol without I/O: two channels exchange their records in memory.
//!
//! The time includes the work of both sides, with digests and acknowledgements.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark has a clock, and ends when something breaks"
)]

use std::time::{Duration, Instant};

use divan::Bencher;
use divan::counter::BytesCount;
use ssm_channel::{Channel, Draft, Origin, Outgoing, SessionType, Side, SsmAgentVersion};

fn main() {
    divan::main();
}

/// From the instance to the client, in messages of so many bytes; SSM agents send 1 KiB.
#[divan::bench(args = [1024, 8 * 1024, 64 * 1024])]
fn transfer(bencher: Bencher<'_, '_>, payload: usize) {
    let mut pair = Pair::open();
    let piece = vec![b'x'; payload];
    bencher.counter(BytesCount::new(BYTES)).bench_local(|| pair.transfer(&piece));
}

struct Pair {
    client: Channel,
    instance: Channel,
    draft: Draft,
    now: Instant,
}

impl Pair {
    /// Two channels whose handshake is over.
    fn open() -> Self {
        let now = Instant::now();
        let origin = Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now };
        let session = SessionType { session_type: "Port".into(), properties: serde_json::json!({}) };
        let agent_version = SsmAgentVersion::parse("3.3.1142.0").unwrap();
        let mut pair = Self {
            client: Channel::new(Side::Client { client_id: "client".into() }, origin),
            instance: Channel::new(Side::Instance { agent_version, session }, origin),
            draft: Draft::with_capacity(128 * 1024),
            now,
        };
        pair.instance.accept_data();
        pair.client.attach(now, "token");
        pair.instance.attach(now, "");
        while pair.client.send_capacity() == 0 {
            pair.exchange();
            pair.now += Duration::from_millis(1);
            pair.client.handle_timeout(pair.now);
        }
        pair
    }

    fn transfer(&mut self, piece: &[u8]) -> usize {
        let (mut sent, mut received) = (0, 0);
        while received < BYTES {
            while sent < BYTES && self.instance.send_capacity() > 0 {
                self.draft.push(piece);
                self.instance.send(self.now, &mut self.draft).unwrap();
                sent += piece.len();
            }
            received += self.exchange();
        }
        received
    }

    /// Exchanges all records of both sides. Returns the received bytes.
    fn exchange(&mut self) -> usize {
        let mut received = 0;
        while hand_over(&mut self.instance, &mut self.client, self.now)
            | hand_over(&mut self.client, &mut self.instance, self.now)
        {
            while let Some(bytes) = self.client.read() {
                received += bytes.len();
            }
        }
        received
    }
}

fn hand_over(from: &mut Channel, to: &mut Channel, now: Instant) -> bool {
    let mut moved = false;
    while let Some(outgoing) = from.poll_transmit(now) {
        moved = true;
        if let Outgoing::Record(record) = outgoing {
            to.handle_message(now, record).unwrap();
        }
    }
    moved
}

const BYTES: usize = 4 << 20;
