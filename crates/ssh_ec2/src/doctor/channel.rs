//! What our own programs tell of a login: a file that nobody else can write to. What ssh prints is no place for it,
//! since a server may have ssh print whatever it likes.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use crate::doctor::report::Told;

/// A directory for that file. It is gone when this is dropped.
pub(super) struct Channel {
    directory: PathBuf,
}

impl Channel {
    /// Makes it below a directory of ours, which only we can enter.
    pub(super) fn below(directory: &Path) -> io::Result<Self> {
        let directory = directory.join(format!("doctor.{}", std::process::id()));
        let make = || DirBuilder::new().mode(0o700).create(&directory);
        match make() {
            // Of a process with our id that was killed.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                fs::remove_dir_all(&directory)?;
                make()?;
            }
            made => made?,
        }
        Ok(Self { directory })
    }

    /// Where the programs are to write.
    pub(super) fn file(&self) -> PathBuf {
        self.directory.join("failure")
    }

    /// What one of them failed with, if one did.
    pub(super) fn told(&self) -> Option<Told> {
        Told::parse(&fs::read(self.file()).ok()?)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // An empty directory of ours that stays behind harms nobody.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_directory_is_private_and_goes_with_what_is_in_it() {
        let parent = tempfile::tempdir().unwrap();
        let channel = Channel::below(parent.path()).unwrap();
        let directory = channel.file().parent().unwrap().to_owned();
        assert_eq!(fs::metadata(&directory).unwrap().permissions().mode() & 0o777, 0o700);
        assert_eq!(channel.told(), None);
        fs::write(channel.file(), r#"{"message":"no","hints":["yes"],"anchor":null}"#).unwrap();
        let told = channel.told().unwrap();
        assert_eq!((told.message.as_str(), told.hints), ("no", vec!["yes".to_owned()]));
        std::mem::forget(channel);
        let channel = Channel::below(parent.path()).unwrap();
        assert_eq!(channel.told(), None, "what another one left is not ours");
        drop(channel);
        assert!(!directory.exists());
    }
}
