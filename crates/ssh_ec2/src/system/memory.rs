//! Keeps memory out of files, for processes that hold a key or credentials for long.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Switches core dumps off, for the rest of this process.
///
/// A crash would otherwise leave the one-time key and the AWS credentials on disk, or with whoever the system reports
/// crashes to. On Linux other processes of the user cannot attach, or read the memory and environment in `/proc`,
/// either. No defence against root. Best effort: a system that refuses is no reason not to connect.
pub fn forbid_dumps() {
    // The hard limit stays, for the programs that are started from here and want to raise theirs.
    let Rlimit { maximum, .. } = getrlimit(Resource::Core);
    if let Err(error) = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum }) {
        tracing::debug!(%error, "core dumps stay as they are");
    }
    // The limit says nothing to a program that is given dumps through a pipe. This ends with `exec`.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
    {
        tracing::debug!(%error, "memory stays readable");
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
