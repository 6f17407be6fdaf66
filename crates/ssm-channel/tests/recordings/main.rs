//! Whole sessions of AWS's own programs, and what this crate makes of them.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod client;
mod codec;
mod recording;
