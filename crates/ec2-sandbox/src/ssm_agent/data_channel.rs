//! The SSM agent's side of a data channel: which messages it acknowledges, drops, refuses and repeats.
//!
//! It follows AWS's agent, release 3.3.1142.0 (`agent/session/datachannel/datachannel.go` and the session
//! plugins), and checked against recorded sessions of it. It shares nothing with the client's channel but the
//! reading and writing of single messages, so that the two cannot agree on a mistake. No I/O, and no clock.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use bytes::Bytes;
use ssm_channel::{
    Header, Message, MessageError, MessageId, MessageType, Origin, PayloadType, SessionType, SsmAgentVersion,
};

use super::{handshake, send_list::SendList};

mod incoming;

pub(super) struct DataChannel {
    origin: Origin,
    ids: u64,
    version: SsmAgentVersion,
    session: SessionType,
    handshake: Handshake,
    /// The session accepts input: its port is connected, or its command runs.
    connected: bool,
    expected: i64,
    /// Messages that came early. They are acknowledged already.
    early: BTreeMap<i64, (PayloadType, Bytes)>,
    reader: Reader,
    /// Set from `pause_publication` to `start_publication`: nothing is sent.
    paused: bool,
    /// The worker process has crashed.
    crashed: bool,
    send: SendList,
    next_tick: Instant,
    /// Records that the websocket has not accepted yet.
    outgoing: VecDeque<Bytes>,
    outgoing_bytes: usize,
    events: VecDeque<Event>,
}

/// An event for [`SsmAgent`](super::SsmAgent).
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Event {
    /// The handshake is over. Time to connect, or to start the command.
    Ready,
    /// The client did not answer, or refused.
    HandshakeFailed(String),
    /// The client set a flag, with this number.
    Flag(u32),
}

enum Handshake {
    New,
    /// The request has been sent.
    Asked {
        since: Instant,
    },
    /// HandshakeComplete has been sent. Another thread sets the flag for it a moment later; data that is read
    /// in between is acknowledged and dropped.
    Completing {
        until: Instant,
    },
    Complete,
    Failed,
}

/// The thread that reads the websocket. It also writes to the port, so it can block.
enum Reader {
    Reading,
    /// It waits until `input` is written; then it acknowledges it, unless it has already.
    Writing {
        input: Bytes,
        acknowledgement: Option<Acknowledgement>,
    },
    /// It never reads again.
    Stuck,
}

#[derive(Clone, Copy)]
struct Acknowledgement {
    id: MessageId,
    number: i64,
}

impl DataChannel {
    pub(super) fn new(version: SsmAgentVersion, session: SessionType, origin: Origin) -> Self {
        Self {
            origin,
            ids: origin.seed,
            version,
            session,
            handshake: Handshake::New,
            connected: false,
            expected: 0,
            early: BTreeMap::new(),
            reader: Reader::Reading,
            paused: false,
            crashed: false,
            send: SendList::new(),
            next_tick: origin.now + TICK,
            outgoing: VecDeque::new(),
            outgoing_bytes: 0,
            events: VecDeque::new(),
        }
    }

    /// Opens the data channel and requests a handshake, whether or not a client is there.
    pub(super) fn start(&mut self, now: Instant) {
        self.next_tick = now + TICK;
        self.handshake = Handshake::Asked { since: now };
        let request = handshake::request(self.version, &self.session);
        self.send(now, PayloadType::HandshakeRequest, request.as_bytes());
    }

    /// The websocket is replaced by a new one. Records in its buffers are lost with it.
    pub(super) fn reconnect(&mut self) {
        self.outgoing.clear();
        self.outgoing_bytes = 0;
        self.paused = false;
    }

    /// The worker process dies. Its websocket ends after the records already written.
    pub(super) fn crash(&mut self) {
        self.crashed = true;
        self.reader = Reader::Stuck;
    }

    // ---- in ----

    /// Whether the next message is read. If not, it stays in the socket.
    pub(super) fn is_reading(&self) -> bool {
        matches!(self.reader, Reader::Reading)
    }

    /// A message arrived.
    ///
    /// # Errors
    /// The message was dropped, for a wrong digest, for example. The real SSM agent checks no digests; the
    /// official client does.
    pub(super) fn handle_message(&mut self, now: Instant, record: Bytes) -> Result<(), MessageError> {
        if !self.is_reading() {
            return Ok(());
        }
        self.handle_timeout(now);
        let message = match Message::parse(record) {
            Ok(message) => message,
            Err(error) => {
                if matches!(error, MessageError::HeaderLength { .. }) {
                    // The real agent reads beyond the end of the message, which ends its thread.
                    self.reader = Reader::Stuck;
                }
                return Err(error);
            }
        };
        match message.header.message_type {
            MessageType::InputStreamData => {
                self.paused = false;
                self.handle_input(now, message);
            }
            MessageType::Acknowledge => {
                self.paused = false;
                if let Some(number) = handshake::acknowledged_number(&message.payload) {
                    self.send.acknowledge(now, number);
                }
            }
            MessageType::PausePublication => self.paused = true,
            MessageType::StartPublication => self.paused = false,
            _ => {}
        }
        Ok(())
    }

    /// The port is connected, or the command runs: data is accepted from now on. Until then it is refused.
    pub(super) fn connect(&mut self) {
        self.connected = true;
    }

    /// The data that the reader is writing.
    pub(super) fn input(&self) -> Option<&Bytes> {
        match &self.reader {
            Reader::Writing { input, .. } => Some(input),
            Reader::Reading | Reader::Stuck => None,
        }
    }

    /// [`input`](Self::input) is written.
    pub(super) fn input_taken(&mut self, now: Instant) {
        let reader = std::mem::replace(&mut self.reader, Reader::Reading);
        if let Reader::Writing { acknowledgement, .. } = reader {
            if let Some(acknowledgement) = acknowledgement {
                self.acknowledge(now, acknowledgement);
            }
            self.advance(now);
        } else {
            self.reader = reader;
        }
    }

    /// [`input`](Self::input) could not be written, since the port is closed. The message is not
    /// acknowledged, so the client repeats it.
    pub(super) fn input_failed(&mut self) {
        if let Reader::Writing { .. } = self.reader {
            self.reader = Reader::Reading;
        }
    }

    // ---- time ----

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        match self.handshake {
            Handshake::Asked { since } if since + HANDSHAKE_TIMEOUT <= now => {
                self.fail_handshake(handshake::TIMED_OUT);
            }
            Handshake::Completing { until } if until <= now => {
                self.handshake = Handshake::Complete;
                self.events.push_back(Event::Ready);
            }
            _ => {}
        }
        if self.next_tick <= now {
            while self.next_tick <= now {
                self.next_tick += TICK;
            }
            if !self.paused
                && !self.crashed
                && let Some(record) = self.send.overdue(now)
            {
                self.write(record);
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let handshake = match self.handshake {
            Handshake::Asked { since } => Some(since + HANDSHAKE_TIMEOUT),
            Handshake::Completing { until } => Some(until),
            Handshake::New | Handshake::Complete | Handshake::Failed => None,
        };
        let ticks = !self.send.is_empty() && !self.paused && !self.crashed;
        handshake.into_iter().chain(ticks.then_some(self.next_tick)).min()
    }

    // ---- out ----

    /// Sends one message of the session, without any limit: the caller checks [`is_active`](Self::is_active)
    /// first.
    pub(super) fn send(&mut self, now: Instant, payload_type: PayloadType, payload: &[u8]) {
        if payload.is_empty() {
            return;
        }
        let number = self.send.next_number();
        let header = Header {
            message_type: MessageType::OutputStreamData,
            created_at: self.unix_millis(now),
            sequence_number: number,
            flags: if number == 0 { SYN } else { 0 },
            id: self.next_id(),
            payload_type,
        };
        let record = Message { header, payload: Bytes::copy_from_slice(payload) }.encode();
        if !self.paused {
            self.write(record.clone());
        }
        self.send.push(now, record);
    }

    fn acknowledge(&mut self, now: Instant, Acknowledgement { id, number }: Acknowledgement) {
        let payload = format!(
            r#"{{"AcknowledgedMessageType":"input_stream_data","AcknowledgedMessageId":"{id}","AcknowledgedMessageSequenceNumber":{number},"IsSequentialMessage":true}}"#
        );
        let header = Header {
            message_type: MessageType::Acknowledge,
            created_at: self.unix_millis(now),
            sequence_number: 0,
            flags: SYN_FIN,
            id: self.next_id(),
            payload_type: PayloadType::None,
        };
        self.write(Message { header, payload: payload.into() }.encode());
    }

    fn write(&mut self, record: Bytes) {
        self.outgoing_bytes += record.len();
        self.outgoing.push_back(record);
    }

    /// The next message for the gateway.
    pub(super) fn poll_transmit(&mut self) -> Option<Bytes> {
        let record = self.outgoing.pop_front()?;
        self.outgoing_bytes -= record.len();
        Some(record)
    }

    /// Whether a session reads from its port or its command: not during a pause, and not while the websocket
    /// is full.
    pub(super) fn is_active(&self) -> bool {
        !self.paused && !self.crashed && self.has_room()
    }

    /// Whether the gateway has paused publication.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the websocket accepts more.
    pub(super) fn has_room(&self) -> bool {
        self.outgoing_bytes < SOCKET_BUFFER
    }

    /// Whether everything that was sent is acknowledged.
    pub(super) fn is_drained(&self) -> bool {
        self.send.is_empty()
    }

    pub(super) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn unix_millis(&self, now: Instant) -> u64 {
        let time = self.origin.unix_time + now.saturating_duration_since(self.origin.now);
        u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1)
    }

    /// A UUID of version 4 from SplitMix64.
    fn next_id(&mut self) -> MessageId {
        let mut random = || {
            self.ids = self.ids.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.ids;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            u128::from(mixed ^ (mixed >> 31))
        };
        let uuid = (random() << 64 | random()) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
        MessageId::from_bytes(uuid.to_be_bytes())
    }
}

/// Set by the SSM agent on its message number 0.
const SYN: u64 = 1;
const SYN_FIN: u64 = 3;
/// `ResendSleepInterval`, and the time that goes by between two sleeps.
const TICK: Duration = Duration::from_micros(100_500);
/// `handshakeTimeout`. It begins with the session, not with the client.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// Bytes that fit into the websocket's buffers before a writer has to wait.
const SOCKET_BUFFER: usize = 128 * 1024;
