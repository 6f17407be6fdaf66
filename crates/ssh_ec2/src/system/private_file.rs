//! Files that only their owner can read, replaced as a whole, and locks between processes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::system::explain::{Anchor, Explain};

/// A file that cannot be read, or whose contents others may have written.
#[derive(Debug, Error)]
pub(crate) enum ReadError {
    /// The operating system does not let it be read.
    #[error("cannot read {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// It is no regular file or is too large, or it is no directory.
    #[error("{path} has the wrong file type, or is too large")]
    Kind {
        /// The file or directory.
        path: PathBuf,
    },
    /// Another user owns it.
    #[error("{path} belongs to the user with id {owner}, who could have written anything into it")]
    Owner {
        /// The file or directory.
        path: PathBuf,
        /// The id of the user who owns it.
        owner: u32,
    },
    /// Its mode lets other users write to it.
    #[error("other users can write to {path}")]
    Writable {
        /// The file or directory.
        path: PathBuf,
    },
}

impl Explain for ReadError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Io { path, .. } => vec![format!("check the permissions of {}", path.display())],
            Self::Kind { path } | Self::Owner { path, .. } => {
                vec![format!("remove or move {}; ssh_ec2 creates it again", path.display())]
            }
            Self::Writable { path } => vec![format!(
                "check its contents, then run `chmod go-w {}`, or remove it; ssh_ec2 creates it again",
                path.display()
            )],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::Files)
    }
}

/// The contents of a file that only `owner` can have written. None if there is no file.
///
/// # Errors
///
/// [`ReadError`].
pub(crate) fn read(path: &Path, owner: u32) -> Result<Option<Vec<u8>>, ReadError> {
    let io = |source| ReadError::Io { path: path.to_owned(), source };
    // Otherwise opening a pipe would wait until a process opens its other end.
    let opened = OpenOptions::new().read(true).custom_flags(NONBLOCKING).open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(io(error)),
    };
    let metadata = file.metadata().map_err(io)?;
    if metadata.uid() != owner {
        return Err(ReadError::Owner { path: path.to_owned(), owner: metadata.uid() });
    }
    if !metadata.is_file() || metadata.len() > SIZE_LIMIT {
        return Err(ReadError::Kind { path: path.to_owned() });
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(ReadError::Writable { path: path.to_owned() });
    }
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT).read_to_end(&mut bytes).map_err(io)?;
    Ok(Some(bytes))
}

/// Checks that only `owner` can create or replace their files in a directory. A directory that does not exist
/// passes, and so does one with the sticky bit, like `/tmp`.
///
/// # Errors
///
/// [`ReadError`].
pub(crate) fn check_directory(directory: &Path, owner: u32) -> Result<(), ReadError> {
    let path = || directory.to_owned();
    let metadata = match fs::metadata(directory) {
        Ok(metadata) => metadata,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(());
        }
        Err(source) => return Err(ReadError::Io { path: path(), source }),
    };
    if !metadata.is_dir() {
        return Err(ReadError::Kind { path: path() });
    }
    if ![owner, ROOT].contains(&metadata.uid()) {
        return Err(ReadError::Owner { path: path(), owner: metadata.uid() });
    }
    if metadata.mode() & 0o022 != 0 && metadata.mode() & STICKY == 0 {
        return Err(ReadError::Writable { path: path() });
    }
    Ok(())
}

/// Opens a file for reading and writing, and creates it if it does not exist. It follows no link and waits
/// for no pipe: another user could have made them.
///
/// # Errors
///
/// When it cannot be opened, or is no regular file of this user.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let file = options.custom_flags(NONBLOCKING | UNLINKED).open(path)?;
    let metadata = file.metadata()?;
    match metadata.uid() == rustix::process::getuid().as_raw() {
        true if metadata.is_file() => Ok(file),
        true => Err(io::ErrorKind::InvalidInput.into()),
        false => Err(io::ErrorKind::PermissionDenied.into()),
    }
}

/// Writes `bytes` to a file beside `path`, and renames it over `path`. Creates the directory if it does not
/// exist.
///
/// # Errors
///
/// When one of these steps fails; then the old file is as it was.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(path, bytes, |_, staged| fs::rename(staged, path))
}

/// The same for data that must survive a crash of the machine. Waits for the disk.
///
/// # Errors
///
/// As for [`replace`].
pub(crate) fn replace_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_by(path, bytes, |file, staged| {
        file.sync_all()?;
        rename_durably(staged, path)
    })
}

/// Renames a file whose contents are on disk, and writes the new name to disk as well.
///
/// # Errors
///
/// When it cannot be renamed.
pub(crate) fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    // Not every file system can sync a directory. The file is whole in any case.
    let _ = to.parent().map(|directory| File::open(directory)?.sync_all());
    Ok(())
}

fn replace_by(
    path: &Path,
    bytes: &[u8],
    rename: impl FnOnce(&File, &Path) -> io::Result<()>,
) -> io::Result<()> {
    make_directory(path)?;
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.tmp", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        rename(&file, Path::new(&staged))
    };
    write().inspect_err(|_| {
        let _ = fs::remove_file(&staged);
    })
}

fn make_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => DirBuilder::new().recursive(true).mode(0o700).create(directory),
        None => Ok(()),
    }
}

/// A lock, which is released when this is dropped.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Takes the lock of the file at `path`, and waits for it at most for `patience`.
///
/// # Errors
///
/// When the file cannot be opened; [`io::ErrorKind::WouldBlock`] when another process keeps the lock.
pub(crate) async fn lock(path: &Path, patience: Duration) -> io::Result<Lock> {
    make_directory(path)?;
    lock_file(open(path)?, patience).await
}

/// The same for an open file or directory.
///
/// A stopped process may hold the lock for ever, and `flock` waits in the kernel for an NFS server that does
/// not answer. So a thread waits, while this task handles signals. After `patience` the thread is abandoned;
/// if it gets the lock later, it releases it at once.
///
/// # Errors
///
/// As for [`lock`].
pub(crate) async fn lock_file(file: File, patience: Duration) -> io::Result<Lock> {
    let waiting = spawn_blocking(move || file.lock().map(|()| Lock { _file: file }));
    match timeout(patience, waiting).await {
        Ok(locked) => locked.map_err(io::Error::other)?,
        Err(_) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// `O_NONBLOCK`.
const NONBLOCKING: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
/// `O_NOFOLLOW`.
const UNLINKED: i32 = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
const ROOT: u32 = 0;
/// `S_ISVTX`.
const STICKY: u32 = 0o1000;
/// Room for 80,000 lines of known_hosts, of 200 bytes each.
const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_file_is_private_and_replaced_as_a_whole() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("new/file");
        for text in ["one", "two"] {
            replace(&path, text.as_bytes()).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn only_files_that_nobody_else_can_write_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        let owner = rustix::process::getuid().as_raw();
        assert!(read(&path, owner).unwrap().is_none());
        replace(&path, b"text").unwrap();
        assert_eq!(read(&path, owner).unwrap().unwrap(), b"text");
        assert!(matches!(read(&path, owner + 1), Err(ReadError::Owner { .. })));
        for mode in [0o620, 0o602] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read(&path, owner), Err(ReadError::Writable { .. })));
        }
        assert!(matches!(read(directory.path(), owner), Err(ReadError::Kind { .. })));
        let pipe = directory.path().join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR).unwrap();
        assert!(matches!(read(&pipe, owner), Err(ReadError::Kind { .. })));
    }

    #[test]
    fn only_directories_that_nobody_else_can_change_are_used() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("directory");
        let owner = rustix::process::getuid().as_raw();
        assert!(check_directory(&path, owner).is_ok(), "it can be made");
        fs::create_dir(&path).unwrap();
        for (mode, is_safe) in [(0o700, true), (0o755, true), (0o1777, true), (0o770, false), (0o707, false)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(check_directory(&path, owner).is_ok(), is_safe, "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        if owner != ROOT {
            assert!(matches!(check_directory(&path, owner + 1), Err(ReadError::Owner { .. })));
        }
        let file = path.join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check_directory(&file, owner), Err(ReadError::Kind { .. })));
    }

    #[test]
    fn what_a_link_leads_to_is_not_opened_and_a_pipe_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::write(path("file"), "text").unwrap();
        assert!(open(&path("file")).is_ok() && open(&path("new")).is_ok());
        for (link, target) in [("link", "file"), ("dangling", "absent")] {
            std::os::unix::fs::symlink(path(target), path(link)).unwrap();
            assert!(open(&path(link)).is_err(), "{link}");
        }
        assert!(!path("absent").exists());
        rustix::fs::mkfifoat(rustix::fs::CWD, path("pipe"), rustix::fs::Mode::RWXU).unwrap();
        assert_eq!(open(&path("pipe")).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[tokio::test]
    async fn a_lock_is_waited_for_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let (short, long) = (Duration::from_millis(20), Duration::from_secs(60));
        let first = lock(&path, long).await.unwrap();
        let second = lock(&path, short).await;
        assert_eq!(second.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let (third, ()) = tokio::join!(lock(&path, long), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert!(third.is_ok(), "the lock that came too late was released");
        let other = lock(directory.path(), long).await;
        assert_ne!(other.unwrap_err().kind(), io::ErrorKind::WouldBlock, "it is a directory");
    }
}
