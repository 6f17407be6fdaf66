//! Keeps memory with keys and credentials out of core dumps, and from other processes.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Switches core dumps off, for the rest of this process.
///
/// A crash would otherwise write the one-time key and the AWS credentials to disk, or send them to the
/// system's crash reporter. On Linux, other processes of the user cannot attach a debugger either, nor read
/// the memory and environment in `/proc`. It is no defence against root. A system that refuses it does not
/// prevent a connection.
pub(crate) fn forbid_dumps() {
    // The hard limit stays, so that programs started from here can raise their own limit.
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }) {
        tracing::debug!(%error, "cannot switch core dumps off");
    }
    // The limit does not apply to dumps that the kernel pipes to a program. `exec` resets this.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::debug!(%error, "cannot make this process's memory unreadable");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_dumped_any_more() {
        let before = getrlimit(Resource::Core);
        forbid_dumps();
        let after = getrlimit(Resource::Core);
        assert_eq!((after.current, after.maximum), (Some(0), before.maximum));
        #[cfg(target_os = "linux")]
        assert_eq!(
            rustix::process::dumpable_behavior().unwrap(),
            rustix::process::DumpableBehavior::NotDumpable
        );
    }
}
