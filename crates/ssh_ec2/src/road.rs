//! How bytes reach a machine: the session, the tunnel that carries it, and the ends that it joins.

pub(crate) mod error;
pub(crate) mod probe;
pub(crate) mod session;
pub(crate) mod stdio;
pub mod tunnel;
