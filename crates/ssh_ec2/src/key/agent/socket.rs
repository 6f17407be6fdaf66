//! The key agent's socket, and the link that leads to it.
//!
//! ssh and its proxy meet at a path that both can compute, so proxies of connections to the same user, host
//! and port share it. The path is therefore a symbolic link to the socket of one of them; any of them works,
//! since they all push their keys for the same user to the same instance.
//!
//! A proxy creates its socket after the first push of its key, and passes no byte to ssh before that. So when
//! an ssh asks for a key, the socket of its own proxy exists, and the link leads ssh to it: at the moments at
//! which ssh may connect, its proxy has a turn, in which no other proxy changes the link
//! ([`AgentSocket::begin_turn`]). If the link led to another proxy that was killed or stopped, the login
//! would fail. Outside of turns the link may lead to any running proxy, for later clients, such as those of a
//! forwarded agent.
//!
//! A proxy that ends points the link at another socket, removes its own, and serves the clients that have
//! already connected. It holds the lock of a turn meanwhile, so that two proxies that end at the same time do
//! not point the link at each other. If a proxy is killed or stopped while the link leads to it, the other
//! proxies notice and repair the link ([`AgentSocket::heal_link`]).

mod turn;

use std::cell::Cell;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::Duration;

use rustix::fs::Access;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use self::turn::Turn;
use crate::system::explain::{Anchor, Explain};
use crate::system::private_file::Lock;
use crate::system::private_socket::{
    DirectoryError, PATH_LIMIT, PrivateSocket, is_stopped, make_directory, peer, remove_if_there,
};

/// The socket could not be set up.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    /// A file operation failed.
    #[error("cannot set up the key agent's socket {path}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Other users own the directory or have access to it.
    #[error(
        "the directory {path} of the key agent's socket belongs to another user or is accessible to other users"
    )]
    Exposed {
        /// The directory.
        path: PathBuf,
    },
    /// The path is longer than socket addresses allow: about 100 bytes.
    #[error("the path {path} is too long for a socket")]
    TooLong {
        /// The path.
        path: PathBuf,
    },
}

impl Explain for SocketError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Io { path, .. } => {
                let directory = path.parent().unwrap_or(path);
                vec![format!(
                    "check that you may write to {}, or set SSH_EC2_DIR to another directory and run `ssh_ec2 config --install`",
                    directory.display()
                )]
            }
            Self::Exposed { path } if is_of_another_user(path) => vec![
                "set SSH_EC2_DIR to a directory of your own with a short path, and run `ssh_ec2 config --install`"
                    .into(),
            ],
            Self::Exposed { path } => vec![format!("run `chmod 700 {}`", path.display())],
            Self::TooLong { .. } => {
                vec!["run `ssh_ec2 config --install`: the blocks that it writes use a shorter path".into()]
            }
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::KeyAgentSocket)
    }
}

/// Any user may have created a directory with this name in `/tmp`, and only its owner can change it.
fn is_of_another_user(path: &Path) -> bool {
    let owner = fs::symlink_metadata(path).map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| owner != rustix::process::geteuid().as_raw())
}

/// The path at which ssh looks for the key agent, in a directory that was checked.
#[derive(Clone, Debug)]
pub(crate) struct AgentPath {
    directory: PathBuf,
    /// The name of the link, which ssh opens.
    link: String,
    /// The name of our own socket.
    name: String,
}

impl AgentPath {
    /// Checks a path before a session is started, and creates its directory.
    ///
    /// # Errors
    /// When the directory cannot be made private or written, or the path is too long.
    pub(crate) fn check(path: &Path) -> Result<Self, SocketError> {
        let fail = |source| SocketError::Io { path: path.to_owned(), source };
        let (Some(directory), Some(link)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(fail(io::ErrorKind::InvalidInput.into()));
        };
        let name = socket_name(link, std::process::id());
        let checked = Self { directory: directory.to_owned(), link: link.to_owned(), name };
        for path in [path, &checked.own_path()] {
            if path.as_os_str().len() > PATH_LIMIT {
                return Err(SocketError::TooLong { path: path.to_owned() });
            }
        }
        checked.make_directory()?;
        rustix::fs::access(directory, Access::WRITE_OK).map_err(|error| fail(error.into()))?;
        Ok(checked)
    }

    /// Listens, and points the link at this socket unless it leads to another running proxy.
    ///
    /// # Errors
    /// When the directory cannot be made private or written.
    pub(crate) fn bind(self) -> Result<AgentSocket, SocketError> {
        self.make_directory()?;
        let own_path = self.own_path();
        let fail = |source| SocketError::Io { path: own_path.clone(), source };
        let socket = PrivateSocket::listen(&own_path).map_err(fail)?;
        let socket = AgentSocket { socket, path: self, retired: Cell::new(false), turn: Turn::default() };
        socket.heal_link().map_err(fail)?;
        Ok(socket)
    }

    fn make_directory(&self) -> Result<(), SocketError> {
        make_directory(&self.directory).map_err(|error| match error {
            DirectoryError::Exposed => SocketError::Exposed { path: self.directory.clone() },
            DirectoryError::Io(source) => SocketError::Io { path: self.link_path(), source },
        })
    }

    fn own_path(&self) -> PathBuf {
        self.directory.join(&self.name)
    }

    fn link_path(&self) -> PathBuf {
        self.directory.join(&self.link)
    }

    /// Points the link at `name` atomically.
    fn lead_to(&self, name: &str) -> io::Result<()> {
        let staged = self.directory.join(format!("{}{STAGED}", self.name));
        remove_if_there(&staged)?;
        std::os::unix::fs::symlink(name, &staged)?;
        fs::rename(&staged, self.link_path())
    }

    /// The name of the socket that the link leads to.
    fn leader(&self) -> Option<String> {
        fs::read_link(self.link_path()).ok()?.into_os_string().into_string().ok()
    }

    /// The process id in the name of a socket, if the socket belongs to this link.
    fn process_of(&self, name: &str) -> Option<u32> {
        let process = name.rsplit_once('.')?.1.parse().ok()?;
        (name == socket_name(&self.link, process)).then_some(process)
    }

    /// Another socket that the link can lead to, of a running proxy. Killed processes leave sockets without a
    /// listener; those that the search meets are removed.
    async fn heir(&self) -> io::Result<Option<String>> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            let staged_by = name.strip_suffix(STAGED).and_then(|socket| self.process_of(socket));
            if staged_by.is_some_and(|process| !runs(process)) {
                remove_if_there(&entry.path())?;
            }
            let Some(process) = self.process_of(&name).filter(|_| name != self.name) else { continue };
            match health(&entry.path(), process).await {
                Health::Listening => return Ok(Some(name)),
                Health::Dead => remove_if_there(&entry.path())?,
                Health::Stopped => {}
            }
        }
        Ok(None)
    }
}

/// A listening socket and the link that leads to it. Dropping it removes both.
#[derive(Debug)]
pub(crate) struct AgentSocket {
    socket: PrivateSocket,
    path: AgentPath,
    /// Whether the link must not lead to this socket any more.
    retired: Cell<bool>,
    turn: Turn,
}

impl AgentSocket {
    /// Accepts the next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> UnixStream {
        self.socket.accept().await
    }

    /// Waits until no other proxy has its turn, and takes the lock. None if that takes too long.
    pub(crate) fn turn(&self) -> Pin<Box<dyn Future<Output = Option<Lock>>>> {
        let path = self.path.clone();
        Box::pin(async move { path.lock(TURN_PATIENCE).await })
    }

    /// Whether this proxy has its turn.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_on()
    }

    /// Points the link at this socket, since ssh may connect now, and holds the lock on the link.
    pub(crate) fn begin_turn(&self, lock: Option<Lock>) {
        if let Err(error) = self.take_link() {
            tracing::debug!(%error, "ssh may not find the key agent");
        }
        if let Some(lock) = lock {
            self.turn.begin(lock);
        }
    }

    /// Ends the turn: ssh has connected, or does not connect before it gets more bytes from its server.
    pub(crate) fn end_turn(&self) {
        self.turn.end();
    }

    /// Returns when a turn has lasted too long, since ssh should have reacted. Cancel-safe.
    pub(super) async fn turn_is_overdue(&self) {
        self.turn.overdue().await;
    }

    /// Points the link at this socket, unless it leads here already.
    fn take_link(&self) -> io::Result<()> {
        match self.retired.get() || self.path.leader().is_some_and(|leader| leader == self.path.name) {
            true => Ok(()),
            false => self.path.lead_to(&self.path.name),
        }
    }

    /// Points the link at this socket if the link is missing, or leads to a process that has ended or was
    /// stopped. For later requests, such as those of a forwarded agent.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub(crate) fn heal_link(&self) -> io::Result<()> {
        let leader = self.path.leader().and_then(|leader| self.path.process_of(&leader));
        match leader.is_some_and(runs) {
            true => Ok(()),
            false => self.take_link(),
        }
    }

    /// Points the link at another proxy, if there is one, since the key of this one cannot be pushed any
    /// more.
    pub(crate) async fn give_up(&self) {
        let lock = self.path.lock(LOCK_PATIENCE).await;
        if self.path.leader().is_some_and(|leader| leader == self.path.name) {
            let lead = async || match self.path.heir().await? {
                Some(heir) => self.path.lead_to(&heir),
                None => Ok(()),
            };
            if let Err(error) = lead().await {
                tracing::debug!(%error, "the link to the key agent stays");
            }
        }
        drop(lock);
    }

    /// Points the link at another proxy and removes the socket. Clients that have connected are still served.
    pub(crate) async fn retire(&self) {
        self.end_turn();
        if !self.retired.replace(true) {
            let lock = self.path.lock(LOCK_PATIENCE).await;
            report(self.hand_over().await);
            drop(lock);
        }
    }

    /// Changes the link before it removes the socket: a client that has followed the link finds the socket.
    async fn hand_over(&self) -> io::Result<()> {
        let path = &self.path;
        let leader = path.leader().filter(|leader| *leader != path.name);
        let in_good_hands = match leader.and_then(|leader| Some((path.process_of(&leader)?, leader))) {
            Some((process, leader)) => {
                matches!(health(&path.directory.join(leader), process).await, Health::Listening)
            }
            None => false,
        };
        if !in_good_hands {
            match path.heir().await? {
                Some(heir) => {
                    path.lead_to(&heir)?;
                    // The kernel may have read the link for a client and not opened this socket yet.
                    sleep(FOLLOW_PATIENCE).await;
                }
                None => {
                    remove_if_there(&path.link_path())?;
                    path.remove_lock_file()?;
                }
            }
        }
        remove_if_there(&path.own_path())
    }
}

impl Drop for AgentSocket {
    /// Does not search for another socket, which would take time: other proxies notice that the link is
    /// missing.
    fn drop(&mut self) {
        if self.retired.replace(true) {
            return;
        }
        let is_ours = self.path.leader().is_some_and(|leader| leader == self.path.name);
        let link = match is_ours {
            true => remove_if_there(&self.path.link_path()).and_then(|()| self.path.remove_lock_file()),
            false => Ok(()),
        };
        report(link.and_then(|()| remove_if_there(&self.path.own_path())));
    }
}

fn report(result: io::Result<()>) {
    match result {
        // If the directory is gone, so is the socket.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "the key agent's socket could not be removed");
        }
        _ => {}
    }
}

/// The result of connecting to a socket.
enum Health {
    Listening,
    /// The connection is refused: the process of the socket has ended.
    Dead,
    /// The process is stopped: the kernel accepts connections for it until the backlog is full, but it does
    /// not answer.
    Stopped,
}

/// Examines a socket that has the id of `process` in its name. The backlog of a running process, too, may be
/// full for a moment.
async fn health(socket: &Path, process: u32) -> Health {
    let listener = match timeout(CONNECT_PATIENCE, UnixStream::connect(socket)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Health::Dead,
        // In a PID namespace other than that of the process, its id is another one.
        Ok(Ok(stream)) => peer(&stream).unwrap_or(process),
        Ok(Err(_)) | Err(_) => process,
    };
    if is_stopped(listener) { Health::Stopped } else { Health::Listening }
}

fn runs(process: u32) -> bool {
    let id = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    id.is_some_and(|id| rustix::process::test_kill_process(id).is_ok()) && !is_stopped(process)
}

/// The name of a socket: a hash of the link's name, so that it is short enough for a socket address, and the
/// process id. FNV-1a, so that all versions of this program compute the same; if two links had the same hash
/// by chance, each would offer keys that the other's server refuses.
fn socket_name(link: &str, process: u32) -> String {
    let hash = link.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!(".{hash:016x}.{process}")
}

/// The suffix of a new link's name until it replaces the old link.
const STAGED: &str = ".link";
/// How long to wait for a turn. A hundred connections that start together need less than a second for all
/// their turns.
const TURN_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait for the lock at the end of a connection.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// How long a client may take between reading the link and connecting. It takes microseconds.
const FOLLOW_PATIENCE: Duration = Duration::from_millis(10);
/// How long to wait for a connection to a socket of this machine. It takes microseconds.
const CONNECT_PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests;
