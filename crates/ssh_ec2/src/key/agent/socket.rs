//! The key agent's socket, and the link that leads to it.
//!
//! ssh and its proxy meet at a path that both can compute, so proxies of connections to the same user, host
//! and port share it. The path is therefore a symbolic link to the socket of one of them; any will do, since
//! they all push their keys to the same place.
//!
//! A proxy makes its socket after the first push of its key, and ssh gets no byte before. So when an ssh asks
//! for a key, its own proxy's socket is there. Each ssh is led to that: at the moments at which it may
//! connect, its proxy has a turn, in which no other proxy changes the link ([`AgentSocket::begin_turn`]). An
//! ssh that met the agent of another proxy would be refused if that one was killed or stopped. At other times
//! the link may lead to any proxy that runs, for clients that come later, such as forwarded ones.
//!
//! A proxy that ends leads the link to another socket, removes its own, and serves the clients that have
//! connected. It does so under the lock of a turn, which keeps two proxies that end together from leading the
//! link to each other. When a proxy was killed or stopped while it had the link, the others notice
//! ([`AgentSocket::heal_link`]).

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
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others could reach into the directory.
    #[error("the directory {path} of the key agent's socket belongs to somebody else or is open to others")]
    Exposed {
        /// Which directory.
        path: PathBuf,
    },
    /// Unix allows about 100 bytes.
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
                vec!["run `ssh_ec2 config --install`: the blocks that it writes name a shorter socket".into()]
            }
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::KeyAgentSocket)
    }
}

/// A name in `/tmp` may have been taken by anybody, and only its owner can change it.
fn is_of_another_user(path: &Path) -> bool {
    let owner = fs::symlink_metadata(path).map(|metadata| metadata.uid());
    owner.is_ok_and(|owner| owner != rustix::process::geteuid().as_raw())
}

/// Where ssh looks for the key agent, in a directory that was checked.
#[derive(Clone, Debug)]
pub(crate) struct AgentPath {
    directory: PathBuf,
    /// The name that ssh looks for.
    link: String,
    /// The name of our own socket.
    name: String,
}

impl AgentPath {
    /// Checks a path before a session is started, and makes its directory.
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

    /// Listens, and leads the link here unless it leads to another proxy that runs.
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

    /// Points the link at `name`, in one step.
    fn lead_to(&self, name: &str) -> io::Result<()> {
        let staged = self.directory.join(format!("{}{STAGED}", self.name));
        remove_if_there(&staged)?;
        std::os::unix::fs::symlink(name, &staged)?;
        fs::rename(&staged, self.link_path())
    }

    /// The name that the link leads to.
    fn leader(&self) -> Option<String> {
        fs::read_link(self.link_path()).ok()?.into_os_string().into_string().ok()
    }

    /// The process of a socket for this link.
    fn process_of(&self, name: &str) -> Option<u32> {
        let process = name.rsplit_once('.')?.1.parse().ok()?;
        (name == socket_name(&self.link, process)).then_some(process)
    }

    /// Another socket for the link, of a proxy that runs. Sockets without a listener were left by processes
    /// that were killed; those that are found before it are removed.
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
    /// Whether the link is not to lead here any more.
    retired: Cell<bool>,
    turn: Turn,
}

impl AgentSocket {
    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> UnixStream {
        self.socket.accept().await
    }

    /// Waits until no other proxy has its turn. None if that takes too long.
    pub(crate) fn turn(&self) -> Pin<Box<dyn Future<Output = Option<Lock>>>> {
        let path = self.path.clone();
        Box::pin(async move { path.lock(TURN_PATIENCE).await })
    }

    /// Whether this proxy has its turn.
    pub(crate) fn has_turn(&self) -> bool {
        self.turn.is_on()
    }

    /// Leads the link here, for an ssh that may be about to connect, and keeps it here with the lock.
    pub(crate) fn begin_turn(&self, lock: Option<Lock>) {
        if let Err(error) = self.take_link() {
            tracing::debug!(%error, "ssh may not find the key agent");
        }
        if let Some(lock) = lock {
            self.turn.begin(lock);
        }
    }

    /// ssh has connected, or will not before it gets more from its server.
    pub(crate) fn end_turn(&self) {
        self.turn.end();
    }

    /// Returns when ssh should have reacted. Cancel-safe.
    pub(super) async fn turn_is_overdue(&self) {
        self.turn.overdue().await;
    }

    /// Leads the link here, unless it does already.
    fn take_link(&self) -> io::Result<()> {
        match self.retired.get() || self.path.leader().is_some_and(|leader| leader == self.path.name) {
            true => Ok(()),
            false => self.path.lead_to(&self.path.name),
        }
    }

    /// Leads the link here if it is gone, or leads to a process that has ended or was stopped. For later
    /// requests, such as forwarded ones.
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

    /// Leads the link to another proxy, if there is one. For a key that cannot be pushed any more.
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

    /// Leads the link elsewhere and removes the socket. Clients that have connected are still served.
    pub(crate) async fn retire(&self) {
        self.end_turn();
        if !self.retired.replace(true) {
            let lock = self.path.lock(LOCK_PATIENCE).await;
            report(self.hand_over().await);
            drop(lock);
        }
    }

    /// Changes the link first: a client that follows it meanwhile is in the backlog of a socket that is still
    /// there.
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
                    // The system may have read the link for a client, and be looking for this socket.
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
    /// Searches no heir, which would take time: other proxies notice that the link is gone.
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
        // Without the directory there is nothing left to remove.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::debug!(%error, "the key agent's socket could not be removed");
        }
        _ => {}
    }
}

/// What happens to a client that connects to a socket.
enum Health {
    Listening,
    /// The connection is refused: its process has ended.
    Dead,
    /// The system accepts connections for a stopped process until its backlog is full, but no answer comes.
    Stopped,
}

/// Of a socket with the number of `process` in its name. A backlog may be full for a moment at a process that
/// runs.
async fn health(socket: &Path, process: u32) -> Health {
    let listener = match timeout(CONNECT_PATIENCE, UnixStream::connect(socket)).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => return Health::Dead,
        // In another namespace than the one that gave the name, the process has another number.
        Ok(Ok(stream)) => peer(&stream).unwrap_or(process),
        Ok(Err(_)) | Err(_) => process,
    };
    if is_stopped(listener) { Health::Stopped } else { Health::Listening }
}

fn runs(process: u32) -> bool {
    let id = i32::try_from(process).ok().and_then(rustix::process::Pid::from_raw);
    id.is_some_and(|id| rustix::process::test_kill_process(id).is_ok()) && !is_stopped(process)
}

/// A name that shows which link a socket belongs to, in fewer characters than the link's: socket addresses
/// are short. FNV-1a, so that all versions of this program agree; two links that met by chance would share
/// keys that each refuses.
fn socket_name(link: &str, process: u32) -> String {
    let hash = link.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!(".{hash:016x}.{process}")
}

/// How the name of a new link ends until it replaces the old one.
const STAGED: &str = ".link";
/// For a turn. A hundred connections that begin together need less than a second for all of theirs.
const TURN_PATIENCE: Duration = Duration::from_secs(5);
/// For the lock, at the end of a connection.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// The system follows a link in microseconds.
const FOLLOW_PATIENCE: Duration = Duration::from_millis(10);
/// A connection to a socket of this machine takes microseconds.
const CONNECT_PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::fs::{File, Permissions};
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixStream as StdUnixStream;

    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process};

    use super::*;

    fn link(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("agent").join("ec2-user@i-0a1b2c3d:22")
    }

    /// A socket that looks in the directory like that of another process.
    async fn sibling(path: &Path, process: u32) -> AgentSocket {
        let mut path = AgentPath::check(path).unwrap();
        path.name = socket_name(&path.link, process);
        let socket = path.bind().unwrap();
        // As in its turn.
        socket.take_link().unwrap();
        socket
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn only_the_owner_can_reach_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let _socket = AgentPath::check(&path).unwrap().bind().unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_path_that_cannot_be_used_is_refused_before_anything_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(AgentPath::check(&path), Err(SocketError::Exposed { .. })));
        let long = directory.path().join("x".repeat(PATH_LIMIT));
        assert!(matches!(AgentPath::check(&long), Err(SocketError::TooLong { .. })));
        let room = PATH_LIMIT - directory.path().as_os_str().len() - "/d/l".len();
        let deep = directory.path().join("d".repeat(room)).join("l");
        assert!(
            matches!(AgentPath::check(&deep), Err(SocketError::TooLong { .. })),
            "our own name is longer"
        );
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_link_works_whatever_order_proxies_end_in() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let directory = tempfile::tempdir().unwrap();
            let path = link(&directory);
            let mut sockets = Vec::new();
            for process in 1..=3 {
                sockets.push(Some(sibling(&path, process).await));
            }
            for index in order {
                assert!(StdUnixStream::connect(&path).is_ok(), "{order:?} before {index}");
                sockets[index].take().unwrap().retire().await;
            }
            assert_eq!(names(&path), Vec::<String>::new(), "{order:?}");
        }
    }

    fn leads_to(path: &Path, socket: &AgentSocket) -> bool {
        fs::read_link(path).is_ok_and(|target| target == Path::new(&socket.path.name))
    }

    /// A client that connects in the turn of its proxy is always led somewhere. At other times the system may
    /// have read the link, and the socket be gone before it looks for that.
    #[tokio::test]
    async fn the_link_leads_to_a_socket_at_every_moment_of_a_turn() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let last = sibling(&path, 1).await;
        for process in 2..20 {
            let ending = sibling(&path, process).await;
            last.begin_turn(last.turn().await);
            let mut retiring = Box::pin(ending.retire());
            assert!(timeout(Duration::ZERO, retiring.as_mut()).await.is_err());
            assert!(leads_to(&path, &last) && StdUnixStream::connect(&path).is_ok(), "{process}");
            last.end_turn();
            retiring.await;
            assert!(StdUnixStream::connect(&path).is_ok(), "it has led the link to another one");
        }
    }

    #[tokio::test]
    async fn one_proxy_at_a_time_has_its_turn() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        // This process and the first one run.
        let (first, second) = (sibling(&path, 1).await, AgentPath::check(&path).unwrap().bind().unwrap());
        assert!(leads_to(&path, &first), "a new socket takes the link from nobody who runs");
        first.begin_turn(first.turn().await);
        let mut turn = second.turn();
        assert!(timeout(Duration::ZERO, turn.as_mut()).await.is_err());
        first.end_turn();
        second.begin_turn(turn.await);
        assert!(leads_to(&path, &second) && second.has_turn() && !first.has_turn());
        // Of another host.
        let other = AgentPath::check(&path.with_file_name("ec2-user@i-0a1b2c3e:22")).unwrap().bind().unwrap();
        other.begin_turn(other.turn().await);
        assert!(other.has_turn());
        for socket in [other, second, first] {
            socket.retire().await;
        }
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_ends_by_itself() {
        let directory = tempfile::tempdir().unwrap();
        let socket = sibling(&link(&directory), 1).await;
        let mut overdue = Box::pin(socket.turn_is_overdue());
        assert!(timeout(Duration::from_secs(60), overdue.as_mut()).await.is_err(), "there is none");
        socket.begin_turn(socket.turn().await);
        let began = tokio::time::Instant::now();
        overdue.await;
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test]
    async fn what_a_killed_proxy_left_is_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let killed = sibling(&path, 1).await;
        // The link and the socket stay, without a listener.
        killed.retired.set(true);
        drop(killed);
        let ended = socket_name(path.file_name().unwrap().to_str().unwrap(), u32::MAX / 2);
        std::os::unix::fs::symlink(&ended, path.with_file_name(format!("{ended}.link"))).unwrap();
        assert_eq!(names(&path).len(), 3);
        AgentPath::check(&path).unwrap().bind().unwrap().retire().await;
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_link_that_leads_nowhere_is_repaired() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let socket = sibling(&path, 1).await;
        let leads_here = || fs::read_link(&path).is_ok_and(|target| target == Path::new(&socket.path.name));
        // This process runs, so that a socket of its own is a good leader; no process has the other number.
        let running = socket_name(&socket.path.link, std::process::id());
        let ended = socket_name(&socket.path.link, u32::MAX / 2);
        for (leader, is_mended) in [(Some(&running), false), (Some(&ended), true), (None, true)] {
            remove_if_there(&path).unwrap();
            if let Some(leader) = leader {
                socket.path.lead_to(leader).unwrap();
            }
            socket.heal_link().unwrap();
            assert_eq!(leads_here(), is_mended, "{leader:?}");
            socket.take_link().unwrap();
            assert!(leads_here(), "for its own ssh it is taken from anybody");
        }
    }

    #[tokio::test]
    async fn a_full_backlog_of_a_stopped_process_is_no_heir() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let mut process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_child(&process);
        let _full = sibling(&path, process.id()).await;
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(CONNECT_PATIENCE, UnixStream::connect(&path)).await {
            waiting.push(stream);
        }
        sibling(&path, 1).await.retire().await;
        assert!(path.is_symlink(), "the process runs, and will accept");
        kill_process(id, Signal::STOP).unwrap();
        rustix::process::waitid(WaitId::Pid(id), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        sibling(&path, 1).await.retire().await;
        assert!(!path.is_symlink(), "nobody answers there");
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Locks the file of a link, as a process that was stopped keeps it.
    fn keep_lock(path: &AgentPath) -> File {
        let held = crate::system::private_file::open(&path.directory.join(&path.name).with_extension("turn"))
            .unwrap();
        held.lock().unwrap();
        held
    }

    #[tokio::test]
    async fn a_lock_that_is_never_released_does_not_keep_a_proxy_from_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let agent_path = AgentPath::check(&path).unwrap();
        let _held = keep_lock(&agent_path);
        let socket = agent_path.bind().unwrap();
        assert!(StdUnixStream::connect(&path).is_ok());
        socket.retire().await;
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_proxy_that_was_stopped_in_its_turn_keeps_nobody_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let mut process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let id = Pid::from_child(&process);
        kill_process(id, Signal::STOP).unwrap();
        rustix::process::waitid(WaitId::Pid(id), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
        let stopped = sibling(&path, process.id()).await;
        let held = keep_lock(&stopped.path);
        // This process and the first one run.
        let (first, second) = (sibling(&path, 1).await, AgentPath::check(&path).unwrap().bind().unwrap());
        stopped.take_link().unwrap();
        let (mut one, mut two) = (first.turn(), second.turn());
        let (has_turn, waits, waiting) = tokio::select! {
            lock = one.as_mut() => (&first, &second, (lock, two)),
            lock = two.as_mut() => (&second, &first, (lock, one)),
        };
        let (lock, next) = waiting;
        assert!(lock.is_some(), "by a new file");
        has_turn.begin_turn(lock);
        assert!(leads_to(&path, has_turn));
        drop(held);
        has_turn.end_turn();
        waits.begin_turn(next.await);
        assert!(leads_to(&path, waits) && waits.has_turn());
        process.kill().unwrap();
        process.wait().unwrap();
    }
}
