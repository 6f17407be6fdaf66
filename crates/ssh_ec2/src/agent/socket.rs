//! The key agent's socket, and who may find it.
//!
//! ssh and its proxy meet at a path that both can work out (`%r`, `%h` and `%p` are all that `IdentityAgent` and
//! `ProxyCommand` have in common), so proxies of connections to the same user, host and port share it. The path
//! is therefore a symbolic link to the socket of one of them; any will do, since each one's key is pushed to the
//! same place. Whoever starts takes the link; whoever ends hands it to another that still listens, or removes it, and
//! stays for those who have already come.
//! All changes are made under a lock on the directory, so the order in which connections end does not matter.

use std::cell::Cell;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use thiserror::Error;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::protocol::{FRAME_LIMIT, Request, answer, refusal};
use crate::key::OneTimeKey;
use crate::private_socket::{
    DirectoryError, PATH_LIMIT, PrivateSocket, make_directory, peer, read_frame, remove_if_there,
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

impl SocketError {
    /// What to do about it.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::Io { path, .. } => {
                let directory = path.parent().unwrap_or(path);
                vec![format!("check that you may write to {}", directory.display())]
            }
            Self::Exposed { path } => vec![format!("run `chmod 700 {}`", path.display())],
            Self::TooLong { .. } => {
                vec!["set SSH_EC2_DIR to a shorter directory, for example one below /run/user".into()]
            }
        }
    }
}

/// A listening socket and the link that leads to it. Dropping it removes both.
#[derive(Debug)]
pub struct AgentSocket {
    socket: PrivateSocket,
    directory: PathBuf,
    /// The name that ssh looks for.
    link: String,
    /// The name of our own socket.
    name: String,
}

impl AgentSocket {
    /// Listens, and leads `path` here.
    ///
    /// # Errors
    /// When the directory cannot be made private or written.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let fail = |source| SocketError::Io { path: path.to_owned(), source };
        if path.as_os_str().len() > PATH_LIMIT {
            return Err(SocketError::TooLong { path: path.to_owned() });
        }
        let (Some(directory), Some(link)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(fail(io::ErrorKind::InvalidInput.into()));
        };
        make_directory(directory).map_err(|error| match error {
            DirectoryError::Exposed => SocketError::Exposed { path: directory.to_owned() },
            DirectoryError::Io(source) => fail(source),
        })?;
        let name = socket_name(link, std::process::id());
        let own_path = directory.join(&name);
        let _lock = lock(directory).map_err(fail)?;
        let socket = PrivateSocket::listen(&own_path).map_err(fail)?;
        let socket = Self { socket, directory: directory.to_owned(), link: link.to_owned(), name };
        socket.lead_to(&socket.name).map_err(fail)?;
        Ok(socket)
    }

    /// Points the link at `name`, in one step.
    fn lead_to(&self, name: &str) -> io::Result<()> {
        let staged = self.directory.join(format!("{}.link", self.name));
        remove_if_there(&staged)?;
        std::os::unix::fs::symlink(name, &staged)?;
        fs::rename(&staged, self.directory.join(&self.link))
    }

    /// Lets nobody new in. Who is here already can go on.
    pub fn retire(&self) {
        // Without the directory there is nothing left to remove.
        if let Err(error) = self.release()
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::debug!(%error, "the key agent's socket could not be removed");
        }
    }

    /// Gives the link to somebody else, if it is ours.
    fn release(&self) -> io::Result<()> {
        let _lock = lock(&self.directory)?;
        remove_if_there(&self.directory.join(&self.name))?;
        let link = self.directory.join(&self.link);
        let heir = self.heir()?;
        if fs::read_link(&link).is_ok_and(|target| target != Path::new(&self.name)) {
            return Ok(());
        }
        match heir {
            Some(heir) => self.lead_to(&heir),
            None => remove_if_there(&link),
        }
    }

    /// Another proxy for the same user, host and port that still listens. Sockets on which nobody listens were
    /// left by a process that was killed; they are removed on the way.
    fn heir(&self) -> io::Result<Option<String>> {
        let mut heir = None;
        for entry in fs::read_dir(&self.directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let process = name.rsplit_once('.').and_then(|(_, process)| process.parse().ok());
            if process.is_none_or(|process| name != socket_name(&self.link, process)) {
                continue;
            }
            match StdUnixStream::connect(entry.path()) {
                Ok(_) => heir = Some(name),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    remove_if_there(&entry.path())?
                }
                Err(_) => {}
            }
        }
        Ok(heir)
    }
}

impl Drop for AgentSocket {
    fn drop(&mut self) {
        self.retire();
    }
}

/// What our own ssh did with the key, and who else is here.
#[derive(Debug, Default)]
pub struct Usage {
    /// What our ssh had received when it offered the key.
    offered_at: Cell<Option<u64>>,
    signed: Cell<bool>,
    guests: Cell<usize>,
    received: Rc<Cell<u64>>,
}

impl Usage {
    /// Of a connection that counts the bytes from sshd in `received`.
    pub fn new(received: Rc<Cell<u64>>) -> Self {
        Self { received, ..Self::default() }
    }

    /// ssh offered the key, sshd did not want a signature, and little else was said after that: it refused the key, and
    /// ssh had no other.
    pub fn was_refused(&self) -> bool {
        let offered_at = self.offered_at.get().filter(|_| !self.signed.get());
        offered_at
            .is_some_and(|before| (REFUSAL..LITTLE).contains(&self.received.get().saturating_sub(before)))
    }

    /// Whether another proxy's ssh has come to this socket, and would be refused by its server if it went away.
    pub fn has_guests(&self) -> bool {
        self.guests.get() > 0
    }
}

/// Serves `key` until dropped, or until `push` fails. `push` makes sure that the instance knows the key now; it is
/// called before each answer that ssh will act upon.
///
/// # Errors
/// Only what `push` fails with.
pub async fn serve<E>(
    socket: &AgentSocket,
    key: &OneTimeKey,
    usage: &Usage,
    push: impl AsyncFn() -> Result<(), E>,
) -> Result<(), E> {
    let mut connections = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = socket.socket.accept() => match accepted {
                Ok(stream) => {
                    // OpenSSH runs a ProxyCommand through `exec`, so ssh itself is our parent.
                    let own = peer(&stream) == Some(std::os::unix::process::parent_id());
                    connections.push(converse(stream, key, usage, own, &push));
                }
                // Out of descriptors, say: the connection attempt is lost, the agent goes on.
                Err(error) => {
                    tracing::debug!(%error, "the key agent's socket refused a connection");
                    tokio::task::yield_now().await;
                }
            },
            Some(done) = connections.next() => done?,
        }
    }
}

/// One connection. What the peer does wrong ends it; what `push` reports ends the agent.
async fn converse<E>(
    mut stream: UnixStream,
    key: &OneTimeKey,
    usage: &Usage,
    own: bool,
    push: &impl AsyncFn() -> Result<(), E>,
) -> Result<(), E> {
    let _guest = (!own).then(|| Guest::enter(usage));
    while let Ok(Some(body)) = read_frame(&mut stream, FRAME_LIMIT).await {
        let request = Request::parse(&body);
        let mut refused = Ok(());
        if request != Request::Unsupported {
            refused = push().await;
        }
        let frame = if refused.is_ok() { answer(&request, key) } else { refusal() };
        let written = stream.write_all(&frame).await;
        refused?;
        match &request {
            Request::List if own => usage.offered_at.set(Some(usage.received.get())),
            Request::Sign { .. } if own => usage.signed.set(true),
            _ => {}
        }
        if written.is_err() {
            break;
        }
    }
    Ok(())
}

/// Counted while it is here.
struct Guest<'a>(&'a Usage);

impl<'a> Guest<'a> {
    fn enter(usage: &'a Usage) -> Self {
        usage.guests.set(usage.guests.get() + 1);
        Self(usage)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.guests.set(self.0.guests.get() - 1);
    }
}

/// A name that tells which link a socket belongs to, in fewer characters than the link's: socket addresses are
/// short. FNV-1a, so that all versions of this program agree; two links that met by chance would share keys that
/// each refuses.
fn socket_name(link: &str, process: u32) -> String {
    let hash = link.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    format!(".{hash:016x}.{process}")
}

/// Held until dropped. The directory itself is locked, so no lock file stays behind.
fn lock(directory: &Path) -> io::Result<File> {
    let lock = File::open(directory)?;
    lock.lock()?;
    Ok(lock)
}

/// After the key is listed, sshd answers thrice at least: it takes the service, and refuses `none` and the key. With the
/// shortest packets of any cipher that is more than this.
const REFUSAL: u64 = 100;
/// A refusal takes 80 bytes; of the first words after a success, OpenSSH's list of host keys alone has 500.
const LITTLE: u64 = 600;

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use tokio::io::AsyncReadExt;

    use super::*;

    fn link(directory: &tempfile::TempDir) -> PathBuf {
        directory.path().join("agent").join("ec2-user@i-0a1b2c3d:22")
    }

    /// A proxy of another process, as far as the directory shows.
    fn sibling(path: &Path, process: u32) -> AgentSocket {
        let mut socket = AgentSocket::bind(path).unwrap();
        let name = socket_name(&socket.link, process);
        fs::rename(socket.directory.join(&socket.name), socket.directory.join(&name)).unwrap();
        socket.name = name;
        socket.lead_to(&socket.name).unwrap();
        socket
    }

    fn names(path: &Path) -> Vec<String> {
        let entries = fs::read_dir(path.parent().unwrap()).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_key_is_refused_when_little_is_said_after_it() {
        let received = Rc::new(Cell::new(3000));
        let usage = Usage::new(Rc::clone(&received));
        assert!(!usage.was_refused(), "it was not offered");
        usage.offered_at.set(Some(received.get()));
        assert!(!usage.was_refused(), "sshd has not answered");
        received.set(3160);
        assert!(usage.was_refused());
        received.set(3160 + 900);
        assert!(!usage.was_refused(), "another key was accepted");
        received.set(3160);
        usage.signed.set(true);
        assert!(!usage.was_refused());
    }

    #[tokio::test]
    async fn only_the_owner_can_reach_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let _socket = AgentSocket::bind(&path).unwrap();
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[tokio::test]
    async fn a_directory_open_to_others_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(AgentSocket::bind(&path), Err(SocketError::Exposed { .. })));
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[tokio::test]
    async fn the_link_works_whatever_order_proxies_end_in() {
        for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
            let directory = tempfile::tempdir().unwrap();
            let path = link(&directory);
            let mut sockets: Vec<_> = (1..=3).map(|process| Some(sibling(&path, process))).collect();
            for index in order {
                assert!(StdUnixStream::connect(&path).is_ok(), "{order:?} before {index}");
                sockets[index] = None;
            }
            assert_eq!(names(&path), Vec::<String>::new(), "{order:?}");
        }
    }

    #[tokio::test]
    async fn what_a_killed_proxy_left_is_swept_away() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let mut killed = sibling(&path, 1);
        let name = std::mem::replace(&mut killed.name, "gone".into());
        drop(killed);
        // The link and the socket are there, and nobody listens.
        std::os::unix::fs::symlink(&name, &path).unwrap_or_default();
        drop(AgentSocket::bind(&path).unwrap());
        assert_eq!(names(&path), Vec::<String>::new());
    }

    #[tokio::test]
    async fn a_failed_push_is_told_to_ssh_and_to_the_caller() {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let socket = AgentSocket::bind(&path).unwrap();
        let key = OneTimeKey::generate().unwrap();
        let usage = Usage::default();
        let ask = async {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            stream.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
            let mut frame = [0; 5];
            stream.read_exact(&mut frame).await.unwrap();
            frame
        };
        let serve = serve(&socket, &key, &usage, async || Err("denied"));
        let (frame, served) = tokio::join!(ask, serve);
        assert_eq!(frame[..], refusal()[..]);
        assert_eq!(served, Err("denied"));
    }
}
