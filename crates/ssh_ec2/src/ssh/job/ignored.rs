//! The signals that were ignored when this process was started.
//!
//! nohup ignores SIGHUP; a shell without job control ignores SIGINT and SIGQUIT in the programs that it runs
//! in the background. A signal that is ignored when a program starts must stay ignored (POSIX, `sh`, Signals
//! and Error Handling).

use std::fs;

/// The mask of ignored signals, read before the first handler is installed. None where there is no `/proc`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IgnoredSignals(Option<u64>);

impl IgnoredSignals {
    /// Reads the mask from proc_pid_status(5).
    pub(crate) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()))
    }

    /// Whether the signal with this number is ignored. None where there is no `/proc`, as on macOS.
    pub(crate) fn contain(self, number: i32) -> Option<bool> {
        Some(self.0? >> (number - 1) & 1 == 1)
    }
}
