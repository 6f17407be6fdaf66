//! A file in which the AWS CLI keeps a sign-in: a JSON object.
//!
//! The CLI and other tools read and write it too. So it is replaced as a whole, by one ssh_ec2 process at a
//! time, and fields that are not known here stay in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::aws::credentials::expiry;
use crate::system::private_file::{self, Lock, ReadError};

/// The file. It need not exist.
pub(crate) struct TokenFile {
    path: PathBuf,
    /// The only user who may own it.
    owner: u32,
}

/// The fields of the file. There is no `Debug`: it would show tokens.
#[derive(Clone, PartialEq)]
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Fields {
    /// The text of a field. None if it is missing, empty or not text.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        text(&self.0, name)
    }

    /// The time in a field.
    pub(crate) fn time(&self, name: &str) -> Option<SystemTime> {
        expiry::read(self.text(name)?)
    }
}

/// The text of a field of an object. None if it is missing, empty or not text.
pub(crate) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str().filter(|text| !text.is_empty())
}

impl TokenFile {
    /// The file in `directory` that is named after `digest`, in hexadecimal.
    pub(crate) fn new(directory: &Path, digest: impl AsRef<[u8]>) -> Self {
        let name: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path: directory.join(name + ".json"), owner: rustix::process::getuid().as_raw() }
    }

    /// The fields. None if the file does not exist or is not a JSON object, as after a crash while it was
    /// written.
    ///
    /// # Errors
    ///
    /// If another user could have written it.
    pub(crate) fn read(&self) -> Result<Option<Fields>, ReadError> {
        let text = private_file::read(&self.path, self.owner)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).map(Fields))
    }

    /// Replaces the file.
    ///
    /// # Errors
    ///
    /// If it cannot be replaced. Then it is unchanged.
    pub(crate) fn replace(&self, fields: &Map<String, Value>) -> io::Result<()> {
        private_file::replace_durably(&self.path, &serde_json::to_vec(fields)?)
    }

    /// Waits until no other ssh_ec2 process replaces a file in this directory. None without a lock, as in a
    /// directory that cannot be written: then the caller continues without one.
    pub(crate) async fn turn(&self, patience: Duration) -> Option<Lock> {
        private_file::lock(&self.path.with_file_name("ssh_ec2.lock"), patience).await.ok()
    }
}
