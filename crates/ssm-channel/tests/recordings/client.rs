//! This crate's client in the place of the recorded one: it gets the recorded messages at the recorded times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ssm_channel::{Channel, Closed, Event, Message, MessageType, Origin, Outgoing, PayloadType, Side};

use crate::recording::{self, Direction, Line};

/// Something that happens to the client.
enum Step {
    Opened,
    Gone,
    Record(Line),
}

/// The client, and the messages that it sent.
struct Client {
    channel: Channel,
    start: Instant,
    sent: Vec<Message>,
    received: Vec<u8>,
    errors: Vec<u8>,
    statuses: Vec<i32>,
    closed: Option<Closed>,
    resumes: usize,
}

impl Client {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as the origin of virtual time")]
    fn new() -> Self {
        let start = Instant::now();
        let origin = Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now: start };
        let side = Side::Client { client_id: "6f2c4b7e-0000-4000-8000-000000000001".into() };
        Self {
            channel: Channel::new(side, origin),
            start,
            sent: Vec::new(),
            received: Vec::new(),
            errors: Vec::new(),
            statuses: Vec::new(),
            closed: None,
            resumes: 0,
        }
    }

    /// Advances the clock to `at`.
    fn wait_until(&mut self, at: Duration) {
        while let Some(next) = self.channel.poll_timeout().filter(|next| *next <= self.start + at) {
            self.channel.handle_timeout(next);
            self.poll(next);
        }
    }

    fn take(&mut self, at: Duration, step: Step) {
        self.wait_until(at);
        let now = self.start + at;
        match step {
            Step::Opened => self.channel.attach(now, "token"),
            Step::Gone => self.channel.handle_closed(now),
            Step::Record(line) => self.channel.handle_message(now, line.bytes()).unwrap(),
        }
        self.poll(now);
    }

    fn poll(&mut self, now: Instant) {
        while let Some(outgoing) = self.channel.poll_transmit(now) {
            if let Outgoing::Record(record) = outgoing {
                self.sent.push(Message::parse(record).unwrap());
            }
        }
        while let Some(event) = self.channel.poll_event() {
            match event {
                Event::ExitStatus(status) => self.statuses.push(status),
                Event::Closed(closed) => self.closed = Some(closed),
                Event::NeedsResume => self.resumes += 1,
                Event::Ready { .. } | Event::Flag(_) => {}
            }
        }
        while let Some(bytes) = self.channel.read() {
            self.received.extend_from_slice(&bytes);
        }
        while let Some(bytes) = self.channel.read_error() {
            self.errors.extend_from_slice(&bytes);
        }
    }

    fn acknowledged(&self) -> Vec<i64> {
        let acknowledgements =
            self.sent.iter().filter(|message| message.header.message_type == MessageType::Acknowledge);
        let number = |message: &Message| {
            let payload: serde_json::Value = serde_json::from_slice(&message.payload).unwrap();
            payload["AcknowledgedMessageSequenceNumber"].as_i64().unwrap()
        };
        acknowledgements.map(number).collect()
    }

    fn numbers(&self, payload_type: PayloadType) -> BTreeSet<i64> {
        let sent = self.sent.iter().filter(|message| message.header.payload_type == payload_type);
        sent.map(|message| message.header.sequence_number).collect()
    }
}

/// The events of the recorded client, in order. Messages before its first websocket are kept for it; messages
/// while it had none later are lost.
fn steps(name: &str, events: &[(Duration, String)]) -> Vec<(Duration, Step)> {
    let mut steps: Vec<_> = events
        .iter()
        .filter_map(|(at, event)| match event {
            _ if event.starts_with("client opens its websocket") => Some((*at, Step::Opened)),
            _ if event.starts_with("client websocket gone") => Some((*at, Step::Gone)),
            _ => None,
        })
        .collect();
    if events.is_empty() {
        steps.push((Duration::ZERO, Step::Opened));
    }
    let heard = [Direction::AgentToClient, Direction::GatewayToClient];
    let lines = recording::session(name).into_iter();
    let lines =
        lines.filter(|line| heard.contains(&line.direction) && line.message_type != "agent_session_state");
    steps.extend(lines.map(|line| (line.at, Step::Record(line))));
    steps.sort_by_key(|(at, _)| *at);
    let mut happened = Vec::new();
    let (mut kept, mut open, mut opened) = (Vec::new(), false, false);
    for (at, step) in steps {
        match step {
            Step::Opened => {
                happened.push((at, Step::Opened));
                happened.extend(kept.drain(..).map(|line| (at, Step::Record(line))));
                (open, opened) = (true, true);
            }
            Step::Gone => {
                happened.push((at, Step::Gone));
                open = false;
            }
            Step::Record(line) if open => happened.push((at, Step::Record(line))),
            Step::Record(line) if !opened => kept.push(line),
            Step::Record(_) => {}
        }
    }
    happened
}

/// The payloads that a client must have delivered, by type: of all messages in order, up to the first missing
/// one.
fn delivered(heard: &[Line]) -> BTreeMap<u32, Vec<u8>> {
    let messages: BTreeMap<i64, &Line> = heard.iter().map(|line| (line.number, line)).collect();
    let mut delivered = BTreeMap::<u32, Vec<u8>>::new();
    for line in (0..).map_while(|number| messages.get(&number)) {
        delivered.entry(line.payload_type).or_default().extend_from_slice(&line.payload());
    }
    delivered
}

/// The gateway's reason for the end of the session.
fn farewell(lines: &[(Duration, Step)]) -> Option<String> {
    let payload = lines.iter().find_map(|(_, step)| match step {
        Step::Record(line) if line.message_type == "channel_closed" => Some(line.payload()),
        _ => None,
    })?;
    let payload: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    Some(payload["Output"].as_str().unwrap().to_owned())
}

fn replay(name: &str, events: &[(Duration, String)]) {
    let steps = steps(name, events);
    let output = farewell(&steps);
    let mut client = Client::new();
    let mut heard = Vec::new();
    for (at, step) in steps {
        if client.closed.is_some() {
            break;
        }
        if let Step::Record(line) = &step
            && line.message_type == "output_stream_data"
        {
            heard.push(line.clone());
        }
        client.take(at, step);
    }
    let acknowledged = client.acknowledged();
    let arrived: Vec<_> = heard.iter().map(|line| line.number).collect();
    if client.resumes == 0 {
        assert_eq!(acknowledged, arrived, "{name}: one acknowledgement for each arrival");
    } else {
        let set = |numbers: &[i64]| numbers.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(set(&acknowledged), set(&arrived), "{name}: after a resume the last ones are sent again");
    }
    let recorded = recording::session(name).into_iter();
    let recorded = recorded.filter(|line| line.direction == Direction::ClientToAgent);
    for line in recorded.filter(|line| line.message_type == "acknowledge") {
        assert!(
            acknowledged.contains(&line.number),
            "{name}: the recorded client acknowledged {}",
            line.number
        );
    }
    let mut delivered = delivered(&heard);
    assert!(client.received == delivered.remove(&1).unwrap_or_default(), "{name}: output");
    assert!(client.errors == delivered.remove(&11).unwrap_or_default(), "{name}: error output");
    let status = delivered.remove(&12).map(|text| String::from_utf8(text).unwrap());
    let told = client.statuses.iter().map(|status| format!("EXIT_CODE: {status}"));
    assert_eq!(told.reduce(|all, next| all + &next), status, "{name}: exit status");
    let asked = delivered.contains_key(&5);
    let answers = client.numbers(PayloadType::HandshakeResponse);
    assert_eq!(answers, if asked { BTreeSet::from([0]) } else { BTreeSet::new() }, "{name}: the handshake");
    assert_eq!(client.closed, output.map(|output| Closed::ByGateway { output }), "{name}: the end");
}

#[test]
fn the_client_follows_every_recorded_session() {
    let events = recording::events();
    let names = recording::names();
    assert_eq!(names.len(), 105);
    for name in names {
        replay(&name, events.get(&name).map(Vec::as_slice).unwrap_or_default());
    }
}

/// Removes a record, to show that [`delivered`] notices it.
#[test]
fn a_gap_ends_what_is_delivered() {
    let mut lines = recording::session("port-basic");
    lines.retain(|line| line.message_type == "output_stream_data");
    let whole = delivered(&lines)[&1].len();
    lines.retain(|line| line.number != 5);
    let cut = delivered(&lines)[&1].len();
    assert_eq!((whole, cut), (25 + 9 + 6 + 1024 + 5 + 1024 + 962 + 9, 25 + 9 + 6));
    assert_eq!(Bytes::from(vec![0; cut]).len(), cut);
}
