//! The key agent's socket, and the link that leads to it.
//!
//! ssh and its proxy meet at a path that both can compute, so proxies of connections to the same user, host
//! and port share it. The path is therefore a symbolic link to the socket of one of them; any will do, since
//! they all push their keys to the same place.
//!
//! A proxy makes its socket after the first push of its key, and ssh gets no byte before. So when an ssh asks
//! for a key, its own proxy's socket is there, and the link leads to a key that was pushed. A new socket
//! takes the link, and its proxy leads it there again while its own ssh has yet to ask
//! ([`AgentSocket::take_link`]). A proxy that ends leads the link to another socket, removes its own, and
//! serves the clients that have connected. It does so under a lock on the directory, which keeps two proxies
//! that end together from leading the link to each other. When a proxy was killed or stopped while it had the
//! link, the others notice ([`AgentSocket::heal_link`]).

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::Access;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};

use crate::system::explain::{Anchor, Explain};
use crate::system::private_file::{Lock, lock_file};
use crate::system::private_socket::{
    DirectoryError, PATH_LIMIT, PrivateSocket, is_stopped, make_directory, peer, remove_if_there,
};

/// The socket could not be set up.
#[derive(Debug, Error)]
pub enum SocketError {
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
pub struct AgentPath {
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
    pub fn check(path: &Path) -> Result<Self, SocketError> {
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

    /// Listens, and leads the link here.
    ///
    /// # Errors
    /// When the directory cannot be made private or written.
    pub async fn bind(self) -> Result<AgentSocket, SocketError> {
        self.make_directory()?;
        let own_path = self.own_path();
        let fail = |source| SocketError::Io { path: own_path.clone(), source };
        let lock = self.lock().await;
        let socket = PrivateSocket::listen(&own_path).map_err(fail)?;
        let socket = AgentSocket { socket, path: self, retired: Cell::new(false) };
        socket.take_link().map_err(fail)?;
        drop(lock);
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
        let staged = self.directory.join(format!("{}.link", self.name));
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

    /// Held until dropped. The directory itself is locked, so no lock file stays behind. None if another
    /// process keeps the lock: the link is changed without it then, and the next proxy that looks at it
    /// repairs it.
    async fn lock(&self) -> Option<Lock> {
        let locked = match File::open(&self.directory) {
            Ok(directory) => lock_file(directory, LOCK_PATIENCE).await,
            Err(error) => Err(error),
        };
        let unlocked = |error: &io::Error| {
            tracing::info!("the directory {} is used without a lock: {error}", self.directory.display());
        };
        locked.inspect_err(unlocked).ok()
    }

    /// Another socket for the link, of a proxy that runs. Sockets without a listener were left by processes
    /// that were killed; those that are found before it are removed.
    async fn heir(&self) -> io::Result<Option<String>> {
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
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
pub struct AgentSocket {
    socket: PrivateSocket,
    path: AgentPath,
    /// Whether the link is not to lead here any more.
    retired: Cell<bool>,
}

impl AgentSocket {
    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> UnixStream {
        self.socket.accept().await
    }

    /// Leads the link here, unless it does already. For an ssh that is about to ask for the key.
    ///
    /// # Errors
    /// When the directory cannot be written.
    pub fn take_link(&self) -> io::Result<()> {
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
    pub fn heal_link(&self) -> io::Result<()> {
        let leader = self.path.leader().and_then(|leader| self.path.process_of(&leader));
        match leader.is_some_and(runs) {
            true => Ok(()),
            false => self.take_link(),
        }
    }

    /// Leads the link to another proxy, if there is one. For a key that cannot be pushed any more.
    pub async fn give_up(&self) {
        let lock = self.path.lock().await;
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
    pub async fn retire(&self) {
        if !self.retired.replace(true) {
            let lock = self.path.lock().await;
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
                None => remove_if_there(&path.link_path())?,
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
        let link = if is_ours { remove_if_there(&self.path.link_path()) } else { Ok(()) };
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

/// The lock is held for milliseconds, unless its process was stopped.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
/// The system follows a link in microseconds.
const FOLLOW_PATIENCE: Duration = Duration::from_millis(10);
/// A connection to a socket of this machine takes microseconds.
const CONNECT_PATIENCE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::net::UnixStream as StdUnixStream;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process};

    use super::*;

    fn link(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("agent").join("ec2-user@i-0a1b2c3d:22")
    }

    /// A socket that looks in the directory like that of another process.
    async fn sibling(path: &Path, process: u32) -> AgentSocket {
        let mut path = AgentPath::check(path).unwrap();
        path.name = socket_name(&path.link, process);
        path.bind().await.unwrap()
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[tokio::test]
    async fn only_the_owner_can_reach_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let _socket = AgentPath::check(&path).unwrap().bind().await.unwrap();
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

    async fn accept_all(socket: &AgentSocket) {
        loop {
            socket.accept().await;
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_link_leads_to_a_socket_at_every_moment_of_a_retirement() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let last = sibling(&path, 1).await;
        let is_over = Arc::new(AtomicBool::new(false));
        let (knock, over) = (path.clone(), Arc::clone(&is_over));
        let mut client = tokio::task::spawn_blocking(move || {
            let mut knocks = 0;
            while !over.load(Ordering::Relaxed) {
                let leader = fs::read_link(&knock).unwrap();
                if let Err(error) = StdUnixStream::connect(knock.with_file_name(&leader)) {
                    // Between the two the link may have moved on, and the socket be gone.
                    assert_ne!(fs::read_link(&knock).unwrap(), leader, "knock {knocks}: {error}");
                }
                knocks += 1;
            }
            knocks
        });
        for process in 2..60 {
            let socket = sibling(&path, process).await;
            tokio::select! {
                () = accept_all(&last) => {}
                () = accept_all(&socket) => {}
                () = socket.retire() => {}
            }
        }
        is_over.store(true, Ordering::Relaxed);
        tokio::select! {
            knocks = &mut client => assert!(knocks.unwrap() > 60),
            () = accept_all(&last) => {}
        }
    }

    #[tokio::test]
    async fn what_a_killed_proxy_left_is_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let killed = sibling(&path, 1).await;
        // The link and the socket stay, without a listener.
        killed.retired.set(true);
        drop(killed);
        assert_eq!(names(&path).len(), 2);
        AgentPath::check(&path).unwrap().bind().await.unwrap().retire().await;
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

    #[tokio::test]
    async fn a_lock_that_is_never_released_does_not_keep_a_proxy_from_its_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let agent_path = AgentPath::check(&path).unwrap();
        let held = File::open(path.parent().unwrap()).unwrap();
        held.lock().unwrap();
        let socket = agent_path.bind().await.unwrap();
        assert!(StdUnixStream::connect(&path).is_ok());
        socket.retire().await;
        assert_eq!(names(&path), Vec::<String>::new());
        held.unlock().unwrap();
    }
}
