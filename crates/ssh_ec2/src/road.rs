//! How bytes reach a machine: the session, the tunnel that carries it, and the ends that it joins.

pub mod error;
pub mod probe;
pub(crate) mod session;
pub mod stdio;
pub mod tunnel;
