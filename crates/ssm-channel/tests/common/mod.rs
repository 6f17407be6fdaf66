//! Two channels, the gateway between them, and a virtual clock.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "shared by test binaries, each of which uses its part"
)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use ssm_channel::{
    Channel, Closed, Draft, Event, Message, MessageType, Origin, Outgoing, SessionType, Side, SsmAgentVersion,
};

/// The faults of the gateway and the network. Shares are per mille.
#[derive(Clone, Debug)]
pub struct Faults {
    pub delay: Duration,
    pub duplicate: u64,
    pub reorder: u64,
    /// The share of acknowledgements lost on a live websocket.
    pub lose_acknowledgement: u64,
    /// Virtual times at which a side's websocket is cut, with everything under way on it.
    pub cuts: Vec<(Duration, End)>,
    /// How long a side has no websocket after a cut.
    pub away: Duration,
    /// Whether the gateway sends pauses while the other side has no websocket.
    pub announce_pauses: bool,
    pub agent_version: &'static str,
    pub session_type: &'static str,
    /// Whether the instance's TCP connection is open from the start.
    pub accepts_data: bool,
    /// The largest record that the gateway accepts, and what it does with larger ones.
    pub size_limit: Option<(usize, Oversize)>,
    pub seed: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Oversize {
    Closes,
    Vanishes,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(5),
            duplicate: 0,
            reorder: 0,
            lose_acknowledgement: 0,
            cuts: Vec::new(),
            away: Duration::from_millis(20),
            announce_pauses: false,
            agent_version: "3.3.1142.0",
            session_type: "Port",
            accepts_data: true,
            size_limit: None,
            seed: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum End {
    Client,
    Instance,
}

pub struct Peer {
    pub channel: Channel,
    pub draft: Draft,
    pub received: Vec<u8>,
    pub events: Vec<Event>,
    /// The pieces that are still to be sent, first one first.
    pub outbox: Vec<Vec<u8>>,
    current: Bytes,
    pub reads: bool,
    /// Records sent to the gateway.
    pub log: Vec<Message>,
    attached: bool,
    pub peak_unacknowledged: usize,
    pub peak_backlog: usize,
}

impl Peer {
    fn new(side: Side, origin: Origin) -> Self {
        Self {
            channel: Channel::new(side, origin),
            draft: Draft::with_capacity(64 * 1024),
            received: Vec::new(),
            events: Vec::new(),
            outbox: Vec::new(),
            current: Bytes::new(),
            reads: true,
            log: Vec::new(),
            attached: false,
            peak_unacknowledged: 0,
            peak_backlog: 0,
        }
    }

    pub fn closed(&self) -> Option<&Closed> {
        self.events.iter().find_map(|event| match event {
            Event::Closed(reason) => Some(reason),
            _ => None,
        })
    }
}

pub struct Pair {
    pub client: Peer,
    pub instance: Peer,
    pub now: Instant,
    pub start: Instant,
    pub faults: Faults,
    /// Deliveries by time and order of sending.
    wire: BTreeMap<(Instant, u64), (End, Bytes)>,
    returns: Vec<(Instant, End)>,
    sent: u64,
    random: u64,
}

impl Pair {
    pub fn new(faults: Faults) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of virtual time")]
        let now = Instant::now();
        let origin = Origin { seed: faults.seed, unix_time: Duration::from_secs(1_700_000_000), now };
        let client = Side::Client { client_id: "6f2c4b7e-0000-4000-8000-000000000001".into() };
        let session = SessionType {
            session_type: faults.session_type.into(),
            properties: json!({ "portNumber": "22" }),
        };
        let agent_version = SsmAgentVersion::parse(faults.agent_version).unwrap();
        let instance = Side::Instance { agent_version, session };
        let random = faults.seed;
        let mut pair = Self {
            client: Peer::new(client, origin),
            instance: Peer::new(instance, origin),
            now,
            start: now,
            faults,
            wire: BTreeMap::new(),
            returns: Vec::new(),
            sent: 0,
            random,
        };
        pair.faults.cuts.sort_by_key(|(time, _)| *time);
        if pair.faults.accepts_data {
            pair.instance.channel.accept_data();
        }
        pair.attach(End::Client);
        pair.attach(End::Instance);
        pair
    }

    /// A pair whose handshake is over.
    pub fn open(faults: Faults) -> Self {
        let mut pair = Self::new(faults);
        pair.run_until(|pair| pair.client.channel.send_capacity() > 0);
        pair
    }

    pub fn peer(&mut self, end: End) -> &mut Peer {
        match end {
            End::Client => &mut self.client,
            End::Instance => &mut self.instance,
        }
    }

    pub fn attach(&mut self, end: End) {
        let now = self.now;
        let peer = self.peer(end);
        peer.attached = true;
        peer.channel.attach(now, "token");
        if self.faults.announce_pauses {
            self.publish(end, "start_publication");
        }
    }

    /// Cuts the websocket of one side, with all messages under way to and from it.
    pub fn cut(&mut self, end: End) {
        let now = self.now;
        let peer = self.peer(end);
        if !peer.attached {
            return;
        }
        peer.attached = false;
        peer.channel.handle_closed(now);
        self.wire.clear();
        self.returns.push((now + self.faults.away, end));
        if self.faults.announce_pauses {
            self.publish(end, "pause_publication");
        }
    }

    /// Sends a message of the gateway to the other side of `end`.
    fn publish(&mut self, end: End, message_type: &str) {
        let now = self.now;
        let record = gateway_message(message_type, b"");
        let other = self.peer(other(end));
        if other.attached {
            other.channel.handle_message(now, record).unwrap();
        }
    }

    pub fn run_until(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = self.now + Duration::from_secs(3600);
        let mut steps = 0_u64;
        while !done(self) {
            assert!(self.now < deadline, "nothing more happens: {:?}", self.channels());
            steps += 1;
            assert!(steps < 3_000_000, "it never ends: {:?}", self.channels());
            self.step();
        }
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step_until(end);
        }
    }

    fn channels(&self) -> (&Channel, &Channel) {
        (&self.client.channel, &self.instance.channel)
    }

    pub fn step(&mut self) {
        self.step_until(self.now + Duration::from_secs(1));
    }

    /// Advances the clock to the next event and handles it.
    fn step_until(&mut self, limit: Instant) {
        self.poll(End::Client);
        self.poll(End::Instance);
        self.now = self.next_time().map_or(limit, |next| next.min(limit)).max(self.now);
        let now = self.now;
        while self.faults.cuts.first().is_some_and(|(time, _)| self.start + *time <= now) {
            let (_, end) = self.faults.cuts.remove(0);
            self.cut(end);
        }
        for (_, end) in self.returns.extract_if(.., |(time, _)| *time <= now).collect::<Vec<_>>() {
            self.attach(end);
        }
        while let Some(entry) = self.wire.first_entry()
            && entry.key().0 <= now
        {
            let (end, record) = entry.remove();
            let peer = self.peer(end);
            if peer.attached {
                peer.channel.handle_message(now, record).unwrap();
            }
        }
        self.client.channel.handle_timeout(now);
        self.instance.channel.handle_timeout(now);
        self.poll(End::Client);
        self.poll(End::Instance);
    }

    fn next_time(&self) -> Option<Instant> {
        let wire = self.wire.keys().next().map(|(time, _)| *time);
        let cut = self.faults.cuts.first().map(|(time, _)| self.start + *time);
        let returns = self.returns.iter().map(|(time, _)| *time).min();
        let timeouts = [self.client.channel.poll_timeout(), self.instance.channel.poll_timeout()];
        [wire, cut, returns].into_iter().chain(timeouts).flatten().min()
    }

    fn poll(&mut self, end: End) {
        let now = self.now;
        let peer = self.peer(end);
        while peer.channel.send_capacity() > 0 {
            if peer.current.is_empty() {
                if peer.outbox.is_empty() {
                    break;
                }
                peer.current = peer.outbox.remove(0).into();
            }
            let length = peer.channel.payload_limit().min(peer.current.len());
            peer.draft.push(&peer.current.split_to(length));
            peer.channel.send(now, &mut peer.draft).unwrap();
        }
        peer.peak_unacknowledged = peer.peak_unacknowledged.max(peer.channel.unacknowledged());
        let mut outgoing = Vec::new();
        while let Some(next) = peer.channel.poll_transmit(now) {
            outgoing.push(next);
        }
        while let Some(event) = peer.channel.poll_event() {
            peer.events.push(event);
        }
        peer.peak_backlog = peer.peak_backlog.max(peer.channel.backlog());
        while peer.reads
            && let Some(bytes) = peer.channel.read()
        {
            peer.received.extend_from_slice(&bytes);
        }
        for outgoing in outgoing {
            if let Outgoing::Record(record) = outgoing {
                if let Some((limit, oversize)) = self.faults.size_limit
                    && record.len() > limit
                {
                    if oversize == Oversize::Closes {
                        self.cut(end);
                    }
                    continue;
                }
                let message = Message::parse(record.clone()).unwrap();
                let message_type = message.header.message_type;
                self.peer(end).log.push(message);
                self.relay(end, message_type, record);
            }
        }
    }

    fn relay(&mut self, from: End, message_type: MessageType, record: Bytes) {
        let to = other(from);
        if !self.peer(to).attached {
            if self.faults.announce_pauses {
                self.publish(to, "pause_publication");
            }
            return;
        }
        if message_type == MessageType::Acknowledge && self.chance(self.faults.lose_acknowledgement) {
            return;
        }
        let copies = if self.chance(self.faults.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let mut delay = self.faults.delay;
            if self.chance(self.faults.reorder) {
                delay += self.faults.delay * 3;
            }
            self.sent += 1;
            self.wire.insert((self.now + delay, self.sent), (to, record.clone()));
        }
    }

    fn chance(&mut self, per_mille: u64) -> bool {
        // SplitMix64, so that a seed replays exactly.
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 1000 < per_mille
    }
}

pub fn other(end: End) -> End {
    match end {
        End::Client => End::Instance,
        End::Instance => End::Client,
    }
}

/// A message of the gateway: padded with NULs, without a digest.
pub fn gateway_message(message_type: &str, payload: &[u8]) -> Bytes {
    let mut record = vec![0; 120];
    record[3] = 116;
    record[4..4 + message_type.len()].copy_from_slice(message_type.as_bytes());
    record[39] = 1;
    record[47] = 1;
    record[116..120].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    record.extend_from_slice(payload);
    record.into()
}

/// `length` bytes in which every position can be recognised.
pub fn pattern(length: usize) -> Vec<u8> {
    (0..=250).cycle().take(length).collect()
}
