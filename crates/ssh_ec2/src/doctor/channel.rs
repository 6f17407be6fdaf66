//! The file in which `ssh_ec2 proxy` and `known-hosts` report why a login failed. Only this user can write to
//! it; ssh's output cannot be trusted for that, because a server can make ssh print any text.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::doctor::report::Reported;

/// A directory for the file, removed when this is dropped.
pub(super) struct Channel {
    directory: PathBuf,
}

impl Channel {
    /// Makes it below one of this program's directories, with mode 700.
    pub(super) fn below(directory: &Path) -> io::Result<Self> {
        let directory = directory.join(format!("doctor.{}", std::process::id()));
        let make = || DirBuilder::new().mode(0o700).create(&directory);
        match make() {
            // Left by a killed process that had the same id.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&directory)?;
                make()?;
            }
            made => made?,
        }
        Ok(Self { directory })
    }

    /// The path for `--report`.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("failure")
    }

    /// The reported error, if there is one.
    pub(super) fn reported(&self) -> Option<Reported> {
        Reported::parse(&fs::read(self.file()).ok()?)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // An empty directory that stays behind does no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_is_private_and_is_removed_with_its_file() {
        let parent = tempfile::tempdir().unwrap();
        let channel = Channel::below(parent.path()).unwrap();
        let directory = channel.file().parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(channel.reported(), None);
        fs::write(channel.file(), r#"{"message":"no","hints":["yes"],"anchor":null}"#).unwrap();
        let reported = channel.reported().unwrap();
        assert_eq!((reported.message.as_str(), reported.hints), ("no", vec!["yes".to_owned()]));
        std::mem::forget(channel);
        let channel = Channel::below(parent.path()).unwrap();
        assert_eq!(channel.reported(), None, "the file of another process is not read");
        drop(channel);
        assert!(!directory.exists());
    }
}
