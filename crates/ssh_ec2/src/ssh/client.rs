//! OpenSSH's client: reads its command line as it does, and runs it.

mod command;
mod invocation;
mod login;
mod version;

pub use self::command::Command;
pub use self::invocation::{Invocation, InvocationError, is_batch, is_ssh, other_way};
pub use self::login::Login;
pub use self::version::Version;
