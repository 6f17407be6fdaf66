//! Host keys, their fingerprints, and the sources that list them. (Pure.)

mod evidence;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

pub use self::evidence::Evidence;
use crate::ssh::wire::{push_string, strings, take_string};

/// A public host key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostKey {
    algorithm: String,
    blob: Vec<u8>,
}

/// The source that listed a host key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// The EC2 console output, to which cloud-init prints the keys.
    Console,
    /// The server itself, at the first connection.
    FirstUse,
    /// sshd's files on the instance, read in a session of Session Manager.
    Session,
    /// The user of this machine.
    User,
}

impl HostKey {
    /// Reads `ssh-ed25519 AAAA…`, and ignores what follows. None if it is no plain public key, as a
    /// certificate, or is cut short.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (algorithm, blob) = (words.next()?, decode(words.next()?)?);
        // The blob repeats the name, which must be the same.
        let (named, fields) = take_string(&blob)?;
        let known = named == algorithm.as_bytes() && !algorithm.contains(CERTIFICATE);
        (known && is_name(algorithm) && is_whole(algorithm, fields))
            .then(|| Self { algorithm: algorithm.to_owned(), blob: blob.clone() })
    }

    /// The plain key in a certificate, for the algorithms that servers have certificates for.
    pub fn of_certificate(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (name, blob) = (words.next()?, decode(words.next()?)?);
        let algorithm = &name[..name.find(CERTIFICATE)?];
        let (named, rest) = take_string(&blob)?;
        let (_nonce, mut rest) = take_string(rest)?;
        if named != name.as_bytes() {
            return None;
        }
        let mut plain = Vec::new();
        push_string(&mut plain, algorithm.as_bytes());
        for _ in 0..fields(algorithm)? {
            let (field, after) = take_string(rest)?;
            push_string(&mut plain, field);
            rest = after;
        }
        Self::parse(&format!("{algorithm} {}", STANDARD.encode(plain)))
    }

    /// The name as in known_hosts, such as `ssh-ed25519`.
    pub(crate) fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// The name as in ssh's messages: `ED25519`, `RSA`, `ECDSA`.
    pub(crate) fn kind(&self) -> &str {
        match self.algorithm.as_str() {
            "ssh-ed25519" => "ED25519",
            "ssh-rsa" => "RSA",
            "ssh-dss" => "DSA",
            name if name.starts_with("ecdsa-") => "ECDSA",
            name => name,
        }
    }

    /// As ssh shows it: `SHA256:` and 43 characters.
    pub(crate) fn fingerprint(&self) -> String {
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }
}

/// As in known_hosts, without the host.
impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.algorithm, STANDARD.encode(&self.blob))
    }
}

impl Source {
    /// The word for it in the comments of known_hosts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::FirstUse => "first-use",
            Self::Session => "session",
            Self::User => "user",
        }
    }

    /// Reads [`word`](Self::word). A line that ssh wrote has none: ssh accepted the key at the first
    /// connection.
    pub(crate) fn of_word(word: &str) -> Self {
        let known = [Self::Console, Self::Session, Self::User];
        known.into_iter().find(|source| source.word() == word).unwrap_or(Self::FirstUse)
    }
}

/// As it stands in a sentence, after "by" or "from".
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Console => "EC2's console output",
            Self::FirstUse => "the first connection",
            Self::Session => "its own files, read through Session Manager",
            Self::User => "you",
        })
    }
}

fn decode(encoded: &str) -> Option<Vec<u8>> {
    if encoded.len() > BLOB_LIMIT { None } else { STANDARD.decode(encoded).ok() }
}

fn is_name(algorithm: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-@._".contains(&byte);
    !algorithm.is_empty() && algorithm.len() <= ALGORITHM_LIMIT && algorithm.bytes().all(allowed)
}

/// The number of strings after the name in a blob. None for an algorithm that is not known here.
fn fields(algorithm: &str) -> Option<usize> {
    match algorithm {
        "ssh-ed25519" => Some(1),
        "ssh-rsa" => Some(2),
        "ssh-dss" => Some(4),
        name if name.starts_with("ecdsa-sha2-") => Some(2),
        _ => None,
    }
}

/// Whether a key has all its fields and nothing else.
fn is_whole(algorithm: &str, rest: &[u8]) -> bool {
    let is_good =
        |field: &&[u8]| !field.is_empty() && (algorithm != "ssh-ed25519" || field.len() == ED25519_LENGTH);
    strings(rest).is_some_and(|found| {
        found.iter().all(is_good)
            && fields(algorithm).map_or(!found.is_empty(), |fields| fields == found.len())
    })
}

/// The part of an algorithm's name that marks certificates.
const CERTIFICATE: &str = "-cert-v01@openssh.com";
const ED25519_LENGTH: usize = 32;
/// The longest name in use has 42 characters.
const ALGORITHM_LIMIT: usize = 64;
/// RSA keys of 16,384 bits have 2,800.
const BLOB_LIMIT: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
    /// As `ssh-keygen -l` prints it.
    const FINGERPRINT: &str = "SHA256:JKkgnV0Zt34NaU4uODLtYFBa3W/7xdN89nitkDtdZ30";

    #[test]
    fn a_key_is_read_and_written_and_has_sshs_fingerprint() {
        let key = HostKey::parse(&format!("{ED25519} root@ip-10-0-0-1")).unwrap();
        assert_eq!((key.algorithm(), key.kind()), ("ssh-ed25519", "ED25519"));
        assert_eq!(key.to_string(), ED25519);
        assert_eq!(key.fingerprint(), FINGERPRINT);
    }

    #[test]
    fn what_is_no_key_is_none() {
        let blob = ED25519.split_once(' ').unwrap().1;
        for text in [
            "",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            &format!("ssh-rsa {blob}"),
            &format!("ssh-ed25519\u{1b}[2J {blob}"),
            "ssh-ed25519-cert-v01@openssh.com AAAA",
            "ssh-ed25519 AAAA",
            "ssh-ed25519 //////////8=",
            &format!("ssh-ed25519 {}", "A".repeat(100_000)),
        ] {
            assert_eq!(HostKey::parse(text), None, "{text:.60}");
        }
    }

    #[test]
    fn a_key_that_was_cut_short_is_none() {
        let (algorithm, blob) = ED25519.split_once(' ').unwrap();
        for length in (4..blob.len()).step_by(4) {
            assert_eq!(HostKey::parse(&format!("{algorithm} {}", &blob[..length])), None, "{length}");
        }
        let longer = STANDARD.encode([STANDARD.decode(blob).unwrap(), vec![0; 4]].concat());
        assert_eq!(HostKey::parse(&format!("{algorithm} {longer}")), None);
    }

    #[test]
    fn a_certificate_is_for_a_plain_key() {
        let key = HostKey::parse(ED25519).unwrap();
        let name = "ssh-ed25519-cert-v01@openssh.com";
        let (_, public) = take_string(&key.blob).unwrap();
        let mut blob = Vec::new();
        push_string(&mut blob, name.as_bytes());
        push_string(&mut blob, b"nonce");
        blob.extend_from_slice(public);
        blob.extend_from_slice(b"serial, type, and so on");
        let certificate = format!("{name} {}", STANDARD.encode(&blob));
        assert_eq!(HostKey::parse(&certificate), None);
        assert_eq!(HostKey::of_certificate(&certificate), Some(key));
        assert_eq!(HostKey::of_certificate(ED25519), None);
        assert_eq!(HostKey::of_certificate(&format!("{name} AAAA")), None);
    }

    #[test]
    fn sources_are_remembered() {
        for source in [Source::Console, Source::FirstUse, Source::Session, Source::User] {
            assert_eq!(Source::of_word(source.word()), source);
        }
        assert_eq!(Source::of_word("root@ip-10-0-0-1"), Source::FirstUse);
    }
}
