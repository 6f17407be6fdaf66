//! The host keys of an instance: its true keys, and the key that its SSH server presents.
//!
//! They are made at the first use, since a fleet has thousands of instances and a test connects to few. A
//! private key is needed only for the presented key.

use std::io;

use getrandom::{SysRng, rand_core::UnwrapErr};
use russh::keys::{Algorithm, EcdsaCurve, PrivateKey, PublicKey, ssh_key::private::Ed25519Keypair};

/// The host keys of one instance.
#[derive(Clone, Debug)]
pub(crate) struct HostKeys {
    /// The true Ed25519 key, as in the console output and in the files on the instance.
    pub(crate) ed25519: PublicKey,
    /// The true ECDSA key. No server presents it.
    pub(crate) ecdsa: PublicKey,
    /// The key that the SSH server presents: the true Ed25519 key, unless an attacker in the middle is
    /// emulated.
    pub(crate) presented: PrivateKey,
}

impl HostKeys {
    /// Makes the keys of an instance whose files name its root user as `comment`.
    pub(super) fn generate(comment: &str) -> io::Result<Self> {
        let presented = host_key()?;
        let mut ed25519 = presented.public_key().clone();
        // The adapter would panic without random bytes, but `host_key` has just got some.
        let ecdsa = Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 };
        let ecdsa = PrivateKey::random(&mut UnwrapErr(SysRng), ecdsa).map_err(io::Error::other)?;
        let mut ecdsa = ecdsa.public_key().clone();
        for key in [&mut ed25519, &mut ecdsa] {
            key.set_comment(comment);
        }
        Ok(Self { ed25519, ecdsa, presented })
    }

    /// Makes the SSH server present another key from now on.
    pub(super) fn replace_presented(&mut self) -> io::Result<()> {
        self.presented = host_key()?;
        Ok(())
    }

    /// The true keys as in the files and the console output, in cloud-init's order.
    pub(crate) fn lines(&self) -> [String; 2] {
        // Formatting a key in memory cannot fail.
        [&self.ecdsa, &self.ed25519].map(|key| key.to_openssh().unwrap_or_default())
    }
}

/// Makes a fresh Ed25519 key.
fn host_key() -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    super::random(&mut seed)?;
    Ok(PrivateKey::from(Ed25519Keypair::from_seed(&seed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_true_keys_stay_when_another_one_is_presented() {
        let mut keys = HostKeys::generate("root@ip-10-0-0-11").unwrap();
        let lines = keys.lines();
        assert!(lines[0].starts_with("ecdsa-sha2-nistp256 AAAAE2VjZHNh"), "{}", lines[0]);
        assert!(lines[1].starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"), "{}", lines[1]);
        assert!(lines.iter().all(|line| line.ends_with(" root@ip-10-0-0-11")));
        assert_eq!(keys.presented.public_key().key_data(), keys.ed25519.key_data());
        keys.replace_presented().unwrap();
        assert_ne!(keys.presented.public_key().key_data(), keys.ed25519.key_data());
        assert_eq!(keys.lines(), lines);
    }
}
