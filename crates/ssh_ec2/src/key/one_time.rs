//! The one-time key: an Ed25519 or RSA pair in the memory of this process and nowhere else.
//!
//! It is wiped when dropped. It has no `Clone`, its `Debug` shows nothing, and it leaves the process only as
//! signatures.

mod rsa;

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signer, SigningKey};
use thiserror::Error;
use zeroize::Zeroize;

use self::rsa::RsaKey;
use crate::ssh::wire::push_string;
use crate::system::explain::{Anchor, Explain};

/// No key could be made.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a key: {0}")]
    Random(#[from] getrandom::Error),
    /// The library gives no reason.
    #[error("cannot generate an RSA key")]
    Rsa,
}

impl Explain for KeyError {
    fn hints(&self) -> Vec<String> {
        vec!["try again".into()]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::NoRandomness)
    }
}

/// The type of a one-time key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyType {
    /// Made in microseconds.
    Ed25519,
    /// RSA with 3072 bits, for clients and servers in FIPS mode, which accept no Ed25519.
    Rsa,
}

impl KeyType {
    /// All values of `--key-type`.
    pub(crate) const NAMES: [&str; 2] = ["ed25519", "rsa"];
}

impl FromStr for KeyType {
    type Err = UnknownKeyType;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "ed25519" => Ok(Self::Ed25519),
            "rsa" => Ok(Self::Rsa),
            _ => Err(UnknownKeyType(name.to_owned())),
        }
    }
}

impl fmt::Display for KeyType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ed25519 => "ed25519",
            Self::Rsa => "rsa",
        })
    }
}

/// A value of `--key-type` that is no type of one-time keys.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("a one-time key cannot be of the type `{0}`: `ed25519` and `rsa` can be chosen")]
pub struct UnknownKeyType(String);

/// A key pair for one connection.
pub struct OneTimeKey(Pair);

enum Pair {
    Ed25519(Box<SigningKey>),
    Rsa(RsaKey),
}

impl OneTimeKey {
    /// Makes a new pair. For RSA this computes for 100 milliseconds to some seconds.
    ///
    /// # Errors
    ///
    /// When the operating system gives no random bytes, or the library makes no RSA key.
    pub fn generate(key_type: KeyType) -> Result<Self, KeyError> {
        if key_type == KeyType::Rsa {
            return Ok(Self(Pair::Rsa(RsaKey::generate()?)));
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed)?;
        let signing = Box::new(SigningKey::from_bytes(&seed));
        seed.zeroize();
        Ok(Self(Pair::Ed25519(signing)))
    }

    /// The public half in the encoding of RFC 8709, or of RFC 4253 for RSA.
    pub fn public_blob(&self) -> Vec<u8> {
        let signing = match &self.0 {
            Pair::Ed25519(signing) => signing,
            Pair::Rsa(key) => return key.public_blob().to_vec(),
        };
        let mut blob = Vec::with_capacity(51);
        push_string(&mut blob, ALGORITHM);
        push_string(&mut blob, signing.verifying_key().as_bytes());
        blob
    }

    /// The public half as a line of an `authorized_keys` file.
    pub(crate) fn public_line(&self) -> String {
        let algorithm = match &self.0 {
            Pair::Ed25519(_) => "ssh-ed25519",
            Pair::Rsa(_) => "ssh-rsa",
        };
        format!("{algorithm} {} {COMMENT}", STANDARD.encode(self.public_blob()))
    }

    /// A signature in the encoding of RFC 8709, or of RFC 8332 for RSA. The flags of the agent protocol
    /// choose the hash of an RSA signature. None if they choose SHA-1.
    pub fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let signing = match &self.0 {
            Pair::Ed25519(signing) => signing,
            Pair::Rsa(key) => return key.sign(data, flags),
        };
        let mut signature = Vec::with_capacity(83);
        push_string(&mut signature, ALGORITHM);
        push_string(&mut signature, &signing.sign(data).to_bytes());
        Some(signature)
    }
}

impl fmt::Debug for OneTimeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OneTimeKey(…)")
    }
}

/// The key's comment, which `ssh-add -l` and the log of sshd show.
pub(crate) const COMMENT: &str = "ssh_ec2";
const ALGORITHM: &[u8] = b"ssh-ed25519";

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::Verifier;

    fn ed25519() -> OneTimeKey {
        OneTimeKey::generate(KeyType::Ed25519).unwrap()
    }

    #[test]
    fn the_public_line_has_the_form_and_length_that_the_push_takes() {
        let line = ed25519().public_line();
        assert!(line.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI"), "{line}");
        assert!((80..=4096).contains(&line.len()));
        let line = OneTimeKey::generate(KeyType::Rsa).unwrap().public_line();
        assert!(line.starts_with("ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQ"), "{line}");
        assert!((80..=4096).contains(&line.len()));
    }

    #[test]
    fn signatures_verify() {
        let key = ed25519();
        let signature = key.sign(b"data", 0).unwrap();
        let raw: [u8; 64] = signature[signature.len() - 64..].try_into().unwrap();
        let Pair::Ed25519(signing) = &key.0 else { panic!("that is the type") };
        let verifying = signing.verifying_key();
        assert!(verifying.verify(b"data", &raw.into()).is_ok());
        assert!(verifying.verify(b"date", &raw.into()).is_err());
    }

    #[test]
    fn two_keys_differ() {
        for key_type in [KeyType::Ed25519, KeyType::Rsa] {
            let line = || OneTimeKey::generate(key_type).unwrap().public_line();
            assert_ne!(line(), line());
        }
    }

    #[test]
    fn the_debug_form_shows_nothing() {
        for key_type in [KeyType::Ed25519, KeyType::Rsa] {
            assert_eq!(format!("{:?}", OneTimeKey::generate(key_type).unwrap()), "OneTimeKey(…)");
        }
    }

    #[test]
    fn types_are_read_as_they_are_written() {
        for name in KeyType::NAMES {
            assert_eq!(name.parse::<KeyType>().unwrap().to_string(), name);
        }
        assert!("ecdsa".parse::<KeyType>().is_err());
    }
}
