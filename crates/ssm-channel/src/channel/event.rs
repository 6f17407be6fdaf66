//! The records and events that a channel passes to its driver.

use bytes::Bytes;

use crate::handshake::{SessionType, SsmAgentVersion};
use crate::message::Flag;

/// A message for the websocket.
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

/// An event for the driver.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// Data may be sent and received.
    Ready {
        /// Unknown when the session has no handshake.
        agent_version: Option<SsmAgentVersion>,
        /// Unknown when the session has no handshake.
        session: Option<SessionType>,
        /// The account administrator's text for the user; often empty.
        customer_message: String,
    },
    /// The websocket was lost. Open a new one and call [`Channel::attach`](crate::Channel::attach).
    NeedsResume,
    /// The peer has sent a flag.
    Flag(Flag),
    /// A command with separate outputs has ended, with this exit status. SSM agents also send 0 if they
    /// stopped it or lost its output, and -1 if a signal killed it.
    ExitStatus(i32),
    /// The session is over; received bytes can still be read.
    Closed(Closed),
}

/// Why a channel ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Closed {
    /// The gateway closed the session.
    ByGateway {
        /// The reason, from the SSM agent or the service; often empty.
        output: String,
    },
    /// This side ended the session: the peer has acknowledged the request, or did not in time.
    Terminated {
        /// Whether the peer has acknowledged the request.
        acknowledged: bool,
    },
    /// The handshake did not finish in time.
    HandshakeTimeout,
    /// The client refused an action that the SSM agent requested.
    HandshakeFailed {
        /// The client's error text.
        output: String,
    },
    /// The websocket was open, but nothing was acknowledged for minutes.
    NoProgress,
}
