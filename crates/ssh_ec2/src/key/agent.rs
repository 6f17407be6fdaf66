//! The key agent: answers ssh's requests for the one-time key on a private socket.
//!
//! It is not a daemon: the proxy of a connection serves it while the proxy runs. It has one key, lists it,
//! signs with it, and refuses every other request.

pub mod protocol;
pub(crate) mod serve;
pub(crate) mod socket;
