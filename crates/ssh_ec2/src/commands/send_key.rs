//! `--send-key-only`: pushes a public key of the user's own to the instance for 60 seconds, and does not
//! connect.

use std::path::{Path, PathBuf};

use crate::aws::{Aws, Settings};
use crate::error::{ExitCode, Failure};
use crate::key::file::read_public_key;
use crate::net::network::Network;
use crate::target::{InstanceId, OsUser};

#[derive(Debug)]
pub(super) struct Options {
    /// The user to push it for.
    pub(super) user: OsUser,
    /// An EC2 instance: nothing can be pushed to a managed node.
    pub(super) instance: InstanceId,
    /// The file of the public key; none means `id_ed25519.pub` or else `id_rsa.pub` in `~/.ssh`.
    pub(super) key_file: Option<PathBuf>,
    /// Profile and region.
    pub(super) settings: Settings,
}

/// Pushes the key.
///
/// # Errors
///
/// When there is no key, or the push is refused.
pub(super) async fn run(
    options: &Options,
    network: &Network,
    ssh_directory: Option<&Path>,
) -> Result<ExitCode, Failure> {
    if options.instance.is_managed_node() {
        return Err(Failure::ManagedNode { instance: options.instance.clone() });
    }
    let path = match &options.key_file {
        Some(path) => path.clone(),
        None => default_key(ssh_directory.ok_or(Failure::NoHome)?)?,
    };
    let public_line = read_public_key(&path)?;
    let aws = Aws::load(&options.settings, network).await?;
    aws.push_key(&options.instance, &options.user, &public_line).await?;
    Ok(ExitCode::Success)
}

fn default_key(directory: &Path) -> Result<PathBuf, Failure> {
    let candidates = ["id_ed25519.pub", "id_rsa.pub"].map(|name| directory.join(name));
    let found = candidates.into_iter().find(|path| path.is_file());
    found.ok_or_else(|| Failure::NoKey { directory: directory.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn the_default_key_is_ed25519_then_rsa() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(default_key(directory.path()), Err(Failure::NoKey { .. })));
        fs::write(directory.path().join("id_rsa.pub"), "").unwrap();
        assert!(default_key(directory.path()).unwrap().ends_with("id_rsa.pub"));
        fs::write(directory.path().join("id_ed25519.pub"), "").unwrap();
        assert!(default_key(directory.path()).unwrap().ends_with("id_ed25519.pub"));
    }
}
