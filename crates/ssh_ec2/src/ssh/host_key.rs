//! Host keys, and the texts that tell which ones an instance has. (Pure.)
//!
//! Whatever else stands in such a text is passed over: consoles carry the kernel's words and everybody
//! else's. Only blocks that are whole count, and blocks that contradict each other tell nothing.

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
    /// Reads `ssh-ed25519 AAAA…`, whatever follows. None if it is no plain public key: a certificate is none,
    /// nor is what was cut short.
    pub fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (algorithm, blob) = (words.next()?, decode(words.next()?)?);
        // The blob repeats the name, which must be the same.
        let (named, fields) = take(&blob)?;
        let known = named == algorithm.as_bytes() && !algorithm.contains(CERTIFICATE);
        (known && is_name(algorithm) && is_whole(algorithm, fields))
            .then(|| Self { algorithm: algorithm.to_owned(), blob: blob.clone() })
    }

    /// The plain key that a certificate is for, of the algorithms that servers have certificates for.
    pub fn of_certificate(text: &str) -> Option<Self> {
        let mut words = text.split_ascii_whitespace();
        let (name, blob) = (words.next()?, decode(words.next()?)?);
        let algorithm = &name[..name.find(CERTIFICATE)?];
        let (named, rest) = take(&blob)?;
        let (_nonce, mut rest) = take(rest)?;
        if named != name.as_bytes() {
            return None;
        }
        let mut plain = Vec::new();
        put(&mut plain, algorithm.as_bytes());
        for _ in 0..fields(algorithm)? {
            let (field, after) = take(rest)?;
            put(&mut plain, field);
            rest = after;
        }
        Self::parse(&format!("{algorithm} {}", STANDARD.encode(plain)))
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
        let keys = keys_block(text).ok().flatten().unwrap_or_default();
        let fingerprints = if keys.is_empty() { fingerprints_block(text).ok().flatten() } else { None };
        Self { keys, fingerprints: fingerprints.unwrap_or_default() }
    }

    /// Whether a console has blocks that contradict each other, or of which a part is missing. That it lists
    /// no key then is no answer.
    pub fn is_unclear(console: &str) -> bool {
        keys_block(console).is_err() || fingerprints_block(console).is_err()
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

fn decode(encoded: &str) -> Option<Vec<u8>> {
    if encoded.len() > BLOB_LIMIT { None } else { STANDARD.decode(encoded).ok() }
}

/// A string of SSH from the front of some bytes, and what follows (RFC 4251, section 5).
fn take(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

fn put(bytes: &mut Vec<u8>, field: &[u8]) {
    // No field is longer than the blob that it came from.
    bytes.extend_from_slice(&u32::try_from(field.len()).unwrap_or_default().to_be_bytes());
    bytes.extend_from_slice(field);
}

fn is_name(algorithm: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-@._".contains(&byte);
    !algorithm.is_empty() && algorithm.len() <= ALGORITHM_LIMIT && algorithm.bytes().all(allowed)
}

/// How many strings follow the name in a blob; none for algorithms that are not known here.
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
fn is_whole(algorithm: &str, mut rest: &[u8]) -> bool {
    let mut count = 0;
    while let Some((field, after)) = take(rest) {
        if field.is_empty() || (algorithm == "ssh-ed25519" && field.len() != ED25519_LENGTH) {
            return false;
        }
        (count, rest) = (count + 1, after);
    }
    rest.is_empty() && fields(algorithm).map_or(count > 0, |fields| fields == count)
}

fn keys_block(text: &str) -> Result<Option<Vec<HostKey>>, Unclear> {
    block(text, "SSH HOST KEY KEYS", |lines| keys_in(&lines))
}

fn fingerprints_block(text: &str) -> Result<Option<Vec<String>>, Unclear> {
    block(text, "SSH HOST KEY FINGERPRINTS", |lines| {
        let words = lines.into_iter().flat_map(str::split_ascii_whitespace);
        words.filter(|word| is_fingerprint(word)).map(str::to_owned).collect()
    })
}

/// Two blocks list different keys, or there is only a part of one.
struct Unclear;

/// What stands between cloud-init's marks, if that is said once, or the same each time: a console is also
/// written to by others than root, on some systems. EC2 keeps the last 64 KiB of a console, and may look at
/// it while cloud-init writes, so that either mark may be missing.
fn block<'a, T: PartialEq>(
    text: &'a str,
    title: &str,
    read: impl Fn(Vec<&'a str>) -> T,
) -> Result<Option<T>, Unclear> {
    let (begin, end) = (format!("-----BEGIN {title}-----"), format!("-----END {title}-----"));
    let mut found = None;
    let mut is_cut = false;
    let mut open: Option<Vec<&str>> = None;
    for line in text.lines().map(str::trim_end) {
        if line.ends_with(&begin) {
            open = Some(Vec::new());
        } else if line.ends_with(&end) {
            let Some(told) = open.take().map(&read) else {
                is_cut = true;
                continue;
            };
            if found.as_ref().is_some_and(|before| *before != told) {
                return Err(Unclear);
            }
            found = Some(told);
        } else if let Some(lines) = &mut open {
            lines.push(line);
        }
    }
    if found.is_none() && (is_cut || open.is_some()) { Err(Unclear) } else { Ok(found) }
}

/// The keys of lines that may have something in front of them, such as `ec2: ` or a time.
fn keys_in(lines: &[&str]) -> Vec<HostKey> {
    let key = |line: &str| {
        let starts = line.match_indices(['s', 'e']).filter(|(at, _)| is_word_start(line, *at));
        starts.map(|(at, _)| &line[at..]).find_map(HostKey::parse)
    };
    lines.iter().filter_map(|line| key(line)).collect()
}

fn is_word_start(line: &str, at: usize) -> bool {
    line[..at].chars().next_back().is_none_or(|before| before.is_ascii_whitespace())
}

fn is_fingerprint(word: &str) -> bool {
    let encoded = word.strip_prefix("SHA256:").unwrap_or_default();
    STANDARD_NO_PAD.decode(encoded).is_ok_and(|digest| digest.len() == 32)
}

/// In the name of an algorithm for certificates.
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
        let (_, public) = take(&key.blob).unwrap();
        let mut blob = Vec::new();
        put(&mut blob, name.as_bytes());
        put(&mut blob, b"nonce");
        blob.extend_from_slice(public);
        blob.extend_from_slice(b"serial, type, and so on");
        let certificate = format!("{name} {}", STANDARD.encode(&blob));
        assert_eq!(HostKey::parse(&certificate), None);
        assert_eq!(HostKey::of_certificate(&certificate), Some(key));
        assert_eq!(HostKey::of_certificate(ED25519), None);
        assert_eq!(HostKey::of_certificate(&format!("{name} AAAA")), None);
    }

    #[test]
    fn only_whole_blocks_count_and_none_that_are_contradicted() {
        let begin = "-----BEGIN SSH HOST KEY KEYS-----\n";
        let end = "-----END SSH HOST KEY KEYS-----\n";
        assert!(Evidence::of_console(&format!("{begin}{ED25519}\n")).is_empty());
        assert!(Evidence::of_console(&format!("{ED25519}\n{end}")).is_empty());
        for cut in [format!("{begin}{ED25519}\n"), format!("{ED25519}\n{end}"), begin.into(), end.into()] {
            assert!(Evidence::of_console(&cut).is_empty() && Evidence::is_unclear(&cut), "{cut}");
            let whole = format!("{begin}{ED25519}\n{end}");
            for both in [format!("{cut}{whole}"), format!("{whole}{cut}")] {
                assert_eq!(Evidence::of_console(&both).keys.len(), 1, "{both}");
                assert!(!Evidence::is_unclear(&both), "{both}");
            }
        }
        assert!(Evidence::of_console(ED25519).is_empty());
        let other = format!("{begin}{ED25519}\n{end}{begin}nothing\n{end}");
        assert!(Evidence::of_console(&other).is_empty() && Evidence::is_unclear(&other));
        let again = format!("{begin}{ED25519}\n{end}").repeat(2);
        assert_eq!(Evidence::of_console(&again).keys.len(), 1);
        assert!(!Evidence::is_unclear(&again) && !Evidence::is_unclear(ED25519));
        let in_one_line = format!("{} {ED25519} {}", begin.trim(), end.trim());
        assert!(Evidence::of_console(&in_one_line).is_empty());
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
