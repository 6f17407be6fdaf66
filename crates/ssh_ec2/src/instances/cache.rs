//! Keeps the instances of resolved names on disk for a few minutes.
//!
//! Many processes of ssh or Ansible that start at once for one name make one call. An entry may be stale: a
//! caller must forget an entry whose instance cannot be reached. Errors of the cache are only logged, and it
//! then counts as empty. Files are private; a file that other users could have written is not used, and
//! [`Cache::fault`] has the reason.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::system::pace::{self, Pace};
use crate::system::private_file::{self, ReadError};
use crate::target::{InstanceId, OsUser};

/// The key of an entry: a kind and a text, so that no two kinds of targets share a key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Key(String);

impl Key {
    /// The key of a `Name` tag that one instance has.
    pub(crate) fn name(name: &str) -> Self {
        Self::of(&["name", name])
    }

    /// The key for any other parts. No part has a NUL: neither a command line nor a tag can.
    pub(crate) fn of(parts: &[&str]) -> Self {
        Self(parts.join("\0"))
    }

    /// The `Name` tag of a key.
    fn as_name(key: &str) -> Option<&str> {
        key.strip_prefix("name\0").filter(|name| !name.contains('\0'))
    }
}

/// The cache's directory, with one file for each [`Scope`].
#[derive(Clone, Debug)]
pub(crate) struct Cache {
    directory: PathBuf,
    owner: u32,
    /// The first fault. Clones share it.
    fault: Rc<OnceCell<ReadError>>,
}

/// The account and region in which names are resolved.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub(crate) struct Scope {
    /// The profile, or the access key in the environment.
    pub account: String,
    /// The region's name.
    pub region: String,
    /// The configured endpoint, if it is not AWS's own.
    pub endpoint: Option<String>,
}

/// A cached result.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Entry {
    /// The instance's id.
    pub id: InstanceId,
    /// The user on it, if one is known.
    pub user: Option<OsUser>,
}

#[derive(Default, Deserialize, Serialize)]
struct Contents {
    scope: Option<Scope>,
    names: BTreeMap<String, Stored>,
}

#[derive(Deserialize, Serialize)]
struct Stored {
    id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    /// Seconds since the Unix epoch.
    at: u64,
}

/// A lock: only one process at a time resolves a name.
#[derive(Debug)]
pub(crate) struct Turn {
    _file: Option<File>,
}

impl Turn {
    /// No lock, after waiting for too long.
    pub(crate) fn without() -> Self {
        Self { _file: None }
    }
}

impl Cache {
    /// A cache in `directory` for the user with the id `owner`. The directory is made when an entry is
    /// stored.
    pub(crate) fn new(directory: PathBuf, owner: u32) -> Self {
        Self { directory, owner, fault: Rc::default() }
    }

    /// Why a file or the directory was not used, if that happened.
    pub(crate) fn fault(&self) -> Option<&ReadError> {
        self.fault.get()
    }

    /// The entry of a key, if it is not too old.
    pub(crate) fn find(&self, scope: &Scope, key: &Key, now: SystemTime) -> Option<Entry> {
        let contents = self.read(scope)?;
        let stored = contents.names.get(&key.0).filter(|stored| stored.is_fresh(now))?;
        Some(Entry {
            id: stored.id.parse().ok()?,
            user: stored.user.as_deref().and_then(|user| user.parse().ok()),
        })
    }

    /// Whether an entry was stored within the last `age`.
    pub(crate) fn was_kept_within(&self, scope: &Scope, key: &Key, now: SystemTime, age: Duration) -> bool {
        let contents = self.read(scope);
        let stored = contents.as_ref().and_then(|contents| contents.names.get(&key.0));
        let at = stored.map(|stored| UNIX_EPOCH + Duration::from_secs(stored.at));
        at.is_some_and(|at| now.duration_since(at).is_ok_and(|passed| passed <= age))
    }

    /// Stores entries.
    pub(crate) async fn keep(&self, scope: &Scope, found: &[(Key, Entry)], now: SystemTime) {
        self.change(scope, |names| insert(names, found, now)).await;
    }

    /// Stores the `Name` tags of the scope and drops all others. `found` must have all of them.
    pub(crate) async fn keep_all_names(&self, scope: &Scope, found: &[(Key, Entry)], now: SystemTime) {
        self.change(scope, |names| {
            names.retain(|key, _| !key.starts_with("name\0"));
            insert(names, found, now);
        })
        .await;
    }

    /// Removes an entry.
    pub(crate) async fn forget(&self, scope: &Scope, key: &Key) {
        self.change(scope, |names| {
            names.remove(&key.0);
        })
        .await;
    }

    /// All `Name` tags in the cache, with their scopes.
    pub(crate) fn names(&self, now: SystemTime) -> Vec<(Scope, String)> {
        let mut found = Vec::new();
        if !self.is_ours() {
            return found;
        }
        for file in fs::read_dir(&self.directory).into_iter().flatten().flatten() {
            let path = file.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let contents = self.read_file(&path).unwrap_or_default();
            let Some(scope) = contents.scope else { continue };
            let fresh = contents.names.into_iter().filter(|(_, stored)| stored.is_fresh(now));
            let names = fresh.filter_map(|(key, _)| Key::as_name(&key).map(str::to_owned));
            found.extend(names.map(|name| (scope.clone(), name)));
        }
        found
    }

    /// The turn to resolve a name. None while another process has it.
    pub(crate) fn try_turn(&self, scope: &Scope, key: &Key) -> Option<Turn> {
        if !self.is_ours() {
            return Some(Turn::without());
        }
        // One file for each of 256 groups of names, so that their number is limited.
        let path = self.directory.join(format!("{}.turn", &digest(&(scope, &key.0))[..2]));
        match self.make_directory().and_then(|()| private_file::open(&path)) {
            Ok(file) => match file.try_lock() {
                Ok(()) => Some(Turn { _file: Some(file) }),
                Err(fs::TryLockError::WouldBlock) => None,
                Err(fs::TryLockError::Error(_)) => Some(Turn::without()),
            },
            // Without a lock file, each process resolves the name itself.
            Err(_) => Some(Turn::without()),
        }
    }

    /// The pace of key pushes in a scope, shared by all processes of the user.
    pub(crate) fn pace(&self, scope: &Scope) -> Pace {
        Pace::new(self.pace_file(scope, "pace"), pace::PUSHES)
    }

    /// The pace of session starts in a scope after Session Manager has throttled one, shared by all processes
    /// of the user.
    pub(crate) fn session_pace(&self, scope: &Scope) -> Pace {
        Pace::new(self.pace_file(scope, "sessions.pace"), pace::REFUSED_SESSIONS)
    }

    fn pace_file(&self, scope: &Scope, extension: &str) -> Option<PathBuf> {
        private_file::check_directory(&self.directory, self.owner).ok()?;
        Some(self.directory.join(format!("{}.{extension}", digest(scope))))
    }

    /// Whether only the owner can write to the directory.
    fn is_ours(&self) -> bool {
        private_file::check_directory(&self.directory, self.owner)
            .map_err(|error| self.distrust(error))
            .is_ok()
    }

    fn distrust(&self, error: ReadError) {
        tracing::info!("the cache of names is not used: {error}");
        let _ = self.fault.set(error);
    }

    async fn change(&self, scope: &Scope, change: impl FnOnce(&mut BTreeMap<String, Stored>)) {
        if !self.is_ours() {
            return;
        }
        let result = async {
            let _lock = private_file::lock(&self.path(scope).with_extension("lock"), PATIENCE).await?;
            let mut contents = self.read(scope).unwrap_or_default();
            contents.scope = Some(scope.clone());
            change(&mut contents.names);
            private_file::replace(&self.path(scope), &serde_json::to_vec(&contents)?)
        };
        if let Err(error) = result.await {
            tracing::info!("names are not cached in {}: {error}", self.directory.display());
        }
    }

    fn make_directory(&self) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.directory)
    }

    fn read(&self, scope: &Scope) -> Option<Contents> {
        if !self.is_ours() {
            return None;
        }
        let contents = self.read_file(&self.path(scope))?;
        // A crafted scope could have the same digest.
        (contents.scope.as_ref() == Some(scope)).then_some(contents)
    }

    fn read_file(&self, path: &Path) -> Option<Contents> {
        match private_file::read(path, self.owner) {
            Ok(bytes) => serde_json::from_slice(&bytes?).ok(),
            Err(error) => {
                self.distrust(error);
                None
            }
        }
    }

    fn path(&self, scope: &Scope) -> PathBuf {
        self.directory.join(format!("{}.json", digest(scope)))
    }
}

fn insert(names: &mut BTreeMap<String, Stored>, found: &[(Key, Entry)], now: SystemTime) {
    let at = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    names.retain(|_, stored| stored.is_fresh(now));
    for (key, entry) in found {
        let user = entry.user.as_ref().map(ToString::to_string);
        names.insert(key.0.clone(), Stored { id: entry.id.to_string(), user, at });
    }
}

impl Stored {
    fn is_fresh(&self, now: SystemTime) -> bool {
        let at = UNIX_EPOCH + Duration::from_secs(self.at);
        // An entry from the future is not used either.
        now.duration_since(at).is_ok_and(|age| age < LIFETIME)
    }
}

/// A file name for any value.
fn digest(value: &impl Serialize) -> String {
    use sha2::{Digest as _, Sha256};
    let text = serde_json::to_vec(value).unwrap_or_default();
    Sha256::digest(text).iter().take(12).map(|byte| format!("{byte:02x}")).collect()
}

/// A deployment can move a name to another instance, but rarely happens more often.
const LIFETIME: Duration = Duration::from_secs(10 * 60);
/// The lock is held for milliseconds, unless its process was stopped. Then the cache is not changed.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(region: &str) -> Scope {
        Scope { account: "prod".into(), region: region.into(), endpoint: None }
    }

    fn entry(id: &str) -> Entry {
        Entry { id: id.parse().unwrap(), user: Some("ubuntu".parse().unwrap()) }
    }

    fn cache(directory: &Path) -> Cache {
        Cache::new(directory.join("cache"), rustix::process::getuid().as_raw())
    }

    #[tokio::test]
    async fn names_are_cached_in_their_scope_for_a_while() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let now = SystemTime::now();
        let (here, there) = (scope("eu-west-1"), scope("us-east-1"));
        assert_eq!(cache.find(&here, &Key::name("web-1"), now), None);
        cache.keep(&here, &[(Key::name("web-1"), entry("i-0a1b2c3d"))], now).await;
        cache.keep(&here, &[(Key::name("web-2"), entry("i-0a1b2c3e"))], now).await;
        assert_eq!(cache.find(&here, &Key::name("web-1"), now), Some(entry("i-0a1b2c3d")));
        assert_eq!(cache.find(&here, &Key::name("web-2"), now + LIFETIME / 2), Some(entry("i-0a1b2c3e")));
        assert_eq!(cache.find(&there, &Key::name("web-1"), now), None);
        assert_eq!(cache.find(&here, &Key::name("web-1"), now + LIFETIME), None);
        assert_eq!(cache.find(&here, &Key::name("web-1"), now - Duration::from_secs(60)), None);
        assert_eq!(cache.names(now).len(), 2);
        cache.forget(&here, &Key::name("web-1")).await;
        assert_eq!(cache.find(&here, &Key::name("web-1"), now), None);
        cache.keep(&here, &[(Key::of(&["tag", "a=b"]), entry("i-0a1b2c3d"))], now).await;
        cache.keep_all_names(&here, &[(Key::name("web-3"), entry("i-0a1b2c3f"))], now).await;
        assert_eq!(cache.names(now), [(here.clone(), "web-3".to_owned())]);
        assert!(cache.find(&here, &Key::of(&["tag", "a=b"]), now).is_some());
    }

    #[tokio::test]
    async fn files_are_private_and_those_of_others_are_not_used() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let (now, scope) = (SystemTime::now(), scope("eu-west-1"));
        cache.keep(&scope, &[(Key::name("web-1"), entry("i-0a1b2c3d"))], now).await;
        let path = cache.path(&scope);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&cache.directory).unwrap().permissions().mode() & 0o777, 0o700);
        let stranger = Cache { owner: cache.owner + 1, ..cache.clone() };
        assert_eq!(stranger.find(&scope, &Key::name("web-1"), now), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert_eq!(cache.find(&scope, &Key::name("web-1"), now), None);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "{").unwrap();
        assert_eq!(cache.find(&scope, &Key::name("web-1"), now), None);
    }

    #[test]
    fn one_process_at_a_time_resolves_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let scope = scope("eu-west-1");
        let turn = cache.try_turn(&scope, &Key::name("web-1"));
        assert!(turn.is_some());
        assert!(cache.try_turn(&scope, &Key::name("web-1")).is_none());
        assert!(cache.try_turn(&scope, &Key::name("web-2")).is_some());
        drop(turn);
        assert!(cache.try_turn(&scope, &Key::name("web-1")).is_some());
    }

    #[tokio::test]
    async fn a_lock_that_nobody_releases_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let cache = cache(directory.path());
        let (now, scope) = (SystemTime::now(), scope("eu-west-1"));
        cache.keep(&scope, &[(Key::name("web-1"), entry("i-0a1b2c3d"))], now).await;
        let held = private_file::open(&cache.path(&scope).with_extension("lock")).unwrap();
        held.lock().unwrap();
        cache.forget(&scope, &Key::name("web-1")).await;
        assert!(
            cache.find(&scope, &Key::name("web-1"), now).is_some(),
            "nothing was changed without the lock"
        );
        held.unlock().unwrap();
        cache.forget(&scope, &Key::name("web-1")).await;
        assert!(cache.find(&scope, &Key::name("web-1"), now).is_none());
    }
}
