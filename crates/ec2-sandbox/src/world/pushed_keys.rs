//! The public keys that SendSSHPublicKey has pushed, and which of them an instance still accepts.

use std::time::{Duration, SystemTime};

use super::World;

#[derive(Debug)]
pub(super) struct PushedKey {
    line: String,
    expires: SystemTime,
}

impl World {
    /// Adds a pushed key of `user` on `instance`. It is accepted for [`KEY_LIFE`].
    pub(crate) fn push_key(&self, instance: &str, user: &str, line: &str, now: SystemTime) {
        let mut state = self.lock();
        let keys = state.keys.entry((instance.to_owned(), user.to_owned())).or_default();
        keys.retain(|key| key.expires > now);
        keys.push(PushedKey { line: line.trim().to_owned(), expires: now + KEY_LIFE });
    }

    /// The public key lines that `instance` accepts for `user` at `now`.
    ///
    /// Always empty for an instance whose sshd ignores pushed keys, and for a user that exists on no
    /// instance.
    pub(crate) fn accepted_keys(&self, instance: &str, user: &str, now: SystemTime) -> Vec<String> {
        if user == GHOST || self.instance(instance).is_none_or(|instance| !instance.accepts_pushed_keys()) {
            return Vec::new();
        }
        let state = self.lock();
        let keys = state.keys.get(&(instance.to_owned(), user.to_owned())).map_or(&[][..], Vec::as_slice);
        keys.iter().filter(|key| key.expires > now).map(|key| key.line.clone()).collect()
    }

    /// The same for each user that a key was ever pushed for.
    pub(crate) fn accepted_keys_by_user(
        &self,
        instance: &str,
        now: SystemTime,
    ) -> Vec<(String, Vec<String>)> {
        let users: Vec<String> = {
            let state = self.lock();
            state.keys.keys().filter(|(id, _)| id == instance).map(|(_, user)| user.clone()).collect()
        };
        let keys = |user: String| (user.clone(), self.accepted_keys(instance, &user, now));
        users.into_iter().map(keys).collect()
    }
}

/// The one user name that exists on no instance.
const GHOST: &str = "ghost";

/// How long a pushed key is accepted, from the documentation of SendSSHPublicKey.
const KEY_LIFE: Duration = Duration::from_secs(60);
