//! The data channel of AWS Systems Manager Session Manager, without I/O.
//!
//! A session is an ordered, reliable stream of bytes in each direction, carried by binary websocket messages
//! through AWS's message gateway between a client and the SSM agent on an instance. Each side numbers its
//! messages, acknowledges each message of the other, repeats what stays unacknowledged, and outlives the loss
//! of a websocket. [`Channel`] is that protocol as a value, for either side: messages, commands and the time
//! go in; messages, stream bytes, events and a deadline come out.
//!
//! ```text
//!              handle_message  ┌───────────┐  read
//!   websocket ────────────────▶│           │────────▶  stream bytes
//!             ◀────────────────│  Channel  │◀────────
//!              poll_transmit   └───────────┘  send
//!                 handle_timeout ▲       │ poll_event, poll_timeout
//! ```
//!
//! The crate has no socket, no clock, no randomness, no AWS account and no SSH. The driver owns the websocket
//! and gets tokens from AWS.
//!
//! ```
//! use std::time::{Duration, Instant};
//! use ssm_channel::{Channel, Draft, Event, Origin, Outgoing, SessionType, Side, SsmAgentVersion};
//!
//! let now = Instant::now();
//! let origin = Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now };
//! let mut client = Channel::new(Side::Client { client_id: "5b1c…".into() }, origin);
//! let properties = serde_json::json!({ "portNumber": "22" });
//! let session = SessionType { session_type: "Port".into(), properties };
//! let agent_version = SsmAgentVersion::parse("3.3.1142.0").unwrap();
//! let mut instance = Channel::new(Side::Instance { agent_version, session }, origin);
//! instance.accept_data();
//! client.attach(now, "token");
//! instance.attach(now, "");
//!
//! // A driver's loop, with a websocket that takes no time.
//! let mut now = now;
//! let mut draft = Draft::with_capacity(64 * 1024);
//! draft.push(b"SSH-2.0-example\r\n");
//! let received = loop {
//!     while let Some(outgoing) = client.poll_transmit(now) {
//!         if let Outgoing::Record(record) = outgoing {
//!             instance.handle_message(now, record)?;
//!         }
//!     }
//!     while let Some(Outgoing::Record(record)) = instance.poll_transmit(now) {
//!         client.handle_message(now, record)?;
//!     }
//!     if client.send_capacity() > 0 {
//!         client.send(now, &mut draft)?;
//!     }
//!     if let Some(bytes) = instance.read() {
//!         break bytes;
//!     }
//!     now += Duration::from_millis(1);
//!     client.handle_timeout(now);
//! };
//! assert_eq!(&received[..], b"SSH-2.0-example\r\n");
//! assert!(matches!(client.poll_event(), Some(Event::Ready { .. })));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::panic, clippy::expect_used))]

mod channel;
mod error;
mod handshake;
mod message;
mod recv;
mod send;
mod sizing;

pub use channel::{Channel, Closed, Event, Origin, Outgoing, Side};
pub use error::{MessageError, ProtocolError, WindowFull};
pub use handshake::{CLIENT_VERSION, SessionType, SsmAgentVersion};
pub use message::{Draft, Flag, Header, Label, Message, MessageId, MessageType, PayloadType};
pub use send::{MAX_WINDOW, WINDOW};
