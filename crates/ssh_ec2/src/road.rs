//! How bytes reach a machine: the session, the tunnel that carries it, and the ends that it joins.

pub mod probe;
pub mod stdio;
pub mod tunnel;
