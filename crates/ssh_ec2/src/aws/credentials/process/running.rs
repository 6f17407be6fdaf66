//! A program that is ended when the future that waits for it is dropped.

use std::fs;
use std::io;
use std::process::ExitStatus;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStderr, ChildStdout};

/// A started program. Dropping it sends SIGTERM to the program and to its descendants.
///
/// It stays in the process group of ssh_ec2: in one of its own it could not read from the terminal, and
/// Ctrl-C would not reach it. So its descendants have to be found one by one.
pub(super) struct Running {
    child: Child,
    has_ended: bool,
}

impl Running {
    pub(super) fn new(child: Child) -> Self {
        Self { child, has_ended: false }
    }

    /// Its standard output and standard error; None at the second call.
    pub(super) fn outputs(&mut self) -> (Option<ChildStdout>, Option<ChildStderr>) {
        (self.child.stdout.take(), self.child.stderr.take())
    }

    /// Waits for its end. Cancel-safe.
    pub(super) async fn wait(&mut self) -> io::Result<ExitStatus> {
        let status = self.child.wait().await;
        self.has_ended = true;
        status
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.has_ended {
            return;
        }
        // Its process id is not used again before it has been waited for.
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        // A process that forks during the search would leave a child behind. A stopped one cannot fork.
        let mut stopped: Vec<Pid> = Vec::new();
        loop {
            let family = family(id).into_iter().filter_map(Pid::from_raw);
            let new: Vec<_> = family.filter(|process| !stopped.contains(process)).collect();
            if new.is_empty() || stopped.len() > LIMIT {
                break;
            }
            for process in new {
                let _ = kill_process(process, Signal::STOP);
                stopped.push(process);
            }
        }
        for process in stopped {
            let _ = kill_process(process, Signal::TERM);
            let _ = kill_process(process, Signal::CONT);
        }
    }
}

/// A process and its descendants. Without `/proc`, as on macOS, only the process.
fn family(root: i32) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let pairs: Vec<_> = ids.filter_map(|id| Some((id, parent(id)?))).collect();
    let mut family = vec![root];
    let mut at = 0;
    while at < family.len() {
        let children = pairs.iter().filter(|(_, parent)| *parent == family[at]).map(|(id, _)| *id);
        let new: Vec<_> = children.filter(|id| !family.contains(id)).collect();
        family.extend(new);
        at += 1;
    }
    family
}

/// The parent, from proc_pid_stat(5): the second field behind the name, which may contain parentheses and
/// spaces.
fn parent(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

/// Bounds the search for descendants, by more than any program starts.
const LIMIT: usize = 1000;
