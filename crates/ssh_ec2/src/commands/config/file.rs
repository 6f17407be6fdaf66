//! Files of the user's, replaced in one step.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::private_file::rename_durably;

/// New contents of a file, written beside it. Dropping it removes them.
pub(super) struct Staged {
    file: PathBuf,
    staged: PathBuf,
}

impl Staged {
    /// Writes the contents, to disk. The new file gets the old one's mode, and a link stays a link.
    pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let file = behind_links(path)?;
        let mut staged = file.as_os_str().to_owned();
        staged.push(format!(".ssh_ec2.{}", std::process::id()));
        let mode = fs::metadata(&file).map_or(0o600, |metadata| metadata.permissions().mode() & 0o7777);
        let staged = Self { file, staged: staged.into() };
        let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged.staged)?;
        // The mask may have taken bits from the mode.
        new.set_permissions(PermissionsExt::from_mode(mode))?;
        new.write_all(bytes)?;
        new.sync_all()?;
        Ok(staged)
    }

    /// Renames the new file over the old one.
    pub(super) fn replace(self) -> io::Result<()> {
        rename_durably(&self.staged, &self.file)
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // After `replace` it is not there.
        let _ = fs::remove_file(&self.staged);
    }
}

/// The file that a path leads to, which need not be there. A link to nothing is an error: its target may be
/// on a disk that is not mounted now.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => {
                let fact = format!("it is a link to {}, which is not there", target.display());
                Err(io::Error::new(io::ErrorKind::NotFound, fact))
            }
            Err(_) => Ok(path.to_owned()),
        },
        result => result,
    }
}

/// The file's bytes; none when there is no file.
///
/// # Errors
/// When there is one that cannot be read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(source) => Err(Failure::File { action: "read", path: path.to_owned(), source }),
    }
}

pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Failure::File { action: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Makes a directory that only its owner can enter, unless it is there.
///
/// # Errors
/// When it cannot be made.
pub fn make_private_directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Failure::File { action: "make", path: path.to_owned(), source })
}
