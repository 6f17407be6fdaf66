//! Errors of the peer (malformed messages), and of the caller (a full window).

use thiserror::Error;

/// The peer or the gateway sent something that the protocol does not allow. The message was dropped without
/// an acknowledgement; the channel continues.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The message could not be read.
    #[error("malformed message")]
    Message(#[from] MessageError),
    /// A JSON payload could not be read.
    #[error("unreadable {what}")]
    Payload {
        /// The kind of payload, as in "handshake request".
        what: &'static str,
        /// The error of the JSON parser.
        source: serde_json::Error,
    },
    /// A stream message with the type of this side's own direction.
    #[error("a message of type {0} travelled in the wrong direction")]
    WrongDirection(&'static str),
}

/// A websocket message is not a message of the data channel.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MessageError {
    /// The SHA-256 in the header differs from that of the payload.
    #[error("message {sequence_number} does not match its digest")]
    DigestMismatch {
        /// The sequence number in the message's header.
        sequence_number: i64,
    },
    /// The message type is empty.
    #[error("the message type is empty")]
    EmptyType,
    /// The header would end before its last field or after the message.
    #[error("header length {header_length} is impossible in a message of {length} bytes")]
    HeaderLength {
        /// The value of the header's first field.
        header_length: u32,
        /// Length of the whole message.
        length: usize,
    },
    /// Shorter than a header.
    #[error("a message of {length} bytes is shorter than a header")]
    TooShort {
        /// Length of the whole message.
        length: usize,
    },
    /// The SSM agent and the official client drop such messages.
    #[error("the creation date is zero")]
    ZeroCreatedDate,
}

/// The send window is full, closed, or not open yet; nothing was accepted. Offer the same bytes again when
/// [`send_capacity`](crate::Channel::send_capacity) allows.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("the send window is full")]
pub struct WindowFull;
