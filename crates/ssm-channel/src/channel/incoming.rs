//! Messages of the peer: acknowledgements, the handshake, and data in order.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::acknowledgements::{Acknowledgement, acknowledged_number};
use super::{Channel, Closed, Event, Phase, Side};
use crate::error::ProtocolError;
use crate::handshake::{HandshakeComplete, HandshakeRequest, HandshakeResponse, SsmAgentVersion};
use crate::message::{Flag, Header, Message, PayloadType};
use crate::recv::Arrival;

impl Channel {
    pub(super) fn begin_handshake(&mut self, now: Instant) {
        let timeout = match &self.side {
            Side::Client { .. } => CLIENT_HANDSHAKE_TIMEOUT,
            Side::Instance { .. } => INSTANCE_HANDSHAKE_TIMEOUT,
        };
        self.phase = Phase::Handshake { since: now, deadline: now + timeout };
        if let Side::Instance { agent_version, session } = &self.side {
            let request = HandshakeRequest::new(*agent_version, session).to_payload();
            self.push_bytes(now, PayloadType::HandshakeRequest, request.as_bytes());
        }
    }

    pub(super) fn handle_acknowledgement(
        &mut self,
        now: Instant,
        payload: &[u8],
    ) -> Result<(), ProtocolError> {
        let number = acknowledged_number(payload)?;
        self.end_pause(now);
        if self.send.acknowledge(now, number) {
            self.sizes.acknowledged(number);
            self.peer_takes_data |=
                self.first_data.is_some_and(|first| self.send.first_unacknowledged() > first);
            if self.must_confirm() {
                for number in self.send.confirm(now, number, self.sizes.unproven()) {
                    self.sizes.acknowledged(number);
                }
            }
        }
        if let Phase::Closing { flag: Some(flag), .. } = self.phase
            && self.send.first_unacknowledged() > flag
        {
            self.close(Closed::Terminated { acknowledged: true });
        }
        Ok(())
    }

    pub(super) fn handle_stream_message(
        &mut self,
        now: Instant,
        message: Message,
    ) -> Result<(), ProtocolError> {
        if self.acknowledgements.is_full() {
            // Nothing is lost: the peer repeats unacknowledged messages.
            return Ok(());
        }
        let Header { message_type, id, sequence_number: number, payload_type, .. } = message.header;
        let arrival = self.receive.arrive(number, payload_type, &message.payload);
        if arrival == Arrival::Refused
            || (arrival == Arrival::Next && self.refuses_data() && payload_type == PayloadType::Output)
        {
            return Ok(());
        }
        if arrival != Arrival::Duplicate || self.acknowledges_duplicates() {
            self.acknowledgements.push(Acknowledgement { message_type, id, number });
        }
        if arrival != Arrival::Next {
            return Ok(());
        }
        let mut result = self.take(now, payload_type, message.payload);
        while let Some((payload_type, payload)) = self.receive.pop_early() {
            result = result.and(self.take(now, payload_type, payload));
        }
        result
    }

    /// On the instance, like the SSM agent of its version.
    fn acknowledges_duplicates(&self) -> bool {
        match &self.side {
            Side::Client { .. } => true,
            Side::Instance { agent_version, .. } => agent_version.acknowledges_duplicates(),
        }
    }

    /// Like the SSM agent: before the end of the handshake it acknowledges data and drops it
    /// (`Channel::take`); after that, until its TCP connection is open, it refuses data.
    fn refuses_data(&self) -> bool {
        !self.accepts_data && !matches!(self.phase, Phase::Handshake { .. })
    }

    /// Handles the next message in order.
    fn take(&mut self, now: Instant, payload_type: PayloadType, payload: Bytes) -> Result<(), ProtocolError> {
        self.receive.advance();
        match (payload_type, &self.side) {
            (PayloadType::Output | PayloadType::ErrorOutput, Side::Client { .. }) => {
                if let Phase::Handshake { .. } = self.phase {
                    // A session without a handshake begins with data.
                    self.phase = Phase::Open;
                    self.announce(String::new());
                }
                self.peer_takes_data = true;
                if payload_type == PayloadType::ErrorOutput {
                    self.receive.deliver_error(payload);
                } else {
                    self.receive.deliver(payload);
                }
            }
            (PayloadType::ExitStatus, Side::Client { .. }) => {
                self.events.extend(parse_exit_status(&payload).map(Event::ExitStatus));
            }
            // The SSM agent acknowledges data that comes too early, and drops it.
            (PayloadType::Output, Side::Instance { .. }) if matches!(self.phase, Phase::Handshake { .. }) => {
            }
            (PayloadType::Output, Side::Instance { .. }) => self.receive.deliver(payload),
            (PayloadType::HandshakeRequest, Side::Client { .. }) => self.answer_handshake(now, &payload)?,
            (PayloadType::HandshakeComplete, Side::Client { .. }) => {
                self.complete_handshake(now, &payload)?
            }
            (PayloadType::HandshakeResponse, Side::Instance { .. }) => self.check_handshake(now, &payload)?,
            (PayloadType::Flag, _) => self.events.extend(Flag::parse(&payload).map(Event::Flag)),
            _ => {}
        }
        Ok(())
    }

    /// On the client. A second request is ignored: a second response would block the SSM agent.
    fn answer_handshake(&mut self, now: Instant, payload: &[u8]) -> Result<(), ProtocolError> {
        if !matches!(self.phase, Phase::Handshake { .. }) || self.session.is_some() {
            return Ok(());
        }
        let request = HandshakeRequest::parse(payload)?;
        self.agent_version = SsmAgentVersion::parse(&request.agent_version);
        self.session = request.session_type();
        let answer = request.answer().to_payload();
        self.push_bytes(now, PayloadType::HandshakeResponse, answer.as_bytes());
        Ok(())
    }

    fn complete_handshake(&mut self, now: Instant, payload: &[u8]) -> Result<(), ProtocolError> {
        if !matches!(self.phase, Phase::Handshake { .. }) {
            return Ok(());
        }
        let complete = HandshakeComplete::parse(payload);
        self.phase = Phase::Settling { until: now + SETTLING_TIME };
        let message = complete.as_ref().ok().and_then(|complete| complete.customer_message.clone());
        self.announce(message.unwrap_or_default());
        complete.map(|_| ())
    }

    /// On the instance.
    fn check_handshake(&mut self, now: Instant, payload: &[u8]) -> Result<(), ProtocolError> {
        let Phase::Handshake { since, .. } = self.phase else { return Ok(()) };
        let response = HandshakeResponse::parse(payload)?;
        if let Some(output) = response.failure() {
            self.close(Closed::HandshakeFailed { output });
            return Ok(());
        }
        let complete = HandshakeComplete::after(now.saturating_duration_since(since)).to_payload();
        self.push_bytes(now, PayloadType::HandshakeComplete, complete.as_bytes());
        self.phase = Phase::Open;
        self.announce(String::new());
        Ok(())
    }

    fn announce(&mut self, customer_message: String) {
        let (agent_version, session) = (self.agent_version, self.session.clone());
        self.events.push_back(Event::Ready { agent_version, session, customer_message });
    }
}

/// Reads `EXIT_CODE: 3`.
fn parse_exit_status(payload: &[u8]) -> Option<i32> {
    std::str::from_utf8(payload).ok()?.strip_prefix("EXIT_CODE:")?.trim().parse().ok()
}

/// The SSM agent sends HandshakeComplete before it is ready. Data that arrives in between is acknowledged and
/// dropped; on loopback that happened to 9 of 30 sessions.
const SETTLING_TIME: Duration = Duration::from_millis(10);
/// Enough for an SSM agent that joins late; the official client waits for ever.
const CLIENT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// The SSM agent's own limit.
const INSTANCE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
