//! Two channels and a gateway that delays, repeats, reorders, loses and cuts as the input says.
//!
//! At every moment the received bytes are a prefix of the sent ones, and memory stays under its bounds. After
//! the faults have ended, everything that was accepted arrives.

#![no_main]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ssm_channel::{
    Channel, Draft, Event, MAX_WINDOW, Message, MessageType, Origin, Outgoing, SessionType, Side,
    SsmAgentVersion,
};

#[derive(Arbitrary, Clone, Copy, Debug)]
enum End {
    Client,
    Instance,
}

#[derive(Arbitrary, Debug)]
enum Op {
    AcceptData,
    Attach(End),
    /// Cuts this side's websocket. So many of the last messages to and from it are lost.
    Cut {
        end: End,
        to: u8,
        from: u8,
    },
    /// So many messages for this side arrive.
    Deliver {
        end: End,
        count: u8,
    },
    Duplicate {
        end: End,
        index: u8,
    },
    Lose {
        end: End,
        index: u8,
    },
    Pause(End),
    Read(End),
    Reorder {
        end: End,
        index: u8,
    },
    Resume(End),
    Send {
        end: End,
        length: u16,
    },
    Terminate(End),
    Wait(u16),
}

#[derive(Arbitrary, Debug)]
struct Input {
    seed: u64,
    version: Version,
    ops: Vec<Op>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
enum Version {
    /// Acknowledges duplicates, so anything may be lost at any time.
    Recent,
    /// Does not acknowledge duplicates: its client's conclusions need a path that keeps the order.
    Old,
}

fuzz_target!(|input: Input| {
    let mut pair = Pair::new(&input);
    for op in input.ops.iter().take(MAX_OPS) {
        pair.apply(op);
        pair.check();
    }
    pair.settle();
});

struct Peer {
    channel: Channel,
    draft: Draft,
    attached: bool,
    sent: Vec<u8>,
    received: Vec<u8>,
    /// Messages under way to this side.
    wire: VecDeque<Bytes>,
}

struct Pair {
    client: Peer,
    instance: Peer,
    version: Version,
    /// Whether the instance has a connection for the data.
    connected: bool,
    now: Instant,
}

impl Pair {
    fn new(input: &Input) -> Self {
        let now = Instant::now();
        let origin = Origin { seed: input.seed, unix_time: Duration::from_secs(1_700_000_000), now };
        let version = match input.version {
            Version::Recent => "3.3.1142.0",
            Version::Old => "2.3.733.0",
        };
        let agent_version = SsmAgentVersion::parse(version).unwrap();
        let session = SessionType { session_type: "Port".into(), properties: serde_json::Value::Null };
        let client = Peer::new(Side::Client { client_id: "client".into() }, origin);
        let instance = Peer::new(Side::Instance { agent_version, session }, origin);
        let mut pair = Self { client, instance, version: input.version, connected: false, now };
        pair.attach(End::Client);
        pair.attach(End::Instance);
        pair
    }

    fn peer(&mut self, end: End) -> &mut Peer {
        match end {
            End::Client => &mut self.client,
            End::Instance => &mut self.instance,
        }
    }

    fn attach(&mut self, end: End) {
        let now = self.now;
        let peer = self.peer(end);
        if !peer.attached {
            peer.attached = true;
            peer.channel.attach(now, "token");
        }
    }

    fn apply(&mut self, op: &Op) {
        let now = self.now;
        match *op {
            Op::AcceptData => {
                self.instance.channel.accept_data();
                self.connected = true;
            }
            Op::Attach(end) => self.attach(end),
            Op::Cut { end, to, from } => self.cut(end, usize::from(to), usize::from(from)),
            Op::Deliver { end, count } => self.deliver(end, usize::from(count)),
            Op::Duplicate { end, index } => {
                let wire = &mut self.peer(end).wire;
                if let Some(record) = wire.get(usize::from(index)).cloned() {
                    wire.push_back(record);
                }
            }
            Op::Lose { end, index } => {
                let orderly = self.version == Version::Old;
                let wire = &mut self.peer(end).wire;
                let index = usize::from(index);
                if wire.get(index).is_some_and(|record| !orderly || is_acknowledgement(record)) {
                    wire.remove(index);
                }
            }
            Op::Pause(end) => self.publish(end, "pause_publication"),
            Op::Read(end) => self.peer(end).read(),
            Op::Reorder { end, index } => {
                if self.version == Version::Recent
                    && let wire = &mut self.peer(end).wire
                    && usize::from(index) < wire.len()
                {
                    wire.swap(0, usize::from(index));
                }
            }
            Op::Resume(end) => self.publish(end, "start_publication"),
            // Before its connection is open, an SSM agent has no data to send.
            Op::Send { end: End::Instance, .. } if !self.connected => {}
            Op::Send { end, length } => self.peer(end).send(now, usize::from(length)),
            Op::Terminate(end) => self.peer(end).channel.terminate(now),
            Op::Wait(milliseconds) => self.now += Duration::from_millis(milliseconds.into()),
        }
        self.pump();
    }

    /// Moves all outgoing records of both channels onto the wire.
    fn pump(&mut self) {
        let now = self.now;
        for end in [End::Client, End::Instance] {
            let peer = self.peer(end);
            peer.channel.handle_timeout(now);
            let mut records = Vec::new();
            while let Some(outgoing) = peer.channel.poll_transmit(now) {
                if let Outgoing::Record(record) = outgoing {
                    records.push(record);
                }
            }
            while let Some(event) = peer.channel.poll_event() {
                assert_eq!(matches!(event, Event::Closed(_)), peer.channel.is_closed());
            }
            assert!(peer.channel.poll_timeout().is_none_or(|due| due >= now || peer.channel.is_closed()));
            self.peer(other(end)).wire.extend(records);
        }
    }

    fn deliver(&mut self, end: End, count: usize) {
        let now = self.now;
        let peer = self.peer(end);
        // The gateway keeps messages for a side without a websocket.
        for _ in 0..if peer.attached { count } else { 0 } {
            let Some(record) = peer.wire.pop_front() else { break };
            peer.channel.handle_message(now, record).expect("a channel understands its like");
        }
    }

    fn cut(&mut self, end: End, to: usize, from: usize) {
        let now = self.now;
        let peer = self.peer(end);
        if !std::mem::take(&mut peer.attached) {
            return;
        }
        peer.channel.handle_closed(now);
        peer.lose_tail(to);
        self.peer(other(end)).lose_tail(from);
    }

    fn publish(&mut self, end: End, message_type: &str) {
        let now = self.now;
        let peer = self.peer(end);
        if peer.attached {
            peer.channel.handle_message(now, gateway_message(message_type)).unwrap();
        }
    }

    fn check(&self) {
        for (from, to) in [(&self.client, &self.instance), (&self.instance, &self.client)] {
            assert!(from.sent.starts_with(&to.received), "not what was sent");
            assert!(from.channel.unacknowledged() <= MAX_WINDOW + LARGEST_RECORD + PROBE + HANDSHAKE);
            assert!(from.channel.backlog() <= BACKLOG);
        }
    }

    /// Ends the faults: everything accepted arrives, unless a side has closed before.
    fn settle(&mut self) {
        self.instance.channel.accept_data();
        for _ in 0..MAX_STEPS {
            for end in [End::Client, End::Instance] {
                self.attach(end);
                self.publish(end, "start_publication");
                self.deliver(end, usize::MAX);
                self.peer(end).read();
            }
            self.pump();
            self.check();
            if self.client.channel.is_closed() || self.instance.channel.is_closed() {
                return;
            }
            let arrived = |from: &Peer, to: &Peer| from.sent.len() == to.received.len();
            if arrived(&self.client, &self.instance) && arrived(&self.instance, &self.client) {
                return;
            }
            self.now += Duration::from_millis(50);
        }
        panic!("it does not arrive: {:?} {:?}", self.client.channel, self.instance.channel);
    }
}

impl Peer {
    fn new(side: Side, origin: Origin) -> Self {
        Self {
            channel: Channel::new(side, origin),
            draft: Draft::with_capacity(16 * 1024),
            attached: false,
            sent: Vec::new(),
            received: Vec::new(),
            wire: VecDeque::new(),
        }
    }

    fn send(&mut self, now: Instant, length: usize) {
        if self.channel.send_capacity() == 0 || self.sent.len() > MAX_BYTES {
            return;
        }
        let start = self.sent.len();
        let payload: Vec<u8> = (start..start + length).map(|position| (position % 251) as u8).collect();
        self.draft.push(&payload);
        self.channel.send(now, &mut self.draft).expect("there was room");
        assert_eq!(self.draft.payload_length(), 0);
        self.sent.extend_from_slice(&payload);
    }

    fn read(&mut self) {
        while let Some(bytes) = self.channel.read() {
            self.received.extend_from_slice(&bytes);
        }
        assert_eq!(self.channel.backlog(), 0);
    }

    fn lose_tail(&mut self, count: usize) {
        self.wire.truncate(self.wire.len().saturating_sub(count));
    }
}

fn other(end: End) -> End {
    match end {
        End::Client => End::Instance,
        End::Instance => End::Client,
    }
}

fn is_acknowledgement(record: &Bytes) -> bool {
    Message::parse(record.clone()).unwrap().header.message_type == MessageType::Acknowledge
}

fn gateway_message(message_type: &str) -> Bytes {
    let mut record = vec![0; 120];
    record[3] = 116;
    record[4..4 + message_type.len()].copy_from_slice(message_type.as_bytes());
    record[39] = 1;
    record[47] = 1;
    record.into()
}

const MAX_OPS: usize = 300;
/// Each takes 50 ms: ten minutes, twice what a channel waits for progress.
const MAX_STEPS: usize = 12_000;
const MAX_BYTES: usize = 4 * 1024 * 1024;
const LARGEST_RECORD: usize = 120 + u16::MAX as usize;
const HANDSHAKE: usize = 4096;
/// The largest probe of `sizing.rs`.
const PROBE: usize = 64 * 1024;
/// The bounds of `recv.rs`, for bytes in order and out of order.
const BACKLOG: usize = (12 + 64) * 1024 * 1024;
