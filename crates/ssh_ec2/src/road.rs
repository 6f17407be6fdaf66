//! How bytes reach a machine: the session, the tunnel that carries its bytes, and standard input and output.

pub mod error;
pub mod probe;
pub(crate) mod session;
pub mod stdio;
pub mod tunnel;
