//! One schedule: both ends, the gateway between them, the clock, and the checks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;
use ssm_channel::{
    Channel, Closed, Draft, Event, Flag, MAX_WINDOW, Message, MessageType, Origin, Outgoing, SessionType,
    Side, SsmAgentVersion,
};

use crate::agent::Agent;
use crate::plan::{Cut, End, Finale, Oversize, Plan, Player, Traffic};
use crate::random::{Random, tape};

pub(crate) struct World {
    plan: Plan,
    random: Random,
    start: Instant,
    now: Instant,
    client: Peer,
    instance: Instance,
    client_attached: bool,
    instance_attached: bool,
    /// Correct bytes received at each end.
    received_up: usize,
    received_down: usize,
    /// Messages under way, by arrival and order of sending.
    wire: BTreeMap<(Instant, u64), (End, Bytes)>,
    wire_count: u64,
    returns: Vec<(Instant, End)>,
    /// The client's transmissions of numbered messages, and the number of different ones.
    stream_messages: i64,
    next_number: i64,
    publications: Vec<(Instant, &'static str)>,
    is_calm: bool,
    traced: bool,
}

/// A channel with its driver.
struct Peer {
    channel: Channel,
    draft: Draft,
    traffic: Traffic,
    sent: usize,
    next_write: Instant,
    /// Whether it writes: the instance does not before its TCP connection is open.
    writes: bool,
    /// When its websocket accepts records again, and how many until then.
    blocked_until: Option<Instant>,
    room: usize,
    became_ready: bool,
    closed: Option<Closed>,
    terminated: bool,
}

enum Instance {
    Channel(Box<Peer>, Option<Instant>),
    Model(Box<Agent>),
}

type Check = Result<(), String>;

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of virtual time")]
        let start = Instant::now();
        let mut random = Random::new(!plan.seed);
        let origin =
            Origin { seed: random.next(), unix_time: Duration::from_secs(1_700_000_000), now: start };
        let client = Side::Client { client_id: "6f2c4b7e-0000-4000-8000-000000000001".into() };
        let instance = match plan.player {
            Player::Model => Instance::Model(Box::new(Agent::new(&plan, start))),
            Player::Channel => {
                let session =
                    SessionType { session_type: "Port".into(), properties: json!({ "portNumber": "22" }) };
                let agent_version = SsmAgentVersion::parse(plan.agent_version).unwrap();
                let side = Side::Instance { agent_version, session };
                Instance::Channel(Box::new(Peer::new(side, origin, plan.down)), None)
            }
        };
        let publications = plan.pauses.iter().flat_map(|(at, lasts)| {
            let ends = lasts.map(|lasts| (start + *at + lasts, "start_publication"));
            [Some((start + *at, "pause_publication")), ends].into_iter().flatten()
        });
        Self {
            publications: publications.collect(),
            is_calm: plan.is_calm(),
            client: Peer::new(client, origin, plan.up),
            instance,
            plan,
            random,
            start,
            now: start,
            client_attached: false,
            instance_attached: false,
            received_up: 0,
            received_down: 0,
            wire: BTreeMap::new(),
            wire_count: 0,
            returns: Vec::new(),
            stream_messages: 0,
            next_number: 0,
            traced: false,
        }
    }

    pub(crate) fn traced(mut self) -> Self {
        self.traced = true;
        self
    }

    pub(crate) fn run(mut self) -> Check {
        self.attach(End::Client);
        self.attach(End::Instance);
        let deadline = self.start + HORIZON;
        self.run_until(deadline, Self::is_delivered)
            .map_err(|fault| format!("{fault}; {}", self.account()))?;
        // Messages still under way must not add bytes, and everything sent is acknowledged by then.
        let quiet = self.now + QUIET;
        self.run_until(quiet, |_| false)
            .or_else(|fault| if self.now >= quiet { Ok(()) } else { Err(fault) })?;
        let settled = self.now + HORIZON;
        self.run_until(settled, Self::is_settled)
            .map_err(|fault| format!("{fault}: not everything was acknowledged; {}", self.account()))?;
        let (sent, distinct) = (self.stream_messages, self.next_number);
        if self.is_calm && sent > 2 * distinct + 50 {
            return Err(format!("{sent} transmissions of {distinct} messages with no reason to repeat any"));
        }
        self.end()
    }

    fn end(mut self) -> Check {
        self.plan.cuts.clear();
        let returns = self.now + HORIZON;
        self.run_until(returns, |world| world.client_attached && world.instance_attached)?;
        match self.plan.finale {
            Finale::ClientTerminates => self.client.channel.terminate(self.now),
            Finale::GatewayCloses => {
                let payload = br#"{"MessageType":"channel_closed","Output":"bye","SessionId":"s"}"#;
                self.give(End::Client, gateway_message("channel_closed", payload))?;
            }
        }
        let deadline = self.now + Duration::from_secs(2);
        self.run_until(deadline, |world| world.client.closed.is_some())?;
        match (self.plan.finale, &self.client.closed) {
            (Finale::GatewayCloses, Some(Closed::ByGateway { output })) if output == "bye" => Ok(()),
            (Finale::ClientTerminates, Some(Closed::Terminated { acknowledged })) => {
                let heard = match &self.instance {
                    Instance::Channel(peer, _) => peer.terminated,
                    Instance::Model(agent) => agent.terminated,
                };
                if *acknowledged && !heard {
                    return Err("the end was acknowledged, but not heard".to_owned());
                }
                // One second is allowed; long paths and pauses take more.
                let in_time = self.plan.delay < Duration::from_millis(50) && self.plan.pauses.is_empty();
                if in_time && !heard {
                    return Err("the end was not heard".to_owned());
                }
                Ok(())
            }
            (finale, closed) => Err(format!("{finale:?} ended in {closed:?}")),
        }
    }

    // ---- what must hold ----

    fn is_delivered(&self) -> bool {
        self.received_up == self.plan.up.bytes && self.received_down == self.plan.down.bytes
    }

    fn is_settled(&self) -> bool {
        let instance = match &self.instance {
            Instance::Channel(peer, _) => peer.channel.unacknowledged() == 0,
            Instance::Model(agent) => agent.is_drained(),
        };
        instance && self.client.channel.unacknowledged() == 0
    }

    fn check(&self) -> Check {
        let peers = match &self.instance {
            Instance::Channel(peer, _) => vec![&self.client, peer],
            Instance::Model(_) => vec![&self.client],
        };
        for peer in peers {
            let (sent, kept) = (peer.channel.unacknowledged(), peer.channel.backlog());
            if sent > MAX_WINDOW + 2 * 65_700 || kept > BACKLOG {
                return Err(format!("{sent} bytes unacknowledged and {kept} not read are too many"));
            }
        }
        Ok(())
    }

    fn receive(&mut self, from: End, bytes: &[u8]) -> Check {
        let (received, sent) = match from {
            End::Client => (&mut self.received_up, self.plan.up.bytes),
            End::Instance => (&mut self.received_down, self.plan.down.bytes),
        };
        let mut rest = bytes;
        while !rest.is_empty() {
            let expected = tape(*received, rest.len());
            let (now, later) = rest.split_at(expected.len());
            if now != expected || *received + now.len() > sent {
                return Err(format!("wrong bytes from the {from:?} at {received}"));
            }
            *received += now.len();
            rest = later;
        }
        Ok(())
    }

    fn account(&self) -> String {
        let Self { received_up, received_down, plan, .. } = self;
        let (up, down) = (plan.up.bytes, plan.down.bytes);
        format!(
            "{received_up} of {up} bytes went up, {received_down} of {down} down; {:?}",
            self.client.channel
        )
    }

    // ---- time ----

    /// Until `done`; an error when the deadline passes before that.
    fn run_until(&mut self, deadline: Instant, done: impl Fn(&Self) -> bool) -> Check {
        let mut steps_at_one_time = 0;
        loop {
            self.poll()?;
            self.check()?;
            if done(self) {
                return Ok(());
            }
            if self.now >= deadline {
                return Err(format!("nothing came of it in {:?}", self.now - self.start));
            }
            let next = self.next_time().unwrap_or(deadline).min(deadline);
            if next <= self.now {
                steps_at_one_time += 1;
                if steps_at_one_time > 10_000 {
                    return Err("a timer spins".to_owned());
                }
            } else {
                steps_at_one_time = 0;
                self.now = next;
            }
            self.advance()?;
        }
    }

    fn next_time(&self) -> Option<Instant> {
        let door_open = self.door_is_open();
        let wire =
            self.wire.iter().find(|(_, (end, _))| *end != End::Client || door_open).map(|((at, _), _)| *at);
        let cut = self.plan.cuts.first().map(|cut| self.start + cut.at);
        let returns = self.returns.iter().map(|(at, _)| *at).min();
        let publication = self.publications.iter().map(|(at, _)| *at).min();
        let stall_ends =
            self.plan.stall.map(|(at, lasts)| self.start + at + lasts).filter(|at| *at > self.now);
        let instance = match &self.instance {
            Instance::Channel(peer, connects) => {
                [peer.next_time(self.now), *connects].into_iter().flatten().min()
            }
            Instance::Model(agent) => agent.poll_timeout(),
        };
        let times = [wire, cut, returns, publication, stall_ends, self.client.next_time(self.now), instance];
        times.into_iter().flatten().min()
    }

    /// Handles all events that are due.
    fn advance(&mut self) -> Check {
        let now = self.now;
        while let Some(cut) = self.plan.cuts.first().filter(|cut| self.start + cut.at <= now).copied() {
            self.plan.cuts.remove(0);
            self.cut(cut)?;
        }
        let due: Vec<_> = self.publications.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, what) in due {
            self.give(End::Client, gateway_message(what, b""))?;
        }
        let back: Vec<_> = self.returns.extract_if(.., |(at, _)| *at <= now).collect();
        for (_, end) in back {
            self.attach(end);
        }
        while let Some(key) = self.next_arrival() {
            if let Some((end, record)) = self.wire.remove(&key) {
                self.give(end, record)?;
            }
        }
        self.client.channel.handle_timeout(now);
        match &mut self.instance {
            Instance::Channel(peer, connects) => {
                if connects.is_some_and(|at| at <= now) {
                    *connects = None;
                    peer.channel.accept_data();
                    peer.writes = true;
                }
                peer.channel.handle_timeout(now);
            }
            Instance::Model(agent) => agent.handle_timeout(now),
        }
        Ok(())
    }

    fn next_arrival(&self) -> Option<(Instant, u64)> {
        let door_open = self.door_is_open();
        let due = self.wire.iter().take_while(|((at, _), _)| *at <= self.now);
        due.filter(|(_, (end, _))| *end != End::Client || door_open).map(|(key, _)| *key).next()
    }

    /// The driver stops reading its websocket when its user does not read.
    fn door_is_open(&self) -> bool {
        self.client.channel.backlog() < self.plan.door
    }

    fn user_reads(&self) -> bool {
        let elapsed = self.now - self.start;
        self.plan.stall.is_none_or(|(at, lasts)| elapsed < at || elapsed >= at + lasts)
    }

    // ---- the ends ----

    fn poll(&mut self) -> Check {
        let now = self.now;
        let client = self.client.poll(now, self.plan.throttle);
        if let Some(closed) = &self.client.closed
            && !self.is_delivered()
        {
            return Err(format!("the client's channel closed: {closed:?}"));
        }
        if self.user_reads() {
            while let Some(bytes) = self.client.channel.read() {
                self.receive(End::Instance, &bytes)?;
            }
        }
        for record in client {
            self.transmit(End::Client, record)?;
        }
        let (records, data) = match &mut self.instance {
            Instance::Channel(peer, connects) => {
                let records = peer.poll(now, usize::MAX);
                if std::mem::take(&mut peer.became_ready) {
                    *connects = Some(now + self.plan.dials_for);
                }
                (records, std::iter::from_fn(|| peer.channel.read()).collect())
            }
            Instance::Model(agent) => {
                (std::iter::from_fn(|| agent.poll_transmit(now)).collect(), agent.read())
            }
        };
        for bytes in data {
            self.receive(End::Client, &bytes)?;
        }
        for record in records {
            self.transmit(End::Instance, record)?;
        }
        Ok(())
    }

    fn attach(&mut self, end: End) {
        let now = self.now;
        self.trace(format_args!("the {end:?} is back"));
        match end {
            End::Client => {
                self.client_attached = true;
                self.client.channel.attach(now, "token");
            }
            End::Instance => {
                self.instance_attached = true;
                match &mut self.instance {
                    Instance::Channel(peer, _) => peer.channel.attach(now, ""),
                    Instance::Model(agent) => agent.attach(),
                }
            }
        }
        if self.plan.announces {
            // A message without content causes no error.
            let _ = self.give(end.other(), gateway_message("start_publication", b""));
        }
    }

    fn cut(&mut self, cut: Cut) -> Check {
        let Cut { end, away, loses_sent, .. } = cut;
        if !self.is_attached(end) {
            return Ok(());
        }
        self.trace(format_args!("the {end:?}'s websocket is cut"));
        let now = self.now;
        self.wire.retain(|_, (to, _)| *to != end && !loses_sent);
        match end {
            End::Client => {
                self.client_attached = false;
                self.client.channel.handle_closed(now);
            }
            End::Instance => {
                self.instance_attached = false;
                match &mut self.instance {
                    Instance::Channel(peer, _) => peer.channel.handle_closed(now),
                    Instance::Model(agent) => agent.handle_closed(),
                }
            }
        }
        self.returns.push((now + away, end));
        if self.plan.announces {
            self.give(end.other(), gateway_message("pause_publication", b""))?;
        }
        Ok(())
    }

    fn is_attached(&self, end: End) -> bool {
        match end {
            End::Client => self.client_attached,
            End::Instance => self.instance_attached,
        }
    }

    // ---- the gateway ----

    /// Sends a record from `from`.
    fn transmit(&mut self, from: End, record: Bytes) -> Check {
        if !self.is_attached(from) {
            return Ok(());
        }
        let to = from.other();
        let message =
            Message::parse(record.clone()).map_err(|error| format!("{from:?} wrote nonsense: {error}"))?;
        let what = message.header.message_type;
        if what == MessageType::InputStreamData {
            self.stream_messages += 1;
            self.next_number = self.next_number.max(message.header.sequence_number + 1);
        }
        self.trace(format_args!(
            "{from:?} sends {} {} of {} bytes",
            what.name(),
            message.header.sequence_number,
            message.payload.len()
        ));
        if let Some((limit, oversize)) = self.plan.size_limit
            && record.len() > limit
            && from == End::Client
        {
            return match oversize {
                Oversize::Vanishes => Ok(()),
                Oversize::Closes => {
                    self.cut(Cut { at: Duration::ZERO, end: from, away: LITTLE, loses_sent: false })
                }
            };
        }
        if !self.is_attached(to) {
            if self.plan.announces {
                self.give(from, gateway_message("pause_publication", b""))?;
            }
            return Ok(());
        }
        if what == MessageType::Acknowledge && self.random.per_mille(self.plan.lose_acknowledgement) {
            self.trace(format_args!("which is lost"));
            return Ok(());
        }
        if self.random.per_mille(self.plan.garbage) {
            let length = usize::try_from(self.random.within(0..200)).unwrap().min(record.len());
            self.send(to, record.slice(..length), Duration::ZERO);
        }
        let copies = if self.random.per_mille(self.plan.duplicate) { 2 } else { 1 };
        for _ in 0..copies {
            let late = if self.random.per_mille(self.plan.reorder) {
                3 * self.plan.delay + LITTLE
            } else {
                Duration::ZERO
            };
            self.send(to, record.clone(), late);
        }
        Ok(())
    }

    fn send(&mut self, to: End, record: Bytes, late: Duration) {
        self.wire_count += 1;
        self.wire.insert((self.now + self.plan.delay + late, self.wire_count), (to, record));
    }

    /// Delivers a record to `to`.
    fn give(&mut self, to: End, record: Bytes) -> Check {
        if !self.is_attached(to) {
            return Ok(());
        }
        let now = self.now;
        let makes_sense = Message::parse(record.clone()).is_ok();
        let taken = match (to, &mut self.instance) {
            (End::Client, _) => self.client.channel.handle_message(now, record),
            (End::Instance, Instance::Channel(peer, _)) => peer.channel.handle_message(now, record),
            (End::Instance, Instance::Model(agent)) => return agent.handle_message(now, record),
        };
        match taken {
            Err(error) if makes_sense => Err(format!("a good message was refused: {error}")),
            _ => Ok(()),
        }
    }

    fn trace(&self, what: std::fmt::Arguments<'_>) {
        if self.traced {
            eprintln!("{:>9.3} ms  {what}", (self.now - self.start).as_secs_f64() * 1e3);
        }
    }
}

impl Peer {
    fn new(side: Side, origin: Origin, traffic: Traffic) -> Self {
        let writes = matches!(side, Side::Client { .. });
        Self {
            channel: Channel::new(side, origin),
            writes,
            draft: Draft::with_capacity(64 * 1024),
            traffic,
            sent: 0,
            next_write: origin.now,
            blocked_until: None,
            room: 0,
            became_ready: false,
            closed: None,
            terminated: false,
        }
    }

    /// The records to send now, at most `throttle` in a millisecond.
    fn poll(&mut self, now: Instant, throttle: usize) -> Vec<Bytes> {
        while self.writes
            && self.sent < self.traffic.bytes
            && self.next_write <= now
            && self.channel.send_capacity() > 0
        {
            let limit =
                self.channel.payload_limit().min(self.traffic.piece).min(self.traffic.bytes - self.sent);
            let bytes = tape(self.sent, limit);
            self.draft.push(bytes);
            // The capacity was checked above.
            self.channel.send(now, &mut self.draft).unwrap();
            self.sent += bytes.len();
            self.next_write = now + self.traffic.gap;
        }
        let mut records = Vec::new();
        if self.blocked_until.is_none_or(|until| until <= now) {
            (self.blocked_until, self.room) = (None, throttle);
        }
        while self.room > 0
            && let Some(outgoing) = self.channel.poll_transmit(now)
        {
            self.room -= 1;
            if throttle < usize::MAX {
                self.blocked_until.get_or_insert(now + Duration::from_millis(1));
            }
            if let Outgoing::Record(record) = outgoing {
                records.push(record);
            }
        }
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::Ready { .. } => self.became_ready = true,
                Event::Flag(Flag::TerminateSession) => self.terminated = true,
                Event::Closed(closed) => self.closed = Some(closed),
                Event::Flag(_) | Event::ExitStatus(_) | Event::NeedsResume => {}
            }
        }
        records
    }

    fn next_time(&self, now: Instant) -> Option<Instant> {
        let wants_to_write = self.sent < self.traffic.bytes && self.next_write > now;
        let times =
            [self.channel.poll_timeout(), wants_to_write.then_some(self.next_write), self.blocked_until];
        times.into_iter().flatten().min()
    }
}

/// A message of the gateway: padded with NULs, without a digest.
fn gateway_message(message_type: &str, payload: &[u8]) -> Bytes {
    let mut record = vec![0; 120];
    record[3] = 116;
    record[4..4 + message_type.len()].copy_from_slice(message_type.as_bytes());
    record[39] = 1;
    record[47] = 1;
    record[116..120].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    record.extend_from_slice(payload);
    record.into()
}

/// Far more than any schedule needs, far less than several time-outs in a row.
const HORIZON: Duration = Duration::from_secs(1200);
/// For messages still under way when everything has arrived.
const QUIET: Duration = Duration::from_secs(5);
const LITTLE: Duration = Duration::from_millis(3);

/// The bounds of `recv.rs`, for bytes in order and out of order, and a message.
const BACKLOG: usize = (12 + 64 + 1) << 20;
