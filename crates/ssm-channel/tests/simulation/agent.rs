//! A model of AWS's SSM agent in a session to a port, from measurements (`docs/protocol.md`).
//!
//! It has no send window and repeats only its oldest unacknowledged message, at ticks of 100 ms. It
//! acknowledges and drops data that comes before its own flag says that the handshake is over, and refuses
//! data without an acknowledgement until its TCP connection is open. It sends at most a kilobyte and then
//! sleeps for a millisecond. It shares only the reading and writing of messages with the channel.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use ssm_channel::{Header, Message, MessageId, MessageType, PayloadType, SsmAgentVersion};

use crate::plan::{Plan, Traffic};
use crate::random::tape;

pub(crate) struct Agent {
    version: SsmAgentVersion,
    handshake: Handshake,
    believes_after: Duration,
    dials_for: Duration,
    expected: i64,
    early: BTreeMap<i64, (PayloadType, Bytes)>,
    /// Unacknowledged messages, sent or not.
    kept: VecDeque<(i64, Bytes, Option<Instant>)>,
    next_number: i64,
    acknowledgements: VecDeque<Bytes>,
    paused: bool,
    attached: bool,
    traffic: Traffic,
    payload: usize,
    sent: usize,
    next_read: Option<Instant>,
    next_tick: Instant,
    repeat: bool,
    /// Data in order, for the server on the port.
    delivered: Vec<Bytes>,
    pub(crate) terminated: bool,
    ids: u8,
    repeat_after: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Handshake {
    Asked,
    /// HandshakeComplete is sent; the agent's own flag is set at this time.
    Complete(Instant),
    /// The port is connected at this time.
    Dialling(Instant),
    Connected,
}

impl Agent {
    pub(crate) fn new(plan: &Plan, now: Instant) -> Self {
        Self {
            version: SsmAgentVersion::parse(plan.agent_version).unwrap(),
            handshake: Handshake::Asked,
            believes_after: plan.believes_after,
            dials_for: plan.dials_for,
            expected: 0,
            early: BTreeMap::new(),
            kept: VecDeque::new(),
            next_number: 0,
            acknowledgements: VecDeque::new(),
            paused: false,
            attached: false,
            traffic: plan.down,
            payload: if plan.door == usize::MAX { plan.down.piece } else { REAL_PAYLOAD },
            sent: 0,
            next_read: None,
            next_tick: now + TICK,
            repeat: false,
            delivered: Vec::new(),
            terminated: false,
            ids: 0,
            repeat_after: 2 * plan.delay + Duration::from_millis(200),
        }
    }

    pub(crate) fn attach(&mut self) {
        self.attached = true;
        self.paused = false;
        if self.next_number == 0 {
            let request = json!({
                "AgentVersion": self.version.to_string(),
                "RequestedClientActions": [{
                    "ActionType": "SessionType",
                    "ActionParameters": { "SessionType": "Port", "Properties": { "portNumber": "22" } },
                }],
            });
            self.keep(PayloadType::HandshakeRequest, request.to_string().as_bytes());
        }
    }

    pub(crate) fn handle_closed(&mut self) {
        self.attached = false;
        // Records written to the old websocket are lost.
        self.acknowledgements.clear();
    }

    /// Whether everything that was sent is acknowledged.
    pub(crate) fn is_drained(&self) -> bool {
        self.sent == self.traffic.bytes && self.kept.is_empty()
    }

    pub(crate) fn read(&mut self) -> Vec<Bytes> {
        std::mem::take(&mut self.delivered)
    }

    pub(crate) fn handle_message(&mut self, now: Instant, record: Bytes) -> Result<(), String> {
        let Ok(message) = Message::parse(record) else { return Ok(()) };
        match message.header.message_type {
            MessageType::Acknowledge => {
                self.paused = false;
                let payload: Value = serde_json::from_slice(&message.payload).unwrap();
                let number = payload["AcknowledgedMessageSequenceNumber"].as_i64().unwrap();
                self.kept.retain(|(kept, ..)| *kept != number);
                Ok(())
            }
            MessageType::InputStreamData => {
                self.paused = false;
                self.handle_data(now, message)
            }
            MessageType::PausePublication => {
                self.paused = true;
                Ok(())
            }
            MessageType::StartPublication => {
                self.paused = false;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn handle_data(&mut self, now: Instant, message: Message) -> Result<(), String> {
        let number = message.header.sequence_number;
        if number < self.expected {
            if self.version.acknowledges_duplicates() {
                self.acknowledge(&message);
            }
            return Ok(());
        }
        if number > self.expected {
            if self.early.len() < EARLY_LIMIT {
                self.acknowledge(&message);
                self.early.insert(number, (message.header.payload_type, message.payload));
            }
            return Ok(());
        }
        if self.take(now, message.header.payload_type, &message.payload)? {
            self.acknowledge(&message);
            self.expected += 1;
            while let Some((payload_type, payload)) = self.early.remove(&self.expected) {
                if !self.take(now, payload_type, &payload)? {
                    // The real agent drops it here, acknowledged, and then waits for it for ever. Only a
                    // client that sends more before its first data is acknowledged could cause that, and not
                    // here: the message before this one was accepted.
                    return Err(format!("message {} was acknowledged and then refused", self.expected));
                }
                self.expected += 1;
            }
        }
        Ok(())
    }

    /// Whether the next message in order is accepted.
    fn take(&mut self, now: Instant, payload_type: PayloadType, payload: &Bytes) -> Result<bool, String> {
        match (payload_type, self.handshake) {
            (PayloadType::HandshakeResponse, Handshake::Asked) => {
                self.handshake = Handshake::Complete(now + self.believes_after);
                let complete = json!({ "HandshakeTimeToComplete": 1_000_000, "CustomerMessage": "" });
                self.keep(PayloadType::HandshakeComplete, complete.to_string().as_bytes());
            }
            (PayloadType::HandshakeResponse, _) => {
                return Err("a second answer to the handshake blocks the SSM agent for ever".to_owned());
            }
            (PayloadType::Output, Handshake::Asked | Handshake::Complete(_)) => {
                // Acknowledged and dropped: the check of the bytes will fail.
            }
            (PayloadType::Output, Handshake::Dialling(_)) => return Ok(false),
            (PayloadType::Output, Handshake::Connected) => self.delivered.push(payload.clone()),
            (PayloadType::Flag, _) => self.terminated |= payload[..] == [0, 0, 0, 2],
            _ => {}
        }
        Ok(true)
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.handshake {
            Handshake::Complete(until) if until <= now => {
                self.handshake = Handshake::Dialling(now + self.dials_for);
            }
            Handshake::Dialling(until) if until <= now => {
                self.handshake = Handshake::Connected;
                self.next_read = Some(now);
            }
            _ => {}
        }
        if self.next_read.is_some_and(|at| at <= now) {
            self.read_port(now);
        }
        if self.next_tick <= now {
            self.next_tick = now + TICK;
            let oldest = self.kept.front().and_then(|(_, _, sent_at)| *sent_at);
            self.repeat = oldest.is_some_and(|sent_at| sent_at + self.repeat_after <= now);
        }
    }

    fn read_port(&mut self, now: Instant) {
        let rest = self.traffic.bytes - self.sent;
        if rest == 0 {
            self.next_read = None;
            return;
        }
        // During a pause it does not read, and checks again later.
        self.next_read = Some(now + self.traffic.gap.max(PUMP_SLEEP));
        if self.paused {
            return;
        }
        let bytes = tape(self.sent, self.payload.min(self.traffic.piece).min(rest));
        self.sent += bytes.len();
        self.keep(PayloadType::Output, bytes);
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let handshake = match self.handshake {
            Handshake::Complete(until) | Handshake::Dialling(until) => Some(until),
            _ => None,
        };
        let tick = (!self.kept.is_empty()).then_some(self.next_tick);
        [handshake, self.next_read, tick].into_iter().flatten().min()
    }

    pub(crate) fn poll_transmit(&mut self, now: Instant) -> Option<Bytes> {
        if !self.attached {
            return None;
        }
        if let Some(acknowledgement) = self.acknowledgements.pop_front() {
            return Some(acknowledgement);
        }
        if std::mem::take(&mut self.repeat)
            && let Some((_, record, sent_at)) = self.kept.front_mut()
        {
            *sent_at = Some(now);
            return Some(record.clone());
        }
        if self.paused {
            return None;
        }
        let (_, record, sent_at) = self.kept.iter_mut().find(|(_, _, sent_at)| sent_at.is_none())?;
        *sent_at = Some(now);
        Some(record.clone())
    }

    fn keep(&mut self, payload_type: PayloadType, payload: &[u8]) {
        let header = self.header(MessageType::OutputStreamData, self.next_number, payload_type);
        let message = Message { header, payload: Bytes::copy_from_slice(payload) };
        self.kept.push_back((self.next_number, message.encode(), None));
        self.next_number += 1;
    }

    fn acknowledge(&mut self, message: &Message) {
        let payload = json!({
            "AcknowledgedMessageType": message.header.message_type.name(),
            "AcknowledgedMessageId": message.header.id.to_string(),
            "AcknowledgedMessageSequenceNumber": message.header.sequence_number,
            "IsSequentialMessage": true,
        });
        let header = self.header(MessageType::Acknowledge, 0, PayloadType::None);
        let message = Message { header, payload: payload.to_string().into() };
        self.acknowledgements.push_back(message.encode());
    }

    fn header(
        &mut self,
        message_type: MessageType,
        sequence_number: i64,
        payload_type: PayloadType,
    ) -> Header {
        self.ids = self.ids.wrapping_add(1);
        Header {
            message_type,
            created_at: 1_700_000_000_000,
            sequence_number,
            flags: if message_type == MessageType::Acknowledge { 3 } else { 0 },
            id: MessageId::from_bytes([self.ids; 16]),
            payload_type,
        }
    }
}

const TICK: Duration = Duration::from_millis(100);
const PUMP_SLEEP: Duration = Duration::from_millis(1);
const REAL_PAYLOAD: usize = 1024;
const EARLY_LIMIT: usize = 100_000;
