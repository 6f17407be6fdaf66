//! OpenSSH's client: reads its command line as it does, and runs it.

mod command;
mod invocation;
mod login;
mod version;

pub(crate) use self::command::Command;
pub(crate) use self::invocation::{Invocation, InvocationError, is_batch, is_ssh};
pub(crate) use self::login::Login;
pub(crate) use self::version::Version;
