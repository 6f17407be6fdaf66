//! The one-time key: an Ed25519 pair that lives in this process's memory and nowhere else.
//!
//! It is wiped when dropped. It has no `Clone`, a `Debug` that shows nothing, and no way to leave but as signatures.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use thiserror::Error;
use zeroize::Zeroize;

/// The operating system gave no randomness.
#[derive(Debug, Error)]
#[error("the operating system gave no random bytes for a key: {0}")]
pub struct KeyError(#[from] getrandom::Error);

/// A key pair for one connection.
pub struct OneTimeKey {
    signing: SigningKey,
}

impl OneTimeKey {
    /// Makes a fresh pair.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(KeyError)?;
        let signing = SigningKey::from_bytes(&seed);
        seed.zeroize();
        Ok(Self { signing })
    }

    /// The public half in the encoding of RFC 8709.
    pub fn public_blob(&self) -> Vec<u8> {
        let mut blob = Vec::with_capacity(51);
        push_string(&mut blob, ALGORITHM);
        push_string(&mut blob, self.signing.verifying_key().as_bytes());
        blob
    }

    /// The public half as a line of an `authorized_keys` file.
    pub fn public_line(&self) -> String {
        format!("ssh-ed25519 {} {COMMENT}", STANDARD.encode(self.public_blob()))
    }

    /// A signature in the encoding of RFC 8709.
    pub fn sign(&self, data: &[u8]) -> Vec<u8> {
        let mut signature = Vec::with_capacity(83);
        push_string(&mut signature, ALGORITHM);
        push_string(&mut signature, &self.signing.sign(data).to_bytes());
        signature
    }
}

impl fmt::Debug for OneTimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeKey(…)")
    }
}

/// Appends a string of RFC 4251. All strings here are far shorter than 4 GiB.
pub(crate) fn push_string(buffer: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(string);
}

/// What the key is called in the listings of ssh and in the log of sshd.
pub(crate) const COMMENT: &str = "ssh_ec2";
const ALGORITHM: &[u8] = b"ssh-ed25519";

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Verifier;

    #[test]
    fn the_public_line_has_the_form_and_length_that_the_push_takes() {
        let line = OneTimeKey::generate().unwrap().public_line();
        assert!(line.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"), "{line}");
        assert!((80..=4096).contains(&line.len()));
    }

    #[test]
    fn signatures_verify() {
        let key = OneTimeKey::generate().unwrap();
        let signature = key.sign(b"data");
        let raw: [u8; 64] = signature[signature.len() - 64..].try_into().unwrap();
        let verifying = key.signing.verifying_key();
        assert!(verifying.verify(b"data", &raw.into()).is_ok());
        assert!(verifying.verify(b"date", &raw.into()).is_err());
    }

    #[test]
    fn two_keys_differ() {
        assert_ne!(
            OneTimeKey::generate().unwrap().public_line(),
            OneTimeKey::generate().unwrap().public_line()
        );
    }

    #[test]
    fn the_debug_form_shows_nothing() {
        assert_eq!(format!("{:?}", OneTimeKey::generate().unwrap()), "OneTimeKey(…)");
    }
}
