//! An RSA pair, for systems that accept no Ed25519 keys.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaEncoding};

use super::KeyError;
use crate::ssh::wire::push_string;

/// A pair whose private half the library keeps, in memory that it wipes before it frees it (AWS-LC,
/// `OPENSSL_free`). Its arithmetic may leave parts on the stack or in registers, which we cannot wipe.
pub(super) struct RsaKey {
    pair: KeyPair,
    /// The public key, in the encoding of RFC 4253, section 6.6.
    blob: Vec<u8>,
}

impl RsaKey {
    /// Takes 100 milliseconds to some seconds.
    pub(super) fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa3072).map_err(|_| KeyError::Rsa)?;
        let blob = blob(pair.public_key().as_ref()).ok_or(KeyError::Rsa)?;
        Ok(Self { pair, blob })
    }

    pub(super) fn public_blob(&self) -> &[u8] {
        &self.blob
    }

    /// A signature with the hash that the flags of the agent protocol choose (RFC 8332). None without such a
    /// flag: the client expects SHA-1 then.
    pub(super) fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        // In the order of OpenSSH's own agent, for a client that sets both.
        let (algorithm, encoding): (&[u8], &dyn RsaEncoding) = match flags {
            flags if flags & SHA2_256 != 0 => (b"rsa-sha2-256", &RSA_PKCS1_SHA256),
            flags if flags & SHA2_512 != 0 => (b"rsa-sha2-512", &RSA_PKCS1_SHA512),
            _ => return None,
        };
        let mut raw = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(encoding, &SystemRandom::new(), data, &mut raw).ok()?;
        let mut signature = Vec::with_capacity(raw.len() + 20);
        push_string(&mut signature, algorithm);
        push_string(&mut signature, &raw);
        Some(signature)
    }
}

/// The blob of a public key, from the structure of PKCS #1: modulus and exponent. Their bytes are those of an
/// `mpint` already, with a zero byte before a first bit that is set.
fn blob(public: &[u8]) -> Option<Vec<u8>> {
    let (sequence, _) = element(public, 0x30)?;
    let (modulus, rest) = element(sequence, 0x02)?;
    let (exponent, _) = element(rest, 0x02)?;
    let mut blob = Vec::with_capacity(public.len() + 19);
    for part in [ALGORITHM, exponent, modulus] {
        push_string(&mut blob, part);
    }
    Some(blob)
}

/// The content of the DER element that `bytes` begin with, and what follows it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let count = usize::from(first & 0x7f);
    let (length, rest) = match first {
        0..=0x7f => (count, rest),
        _ => {
            let (digits, rest) = rest.split_at_checked(count).filter(|_| count <= 4)?;
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
    };
    rest.split_at_checked(length).filter(|_| *found == tag)
}

/// `SSH_AGENT_RSA_SHA2_256` and `SSH_AGENT_RSA_SHA2_512` (draft-ietf-sshm-ssh-agent, section 3.6.1).
const SHA2_256: u32 = 2;
const SHA2_512: u32 = 4;
const ALGORITHM: &[u8] = b"ssh-rsa";

#[cfg(test)]
mod tests {
    use aws_lc_rs::rsa::PublicKeyComponents;
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512};

    use super::*;
    use crate::ssh::wire::strings;

    #[test]
    fn signatures_have_the_hash_that_was_asked_for_and_verify_by_the_blob() {
        let key = RsaKey::generate().unwrap();
        let [name, exponent, modulus] = strings(key.public_blob()).unwrap()[..] else {
            panic!("three fields")
        };
        assert_eq!((name, exponent), (&b"ssh-rsa"[..], &[1, 0, 1][..]));
        assert!(modulus.len() == 385 && modulus[0] == 0 && modulus[1] >= 0x80, "3072 bits, and not negative");
        let public = PublicKeyComponents { n: &modulus[1..], e: exponent };
        for (flags, algorithm) in
            [(2, "rsa-sha2-256"), (4, "rsa-sha2-512"), (6, "rsa-sha2-256"), (0x8000_0004, "rsa-sha2-512")]
        {
            let signature = key.sign(b"data", flags).unwrap();
            let [name, raw] = strings(&signature).unwrap()[..] else { panic!("two fields") };
            assert_eq!(name, algorithm.as_bytes());
            let parameters = match algorithm {
                "rsa-sha2-256" => &RSA_PKCS1_2048_8192_SHA256,
                _ => &RSA_PKCS1_2048_8192_SHA512,
            };
            assert!(public.verify(parameters, b"data", raw).is_ok());
            assert!(public.verify(parameters, b"date", raw).is_err());
        }
    }

    #[test]
    fn a_signature_with_sha1_is_not_made() {
        let key = RsaKey::generate().unwrap();
        for flags in [0, 1, 8, 0x8000_0000] {
            assert_eq!(key.sign(b"data", flags), None, "{flags}");
        }
    }

    #[test]
    fn der_that_is_cut_short_or_something_else_is_no_key() {
        let whole = [0x30, 0x08, 0x02, 0x01, 0x05, 0x02, 0x03, 1, 0, 1];
        assert!(blob(&whole).is_some());
        for end in 0..whole.len() {
            assert_eq!(blob(&whole[..end]), None, "{end}");
        }
        assert_eq!(blob(&[0x31, 0x03, 0x02, 0x01, 0x05]), None);
        assert_eq!(element(&[0x30, 0x85, 0, 0, 0, 0, 1, 7], 0x30), None);
        assert_eq!(element(&[0x30, 0x81, 1, 7], 0x30), Some((&[7][..], &[][..])));
    }
}
