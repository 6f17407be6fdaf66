//! A file of the AWS CLI's in which a sign-in is kept: a JSON object, of which we know some fields.
//!
//! The CLI and other tools read and write it too. So it is replaced as a whole, by one of our processes at a
//! time, and fields that we do not know stay in it.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value};

use crate::aws::credentials::expiry;
use crate::system::private_file::{self, Lock, ReadError};

/// The file, which need not be there.
pub(crate) struct TokenFile {
    path: PathBuf,
    /// The only user whose writing is believed.
    owner: u32,
}

/// What is in it. There is no `Debug`: it would show tokens.
#[derive(Clone, PartialEq)]
pub(crate) struct Fields(pub(crate) Map<String, Value>);

impl Fields {
    /// A field, if it is there and has text in it.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        text(&self.0, name)
    }

    /// A field that is a time.
    pub(crate) fn time(&self, name: &str) -> Option<SystemTime> {
        expiry::read(self.text(name)?)
    }
}

/// A field of an object, if it is there and has text in it.
pub(crate) fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name)?.as_str().filter(|text| !text.is_empty())
}

impl TokenFile {
    /// A file below `directory` whose name is the digest of what it belongs to.
    pub(crate) fn new(directory: &Path, digest: impl AsRef<[u8]>) -> Self {
        let name: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
        Self { path: directory.join(name + ".json"), owner: rustix::process::getuid().as_raw() }
    }

    /// What is in it; nothing if it is not there or is no JSON object, as after a crash while it was written.
    ///
    /// # Errors
    ///
    /// When others could have written it.
    pub(crate) fn read(&self) -> Result<Option<Fields>, ReadError> {
        let text = private_file::read(&self.path, self.owner)?;
        Ok(text.and_then(|text| serde_json::from_slice(&text).ok()).map(Fields))
    }

    /// Replaces it.
    ///
    /// # Errors
    ///
    /// When that cannot be done; then it is as it was.
    pub(crate) fn replace(&self, fields: &Map<String, Value>) -> io::Result<()> {
        private_file::replace_durably(&self.path, &serde_json::to_vec(fields)?)
    }

    /// Waits until no other ssh_ec2 process is about to replace a file of this directory. Without one, as in
    /// a directory that cannot be written, the work is done all the same.
    pub(crate) async fn turn(&self, patience: Duration) -> Option<Lock> {
        private_file::lock(&self.path.with_file_name("ssh_ec2.lock"), patience).await.ok()
    }
}
