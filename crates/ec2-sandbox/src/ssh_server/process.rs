//! The process groups that one connection has started.
//!
//! A command runs in a process group of its own, a terminal's command in a session of its own. They are kept
//! until the connection ends and killed then, because a command may leave processes behind. A process that
//! moves into another session is not killed.

use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use russh::Sig;
use rustix::process::{
    Pid, Signal, kill_process, kill_process_group, test_kill_process, test_kill_process_group,
};

/// Owns a connection's processes and kills them when it is dropped.
#[derive(Debug, Default)]
pub(super) struct Processes(Registry);

impl Processes {
    /// Returns the handle with which tasks report what they start.
    pub(super) fn register(&self) -> Registry {
        self.0.clone()
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        for family in state.families.drain(..) {
            family.signal(Signal::KILL);
        }
    }
}

/// The list behind [`Processes`].
#[derive(Clone, Debug, Default)]
pub(super) struct Registry(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    families: Vec<Family>,
    closed: bool,
}

impl Registry {
    /// Adds a new process group. Kills it if the connection has ended meanwhile.
    pub(super) fn adopt(&self, family: Family) {
        let mut state = self.lock();
        if state.closed {
            family.signal(Signal::KILL);
        } else {
            state.families.push(family);
        }
    }

    /// Removes a group if it has no process left: its number may be used again.
    pub(super) fn forget_if_empty(&self, family: Family) {
        if family.is_empty() {
            self.lock().families.retain(|other| *other != family);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that was started, with the processes that it has started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// The leader's process group.
    Group(Pid),
    /// Every process group of the leader's session: a shell with job control makes one for each job.
    Session(Pid),
}

impl Family {
    /// Sends a signal to every member.
    pub(super) fn signal(self, signal: Signal) {
        // It fails only if the group has ended, which needs no signal.
        match self {
            Self::Group(leader) => {
                let _ = kill_process_group(leader, signal);
            }
            Self::Session(leader) => {
                let _ = kill_process_group(leader, signal);
                for member in session_members(leader) {
                    let _ = kill_process(member, signal);
                }
            }
        }
    }

    /// Sends a signal to the leader's own group, as sshd does for a `signal` request.
    pub(super) fn signal_leader(self, signal: Signal) {
        let (Self::Group(leader) | Self::Session(leader)) = self;
        let _ = kill_process_group(leader, signal);
    }

    fn is_empty(self) -> bool {
        match self {
            Self::Group(leader) => test_kill_process_group(leader).is_err(),
            Self::Session(leader) => {
                test_kill_process_group(leader).is_err() && session_members(leader).next().is_none()
            }
        }
    }
}

/// Returns the processes of a session; none where there is no `/proc`.
fn session_members(leader: Pid) -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let pid = Pid::from_raw(entry.file_name().to_str()?.parse().ok()?)?;
        let status = fs::read_to_string(entry.path().join("stat")).ok()?;
        (session_of(&status)? == leader && test_kill_process(pid).is_ok()).then_some(pid)
    })
}

/// Reads the session out of a `/proc/*/stat` line: `pid (name) state parent group session ...`, where
/// the name may hold blanks and parentheses.
fn session_of(status: &str) -> Option<Pid> {
    let (_, fields) = status.rsplit_once(')')?;
    Pid::from_raw(fields.split_ascii_whitespace().nth(3)?.parse().ok()?)
}

/// Returns the signal that a client names, if it is one that the protocol knows.
pub(super) fn signal_named(name: &Sig) -> Option<Signal> {
    STANDARD.into_iter().find(|signal| same_name(&name_of(signal.as_raw()), name))
}

/// Returns the name under which a client knows a signal number.
pub(super) fn name_of(number: i32) -> Sig {
    match Signal::from_named_raw(number) {
        Some(Signal::ABORT) => Sig::ABRT,
        Some(Signal::ALARM) => Sig::ALRM,
        Some(Signal::FPE) => Sig::FPE,
        Some(Signal::HUP) => Sig::HUP,
        Some(Signal::ILL) => Sig::ILL,
        Some(Signal::INT) => Sig::INT,
        Some(Signal::KILL) => Sig::KILL,
        Some(Signal::PIPE) => Sig::PIPE,
        Some(Signal::QUIT) => Sig::QUIT,
        Some(Signal::SEGV) => Sig::SEGV,
        Some(Signal::TERM) => Sig::TERM,
        Some(Signal::USR1) => Sig::USR1,
        Some(Signal::USR2) => Sig::Custom("USR2".to_owned()),
        _ => Sig::Custom(UNNAMED.to_owned()),
    }
}

fn same_name(one: &Sig, other: &Sig) -> bool {
    match (one, other) {
        (Sig::Custom(one), Sig::Custom(other)) => one == other,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    }
}

/// The signals of RFC 4254, section 6.10.
const STANDARD: [Signal; 13] = [
    Signal::ABORT,
    Signal::ALARM,
    Signal::FPE,
    Signal::HUP,
    Signal::ILL,
    Signal::INT,
    Signal::KILL,
    Signal::PIPE,
    Signal::QUIT,
    Signal::SEGV,
    Signal::TERM,
    Signal::USR1,
    Signal::USR2,
];

/// The name that sshd sends for a signal without a standard name.
const UNNAMED: &str = "SIG@openssh.com";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_found_behind_an_odd_name() {
        assert_eq!(session_of("12 (a) b) (c) S 1 2 345 0 -1"), Pid::from_raw(345));
        assert_eq!(session_of("12 (kthreadd) S 0 0 0 0 -1"), None);
        assert_eq!(session_of(""), None);
    }

    #[test]
    fn signals_keep_their_names() {
        for signal in STANDARD {
            assert_eq!(signal_named(&name_of(signal.as_raw())), Some(signal));
        }
        assert!(signal_named(&Sig::Custom("WINCH".to_owned())).is_none());
        assert!(matches!(name_of(Signal::WINCH.as_raw()), Sig::Custom(name) if name == UNNAMED));
    }
}
