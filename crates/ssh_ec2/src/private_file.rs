//! Files that only their owner can read, replaced as a whole; and turns between processes.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

/// Writes `bytes` beside `path` and renames them over it. Its directory is made if it is not there.
///
/// # Errors
/// When one of it cannot be done; then the old file is as it was.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    make_directory(path)?;
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.tmp", std::process::id()));
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&staged)?;
        file.write_all(bytes)?;
        fs::rename(&staged, path)
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

/// Held by one process at a time.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Waits for a lock, at most `patience`; none if it cannot be had.
pub async fn lock(path: &Path, patience: Duration) -> Option<Lock> {
    make_directory(path).ok()?;
    let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path).ok()?;
    let mut waited = Duration::ZERO;
    loop {
        match file.try_lock() {
            Ok(()) => return Some(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if waited < patience => {
                sleep(INTERVAL).await;
                waited += INTERVAL;
            }
            Err(_) => return None,
        }
    }
}

const INTERVAL: Duration = Duration::from_millis(50);

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

    #[tokio::test(start_paused = true)]
    async fn a_lock_is_waited_for_but_not_for_ever() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lock");
        let first = lock(&path, Duration::ZERO).await;
        assert!(first.is_some());
        assert!(lock(&path, Duration::from_secs(5)).await.is_none());
        drop(first);
        assert!(lock(&path, Duration::ZERO).await.is_some());
    }
}
