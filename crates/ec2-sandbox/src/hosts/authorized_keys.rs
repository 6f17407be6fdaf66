//! How an instance accepts a pushed key. The built-in SSH server looks it up in the region at each
//! authentication; sshd reads files that are written from the same list.
//!
//! The list is [`World::accepted_keys`](crate::world::World::accepted_keys), in `world/pushed_keys.rs`.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use russh::keys::PublicKey;

use crate::{
    ssh_server::Authorize,
    world::{Instance, World},
};

/// Whether the built-in server accepts a key for a user of this instance.
pub(super) fn authorize(world: Arc<World>, instance: &Instance) -> Authorize {
    let id = instance.id.clone();
    Box::new(move |user, key| {
        let accepted = world.accepted_keys(&id, user, world.now());
        let mut parsed = accepted.iter().filter_map(|line| PublicKey::from_openssh(line).ok());
        let takes = world.instance(&id).is_some_and(|i| i.takes_keys_of(key.algorithm().as_str()));
        takes && parsed.any(|accepted| accepted.key_data() == key.key_data())
    })
}

/// The pushed keys of an instance as sshd's `AuthorizedKeysFile`, one for each user.
pub(super) struct KeyFiles {
    world: Arc<World>,
    instance: String,
    directory: PathBuf,
}

impl KeyFiles {
    pub(super) fn new(world: Arc<World>, instance: &Instance, directory: &Path) -> Self {
        Self { world, instance: instance.id.clone(), directory: directory.into() }
    }

    pub(super) fn refresh(&self) {
        for (user, lines) in self.world.accepted_keys_by_user(&self.instance, self.world.now()) {
            let mut text = String::new();
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
            let file = self.directory.join(format!("keys.{user}"));
            if fs::read_to_string(&file).is_ok_and(|before| before == text) {
                continue;
            }
            if let Err(error) = fs::write(&file, text) {
                tracing::warn!(%error, "the pushed keys could not be given to sshd");
            }
        }
    }
}
