//! Our own known_hosts file: host keys by instance id, each with its source.
//!
//! The lines have the format of known_hosts(5), so that every tool reads them; the comment after the key has
//! our name, the source and the time. No instance id is ever given to another instance, so a key that differs
//! is never a new machine. Other lines stay as they are. One process writes at a time, and replaces the file
//! as a whole.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;

use crate::ssh::host_key::{HostKey, Source};
use crate::system::explain::{Anchor, Explain};
use crate::system::private_file::{self, ReadError};
use crate::target::{InstanceId, Port};

/// The file cannot be used.
#[derive(Debug, Error)]
pub(crate) enum StoreError {
    /// Another process kept the lock for too long.
    #[error("{path} is in use by another process")]
    Busy {
        /// The file itself, not its lock.
        path: PathBuf,
    },
    /// The file, or its directory, cannot be read or trusted.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The file, or its lock, cannot be written.
    #[error("cannot write {path}")]
    Write {
        /// The file or its lock.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Explain for StoreError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Busy { path } => vec![format!(
                "find the process that holds {}, and try again",
                path.with_extension("lock").display()
            )],
            Self::Read(error) => error.hints(),
            Self::Write { path, .. } => vec![format!(
                "check the permissions of {}, or set SSH_EC2_DIR to a directory that you can write to",
                path.display()
            )],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::KnownHostsFile)
    }
}

/// A host as known_hosts names it: `i-…`, or `[i-…]:2222` for another port than 22.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Host(String);

impl Host {
    /// The name for an instance's sshd on this port.
    pub(crate) fn new(instance: &InstanceId, port: Port) -> Self {
        Self(if port == Port::SSH { instance.to_string() } else { format!("[{instance}]:{port}") })
    }

    /// The name as it stands in the file.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// A known key, and its line in the file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// The [`Host`] as it stands in the file.
    pub host: String,
    /// The key that the server must present.
    pub key: HostKey,
    /// The source of the key.
    pub source: Source,
    /// The time of the entry, as in RFC 3339. Empty in lines that ssh wrote.
    pub since: String,
}

/// The file, and the id of the user who must own it.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    path: PathBuf,
    owner: u32,
}

impl Store {
    /// The file at `path`, which need not exist yet.
    pub(crate) fn new(path: PathBuf, owner: u32) -> Self {
        Self { path, owner }
    }

    /// All entries, in the order of the file.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`].
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        Ok(lines(&self.bytes()?).filter_map(entry).collect())
    }

    /// The lines with a marker, `@cert-authority` or `@revoked`, for ssh to interpret.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`].
    pub(crate) fn marked(&self) -> Result<Vec<String>, StoreError> {
        let bytes = self.bytes()?;
        let text = lines(&bytes).filter_map(|line| str::from_utf8(line).ok());
        Ok(text.map(str::trim).filter(|line| line.starts_with('@')).map(str::to_owned).collect())
    }

    /// The entries of a host.
    ///
    /// # Errors
    ///
    /// [`StoreError::Read`].
    pub(crate) fn find(&self, host: &Host) -> Result<Vec<Entry>, StoreError> {
        let mut entries = self.entries()?;
        entries.retain(|entry| entry.host == host.0);
        Ok(entries)
    }

    /// Adds keys for a host that has none yet, unless another process was faster. Returns the host's entries
    /// after that.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then the file is as it was.
    pub(crate) async fn add(
        &self,
        host: &Host,
        keys: &[HostKey],
        source: Source,
        since: &str,
    ) -> Result<Vec<Entry>, StoreError> {
        let _turn = self.turn().await?;
        let known = self.find(host)?;
        if !known.is_empty() {
            return Ok(known);
        }
        let mut bytes = self.bytes()?;
        for key in keys {
            append(&mut bytes, host, key, source, since);
        }
        self.write(&bytes)?;
        self.find(host)
    }

    /// Replaces all keys of a host by this one.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then the file is as it was.
    pub(crate) async fn replace(
        &self,
        host: &Host,
        key: &HostKey,
        source: Source,
        since: &str,
    ) -> Result<(), StoreError> {
        let _turn = self.turn().await?;
        let (mut bytes, _) = self.without(|found| found == host.0)?;
        append(&mut bytes, host, key, source, since);
        self.write(&bytes)
    }

    /// Removes all keys of an instance, for all ports, and returns them.
    ///
    /// # Errors
    ///
    /// [`StoreError`]; then the file is as it was.
    pub(crate) async fn forget(&self, instance: &InstanceId) -> Result<Vec<Entry>, StoreError> {
        let _turn = self.turn().await?;
        let other_port = format!("[{instance}]:");
        let (bytes, forgotten) =
            self.without(|host| host == instance.as_str() || host.starts_with(&other_port))?;
        if !forgotten.is_empty() {
            self.write(&bytes)?;
        }
        Ok(forgotten)
    }

    /// The contents without the entries of some hosts, and those entries.
    fn without(&self, unwanted: impl Fn(&str) -> bool) -> Result<(Vec<u8>, Vec<Entry>), StoreError> {
        let (mut kept, mut dropped) = (Vec::new(), Vec::new());
        for line in lines(&self.bytes()?) {
            match entry(line).filter(|entry| unwanted(&entry.host)) {
                Some(entry) => dropped.push(entry),
                None => kept.extend_from_slice(line),
            }
        }
        Ok((kept, dropped))
    }

    /// Refuses a directory that others can write to: they could replace the file, or the link to it, without
    /// writing to the file.
    fn check_directory(&self) -> Result<(), StoreError> {
        for path in [self.path.clone(), self.target()] {
            let directory = path.parent().filter(|directory| !directory.as_os_str().is_empty());
            private_file::check_directory(directory.unwrap_or(Path::new(".")), self.owner)?;
        }
        Ok(())
    }

    /// The file that is read and replaced: the target, if the path is a link.
    fn target(&self) -> PathBuf {
        fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone())
    }

    fn bytes(&self) -> Result<Vec<u8>, StoreError> {
        self.check_directory()?;
        Ok(private_file::read(&self.path, self.owner)?.unwrap_or_default())
    }

    fn write(&self, bytes: &[u8]) -> Result<(), StoreError> {
        let path = self.target();
        private_file::replace_durably(&path, bytes).map_err(|source| StoreError::Write { path, source })
    }

    async fn turn(&self) -> Result<private_file::Lock, StoreError> {
        self.check_directory()?;
        let lock = self.path.with_extension("lock");
        private_file::lock(&lock, PATIENCE).await.map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => StoreError::Busy { path: self.path.clone() },
            _ => StoreError::Write { path: lock, source },
        })
    }
}

/// The lines, with their line ends.
fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n')
}

fn append(bytes: &mut Vec<u8>, host: &Host, key: &HostKey, source: Source, since: &str) {
    if !bytes.is_empty() && !bytes.ends_with(b"\n") {
        bytes.push(b'\n');
    }
    bytes.extend_from_slice(format!("{} {key} {MARK} {} {since}\n", host.0, source.word()).as_bytes());
}

/// The entry of a line with one plain host name. Lists, patterns, hashes and markers are never written here.
fn entry(line: &[u8]) -> Option<Entry> {
    let (host, rest) = str::from_utf8(line).ok()?.trim().split_once([' ', '\t'])?;
    if host.starts_with(['#', '@', '|']) || host.contains([',', '*', '?', '!']) {
        return None;
    }
    let key = HostKey::parse(rest)?;
    let mut words = rest.split_ascii_whitespace().skip(2).skip_while(|word| *word != MARK).skip(1);
    let source = Source::of_word(words.next().unwrap_or_default());
    Some(Entry { host: host.to_owned(), key, source, since: words.next().unwrap_or_default().to_owned() })
}

/// The word before the source, in the comment of a line.
const MARK: &str = "ssh_ec2";
/// Time for all processes that write their first key at once.
const PATIENCE: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
    const OTHER: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxl";

    fn store(directory: &Path) -> Store {
        Store::new(directory.join("known_hosts"), rustix::process::getuid().as_raw())
    }

    fn id(text: &str) -> InstanceId {
        text.parse().unwrap()
    }

    fn host(text: &str) -> Host {
        Host::new(&id(text), Port::SSH)
    }

    #[tokio::test]
    async fn keys_are_kept_with_their_source_and_forgotten_by_instance() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let (key, other) = (HostKey::parse(KEY).unwrap(), HostKey::parse(OTHER).unwrap());
        assert_eq!(store.find(&host("i-0a1b2c3d")).unwrap(), []);
        let added = store
            .add(&host("i-0a1b2c3d"), std::slice::from_ref(&key), Source::Console, "2026-01-02T03:04:05Z")
            .await;
        let [entry] = &added.unwrap()[..] else { panic!("one entry") };
        assert_eq!((&entry.key, entry.source), (&key, Source::Console));
        assert_eq!(entry.since, "2026-01-02T03:04:05Z");
        let second =
            store.add(&host("i-0a1b2c3d"), std::slice::from_ref(&other), Source::FirstUse, "").await.unwrap();
        assert_eq!(second, std::slice::from_ref(entry), "the first process wins");
        let elsewhere = Host::new(&id("i-0a1b2c3d"), "2222".parse().unwrap());
        assert_eq!(elsewhere.as_str(), "[i-0a1b2c3d]:2222");
        store.add(&elsewhere, &[other], Source::Session, "x").await.unwrap();
        store.add(&host("i-0a1b2c3e"), &[key], Source::FirstUse, "x").await.unwrap();
        assert_eq!(store.entries().unwrap().len(), 3);
        assert_eq!(store.forget(&id("i-0a1b2c3d")).await.unwrap().len(), 2);
        assert_eq!(store.forget(&id("i-0a1b2c3d")).await.unwrap(), []);
        assert_eq!(store.entries().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn lines_of_others_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        let text =
            format!("# mine\n@cert-authority *.x {KEY}\ni-0a1b2c3d\t{KEY}\nweb-1,10.0.0.1 {KEY}\n# r?");
        let replaced =
            |text: &str| text.bytes().map(|byte| if byte == b'?' { 0xe9 } else { byte }).collect::<Vec<_>>();
        fs::write(&store.path, replaced(&text)).unwrap();
        assert_eq!(store.marked().unwrap(), [format!("@cert-authority *.x {KEY}")]);
        let [entry] = &store.entries().unwrap()[..] else { panic!("one entry") };
        assert_eq!((entry.source, entry.since.as_str()), (Source::FirstUse, ""));
        store.add(&host("i-0a1b2c3e"), std::slice::from_ref(&entry.key), Source::Console, "x").await.unwrap();
        let now = fs::read(&store.path).unwrap();
        assert_eq!(now, replaced(&format!("{text}\ni-0a1b2c3e {KEY} ssh_ec2 console x\n")));
        store.forget(&id("i-0a1b2c3e")).await.unwrap();
        store.forget(&id("i-0a1b2c3d")).await.unwrap();
        let now = fs::read(&store.path).unwrap();
        assert_eq!(now, replaced(&(text.replace(&format!("i-0a1b2c3d\t{KEY}\n"), "") + "\n")));
    }

    #[tokio::test]
    async fn a_file_that_others_can_write_is_refused_and_left_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let store = store(directory.path());
        fs::write(&store.path, "text").unwrap();
        fs::set_permissions(&store.path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(store.entries().is_err());
        let key = HostKey::parse(KEY).unwrap();
        assert!(store.add(&host("i-0a1b2c3d"), &[key], Source::Console, "x").await.is_err());
        assert!(store.forget(&id("i-0a1b2c3d")).await.is_err());
        assert_eq!(fs::read_to_string(&store.path).unwrap(), "text");
    }
}
