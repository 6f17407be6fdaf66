//! The signals that were ignored when this process was started.
//!
//! nohup ignores SIGHUP; a shell without job control ignores SIGINT and SIGQUIT for what it runs in the
//! background. What is ignored when a program starts must stay so (POSIX, `sh`, Signals and Error Handling).

use std::fs;

/// To be read before the first handler is installed.
#[derive(Clone, Copy, Debug)]
pub struct IgnoredSignals(Option<u64>);

impl IgnoredSignals {
    /// Reads them.
    pub fn read() -> Self {
        // proc_pid_status(5)
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        Self(mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()))
    }

    /// Whether the signal of this number is among them. None where there is no `/proc`, as on macOS.
    pub fn contain(self, number: i32) -> Option<bool> {
        Some(self.0? >> (number - 1) & 1 == 1)
    }
}
