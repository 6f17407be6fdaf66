//! The channel: both halves, the handshake, acknowledgements, pauses, reconnection and the end.
//!
//! It keeps three rules. Two are of the protocol: only kept messages and duplicates are acknowledged; no data
//! is sent before the handshake is complete. The third is this crate's: data that [`Channel::send`] has
//! accepted is never dropped while the channel lives. `incoming` handles the peer's messages, `outgoing`
//! makes this side's.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use self::acknowledgements::Acknowledgements;
pub use self::event::{Closed, Event, Outgoing};
use self::outgoing::PROBE;
use self::pause::Pause;
pub use self::stamp::Origin;
use self::stamp::Stamp;
use crate::error::{ProtocolError, WindowFull};
use crate::handshake::{self, ChannelClosed, SessionType, SsmAgentVersion};
use crate::message::{Draft, Flag, Message, MessageType, PayloadType};
use crate::recv::ReceiveStream;
use crate::send::SendStream;
use crate::sizing::PayloadSize;

mod acknowledgements;
mod event;
mod incoming;
mod outgoing;
mod pause;
mod stamp;

/// The end of the session that a channel is.
#[derive(Clone, Debug)]
pub enum Side {
    /// The side that started the session and presents its token.
    Client {
        /// A UUID, sent on every websocket of the session.
        client_id: String,
    },
    /// The SSM agent on the instance.
    Instance {
        /// The version in its handshake request.
        agent_version: SsmAgentVersion,
        /// The session type in its handshake request.
        session: SessionType,
    },
}

/// One session's data channel, for either side.
///
/// After every call poll [`poll_transmit`](Self::poll_transmit), then [`poll_event`](Self::poll_event), then
/// [`read`](Self::read) and [`read_error`](Self::read_error), each until `None`, and arrange to call
/// [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout).
pub struct Channel {
    side: Side,
    phase: Phase,
    stamp: Stamp,
    attached: bool,
    open: Option<String>,
    send: SendStream,
    sizes: PayloadSize,
    receive: ReceiveStream,
    acknowledgements: Acknowledgements,
    pause: Pause,
    /// When a message of the peer or `start_publication` last arrived, or a websocket was attached.
    heard_at: Option<Instant>,
    agent_version: Option<SsmAgentVersion>,
    session: Option<SessionType>,
    /// On the instance: whether its port is connected.
    accepts_data: bool,
    /// On the client: whether the peer has accepted or sent data.
    peer_takes_data: bool,
    first_data: Option<i64>,
    events: VecDeque<Event>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    /// No websocket was attached yet.
    New,
    /// The first websocket was attached at `since`.
    Handshake {
        since: Instant,
        deadline: Instant,
    },
    /// The handshake is complete, but the SSM agent may still drop data.
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

impl Channel {
    /// Makes a channel that waits for its first websocket.
    pub fn new(side: Side, origin: Origin) -> Self {
        let (agent_version, session) = match &side {
            Side::Client { .. } => (None, None),
            Side::Instance { agent_version, session } => (Some(*agent_version), Some(session.clone())),
        };
        Self {
            accepts_data: matches!(side, Side::Client { .. }),
            side,
            phase: Phase::New,
            stamp: Stamp::new(origin),
            attached: false,
            open: None,
            send: SendStream::new(),
            sizes: PayloadSize::new(),
            receive: ReceiveStream::new(),
            acknowledgements: Acknowledgements::new(),
            pause: Pause::default(),
            heard_at: None,
            agent_version,
            session,
            peer_takes_data: false,
            first_data: None,
            events: VecDeque::new(),
        }
    }

    // ---- in ----

    /// Attaches a websocket, the first one or a new one after [`Event::NeedsResume`]. The client opens it
    /// with `token`; everything unacknowledged follows, oldest first.
    pub fn attach(&mut self, now: Instant, token: &str) {
        if self.phase == Phase::Closed {
            return;
        }
        self.attached = true;
        self.end_pause(now);
        if let Side::Client { client_id } = &self.side {
            let client_id = client_id.clone();
            let request_id = self.stamp.next_id().to_string();
            self.open = Some(handshake::open_message(request_id, token, &client_id));
        }
        if self.phase == Phase::New {
            self.begin_handshake(now);
        }
        self.send.rewind(now);
        if matches!(self.side, Side::Instance { .. }) {
            // The SSM agent sends no acknowledgement again by itself: the client repeats its messages.
            return;
        }
        self.acknowledgements.rewind();
    }

    /// Handles one binary websocket message.
    ///
    /// # Errors
    /// The message is malformed and was dropped. The channel goes on.
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
                self.pause.begin(now);
                Ok(())
            }
            (MessageType::StartPublication, _) => {
                self.end_pause(now);
                Ok(())
            }
            (MessageType::AgentSessionState | MessageType::Unknown(_), _) => Ok(()),
        }
    }

    /// Handles what is due at [`poll_timeout`](Self::poll_timeout). Harmless when called early.
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
        if self.pause.is_on() {
            self.send.excuse_stall(now);
            self.sizes.excuse(now);
        }
        if let Some(probe) = self.sizes.handle_timeout(now) {
            self.withdraw_probe(now, probe);
        }
        if self.gives_up_at().is_some_and(|deadline| deadline <= now) {
            return self.close(Closed::NoProgress);
        }
        // First, since messages that are due may wait for the end of a pause.
        self.pause.handle_timeout(now);
        self.send.handle_timeout(now, self.pause.repeat_floor());
    }

    /// Handles the loss of the websocket, for any reason. A close frame does not end the session either: the
    /// service closes long-lived websockets with code 1000 about every hour.
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

    /// Requests the end of the session, after all data sent before. [`Event::Closed`] follows within a
    /// second. Without a websocket, or if the SSM agent would ignore the request, it follows at once: call
    /// TerminateSession then. Sessions other than those to ports acknowledge the request and go on, and old
    /// SSM agents do not know it.
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

    /// Makes the instance accept data, when its port is connected. Until then data is refused without an
    /// acknowledgement, as by the SSM agent before its TCP connection is open; the client sends it again.
    pub fn accept_data(&mut self) {
        self.accepts_data = true;
    }

    // ---- out ----

    /// The next event for the driver.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The next received stream bytes, in order. They are kept, counted by [`backlog`](Self::backlog), until
    /// read.
    pub fn read(&mut self) -> Option<Bytes> {
        self.receive.read()
    }

    /// The same for standard error. It also has the reason why a command cannot be started, even if its
    /// outputs are not separate; sessions to ports have none.
    pub fn read_error(&mut self) -> Option<Bytes> {
        self.receive.read_error()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout).
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
        let repeat = self.send.repeat_at(self.pause.repeat_floor());
        let deadlines = [phase, repeat, self.gives_up_at(), self.pause.deadline(), self.sizes.deadline()];
        deadlines.into_iter().flatten().min()
    }

    // ---- getters ----

    /// Bytes that [`send`](Self::send) would accept now; 0 before the handshake, during a pause and at the
    /// end. One message may exceed it by less than its own size.
    pub fn send_capacity(&self) -> usize {
        match self.phase {
            Phase::Open if !self.pause.is_on() => self.send.capacity(),
            _ => 0,
        }
    }

    /// The largest payload that a message should have. It grows when larger ones have passed.
    pub fn payload_limit(&self) -> usize {
        self.sizes.limit()
    }

    /// Bytes of records that the peer has not acknowledged.
    pub fn unacknowledged(&self) -> usize {
        self.send.unacknowledged()
    }

    /// Since when the peer has acknowledged nothing, while a message waits for its acknowledgement.
    pub fn stalled_since(&self) -> Option<Instant> {
        self.send.stalled_since()
    }

    /// Since when the peer has sent nothing, while a message waits for its acknowledgement or the gateway has
    /// paused publication. Unlike [`stalled_since`](Self::stalled_since) it goes on during a pause: the
    /// gateway pauses when the peer's websocket is lost.
    pub fn silent_since(&self) -> Option<Instant> {
        let waiting =
            self.send.waiting_since().map(|since| self.heard_at.map_or(since, |heard| heard.max(since)));
        waiting.into_iter().chain(self.pause.since()).min()
    }

    /// Bytes that wait for [`read`](Self::read) and [`read_error`](Self::read_error). A driver stops reading
    /// its websocket at a few MiB: a message without room is not acknowledged, and SSM agents repeat only ten
    /// of those a second.
    pub fn backlog(&self) -> usize {
        self.receive.backlog()
    }

    /// True after [`Event::Closed`].
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    // ---- private ----

    fn close(&mut self, reason: Closed) {
        self.phase = Phase::Closed;
        self.events.push_back(Event::Closed(reason));
    }

    fn end_pause(&mut self, now: Instant) {
        self.pause.end();
        self.heard_at = Some(now);
    }

    fn gives_up_at(&self) -> Option<Instant> {
        Some(self.send.stalled_since()? + GIVE_UP_TIMEOUT)
    }
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

/// The SSM agent acknowledges the flag within milliseconds; the rest is for the round trip.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(1);
/// If a live websocket brings no acknowledgement for this time, the SSM agent is gone.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(300);
