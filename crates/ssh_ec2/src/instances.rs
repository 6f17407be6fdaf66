//! From what was typed to the one instance and the user on it, and the lists of all instances.

pub(crate) mod cache;
pub(crate) mod default_user;
pub(crate) mod inventory;
pub(crate) mod resolve;
