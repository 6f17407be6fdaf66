//! Unix sockets that only this user can connect to, and the frames that go over them.
//!
//! The directory's mode is 0700 and the socket's 0600; besides, both sides check the peer's user id. A frame
//! is a length of four bytes and a body, as in the SSH agent protocol; its length is checked before memory is
//! allocated.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::io::{Errno, ioctl_fionbio};
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketType};
use rustix::process::{Pid, test_kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;
pub(crate) use tokio::net::UnixStream;
use tokio::time::sleep;

/// The directory of a socket cannot be used.
#[derive(Debug)]
pub(crate) enum DirectoryError {
    /// Another user owns it, or its mode lets other users in.
    Exposed,
    /// The operating system refused to make or examine it.
    Io(io::Error),
}

/// Makes a directory that no other user can enter, or checks the one that exists.
///
/// # Errors
///
/// [`DirectoryError`].
pub(crate) fn make_directory(directory: &Path) -> Result<(), DirectoryError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(DirectoryError::Io)?;
    match is_private(directory).map_err(DirectoryError::Io)? {
        true => Ok(()),
        false => Err(DirectoryError::Exposed),
    }
}

/// Whether no other user can enter a directory or owns its name: in `/tmp` another user could have taken the
/// name first, for a link of theirs.
fn is_private(directory: &Path) -> io::Result<bool> {
    let uid = own_user();
    let (entry, metadata) = (fs::symlink_metadata(directory)?, fs::metadata(directory)?);
    Ok(entry.uid() == uid && metadata.uid() == uid && metadata.mode() & 0o077 == 0)
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct PrivateSocket(UnixListener);

impl PrivateSocket {
    /// Listens at `path`, in a directory from [`make_directory`], and replaces a socket that is there.
    ///
    /// # Errors
    ///
    /// Errors of the operating system.
    pub(crate) fn listen(path: &Path) -> io::Result<Self> {
        remove_if_there(path)?;
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(Self(listener))
    }

    /// The next connection of this user. Cancel-safe.
    ///
    /// At the limit of open files the connection stays in the backlog, and the system reports it as ready all
    /// the time. So this pauses before it tries again.
    pub(crate) async fn accept(&self) -> UnixStream {
        loop {
            let stream = match self.0.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::debug!(%error, "a private socket could not accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            match stream.peer_cred() {
                Ok(peer) if peer.uid() == own_user() => return stream,
                Ok(peer) => tracing::warn!(uid = peer.uid(), "another user tried a private socket"),
                Err(error) => tracing::debug!(%error, "a connection to a private socket broke"),
            }
        }
    }
}

/// Connects to a socket of this user. None if nothing listens there.
///
/// # Errors
///
/// When another user owns the socket or its directory, or can enter the directory; and errors of the
/// operating system.
pub(crate) async fn connect(path: &Path) -> io::Result<Option<UnixStream>> {
    use io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
    let stream = match UnixStream::connect(path).await {
        Err(error) if matches!(error.kind(), ConnectionRefused | NotFound) => return Ok(None),
        result => result?,
    };
    let directory = path.parent().unwrap_or(Path::new("."));
    if stream.peer_cred()?.uid() != own_user() || !is_private(directory)? {
        return Err(PermissionDenied.into());
    }
    Ok(Some(stream))
}

/// Removes the sockets in `directory` that were left by processes which were killed. `process_of` finds a
/// process in the name of a socket of its kind. Processes of containers that share the directory have other
/// numbers, so a socket is removed only if nobody listens there. It may also be that nobody listens yet, but
/// then the process exists.
///
/// # Errors
///
/// Those of the operating system.
pub(crate) fn sweep(directory: &Path, process_of: impl Fn(&str) -> Option<u32>) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let process = entry.file_name().to_str().and_then(&process_of);
        if process.is_some_and(has_ended) && is_abandoned(&entry.path()) {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

/// Whether a process does not exist, or is a zombie, which not every container's process 1 reaps.
fn has_ended(process: u32) -> bool {
    let Some(id) = i32::try_from(process).ok().and_then(Pid::from_raw) else { return true };
    test_kill_process(id) == Err(Errno::SRCH) || stat_field(process, 0).is_some_and(|state| state == "Z")
}

/// Whether the process that made a socket has ended. Does not wait for one that has a full backlog.
fn is_abandoned(path: &Path) -> bool {
    let connect = || {
        let socket = net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
        ioctl_fionbio(&socket, true)?;
        net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    connect() == Err(Errno::CONNREFUSED)
}

/// The id of the process at the other end. None where the system does not report it.
pub(crate) fn peer(stream: &UnixStream) -> Option<u32> {
    u32::try_from(stream.peer_cred().ok()?.pid()?).ok()
}

/// Whether the process at the other end has the same parent as this one. A parent that ends is replaced by
/// another, so a process id that is used again does not mislead. False where there is no `/proc`.
pub(crate) fn is_sibling(stream: &UnixStream) -> bool {
    let parent = std::os::unix::process::parent_id();
    peer(stream).and_then(parent_of) == Some(parent)
}

fn parent_of(process: u32) -> Option<u32> {
    stat_field(process, 1)?.parse().ok()
}

/// Whether a process cannot answer, since a signal or a debugger stopped it or it is a zombie. False where
/// there is no `/proc`.
pub(crate) fn is_stopped(process: u32) -> bool {
    stat_field(process, 0).is_some_and(|state| matches!(&*state, "T" | "t" | "X" | "Z"))
}

/// A field of proc_pid_stat(5), counted from the one after the program's name, which is in parentheses and
/// may contain any character.
fn stat_field(process: u32, index: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_ascii_whitespace().nth(index).map(str::to_owned)
}

/// The body of the next frame. None at the end of the stream. The length is checked before memory is
/// allocated.
///
/// # Errors
///
/// When reading fails, and when a frame is empty or longer than `limit`.
pub(crate) async fn read_frame(stream: &mut UnixStream, limit: usize) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u32().await {
        Ok(length) => usize::try_from(length).unwrap_or(usize::MAX),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length == 0 || length > limit {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(body))
}

/// Writes a frame.
///
/// # Errors
///
/// When writing fails, and when the body has 4 GiB or more.
pub(crate) async fn write_frame(stream: &mut UnixStream, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len()).map_err(|_| io::ErrorKind::InvalidData)?;
    stream.write_all(&[&length.to_be_bytes(), body].concat()).await
}

/// Removes a file, if it exists.
///
/// # Errors
///
/// Errors of the operating system.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn own_user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// A socket address holds 108 bytes on Linux and 104 on others, with a final NUL.
pub(crate) const PATH_LIMIT: usize = 103;
/// Short for a user who waits, and long enough to use at most a thousandth of a processor's time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdListener;

    use super::*;

    #[tokio::test]
    async fn an_oversized_frame_is_refused_before_allocation() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
        assert_eq!(read_frame(&mut ours, 1024).await.unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_and_then_end() {
        let (mut ours, mut theirs) = UnixStream::pair().unwrap();
        write_frame(&mut theirs, b"what").await.unwrap();
        drop(theirs);
        assert_eq!(read_frame(&mut ours, 4).await.unwrap().unwrap(), b"what");
        assert_eq!(read_frame(&mut ours, 4).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_socket_in_a_directory_open_to_others_is_not_used() {
        let directory = tempfile::tempdir().unwrap();
        let (private, path) = (directory.path().join("d"), directory.path().join("d/s"));
        make_directory(&private).unwrap();
        assert!(connect(&path).await.unwrap().is_none(), "there is none");
        let socket = PrivateSocket::listen(&path).unwrap();
        assert!(connect(&path).await.unwrap().is_some());
        fs::set_permissions(&private, Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(make_directory(&private), Err(DirectoryError::Exposed)));
        assert_eq!(connect(&path).await.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        fs::set_permissions(&private, Permissions::from_mode(0o700)).unwrap();
        drop(socket);
        assert!(connect(&path).await.unwrap().is_none(), "nobody listens any more");
    }

    #[tokio::test]
    async fn a_process_of_another_parent_is_no_sibling() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        assert_eq!(peer(&ours), Some(std::process::id()));
        assert_eq!(parent_of(std::process::id()), Some(std::os::unix::process::parent_id()));
        assert!(is_sibling(&ours), "this process is its own sibling");
        assert_ne!(parent_of(1), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn a_socket_is_removed_if_its_process_is_gone_and_nobody_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let gone = i32::MAX;
        let listens = StdListener::bind(path(&format!("in-another-container.{gone}"))).unwrap();
        drop(StdListener::bind(path(&format!("left.{gone}"))).unwrap());
        drop(StdListener::bind(path(&format!("about-to-listen.{}", std::process::id()))).unwrap());
        fs::write(path("file"), "").unwrap();
        sweep(directory.path(), |name| name.rsplit_once('.')?.1.parse().ok()).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        let [about, file, other] = &left[..] else { panic!("{left:?}") };
        assert!(about.starts_with(path(&format!("about-to-listen.{}", std::process::id()))));
        assert_eq!((file, other), (&path("file"), &path(&format!("in-another-container.{gone}"))));
        drop(listens);
    }
}
