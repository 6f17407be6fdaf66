//! Host keys, and the texts that tell which ones an instance has. (Pure.)
//!
//! Whatever else stands in such a text is passed over: consoles carry the kernel's words and everybody else's. Only a
//! block that is whole counts, and of several the last, since keys are made anew when an image is started again.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest as _, Sha256};

/// A public host key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostKey {
    algorithm: String,
    blob: Vec<u8>,
}

/// Who told a key.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Source {
    /// EC2's copy of the console, to which cloud-init prints the keys.
    Console,
    /// The instance itself, when first connected to.
    FirstUse,
    /// The files of sshd, read in a session of Session Manager.
    Session,
    /// Whoever uses this machine.
    User,
}

/// What a text tells of an instance's keys.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Evidence {
    /// The keys.
    pub keys: Vec<HostKey>,
    /// The fingerprints, where no keys are told: `SHA256:…`.
    pub fingerprints: Vec<String>,
}

impl HostKey {
    /// Reads `ssh-ed25519 AAAA…`, whatever follows. None if it is no plain public key: a certificate is none.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (algorithm, encoded) = (words.next()?, words.next()?);
        if algorithm.len() > ALGORITHM_LIMIT || encoded.len() > BLOB_LIMIT || algorithm.contains("-cert-") {
            return None;
        }
        let blob = STANDARD.decode(encoded).ok()?;
        // The blob repeats the name, which must be the same.
        let (length, rest) = blob.split_first_chunk::<4>()?;
        let named = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-@._".contains(&byte);
        let plain = !algorithm.is_empty() && algorithm.bytes().all(allowed);
        (plain && named == algorithm.as_bytes()).then(|| Self { algorithm: algorithm.to_owned(), blob })
    }

    /// Such as `ssh-ed25519`.
    pub fn algorithm(&self) -> &str {
        &self.algorithm
    }

    /// What ssh calls the algorithm in its messages: `ED25519`, `RSA`, `ECDSA`.
    pub fn kind(&self) -> &str {
        match self.algorithm.as_str() {
            "ssh-ed25519" => "ED25519",
            "ssh-rsa" => "RSA",
            "ssh-dss" => "DSA",
            name if name.starts_with("ecdsa-") => "ECDSA",
            name => name,
        }
    }

    /// As ssh shows it: `SHA256:` and 43 characters.
    pub fn fingerprint(&self) -> String {
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
    /// As it is written down.
    pub fn word(self) -> &'static str {
        match self {
            Self::Console => "console",
            Self::FirstUse => "first-use",
            Self::Session => "session",
            Self::User => "user",
        }
    }

    /// Reads [`word`](Self::word). What ssh wrote down itself has none, and was a first use.
    pub fn of_word(word: &str) -> Self {
        let known = [Self::Console, Self::Session, Self::User];
        known.into_iter().find(|source| source.word() == word).unwrap_or(Self::FirstUse)
    }
}

/// As a sentence says it: "told by …".
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

impl Evidence {
    /// From the console: the blocks that cloud-init prints when an instance starts for the first time.
    pub fn of_console(text: &str) -> Self {
        let keys = last_block(text, "SSH HOST KEY KEYS").map(keys_in).unwrap_or_default();
        let prints = last_block(text, "SSH HOST KEY FINGERPRINTS");
        let prints = if keys.is_empty() { prints } else { None };
        let words = prints.unwrap_or_default().split_ascii_whitespace();
        Self { keys, fingerprints: words.filter(|word| is_fingerprint(word)).map(str::to_owned).collect() }
    }

    /// From the contents of `ssh_host_*_key.pub`.
    pub fn of_files(text: &str) -> Self {
        Self { keys: text.lines().filter_map(HostKey::parse).collect(), fingerprints: Vec::new() }
    }

    /// Whether nothing is told.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.fingerprints.is_empty()
    }

    /// Whether this key is one of those that are told.
    pub fn tells(&self, key: &HostKey) -> bool {
        self.keys.contains(key) || self.fingerprints.contains(&key.fingerprint())
    }

    /// The fingerprints of all that is told.
    pub fn all_fingerprints(&self) -> Vec<String> {
        let of_keys = self.keys.iter().map(HostKey::fingerprint);
        of_keys.chain(self.fingerprints.iter().cloned()).collect()
    }
}

/// What stands between the last pair of cloud-init's marks.
fn last_block<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let end = text.rfind(&format!("-----END {title}-----"))?;
    let begin = format!("-----BEGIN {title}-----");
    let start = text[..end].rfind(&begin)? + begin.len();
    text.get(start..end)
}

/// The keys of lines that may have something in front of them, such as `ec2: ` or a time.
fn keys_in(block: &str) -> Vec<HostKey> {
    let key = |line: &str| {
        let starts = line.match_indices(['s', 'e']).filter(|(at, _)| is_word_start(line, *at));
        starts.map(|(at, _)| &line[at..]).find_map(HostKey::parse)
    };
    block.lines().filter_map(key).collect()
}

fn is_word_start(line: &str, at: usize) -> bool {
    line[..at].chars().next_back().is_none_or(|before| before.is_ascii_whitespace())
}

fn is_fingerprint(word: &str) -> bool {
    let encoded = word.strip_prefix("SHA256:").unwrap_or_default();
    STANDARD_NO_PAD.decode(encoded).is_ok_and(|digest| digest.len() == 32)
}

/// The longest name in use has 42 characters.
const ALGORITHM_LIMIT: usize = 64;
/// RSA keys of 16,384 bits have 2,800.
const BLOB_LIMIT: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
    /// What `ssh-keygen -l` says of it.
    const FINGERPRINT: &str = "SHA256:JKkgnV0Zt34NaU4uODLtYFBa3W/7xdN89nitkDtdZ30";

    #[test]
    fn a_key_is_read_and_written_and_has_sshs_fingerprint() {
        let key = HostKey::parse(&format!("{ED25519} root@ip-10-0-0-1")).unwrap();
        assert_eq!((key.algorithm(), key.kind()), ("ssh-ed25519", "ED25519"));
        assert_eq!(key.to_string(), ED25519);
        assert_eq!(key.fingerprint(), FINGERPRINT);
        assert!(is_fingerprint(FINGERPRINT));
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
    fn a_console_tells_keys_among_other_words() {
        let text = format!(
            "[    0.0] Linux version\r\nci-info: x\r\n-----BEGIN SSH HOST KEY KEYS-----\r\n{ED25519} root@a\r\n\
             [   12.3] cloud-init[812]: {ED25519} root@a\r\nec2: ssh-ed25519 nonsense\r\n\
             -----END SSH HOST KEY KEYS-----\r\nlogin: "
        );
        let key = HostKey::parse(ED25519).unwrap();
        assert_eq!(Evidence::of_console(&text).keys, [key.clone(), key]);
    }

    #[test]
    fn only_whole_blocks_count_and_the_last_one() {
        let begin = "-----BEGIN SSH HOST KEY KEYS-----\n";
        let end = "-----END SSH HOST KEY KEYS-----\n";
        assert!(Evidence::of_console(&format!("{begin}{ED25519}\n")).is_empty());
        assert!(Evidence::of_console(&format!("{ED25519}\n{end}")).is_empty());
        assert!(Evidence::of_console(ED25519).is_empty());
        let twice = format!("{begin}{ED25519}\n{end}{begin}nothing\n{end}");
        assert!(Evidence::of_console(&twice).is_empty());
    }

    #[test]
    fn fingerprints_count_where_keys_are_not_told() {
        let prints = format!(
            "ec2: -----BEGIN SSH HOST KEY FINGERPRINTS-----\nec2: 256 {FINGERPRINT} root@a (ED25519)\n\
             ec2: 256 SHA256:short root@a (ECDSA)\nec2: -----END SSH HOST KEY FINGERPRINTS-----\n"
        );
        let evidence = Evidence::of_console(&prints);
        assert_eq!(evidence.all_fingerprints(), [FINGERPRINT]);
        assert!(evidence.tells(&HostKey::parse(ED25519).unwrap()));
        let keys = format!("-----BEGIN SSH HOST KEY KEYS-----\n{ED25519}\n-----END SSH HOST KEY KEYS-----\n");
        assert_eq!(Evidence::of_console(&(prints + &keys)).fingerprints, Vec::<String>::new());
    }

    #[test]
    fn sources_are_remembered() {
        for source in [Source::Console, Source::FirstUse, Source::Session, Source::User] {
            assert_eq!(Source::of_word(source.word()), source);
        }
        assert_eq!(Source::of_word("root@ip-10-0-0-1"), Source::FirstUse);
    }
}
