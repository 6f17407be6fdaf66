//! The channel: both halves, the handshake, acknowledgements, pauses, reconnection and the end.
//!
//! Three rules are kept here. Two are of the protocol: an acknowledgement is made for what is kept and for
//! duplicates, and for nothing else; no data leaves before the handshake is complete. The third is ours: what
//! [`Channel::send`] accepted is never dropped while the channel lives.
//! This file does not know where messages come from, and reads no clock.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde::Deserialize;

use crate::error::{ProtocolError, WindowFull};
use crate::handshake::{self, ChannelClosed, HandshakeComplete, HandshakeRequest, HandshakeResponse};
use crate::handshake::{SessionType, SsmAgentVersion};
use crate::message::{Draft, Flag, Header, Message, MessageId, MessageType, PayloadType, SYN, SYN_FIN};
use crate::recv::{Arrival, ReceiveStream};
use crate::send::{Permit, SendStream};
use crate::sizing::PayloadSize;

/// Which end of the session a channel is.
#[derive(Clone, Debug)]
pub enum Side {
    /// The one that opened the session and presents its token.
    Client {
        /// A UUID, the same on every websocket of the session.
        client_id: String,
    },
    /// The SSM agent on the instance.
    Instance {
        /// The version that it claims.
        agent_version: SsmAgentVersion,
        /// What it tells the client the session is.
        session: SessionType,
    },
}

/// What a channel cannot find out by itself.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Any value; two channels with the same seed make the same message ids.
    pub seed: u64,
    /// The time since the Unix epoch at `now`.
    pub unix_time: Duration,
    /// The clock of all later calls, at `unix_time`.
    pub now: Instant,
}

/// Something for the websocket.
#[derive(Clone, Eq, PartialEq)]
pub enum Outgoing {
    /// The opening text message. It holds the token, and `Debug` does not show it.
    Open(String),
    /// One binary message, for one unfragmented frame.
    Record(Bytes),
}

impl std::fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Open(_) => f.write_str("Open(..)"),
            Self::Record(record) => f.debug_tuple("Record").field(record).finish(),
        }
    }
}

/// Something that the driver should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Data may flow.
    Ready {
        /// Unknown when the session has no handshake.
        agent_version: Option<SsmAgentVersion>,
        /// Unknown when the session has no handshake.
        session: Option<SessionType>,
        /// A text of the account's administrator for the user; often empty.
        customer_message: String,
    },
    /// The websocket was lost. Get another one and call [`Channel::attach`].
    NeedsResume,
    /// The peer set a flag.
    Flag(Flag),
    /// A command with separate outputs has ended. SSM agents say 0 also when they stopped it or lost its
    /// output, and -1 when a signal killed it.
    ExitStatus(i32),
    /// The session is over; what was received can still be read.
    Closed(Closed),
}

/// Why a channel ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Closed {
    /// The gateway closed the session. The text says why, and is often empty.
    ByGateway {
        /// The SSM agent's or the service's words.
        output: String,
    },
    /// This side asked for the end, and the peer has the request or no time was left.
    Terminated {
        /// Whether the peer is known to have the request.
        acknowledged: bool,
    },
    /// The handshake did not finish in time.
    HandshakeTimeout,
    /// The client refused what the SSM agent asked for.
    HandshakeFailed {
        /// The client's words.
        output: String,
    },
    /// The websocket was up, but nothing was acknowledged for minutes.
    NoProgress,
}

/// One session's data channel, for either side.
///
/// After every call poll [`poll_transmit`](Self::poll_transmit), then [`poll_event`](Self::poll_event), then
/// [`read`](Self::read) and [`read_error`](Self::read_error), each until `None`, and arrange to call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout).
pub struct Channel {
    side: Side,
    phase: Phase,
    origin: Origin,
    ids: u64,
    attached: bool,
    open: Option<String>,
    send: SendStream,
    sizes: PayloadSize,
    receive: ReceiveStream,
    /// Acknowledgements to send, oldest first.
    acknowledgements: VecDeque<Acknowledgement>,
    /// The last ones sent, to send again on a new websocket: the old one may have swallowed them, and the SSM agent
    /// would otherwise repeat each message, ten a second.
    recent: VecDeque<Acknowledgement>,
    acknowledgement_draft: Draft,
    /// Set while the gateway holds publication back; the instant is when one more message may probe.
    paused_until: Option<Instant>,
    /// When a pause began after which the peer itself has said nothing.
    paused_since: Option<Instant>,
    /// When the peer last said something, or the gateway said that the peer is there.
    heard_at: Option<Instant>,
    agent_version: Option<SsmAgentVersion>,
    session: Option<SessionType>,
    /// The instance: whether there is somebody to give data to.
    accepts_data: bool,
    /// The client: whether the peer has shown that it takes data.
    peer_takes_data: bool,
    first_data: Option<i64>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// Nothing was attached yet.
    New,
    /// Attached for the first time at `since`.
    Handshake {
        since: Instant,
        deadline: Instant,
    },
    /// Complete, but the SSM agent may not have noticed yet.
    Settling {
        until: Instant,
    },
    Open,
    Closing {
        flag: Option<i64>,
        deadline: Instant,
    },
    Closed,
}

#[derive(Clone, Copy)]
struct Acknowledgement {
    message_type: MessageType,
    id: MessageId,
    number: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AcknowledgePayload {
    acknowledged_message_sequence_number: i64,
}

impl Channel {
    /// A channel that waits for its first websocket.
    pub fn new(side: Side, origin: Origin) -> Self {
        let (agent_version, session) = match &side {
            Side::Client { .. } => (None, None),
            Side::Instance { agent_version, session } => (Some(*agent_version), Some(session.clone())),
        };
        Self {
            accepts_data: matches!(side, Side::Client { .. }),
            side,
            phase: Phase::New,
            ids: origin.seed,
            origin,
            attached: false,
            open: None,
            send: SendStream::new(),
            sizes: PayloadSize::new(),
            receive: ReceiveStream::new(),
            acknowledgements: VecDeque::new(),
            recent: VecDeque::new(),
            acknowledgement_draft: Draft::with_capacity(16 * 1024),
            paused_until: None,
            paused_since: None,
            heard_at: None,
            agent_version,
            session,
            peer_takes_data: false,
            first_data: None,
            events: VecDeque::new(),
        }
    }

    // ---- in ----

    /// A websocket is there, the first one or another one after [`Event::NeedsResume`]. The client opens it with
    /// `token`; everything unacknowledged follows, oldest first.
    pub fn attach(&mut self, now: Instant, token: &str) {
        if self.phase == Phase::Closed {
            return;
        }
        self.attached = true;
        self.end_pause(now);
        if let Side::Client { client_id } = &self.side {
            let client_id = client_id.clone();
            let request_id = self.next_id().to_string();
            self.open = Some(handshake::open_message(request_id, token, &client_id));
        }
        if self.phase == Phase::New {
            self.begin_handshake(now);
        }
        self.send.rewind(now);
        if matches!(self.side, Side::Instance { .. }) {
            // The SSM agent leaves it to the client to ask again.
            return;
        }
        let waiting = std::mem::take(&mut self.acknowledgements);
        self.acknowledgements = std::mem::take(&mut self.recent);
        self.acknowledgements.extend(waiting);
    }

    /// One binary websocket message arrived.
    ///
    /// # Errors
    /// The message was dropped, for the reason given. The channel goes on.
    pub fn handle_message(&mut self, now: Instant, record: Bytes) -> Result<(), ProtocolError> {
        if self.phase == Phase::Closed {
            return Ok(());
        }
        let message = Message::parse(record)?;
        match (message.header.message_type, &self.side) {
            (MessageType::Acknowledge, _) => self.handle_acknowledgement(now, &message.payload),
            (MessageType::OutputStreamData, Side::Client { .. })
            | (MessageType::InputStreamData, Side::Instance { .. }) => {
                self.end_pause(now);
                self.handle_stream_message(now, message)
            }
            (wrong @ (MessageType::OutputStreamData | MessageType::InputStreamData), _) => {
                Err(ProtocolError::WrongDirection(wrong.name()))
            }
            (MessageType::ChannelClosed, _) => {
                let output = ChannelClosed::parse(&message.payload).output.unwrap_or_default();
                self.close(Closed::ByGateway { output });
                Ok(())
            }
            (MessageType::PausePublication, _) => {
                self.paused_until = Some(now + PAUSE_PROBE);
                self.paused_since.get_or_insert(now);
                Ok(())
            }
            (MessageType::StartPublication, _) => {
                self.end_pause(now);
                Ok(())
            }
            (MessageType::AgentSessionState | MessageType::Unknown(_), _) => Ok(()),
        }
    }

    /// The time of [`poll_timeout`](Self::poll_timeout) has come. Harmless when called early.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Handshake { deadline, .. } if deadline <= now => {
                return self.close(Closed::HandshakeTimeout);
            }
            Phase::Settling { until } if until <= now => self.phase = Phase::Open,
            Phase::Closing { deadline, .. } if deadline <= now => {
                return self.close(Closed::Terminated { acknowledged: false });
            }
            _ => {}
        }
        if !self.attached {
            return;
        }
        if self.paused_until.is_some() {
            self.send.excuse_stall(now);
            self.sizes.excuse(now);
        }
        if let Some(probe) = self.sizes.handle_timeout(now) {
            self.withdraw_probe(now, probe);
        }
        if self.gives_up_at().is_some_and(|deadline| deadline <= now) {
            return self.close(Closed::NoProgress);
        }
        // First, since a pause holds back what may be due.
        self.paused_until = self.paused_until.filter(|until| *until > now);
        self.send.handle_timeout(now, self.repeat_floor());
    }

    /// The websocket was lost, in whatever way. A close frame is no end of the session either: the service closes
    /// long-lived websockets with code 1000 about every hour.
    pub fn handle_closed(&mut self, now: Instant) {
        if !std::mem::take(&mut self.attached) {
            return;
        }
        self.open = None;
        if let Some(probe) = self.sizes.closed() {
            self.withdraw_probe(now, probe);
        }
        match self.phase {
            Phase::Closed => {}
            Phase::Closing { .. } => self.close(Closed::Terminated { acknowledged: false }),
            _ => self.events.push_back(Event::NeedsResume),
        }
    }

    // ---- commands ----

    /// Accepts the payload of `draft` as one message of stream bytes and leaves the draft empty.
    ///
    /// # Errors
    /// [`WindowFull`] when [`send_capacity`](Self::send_capacity) is 0; the draft is untouched.
    pub fn send(&mut self, now: Instant, draft: &mut Draft) -> Result<(), WindowFull> {
        if draft.payload_length() == 0 {
            return Ok(());
        }
        if self.send_capacity() == 0 {
            return Err(WindowFull);
        }
        let length = draft.payload_length();
        let number = self.push(now, PayloadType::Output, draft);
        self.first_data.get_or_insert(number);
        if let Some(size) = self.sizes.sent(length)
            && self.probes_sizes()
        {
            let number = self.push_bytes(now, PROBE, &vec![0; size]);
            self.sizes.probing(number, size);
        }
        Ok(())
    }

    /// Asks the peer to end the session, after everything that was sent before. Ends in [`Event::Closed`] within
    /// a second. Without a websocket, or when the SSM agent would not obey, at once: use the API. Sessions
    /// other than those to ports acknowledge the request and go on, and old SSM agents do not know it.
    pub fn terminate(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Closed) {
            return;
        }
        let takes_flag = self.agent_version.is_some_and(SsmAgentVersion::takes_terminate_flag);
        let obeys = takes_flag && self.session.as_ref().is_some_and(SessionType::is_port);
        if !self.attached || !obeys || matches!(self.side, Side::Instance { .. }) {
            return self.close(Closed::Terminated { acknowledged: false });
        }
        let flag = Some(self.push_bytes(now, PayloadType::Flag, &Flag::TerminateSession.to_payload()));
        self.phase = Phase::Closing { flag, deadline: now + TERMINATE_TIMEOUT };
    }

    /// The instance has somebody to give data to. Until then data is refused without an acknowledgement, as the
    /// SSM agent does before its TCP connection stands; the client sends it again.
    pub fn accept_data(&mut self) {
        self.accepts_data = true;
    }

    // ---- out ----

    /// The next thing for the websocket. Acknowledgements come before data.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Outgoing> {
        if !self.attached {
            return None;
        }
        if let Some(open) = self.open.take() {
            return Some(Outgoing::Open(open));
        }
        if let Some(acknowledgement) = self.acknowledgements.pop_front() {
            if self.recent.len() == RECENT_ACKNOWLEDGEMENTS {
                self.recent.pop_front();
            }
            self.recent.push_back(acknowledgement);
            return Some(Outgoing::Record(self.write_acknowledgement(now, acknowledgement)));
        }
        if self.phase == Phase::Closed {
            return None;
        }
        let permit = if self.paused_until.is_some() { Permit::OnlyHead } else { Permit::All };
        if permit == Permit::All && self.send.lacks_confirmation() && self.must_confirm() {
            self.push_bytes(now, PROBE, &[0]);
        }
        let record = self.send.poll_transmit(now, permit);
        if let Some(number) = self.sizes.unsent()
            && let Some(sent_at) = self.send.first_sent_at(number)
        {
            self.sizes.probe_sent(sent_at);
        }
        record.map(Outgoing::Record)
    }

    /// The next thing that the driver should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Stream bytes, in order, as they came. They stay here, counted by [`backlog`](Self::backlog), until read.
    pub fn read(&mut self) -> Option<Bytes> {
        self.receive.read()
    }

    /// The same for bytes of standard error. A command that cannot be started says why here, also where its
    /// outputs are not separate; sessions to ports have none.
    pub fn read_error(&mut self) -> Option<Bytes> {
        self.receive.read_error()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::Closed => return None,
            Phase::Handshake { deadline, .. } | Phase::Closing { deadline, .. } => Some(deadline),
            Phase::Settling { until } => Some(until),
            Phase::New | Phase::Open => None,
        };
        if !self.attached {
            return phase;
        }
        let repeat = self.send.repeat_at(self.repeat_floor());
        let deadlines = [phase, repeat, self.gives_up_at(), self.paused_until, self.sizes.deadline()];
        deadlines.into_iter().flatten().min()
    }

    // ---- getters ----

    /// Bytes that [`send`](Self::send) would take now; 0 before the handshake, during a pause and at the end. One
    /// message may go over by less than its own size.
    pub fn send_capacity(&self) -> usize {
        match self.phase {
            Phase::Open if self.paused_until.is_none() => self.send.capacity(),
            _ => 0,
        }
    }

    /// The size of payload that a message should not exceed. It grows while larger ones are seen to pass.
    pub fn payload_limit(&self) -> usize {
        self.sizes.limit()
    }

    /// Bytes of records that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.send.unacknowledged()
    }

    /// Since when the peer acknowledges nothing, while something waits for it.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.send.stalled_since()
    }

    /// Since when the peer has said nothing, although something waits to be acknowledged, or the gateway
    /// holds publication back. Unlike for [`stalled_since`](Self::stalled_since) a pause is no excuse: the
    /// gateway makes one when the peer's websocket is gone.
    pub fn silent_since(&self) -> Option<Instant> {
        let waiting =
            self.send.waiting_since().map(|since| self.heard_at.map_or(since, |heard| heard.max(since)));
        waiting.into_iter().chain(self.paused_since).min()
    }

    /// Bytes that wait in [`read`](Self::read) and [`read_error`](Self::read_error). A driver stops reading
    /// its websocket at a few MiB: a message that finds no room is not acknowledged, and SSM agents repeat
    /// only ten of those a second.
    pub fn backlog(&self) -> usize {
        self.receive.backlog()
    }

    /// True after [`Event::Closed`].
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    // ---- private ----

    fn begin_handshake(&mut self, now: Instant) {
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

    fn handle_acknowledgement(&mut self, now: Instant, payload: &[u8]) -> Result<(), ProtocolError> {
        let acknowledged: AcknowledgePayload = serde_json::from_slice(payload)
            .map_err(|source| ProtocolError::Payload { what: "acknowledgement", source })?;
        let number = acknowledged.acknowledged_message_sequence_number;
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

    fn handle_stream_message(&mut self, now: Instant, message: Message) -> Result<(), ProtocolError> {
        if self.acknowledgements.len() >= ACKNOWLEDGEMENT_LIMIT {
            // The peer floods and does not read. Nothing is lost: what is not acknowledged comes again.
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
            self.acknowledgements.push_back(Acknowledgement { message_type, id, number });
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

    /// The instance's side imitates the SSM agents that do not.
    fn acknowledges_duplicates(&self) -> bool {
        match &self.side {
            Side::Client { .. } => true,
            Side::Instance { agent_version, .. } => agent_version.acknowledges_duplicates(),
        }
    }

    /// Before the handshake is over the SSM agent takes data, and throws it away (`Channel::take`); between that
    /// and its TCP connection it refuses it.
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
            // The SSM agent acknowledges data that comes too early, and throws it away.
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

    /// The client's part. A second request would be a fault of the SSM agent, and a second answer blocks it.
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

    /// The instance's part.
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

    fn close(&mut self, reason: Closed) {
        self.phase = Phase::Closed;
        self.events.push_back(Event::Closed(reason));
    }

    fn end_pause(&mut self, now: Instant) {
        self.paused_until = None;
        self.paused_since = None;
        self.heard_at = Some(now);
    }

    fn gives_up_at(&self) -> Option<Instant> {
        Some(self.send.stalled_since()? + GIVE_UP_TIMEOUT)
    }

    fn repeat_floor(&self) -> Duration {
        if self.paused_until.is_some() { PAUSED_REPEAT } else { Duration::ZERO }
    }

    /// The instance's side imitates the SSM agent, which makes no probes; and before the SSM agent has taken any
    /// data, silence says nothing about sizes.
    fn probes_sizes(&self) -> bool {
        self.peer_takes_data && matches!(self.side, Side::Client { .. })
    }

    /// Whether repeats are answered at all. Before the SSM agent takes data it acknowledges what comes later, and that
    /// tells nothing about data that it refuses.
    fn must_confirm(&self) -> bool {
        let forgets = self.agent_version.is_some_and(|version| !version.acknowledges_duplicates());
        forgets && self.peer_takes_data && matches!(self.side, Side::Client { .. })
    }

    /// Sends a probe's number again with a payload that surely passes.
    fn withdraw_probe(&mut self, now: Instant, number: i64) {
        let mut draft = Draft::with_capacity(1);
        draft.push(&[0]);
        let header = self.header(now, number, PROBE);
        self.send.replace(number, draft.seal(&header));
    }

    fn push_bytes(&mut self, now: Instant, payload_type: PayloadType, payload: &[u8]) -> i64 {
        let mut draft = Draft::with_capacity(payload.len());
        draft.push(payload);
        self.push(now, payload_type, &mut draft)
    }

    /// Gives the message its number and keeps it, in one step.
    fn push(&mut self, now: Instant, payload_type: PayloadType, draft: &mut Draft) -> i64 {
        let number = self.send.next_sequence_number();
        let header = self.header(now, number, payload_type);
        self.send.push(now, draft.seal(&header));
        number
    }

    fn header(&mut self, now: Instant, number: i64, payload_type: PayloadType) -> Header {
        let (message_type, flags) = match self.side {
            Side::Client { .. } => (MessageType::InputStreamData, 0),
            Side::Instance { .. } => (MessageType::OutputStreamData, if number == 0 { SYN } else { 0 }),
        };
        Header {
            message_type,
            created_at: self.unix_millis(now),
            sequence_number: number,
            flags,
            id: self.next_id(),
            payload_type,
        }
    }

    fn write_acknowledgement(&mut self, now: Instant, acknowledgement: Acknowledgement) -> Bytes {
        let Acknowledgement { message_type, id, number } = acknowledgement;
        let header = Header {
            message_type: MessageType::Acknowledge,
            created_at: self.unix_millis(now),
            sequence_number: 0,
            flags: SYN_FIN,
            id: self.next_id(),
            payload_type: PayloadType::None,
        };
        let draft = &mut self.acknowledgement_draft;
        draft.push(br#"{"AcknowledgedMessageType":""#);
        draft.push(message_type.name().as_bytes());
        draft.push(br#"","AcknowledgedMessageId":""#);
        draft.push(&id.hyphenated());
        draft.push(br#"","AcknowledgedMessageSequenceNumber":"#);
        draft.push(number.to_string().as_bytes());
        draft.push(br#","IsSequentialMessage":true}"#);
        draft.seal(&header)
    }

    fn unix_millis(&self, now: Instant) -> u64 {
        let time = self.origin.unix_time + now.saturating_duration_since(self.origin.now);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A version 4 UUID from SplitMix64: unique within a session is all that is asked of it.
    fn next_id(&mut self) -> MessageId {
        let (high, low) = (u128::from(self.next_random()), u128::from(self.next_random()));
        let random = (high << 64) | low;
        let uuid = random & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        MessageId::from_bytes(uuid.to_be_bytes())
    }

    fn next_random(&mut self) -> u64 {
        self.ids = self.ids.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.ids;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Reads `EXIT_CODE: 3`.
fn parse_exit_status(payload: &[u8]) -> Option<i32> {
    std::str::from_utf8(payload).ok()?.strip_prefix("EXIT_CODE:")?.trim().parse().ok()
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel")
            .field("phase", &self.phase)
            .field("attached", &self.attached)
            .field("unacknowledged", &self.unacknowledged())
            .field("backlog", &self.backlog())
            .finish_non_exhaustive()
    }
}

/// A number that is defined and unused ("Parameter"). The SSM agent's port session acknowledges it and does nothing
/// (`agent/session/plugins/port/port_basic.go`, `HandleStreamMessage`).
const PROBE: PayloadType = PayloadType::Other(4);
/// The SSM agent marks its handshake complete after it has said so. Data that arrives in between is acknowledged
/// and thrown away; on loopback that struck 9 of 30 sessions.
const SETTLING_TIME: Duration = Duration::from_millis(10);
/// Long enough for an instance that is slow to attach; the official client waits for ever.
const CLIENT_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// The SSM agent's own limit.
const INSTANCE_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The SSM agent answers the flag within milliseconds; the rest is the way.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(1);
/// A websocket that is up but brings no acknowledgement for so long has nobody behind it.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(300);
/// How slowly the head is repeated while the gateway holds publication back.
const PAUSED_REPEAT: Duration = Duration::from_secs(1);
/// A pause that nobody ends is ended after this: the official client ignores pauses altogether.
const PAUSE_PROBE: Duration = Duration::from_secs(5);
/// More than an SSM agent has under way at 1 MB/s and 300 ms; 75 KB on the wire.
const RECENT_ACKNOWLEDGEMENTS: usize = 256;
/// 2.6 MB of acknowledgements that the websocket does not take: the peer does not read.
const ACKNOWLEDGEMENT_LIMIT: usize = 64 * 1024;
