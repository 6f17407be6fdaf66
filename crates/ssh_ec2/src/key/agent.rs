//! The key agent: answers ssh's questions about the one-time key on a private socket.
//!
//! It is no daemon: the proxy of a connection serves it for as long as it runs, and it knows one key. It
//! lists and signs, and refuses everything else.

pub mod protocol;
pub(crate) mod serve;
pub(crate) mod socket;
