//! One story for each command. Here the floors meet; nothing below knows the whole of it.

pub mod complete;
pub mod config;
pub mod connect;
pub mod copy;
pub mod doctor;
pub mod known_hosts;
pub mod list;
pub mod pick;
pub mod policy;
pub mod proxy;
#[cfg(feature = "sandbox")]
pub mod sandbox;
pub mod send_key;
