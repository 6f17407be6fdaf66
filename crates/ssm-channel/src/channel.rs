//! The channel: both halves, the handshake, acknowledgements, pauses, reconnection and the end.
//!
//! Three rules are kept here. Two are of the protocol: an acknowledgement is made for what is kept and for
//! duplicates, and for nothing else; no data leaves before the handshake is complete. The third is ours: what
//! [`Channel::send`] accepted is never dropped while the channel lives.
//! This file does not know where messages come from, and reads no clock.

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

    /// A websocket is there, the first one or another one after [`Event::NeedsResume`]. The client opens it
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
            // The SSM agent leaves it to the client to ask again.
            return;
        }
        self.acknowledgements.rewind();
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
        // First, since a pause holds back what may be due.
        self.pause.handle_timeout(now);
        self.send.handle_timeout(now, self.repeat_floor());
    }

    /// The websocket was lost, in whatever way. A close frame is no end of the session either: the service
    /// closes long-lived websockets with code 1000 about every hour.
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

    /// Asks the peer to end the session, after everything that was sent before. Ends in [`Event::Closed`]
    /// within a second. Without a websocket, or when the SSM agent would not obey, at once: use the API.
    /// Sessions other than those to ports acknowledge the request and go on, and old SSM agents do not know
    /// it.
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

    /// The instance has somebody to give data to. Until then data is refused without an acknowledgement, as
    /// the SSM agent does before its TCP connection stands; the client sends it again.
    pub fn accept_data(&mut self) {
        self.accepts_data = true;
    }

    // ---- out ----

    /// The next thing that the driver should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Stream bytes, in order, as they came. They stay here, counted by [`backlog`](Self::backlog), until
    /// read.
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
        let deadlines = [phase, repeat, self.gives_up_at(), self.pause.deadline(), self.sizes.deadline()];
        deadlines.into_iter().flatten().min()
    }

    // ---- getters ----

    /// Bytes that [`send`](Self::send) would take now; 0 before the handshake, during a pause and at the end.
    /// One message may go over by less than its own size.
    pub fn send_capacity(&self) -> usize {
        match self.phase {
            Phase::Open if !self.pause.is_on() => self.send.capacity(),
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
        waiting.into_iter().chain(self.pause.since()).min()
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

    fn repeat_floor(&self) -> Duration {
        if self.pause.is_on() { PAUSED_REPEAT } else { Duration::ZERO }
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

/// The SSM agent answers the flag within milliseconds; the rest is the way.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(1);
/// A websocket that is up but brings no acknowledgement for so long has nobody behind it.
const GIVE_UP_TIMEOUT: Duration = Duration::from_secs(300);
/// How slowly the head is repeated while the gateway holds publication back.
const PAUSED_REPEAT: Duration = Duration::from_secs(1);
