//! The public half of a key of the user's own, and why it cannot be pushed.
//!
//! EC2 Instance Connect takes Ed25519 keys, and RSA keys of 2048 bits and more; the scripts on instances skip
//! all others. What people name instead is known by its first bytes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use thiserror::Error;

use crate::ssh::client::shell_word;
use crate::system::explain::{Anchor, Explain};

/// A file whose key cannot be pushed.
#[derive(Debug, Error)]
pub enum KeyFileError {
    /// Nothing is there.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// A directory.
    #[error("{} is a directory, and not a key", .path.display())]
    Directory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// It is there, and cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds something else than a key that can be pushed.
    #[error("{} {flaw}", .path.display())]
    Flaw {
        /// Which one.
        path: PathBuf,
        /// What it holds.
        flaw: Flaw,
    },
}

/// What is wrong with the content of a key file. The texts follow on its path.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum Flaw {
    /// A certificate of a key.
    #[error("is a certificate, and EC2 Instance Connect takes public keys only")]
    Certificate,
    /// The key's type and the rest do not go together.
    #[error("is damaged: the key behind `{0}` cannot be read")]
    Damaged(String),
    /// Not a byte but white space and comments.
    #[error("is empty")]
    Empty,
    /// A type that EC2 Instance Connect does not take.
    #[error("holds {0}, which EC2 Instance Connect does not take")]
    Kind(String),
    /// More than `SendSSHPublicKey` takes.
    #[error("has {0} characters, and EC2 Instance Connect takes no more than 4096")]
    Long(usize),
    /// The key of an authorized_keys or known_hosts file.
    #[error("has {0:?} in front of the key")]
    Prefix(String),
    /// Something whose public half is not here.
    #[error("holds a private key, and its public half is not beside it")]
    Private,
    /// A private key of `PuTTY`.
    #[error("is a private key of PuTTY, which ssh cannot use")]
    Putty,
    /// Public, but as another program writes it.
    #[error("is a public key in another format than OpenSSH's")]
    OtherFormat(&'static str),
    /// Several keys.
    #[error("holds {0} keys, and one can be pushed")]
    Several(usize),
    /// An RSA key of too few bits.
    #[error("holds an RSA key of {0} bits, and EC2 Instance Connect takes none below 2048")]
    Short(u32),
    /// Text in an encoding of Windows.
    #[error("is UTF-16 text, which ssh cannot read")]
    Utf16,
    /// Anything else.
    #[error("is not an OpenSSH public key")]
    Unknown,
}

impl Explain for KeyFileError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Missing { path } => vec![missing_hint(path)],
            Self::Directory { .. } => vec!["name the `.pub` file in it".into()],
            Self::Read { path, .. } => vec![format!("check the permissions of {}", path.display())],
            Self::Flaw { path, flaw } => vec![flaw.hint(path)],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::OwnKey)
    }
}

impl Flaw {
    fn hint(&self, path: &Path) -> String {
        let word = |path: &Path| shell_word(path.as_os_str());
        let (file, public) = (word(path), word(&public_half(path)));
        match self {
            Self::Certificate => "name the `.pub` file of the key itself".into(),
            Self::Damaged(_) => "copy it again, as one line; `ssh-keygen -l -f` reads one that is whole".into(),
            Self::Kind(_) | Self::Short(_) => {
                "use an Ed25519 key, which `ssh-keygen -t ed25519` makes, or leave out `--key-file` for a one-time key"
                    .into()
            }
            Self::Long(_) => "shorten the comment behind the key".into(),
            Self::Prefix(_) => "leave that out, so that the line begins with the type of the key".into(),
            Self::Private => format!("make the public half: `ssh-keygen -y -f {file} > {public}`"),
            Self::Putty => format!(
                "convert it: `puttygen {file} -O private-openssh -o KEY` and `ssh-keygen -y -f KEY > KEY.pub`"
            ),
            Self::OtherFormat(format) => {
                format!("convert it: `ssh-keygen -i -m {format} -f {file} > {public}`")
            }
            Self::Several(_) => "put the one to push in a file of its own".into(),
            Self::Utf16 => "write it again as UTF-8 or ASCII".into(),
            Self::Empty | Self::Unknown => {
                "give the `.pub` file of a key pair, for example ~/.ssh/id_ed25519.pub".into()
            }
        }
    }
}

/// The public key line in `path`, or in `path.pub` when `path` holds the private half.
///
/// # Errors
/// When there is none that can be pushed.
pub fn read_public_key(path: &Path) -> Result<String, KeyFileError> {
    let bytes = read(path)?;
    match public_line(&bytes) {
        Ok(line) => Ok(line),
        Err(Flaw::Private) => {
            let beside = public_half(path);
            match read(&beside) {
                Ok(bytes) => public_line(&bytes).map_err(|flaw| KeyFileError::Flaw { path: beside, flaw }),
                Err(KeyFileError::Missing { .. }) => {
                    Err(KeyFileError::Flaw { path: path.to_owned(), flaw: Flaw::Private })
                }
                Err(error) => Err(error),
            }
        }
        Err(flaw) => Err(KeyFileError::Flaw { path: path.to_owned(), flaw }),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, KeyFileError> {
    fs::read(path).map_err(|source| {
        let path = path.to_owned();
        match source.kind() {
            // Below a file there is nothing either.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => KeyFileError::Missing { path },
            io::ErrorKind::IsADirectory => KeyFileError::Directory { path },
            _ => KeyFileError::Read { path, source },
        }
    })
}

fn missing_hint(path: &Path) -> String {
    if path.to_string_lossy().starts_with('~') {
        return format!(
            "the shell replaces `~` only at the beginning of a word: `--key-file {}`",
            path.display()
        );
    }
    let word = |path: &Path| shell_word(path.as_os_str());
    let beside = public_half(path);
    if beside.is_file() {
        return format!("name {}, which exists", beside.display());
    }
    let private = path.with_extension("");
    if path.extension().is_some_and(|extension| extension == "pub") && private.is_file() {
        return format!(
            "make it from the private half: `ssh-keygen -y -f {} > {}`",
            word(&private),
            word(path)
        );
    }
    "check the path; `ls ~/.ssh/*.pub` lists the keys that you have".into()
}

/// Where `ssh-keygen` puts the public half of `path`.
fn public_half(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    beside.into()
}

/// The one line of a public key file.
fn public_line(bytes: &[u8]) -> Result<String, Flaw> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(Flaw::Utf16);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Flaw::Unknown)?;
    let text = text.trim_start_matches('\u{feff}');
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let first = lines.next().ok_or(Flaw::Empty)?;
    if let Some(flaw) = of_other_format(first) {
        return Err(flaw);
    }
    let others = lines.filter(|line| line.split_whitespace().any(is_key_type)).count();
    let Some(at) = first.split_whitespace().position(is_key_type) else { return Err(Flaw::Unknown) };
    if others > 0 {
        return Err(Flaw::Several(1 + others));
    }
    if at > 0 {
        let prefix = first.split_whitespace().take(at).collect::<Vec<_>>().join(" ");
        return Err(Flaw::Prefix(prefix));
    }
    check(first)?;
    Ok(first.to_owned())
}

/// What begins with a line that no OpenSSH public key has.
fn of_other_format(line: &str) -> Option<Flaw> {
    if line.starts_with("PuTTY-User-Key-File-") {
        return Some(Flaw::Putty);
    }
    let name = line.trim_matches('-').trim().strip_prefix("BEGIN ").filter(|_| line.starts_with("----"))?;
    Some(match name {
        "SSH2 PUBLIC KEY" => Flaw::OtherFormat("RFC4716"),
        "PUBLIC KEY" => Flaw::OtherFormat("PKCS8"),
        "RSA PUBLIC KEY" => Flaw::OtherFormat("PEM"),
        "CERTIFICATE" => Flaw::Certificate,
        name if name.ends_with("PRIVATE KEY") => Flaw::Private,
        _ => Flaw::Unknown,
    })
}

/// Whether a word is one of the types that `ssh -Q key` lists, or could come to list.
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix))
}

fn check(line: &str) -> Result<(), Flaw> {
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let kind = |text: &str| Err(Flaw::Kind(text.to_owned()));
    match name {
        ED25519 | RSA => {}
        name if name.contains("-cert-v0") => return Err(Flaw::Certificate),
        name if name.starts_with("sk-") => return kind("a key of a security key (FIDO)"),
        name if name.starts_with("ecdsa-") => return kind("an ECDSA key"),
        "ssh-dss" => return kind("a DSA key"),
        name => return kind(&format!("a key of the type {name}")),
    }
    let damaged = || Flaw::Damaged(name.to_owned());
    let blob = STANDARD.decode(rest.split_whitespace().next().unwrap_or_default()).map_err(|_| damaged())?;
    let fields = fields(&blob).ok_or_else(damaged)?;
    match fields[..] {
        [found, key] if name == ED25519 && found == name.as_bytes() && key.len() == 32 => {}
        [found, _, modulus] if name == RSA && found == name.as_bytes() => match bits(modulus) {
            bits if bits < LEAST_RSA_BITS => return Err(Flaw::Short(bits)),
            _ => {}
        },
        _ => return Err(damaged()),
    }
    if line.chars().count() > LINE_LIMIT { Err(Flaw::Long(line.chars().count())) } else { Ok(()) }
}

/// The length of the modulus of an RSA key, given as a line. None for other keys.
pub fn rsa_bits(line: &str) -> Option<u32> {
    let blob = STANDARD.decode(line.split_whitespace().nth(1)?).ok()?;
    match fields(&blob)?[..] {
        [name, _, modulus] if name == RSA.as_bytes() => Some(bits(modulus)),
        _ => None,
    }
}

/// The strings of a key's blob (RFC 4253, section 6.6).
fn fields(mut rest: &[u8]) -> Option<Vec<&[u8]>> {
    let mut fields = Vec::new();
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (field, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        fields.push(field);
        rest = after;
    }
    Some(fields)
}

/// Of a number that is not negative; a zero byte may stand in front of its first bit.
fn bits(number: &[u8]) -> u32 {
    let Some(leading) = number.iter().position(|byte| *byte != 0) else { return 0 };
    let bytes = u32::try_from(number.len() - leading).unwrap_or(u32::MAX / 8);
    8 * bytes - number[leading].leading_zeros()
}

const ED25519: &str = "ssh-ed25519";
const RSA: &str = "ssh-rsa";
/// As the documentation of EC2 Instance Connect has it.
const LEAST_RSA_BITS: u32 = 2048;
/// Of `SSHPublicKey` in the API's service model.
const LINE_LIMIT: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGPKSUTyz1HwHReFVvD5obVsALAgJRNarH4TRpNePnAS me";

    fn rsa(bytes: usize) -> String {
        let mut blob = b"\0\0\0\x07ssh-rsa\0\0\0\x03\x01\0\x01".to_vec();
        blob.extend(u32::try_from(bytes + 1).unwrap().to_be_bytes());
        blob.push(0);
        blob.extend(vec![0xc5; bytes]);
        format!("ssh-rsa {} own", STANDARD.encode(blob))
    }

    #[test]
    fn the_public_half_is_found_beside_the_private_one() {
        let directory = tempfile::tempdir().unwrap();
        let private = directory.path().join("id_ed25519");
        fs::write(&private, "-----BEGIN OPENSSH PRIVATE KEY-----\n").unwrap();
        let error = read_public_key(&private).unwrap_err();
        assert!(matches!(error, KeyFileError::Flaw { flaw: Flaw::Private, .. }), "{error}");
        fs::write(directory.path().join("id_ed25519.pub"), format!("{LINE}\n")).unwrap();
        assert_eq!(read_public_key(&private).unwrap(), LINE);
        assert_eq!(read_public_key(&directory.path().join("id_ed25519.pub")).unwrap(), LINE);
    }

    #[test]
    fn keys_are_taken_as_editors_and_systems_leave_them() {
        for text in [
            format!("{LINE}\n"),
            format!("{LINE}\r\n"),
            format!("\u{feff}{LINE}\r\n"),
            format!("# mine\n\n  {LINE}  \n\n"),
            LINE.to_owned(),
        ] {
            assert_eq!(public_line(text.as_bytes()), Ok(LINE.to_owned()), "{text:?}");
        }
        assert_eq!(public_line(rsa(256).as_bytes()), Ok(rsa(256)));
        assert_eq!(public_line(rsa(1024).as_bytes()), Ok(rsa(1024)));
        let tabs = LINE.replace(' ', "\t");
        assert_eq!(public_line(tabs.as_bytes()), Ok(tabs.clone()));
    }

    #[test]
    fn each_flaw_is_told() {
        let kind = |text: &str| Flaw::Kind(text.to_owned());
        let damaged = || Flaw::Damaged("ssh-ed25519".to_owned());
        let begins = |name: &str| format!("-----BEGIN {name}-----\nMIIB\n");
        for (text, flaw) in [
            (String::new(), Flaw::Empty),
            ("# nothing\n\n".into(), Flaw::Empty),
            ("no key\n".into(), Flaw::Unknown),
            ("ecdsa-sha2-nistp384 AAAA me\n".into(), kind("an ECDSA key")),
            ("sk-ssh-ed25519@openssh.com AAAA me\n".into(), kind("a key of a security key (FIDO)")),
            ("sk-ecdsa-sha2-nistp256@openssh.com AAAA me\n".into(), kind("a key of a security key (FIDO)")),
            ("ssh-dss AAAA me\n".into(), kind("a DSA key")),
            ("ssh-ed448 AAAA me\n".into(), kind("a key of the type ssh-ed448")),
            ("ssh-ed25519-cert-v01@openssh.com AAAA me\n".into(), Flaw::Certificate),
            (begins("CERTIFICATE"), Flaw::Certificate),
            (begins("RSA PRIVATE KEY"), Flaw::Private),
            (begins("ENCRYPTED PRIVATE KEY"), Flaw::Private),
            (begins("PRIVATE KEY").replace('\n', "\r\n"), Flaw::Private),
            (begins("PUBLIC KEY"), Flaw::OtherFormat("PKCS8")),
            (begins("RSA PUBLIC KEY"), Flaw::OtherFormat("PEM")),
            ("---- BEGIN SSH2 PUBLIC KEY ----\n".into(), Flaw::OtherFormat("RFC4716")),
            ("PuTTY-User-Key-File-3: ssh-ed25519\n".into(), Flaw::Putty),
            (format!("{LINE}\n{LINE}\n"), Flaw::Several(2)),
            (format!("{LINE}\n\n# and\necdsa-sha2-nistp256 AAAA\n"), Flaw::Several(2)),
            (format!("no-pty {LINE}"), Flaw::Prefix("no-pty".into())),
            (format!("example.com {LINE}"), Flaw::Prefix("example.com".into())),
            (rsa(128), Flaw::Short(1024)),
            (format!("{LINE}{}", "x".repeat(4096)), Flaw::Long(LINE.len() + 4096)),
            ("ssh-ed25519".into(), damaged()),
            ("ssh-ed25519 me".into(), damaged()),
            (LINE.replace("AAAAC3", "!AAAC3"), damaged()),
            (LINE.replace("IGPK", "IG"), damaged()),
            (rsa(256).replace("ssh-rsa ", "ssh-ed25519 "), damaged()),
        ] {
            assert_eq!(public_line(text.as_bytes()), Err(flaw), "{text:?}");
        }
        assert_eq!(public_line(b"\xff\xfes\0s\0h\0"), Err(Flaw::Utf16));
        assert_eq!(public_line(b"\xc3\x28"), Err(Flaw::Unknown));
    }

    #[test]
    fn hints_are_commands_that_can_be_pasted() {
        let hint = |flaw: Flaw| flaw.hint(Path::new("my key.pem"));
        assert_eq!(
            hint(Flaw::Private),
            "make the public half: `ssh-keygen -y -f 'my key.pem' > 'my key.pem.pub'`"
        );
        assert_eq!(
            hint(Flaw::OtherFormat("PKCS8")),
            "convert it: `ssh-keygen -i -m PKCS8 -f 'my key.pem' > 'my key.pem.pub'`"
        );
    }

    #[test]
    fn a_path_that_leads_nowhere_is_told_with_what_is_near() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let told = |path: &Path| {
            let error = read_public_key(path).unwrap_err();
            (error.to_string(), error.hints().concat())
        };
        let path = at("key").display().to_string();
        let (said, hint) = told(&at("key"));
        assert_eq!(said, format!("{path} does not exist"));
        assert!(hint.starts_with("check the path"), "{hint}");
        fs::write(at("key"), "").unwrap();
        assert_eq!(
            told(&at("key.pub")).1,
            format!("make it from the private half: `ssh-keygen -y -f {path} > {path}.pub`")
        );
        fs::rename(at("key"), at("key.pub")).unwrap();
        assert_eq!(told(&at("key")).1, format!("name {path}.pub, which exists"));
        assert_eq!(told(&at("key.pub/x")).0, format!("{path}.pub/x does not exist"));
        assert!(told(directory.path()).0.ends_with("is a directory, and not a key"));
        assert_eq!(
            told(Path::new("~/nonexistent")),
            (
                "~/nonexistent does not exist".into(),
                "the shell replaces `~` only at the beginning of a word: `--key-file ~/nonexistent`".into()
            )
        );
    }

    #[test]
    fn the_length_of_an_rsa_key_is_that_of_its_modulus() {
        assert_eq!(rsa_bits(&rsa(256)), Some(2048));
        assert_eq!(rsa_bits(LINE), None);
        assert_eq!(rsa_bits("ssh-rsa AAAA"), None);
        assert_eq!(rsa_bits("ssh-rsa ????"), None);
    }
}
