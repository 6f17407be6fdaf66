//! Files of the user, replaced in one step.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::error::Failure;
use crate::ssh::own_files::OwnFiles;
use crate::ssh::quote::is_literal;
use crate::system::private_file::rename_durably;

/// New contents of a file, written to a temporary file beside it, which is removed on drop.
pub(super) struct Staged {
    file: PathBuf,
    staged: PathBuf,
}

impl Staged {
    /// Writes the contents to disk. The new file has the old one's mode and owner, and a link stays a link.
    pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let file = behind_links(path)?;
        let old = fs::metadata(&file).ok();
        if old.as_ref().is_some_and(|old| !old.is_file()) {
            // `/dev/null`, for example, must not be replaced by a file.
            let fact = format!("{} is not a regular file", file.display());
            return Err(io::Error::new(io::ErrorKind::InvalidInput, fact));
        }
        let mut staged = file.as_os_str().to_owned();
        staged.push(format!(".ssh_ec2.{}", std::process::id()));
        let mode = old.as_ref().map_or(0o600, |old| old.mode() & 0o7777);
        let staged = Self { file, staged: staged.into() };
        let mut new = OpenOptions::new().write(true).create_new(true).mode(mode).open(&staged.staged)?;
        if let Some(old) = old {
            keep_owner(&new, &old)?;
        }
        // The umask may have removed bits from the mode.
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
        // After `replace` it does not exist.
        let _ = fs::remove_file(&self.staged);
    }
}

/// Under `sudo` the file may belong to the user who called it, and must stay readable for that user.
fn keep_owner(new: &File, old: &Metadata) -> io::Result<()> {
    let metadata = new.metadata()?;
    if (metadata.uid(), metadata.gid()) == (old.uid(), old.gid()) {
        return Ok(());
    }
    match fchown(new, Some(old.uid()), Some(old.gid())) {
        // The user may not be in the old group. Only the owner matters.
        Err(_) if metadata.uid() == old.uid() => Ok(()),
        result => result,
    }
}

/// The file behind a path's links, which need not exist. A dangling link is an error: its target may be on a
/// disk that is not mounted now.
fn behind_links(path: &Path) -> io::Result<PathBuf> {
    match fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match fs::read_link(path) {
            Ok(target) => {
                let fact = format!("it is a link to {}, which does not exist", target.display());
                Err(io::Error::new(io::ErrorKind::NotFound, fact))
            }
            Err(_) => Ok(path.to_owned()),
        },
        result => result,
    }
}

/// The file's bytes; none if there is no file.
///
/// # Errors
///
/// When the file cannot be read.
pub(in crate::commands) fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    // A pipe would wait for a writer.
    let is_pipe = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo());
    let bytes = if is_pipe { Err(io::Error::other("it is a pipe")) } else { fs::read(path) };
    match bytes {
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

/// Makes the directory for this program's files, if it does not exist.
///
/// # Errors
///
/// When it cannot be made, or ssh would change its path.
pub(in crate::commands) fn make_own_directory(places: &OwnFiles) -> Result<(), Failure> {
    let path = places.directory();
    if !is_literal(&path.to_string_lossy()) {
        let source = io::Error::other("ssh cannot be given a path with `${` or a line break");
        return Err(Failure::File { action: "create", path: path.to_owned(), source });
    }
    make_private_directory(path)
}

/// Makes a directory that only its owner can enter, if it does not exist.
pub(super) fn make_private_directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|source| Failure::File { action: "create", path: path.to_owned(), source })
}
