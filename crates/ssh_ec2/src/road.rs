//! How bytes reach a machine: the session, the tunnel that carries its bytes, and standard input and output.

pub(crate) mod error;
pub(crate) mod probe;
pub(crate) mod session;
pub(crate) mod stdio;
pub mod tunnel;
