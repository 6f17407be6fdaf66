//! One binary message: a 120-byte header, then an opaque payload.
//!
//! All integers are big-endian. The header ends with the payload's type and length; its first field,
//! `HeaderLength`, is the offset of that length (116), so the payload begins at `HeaderLength + 4`. Like the
//! official parsers, this one reads the payload from there to the end of the websocket message, whatever
//! `PayloadLength` says. Only whether that is 0 matters: then the digest is not checked.
//!
//! ```text
//!   0  HeaderLength u32 = 116      56  Flags u64 (1 SYN, 2 FIN)
//!   4  MessageType 32 bytes        64  MessageId 16 bytes, its two halves swapped
//!  36  SchemaVersion u32 = 1       80  PayloadDigest SHA-256
//!  40  CreatedDate u64, unix ms   112  PayloadType u32
//!  48  SequenceNumber i64         116  PayloadLength u32
//! ```

use std::fmt;

use bytes::buf::Limit;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

pub use self::id::MessageId;
use crate::error::MessageError;

mod id;

/// The type of a message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum MessageType {
    /// Acknowledges one stream message.
    Acknowledge,
    /// The SSM agent reports the state of its session to the gateway; clients never receive it.
    AgentSessionState,
    /// The gateway ends the session.
    ChannelClosed,
    /// A numbered message from the client to the SSM agent.
    InputStreamData,
    /// A numbered message from the SSM agent to the client.
    OutputStreamData,
    /// The gateway cannot deliver messages now.
    PausePublication,
    /// The gateway can deliver messages again.
    StartPublication,
    /// An unknown type. Receivers ignore it.
    Unknown(Label),
}

/// An unknown message type, as the bytes in the header.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Label([u8; LABEL_LENGTH]);

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", trim_label(&self.0).escape_ascii())
    }
}

impl MessageType {
    fn parse(label: [u8; LABEL_LENGTH]) -> Result<Self, MessageError> {
        Ok(match trim_label(&label) {
            b"" => return Err(MessageError::EmptyType),
            b"acknowledge" => Self::Acknowledge,
            b"agent_session_state" => Self::AgentSessionState,
            b"channel_closed" => Self::ChannelClosed,
            b"input_stream_data" => Self::InputStreamData,
            b"output_stream_data" => Self::OutputStreamData,
            b"pause_publication" => Self::PausePublication,
            b"start_publication" => Self::StartPublication,
            _ => Self::Unknown(Label(label)),
        })
    }

    /// The name in the header, without padding; empty for an unknown type.
    pub fn name(self) -> &'static str {
        match self {
            Self::Acknowledge => "acknowledge",
            Self::AgentSessionState => "agent_session_state",
            Self::ChannelClosed => "channel_closed",
            Self::InputStreamData => "input_stream_data",
            Self::OutputStreamData => "output_stream_data",
            Self::PausePublication => "pause_publication",
            Self::StartPublication => "start_publication",
            Self::Unknown(_) => "",
        }
    }

    fn label(self) -> [u8; LABEL_LENGTH] {
        if let Self::Unknown(Label(label)) = self {
            return label;
        }
        let mut label = [b' '; LABEL_LENGTH];
        for (room, byte) in label.iter_mut().zip(self.name().bytes()) {
            *room = byte;
        }
        label
    }

    /// Whether the digest is checked. The official client does not check it for the publication messages,
    /// where it may be zero; and a `channel_closed` that is dropped would leave the session hanging.
    fn carries_digest(self) -> bool {
        !matches!(self, Self::ChannelClosed | Self::PausePublication | Self::StartPublication)
    }
}

/// The type of a stream message's payload.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PayloadType {
    /// The payload of acknowledgements and state messages.
    None,
    /// Stream bytes, in either direction.
    Output,
    /// Terminal size, as JSON.
    Size,
    /// The SSM agent's first message.
    HandshakeRequest,
    /// The client's response.
    HandshakeResponse,
    /// The SSM agent's message that the handshake is complete.
    HandshakeComplete,
    /// A [`Flag`].
    Flag,
    /// Standard error of a command, or why it could not be started.
    ErrorOutput,
    /// The exit status of a command with separate outputs, as text.
    ExitStatus,
    /// Any other number.
    Other(u32),
}

impl From<u32> for PayloadType {
    fn from(number: u32) -> Self {
        match number {
            0 => Self::None,
            1 => Self::Output,
            3 => Self::Size,
            5 => Self::HandshakeRequest,
            6 => Self::HandshakeResponse,
            7 => Self::HandshakeComplete,
            10 => Self::Flag,
            11 => Self::ErrorOutput,
            12 => Self::ExitStatus,
            other => Self::Other(other),
        }
    }
}

impl From<PayloadType> for u32 {
    fn from(payload_type: PayloadType) -> Self {
        match payload_type {
            PayloadType::None => 0,
            PayloadType::Output => 1,
            PayloadType::Size => 3,
            PayloadType::HandshakeRequest => 5,
            PayloadType::HandshakeResponse => 6,
            PayloadType::HandshakeComplete => 7,
            PayloadType::Flag => 10,
            PayloadType::ErrorOutput => 11,
            PayloadType::ExitStatus => 12,
            PayloadType::Other(number) => number,
        }
    }
}

/// A signal between the data: the payload of a [`PayloadType::Flag`] message, four bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Flag {
    /// To the SSM agent: close the TCP connection.
    DisconnectToPort,
    /// To the SSM agent: end the session.
    TerminateSession,
    /// To the client: the port refused the connection.
    ConnectToPortError,
}

impl Flag {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        match u32::from_be_bytes(payload.try_into().ok()?) {
            1 => Some(Self::DisconnectToPort),
            2 => Some(Self::TerminateSession),
            3 => Some(Self::ConnectToPortError),
            _ => None,
        }
    }

    pub(crate) fn to_payload(self) -> [u8; 4] {
        let number: u32 = match self {
            Self::DisconnectToPort => 1,
            Self::TerminateSession => 2,
            Self::ConnectToPortError => 3,
        };
        number.to_be_bytes()
    }
}

/// The fields of the header that the sender chooses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// The type of the message.
    pub message_type: MessageType,
    /// The creation time, in milliseconds since the Unix epoch. Never 0: the SSM agent drops such a message.
    pub created_at: u64,
    /// The number of a stream message in its direction, from 0.
    pub sequence_number: i64,
    /// Bit 0 is SYN, bit 1 FIN.
    pub flags: u64,
    /// The UUID of the message.
    pub id: MessageId,
    /// The type of the payload.
    pub payload_type: PayloadType,
}

/// A message: a header and a payload.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Message {
    /// The fields of the header.
    pub header: Header,
    /// The bytes after the header.
    pub payload: Bytes,
}

impl Message {
    /// Reads one websocket message. The payload is a slice of it, not a copy.
    ///
    /// # Errors
    /// A [`MessageError`] when a field is missing, impossible, or the digest is not that of the payload.
    pub fn parse(mut record: Bytes) -> Result<Self, MessageError> {
        if record.len() < HEADER_LENGTH {
            return Err(MessageError::TooShort { length: record.len() });
        }
        let total = record.len();
        let header_length = record.get_u32();
        // 116 is the least length that holds all fields; a later protocol may append some.
        let payload_start = usize::try_from(header_length).ok().and_then(|length| length.checked_add(4));
        let payload_start = match payload_start {
            Some(start) if (HEADER_LENGTH..=total).contains(&start) => start,
            _ => return Err(MessageError::HeaderLength { header_length, length: total }),
        };
        let mut label = [0; LABEL_LENGTH];
        record.copy_to_slice(&mut label);
        let message_type = MessageType::parse(label)?;
        let _schema_version = record.get_u32();
        let created_at = record.get_u64();
        let sequence_number = record.get_i64();
        let flags = record.get_u64();
        let mut id = [0; 16];
        record.copy_to_slice(&mut id);
        let mut digest = [0; DIGEST_LENGTH];
        record.copy_to_slice(&mut digest);
        let payload_type = record.get_u32().into();
        let payload_length = record.get_u32();
        record.advance(payload_start - HEADER_LENGTH);
        if created_at == 0 {
            return Err(MessageError::ZeroCreatedDate);
        }
        if payload_length != 0 && message_type.carries_digest() && digest != sha256(&record) {
            return Err(MessageError::DigestMismatch { sequence_number });
        }
        let id = MessageId::from_wire(id);
        let header = Header { message_type, created_at, sequence_number, flags, id, payload_type };
        Ok(Self { header, payload: record })
    }

    /// Writes the message as [`parse`](Self::parse) reads it.
    pub fn encode(&self) -> Bytes {
        let mut draft = Draft::with_capacity(self.payload.len());
        draft.push(&self.payload);
        draft.seal(&self.header)
    }
}

/// A message that is being filled: room for the header, then the payload.
///
/// Bytes are read directly into it and are sent as one record without a copy. A draft can be filled and
/// sealed many times; small messages then share one allocation.
#[derive(Debug)]
pub struct Draft {
    buffer: BytesMut,
    allocation: usize,
}

impl Draft {
    /// Makes an empty draft whose allocations hold `payload` bytes.
    pub fn with_capacity(payload: usize) -> Self {
        let mut draft = Self { buffer: BytesMut::new(), allocation: HEADER_LENGTH + payload };
        draft.reserve_header();
        draft
    }

    /// The buffer for up to `limit` more bytes of payload.
    pub fn room(&mut self, limit: usize) -> Limit<&mut BytesMut> {
        if self.buffer.capacity() - self.buffer.len() < limit {
            self.buffer.reserve(self.allocation.max(limit));
        }
        (&mut self.buffer).limit(limit)
    }

    /// Appends to the payload.
    pub fn push(&mut self, payload: &[u8]) {
        self.buffer.extend_from_slice(payload);
    }

    /// Bytes of payload so far.
    pub fn payload_length(&self) -> usize {
        self.buffer.len().saturating_sub(HEADER_LENGTH)
    }

    /// Writes the header, returns the record and leaves the draft empty.
    pub(crate) fn seal(&mut self, header: &Header) -> Bytes {
        let mut record = self.buffer.split();
        self.reserve_header();
        let payload = record.get(HEADER_LENGTH..).unwrap_or_default();
        let digest = sha256(payload);
        // Payloads are far smaller than 4 GiB: data is limited by the window, all others are short.
        let payload_length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let mut room = record.get_mut(..HEADER_LENGTH).unwrap_or_default();
        room.put_u32(HEADER_LENGTH_FIELD);
        room.put_slice(&header.message_type.label());
        room.put_u32(SCHEMA_VERSION);
        room.put_u64(header.created_at);
        room.put_i64(header.sequence_number);
        room.put_u64(header.flags);
        room.put_slice(&header.id.to_wire());
        room.put_slice(&digest);
        room.put_u32(header.payload_type.into());
        room.put_u32(payload_length);
        record.freeze()
    }

    fn reserve_header(&mut self) {
        if self.buffer.capacity() < HEADER_LENGTH {
            self.buffer.reserve(self.allocation);
        }
        self.buffer.resize(HEADER_LENGTH, 0);
    }
}

/// SYN: set by the SSM agent on its stream message number 0. No receiver checks it.
pub(crate) const SYN: u64 = 1;
/// Flags of an acknowledgement. SSM agents on Windows were seen to refuse SYN alone.
pub(crate) const SYN_FIN: u64 = 3;

/// Offset of the payload in the messages that this crate writes.
pub(crate) const HEADER_LENGTH: usize = 120;
const HEADER_LENGTH_FIELD: u32 = 116;
const SCHEMA_VERSION: u32 = 1;
const LABEL_LENGTH: usize = 32;
const DIGEST_LENGTH: usize = 32;

fn sha256(payload: &[u8]) -> [u8; DIGEST_LENGTH] {
    Sha256::digest(payload).into()
}

/// Pads are spaces from clients and agents, NULs from the gateway; receivers strip NULs at both ends, then
/// space.
fn trim_label(label: &[u8]) -> &[u8] {
    let mut label = label;
    while let [0, rest @ ..] | [rest @ .., 0] = label {
        label = rest;
    }
    label.trim_ascii()
}
