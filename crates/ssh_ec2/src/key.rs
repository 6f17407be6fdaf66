//! Keys: the one-time key, its push to the instance, the key agent that signs with it, and the user's own key
//! files.

pub mod agent;
pub(crate) mod file;
pub mod one_time;
pub mod push;
