//! Reads the public half of a key of the user's own.
//!
//! EC2 Instance Connect takes Ed25519 keys, and RSA keys of 2048 bits and more; its scripts on instances skip
//! all others. Files of other formats are recognized by their first bytes.

mod error;

use std::fs;
use std::io;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use self::error::public_half;
pub(crate) use self::error::{Flaw, KeyFileError};
use crate::ssh::wire::strings;

/// The public key line in `path`, or in `path.pub` if `path` holds the private half.
///
/// # Errors
///
/// When there is no key that can be pushed.
pub(crate) fn read_public_key(path: &Path) -> Result<String, KeyFileError> {
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
            // A path below a file exists no more than one below a missing directory.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => KeyFileError::Missing { path },
            io::ErrorKind::IsADirectory => KeyFileError::Directory { path },
            _ => KeyFileError::Read { path, source },
        }
    })
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

/// The format of a file that begins with this line. None if it may be an OpenSSH public key.
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

/// Whether a word is a key type that `ssh -Q key` lists, or may list in later versions.
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
    let fields = strings(&blob).ok_or_else(damaged)?;
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
pub(crate) fn rsa_bits(line: &str) -> Option<u32> {
    let blob = STANDARD.decode(line.split_whitespace().nth(1)?).ok()?;
    match strings(&blob)?[..] {
        [name, _, modulus] if name == RSA.as_bytes() => Some(bits(modulus)),
        _ => None,
    }
}

/// The length of a positive number in bits; it may begin with zero bytes.
fn bits(number: &[u8]) -> u32 {
    let Some(leading) = number.iter().position(|byte| *byte != 0) else { return 0 };
    let bytes = u32::try_from(number.len() - leading).unwrap_or(u32::MAX / 8);
    8 * bytes - number[leading].leading_zeros()
}

const ED25519: &str = "ssh-ed25519";
const RSA: &str = "ssh-rsa";
/// The least size, from the documentation of EC2 Instance Connect.
const LEAST_RSA_BITS: u32 = 2048;
/// The limit of `SSHPublicKey` in the API's service model.
const LINE_LIMIT: usize = 4096;

#[cfg(test)]
mod tests;
