//! What a channel hands to its driver.

use bytes::Bytes;

use crate::handshake::{SessionType, SsmAgentVersion};
use crate::message::Flag;

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
