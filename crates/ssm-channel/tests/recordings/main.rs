//! Recorded sessions of AWS's own programs, replayed with this crate.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod client;
mod codec;
mod recording;
