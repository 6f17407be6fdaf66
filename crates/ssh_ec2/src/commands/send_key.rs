//! Pushes a public key of the user's own and connects to nothing, as the original script does.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::aws::{Aws, Settings};
use crate::error::{ExitCode, Failure};
use crate::network::Network;
use crate::target::{InstanceId, OsUser};

/// What to push, and where.
#[derive(Debug)]
pub struct Options {
    /// The login name.
    pub user: OsUser,
    /// The target.
    pub instance: InstanceId,
    /// The public key; none means the first of the user's own.
    pub key_file: Option<PathBuf>,
    /// Profile and region.
    pub settings: Settings,
}

/// Pushes the key.
///
/// # Errors
/// When there is no key, or the push is refused.
pub async fn run(
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

/// The public key line in `path`, or in `path.pub` when `path` holds the private half.
///
/// # Errors
/// When there is no readable public key.
pub fn read_public_key(path: &Path) -> Result<String, Failure> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| Failure::File { action: "read", path: path.to_owned(), source })
    };
    if let Some(line) = public_line(&read(path)?) {
        return Ok(line);
    }
    let beside = public_half(path);
    match fs::read(&beside) {
        Ok(bytes) => public_line(&bytes).ok_or(Failure::KeyFile { path: beside }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(Failure::KeyFile { path: path.to_owned() })
        }
        Err(source) => Err(Failure::File { action: "read", path: beside, source }),
    }
}

/// Where `ssh-keygen` puts the public half of `path`.
fn public_half(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    beside.into()
}

/// The one line of a public key file. Instances take no ECDSA and no hardware keys from a push.
fn public_line(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'))?;
    let known = ["ssh-ed25519 ", "ssh-rsa "].iter().any(|algorithm| line.starts_with(algorithm));
    known.then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me";

    #[test]
    fn the_public_half_is_found_beside_the_private_one() {
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("id_ed25519");
        fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        assert!(matches!(read_public_key(&private), Err(Failure::KeyFile { .. })));
        fs::write(directory.path().join("id_ed25519.pub"), format!("{LINE}\n")).unwrap();
        assert_eq!(read_public_key(&private).unwrap(), LINE);
        assert_eq!(read_public_key(&directory.path().join("id_ed25519.pub")).unwrap(), LINE);
    }

    #[test]
    fn the_default_key_is_ed25519_then_rsa() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(default_key(directory.path()), Err(Failure::NoKey { .. })));
        fs::write(directory.path().join("id_rsa.pub"), "").unwrap();
        assert!(default_key(directory.path()).unwrap().ends_with("id_rsa.pub"));
        fs::write(directory.path().join("id_ed25519.pub"), "").unwrap();
        assert!(default_key(directory.path()).unwrap().ends_with("id_ed25519.pub"));
    }

    #[test]
    fn keys_that_an_instance_would_skip_are_refused() {
        assert_eq!(public_line(b"ecdsa-sha2-nistp256 AAAA me\n"), None);
        assert_eq!(public_line(b"sk-ssh-ed25519@openssh.com AAAA me\n"), None);
        assert_eq!(public_line(b"\xff"), None);
    }
}
