//! Turns of the proxies that share a link. Only the proxy that holds the lock on a file may change the link.
//!
//! The kernel releases the lock of a killed process. A stopped process keeps its lock, so the other proxies
//! then remove the file and lock a new one. If two proxies do that at the same moment, each may hold a lock
//! on a file of its own. Then the lock protects nothing this once: the link may lead an ssh to the agent of
//! another proxy.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::AgentPath;
use crate::system::private_file::{Lock, lock_file, open};
use crate::system::private_socket::{is_stopped, remove_if_there};

impl AgentPath {
    /// Takes the lock, which is held until dropped. None if that takes longer than `patience`: the caller
    /// then changes the link without the lock, and the next proxy that looks at a wrong link repairs it.
    pub(super) async fn lock(&self, patience: Duration) -> Option<Lock> {
        let locked = match timeout(patience, self.wait_for_lock(patience)).await {
            Ok(locked) => locked,
            Err(_) => Err(io::ErrorKind::WouldBlock.into()),
        };
        let unlocked = |error: &io::Error| {
            tracing::info!("the link {} is used without its lock: {error}", self.link_path().display());
        };
        locked.inspect_err(unlocked).ok()
    }

    async fn wait_for_lock(&self, patience: Duration) -> io::Result<Lock> {
        loop {
            let file = open(&self.lock_path())?;
            let number = file.metadata()?.ino();
            tokio::select! {
                lock = lock_file(file, patience) => {
                    let lock = lock?;
                    if self.has_lock_file(number) {
                        return Ok(lock);
                    }
                }
                () = self.is_stuck(number) => {
                    if self.has_lock_file(number) {
                        self.remove_lock_file()?;
                    }
                }
            }
        }
    }

    fn lock_path(&self) -> PathBuf {
        let (link, _process) = self.name.rsplit_once('.').unwrap_or((&self.name, ""));
        self.directory.join(format!("{link}.turn"))
    }

    fn has_lock_file(&self, number: u64) -> bool {
        self.lock_path().symlink_metadata().is_ok_and(|file| file.ino() == number)
    }

    /// Removes the file when no other proxy uses it, or when the proxy that holds its lock does not release
    /// it.
    pub(super) fn remove_lock_file(&self) -> io::Result<()> {
        remove_if_there(&self.lock_path())
    }

    /// Returns when the lock on this file will not be released, since its holder was stopped, or when the
    /// file was replaced. The link leads to the proxy that holds the lock.
    async fn is_stuck(&self, number: u64) {
        let (mut leader, mut since) = (self.leader(), Instant::now());
        loop {
            sleep(GLANCE).await;
            let current = self.leader();
            if current != leader {
                (leader, since) = (current, Instant::now());
            }
            let process = leader.as_deref().and_then(|leader| self.process_of(leader));
            let is_over = process.is_some_and(is_stopped) || since.elapsed() >= LONGEST_TURN;
            if is_over || !self.has_lock_file(number) {
                return;
            }
        }
    }
}

/// The turn of this proxy, if it has one.
#[derive(Debug, Default)]
pub(super) struct Turn {
    lock: RefCell<Option<Lock>>,
    deadline: Cell<Option<Instant>>,
    begins: Notify,
}

impl Turn {
    pub(super) fn begin(&self, lock: Lock) {
        self.lock.replace(Some(lock));
        self.deadline.set(Some(Instant::now() + LIMIT));
        self.begins.notify_one();
    }

    pub(super) fn is_on(&self) -> bool {
        self.deadline.get().is_some()
    }

    pub(super) fn end(&self) {
        self.lock.take();
        self.deadline.set(None);
    }

    /// Returns when a turn has lasted too long. Cancel-safe.
    pub(super) async fn overdue(&self) {
        loop {
            match self.deadline.get() {
                None => self.begins.notified().await,
                Some(deadline) if deadline <= Instant::now() => return,
                Some(deadline) => sleep_until(deadline).await,
            }
        }
    }
}

/// The longest turn, for an ssh that does not react because it was stopped, or because it asks its user for a
/// password. Otherwise a turn takes a millisecond.
const LIMIT: Duration = Duration::from_secs(1);
/// A proxy that holds the lock for longer was stopped; not every operating system shows that of a process.
const LONGEST_TURN: Duration = Duration::from_millis(1500);
/// How often a waiting proxy looks whether the holder of the lock was stopped.
const GLANCE: Duration = Duration::from_millis(50);
