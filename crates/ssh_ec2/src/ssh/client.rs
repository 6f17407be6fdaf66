//! OpenSSH's client: reads its command line as it does, and runs it.

mod invocation;
mod version;

pub use self::invocation::{
    Command, Invocation, InvocationError, Login, is_batch, is_ssh, other_way, shell_word,
};
pub use self::version::Version;
