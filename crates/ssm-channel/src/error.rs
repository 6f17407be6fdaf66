//! What can be wrong, sorted by who is to blame.

use thiserror::Error;

/// The peer or the gateway sent something that the protocol does not allow. The message was dropped without
/// an acknowledgement; the channel goes on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The message could not be read.
    #[error("malformed message")]
    Message(#[from] MessageError),
    /// A JSON payload could not be read.
    #[error("unreadable {what}")]
    Payload {
        /// Which payload.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// A stream message of the direction in which this side sends.
    #[error("a message of type {0} travelled in the wrong direction")]
    WrongDirection(&'static str),
}

/// A websocket message is not a message of the data channel.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum MessageError {
    /// The SHA-256 in the header is not that of the payload.
    #[error("message {sequence_number} does not match its digest")]
    DigestMismatch {
        /// The number that the message claims.
        sequence_number: i64,
    },
    /// No message type.
    #[error("the message type is empty")]
    EmptyType,
    /// The header would end before its last field or after the message.
    #[error("header length {header_length} is impossible in a message of {length} bytes")]
    HeaderLength {
        /// The first field.
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
