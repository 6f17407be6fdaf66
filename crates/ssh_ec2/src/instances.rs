//! From what was typed to the one instance and the user on it, and the lists of all instances.

pub mod cache;
pub mod default_user;
pub mod inventory;
pub mod resolve;
