//! The reasons for which a key file cannot be pushed, and what to do about each.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::ssh::quote::shell_word;
use crate::system::explain::{Anchor, Explain};

/// A key file cannot be read, or its key cannot be pushed.
#[derive(Debug, Error)]
pub(crate) enum KeyFileError {
    /// The path does not exist.
    #[error("{} does not exist", .path.display())]
    Missing {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The path is that of a directory.
    #[error("{} is a directory, and not a key", .path.display())]
    Directory {
        /// The path as it was given.
        path: PathBuf,
    },
    /// The operating system does not let it be read.
    #[error("cannot read {}: {source}", .path.display())]
    Read {
        /// The path as it was given.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Its content is no key that can be pushed.
    #[error("{} {flaw}", .path.display())]
    Flaw {
        /// The path as it was given, or that of the public half beside it.
        path: PathBuf,
        /// The reason.
        flaw: Flaw,
    },
}

/// The reason for which the content of a key file cannot be pushed. Its text follows the file's path.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Flaw {
    /// A certificate.
    #[error("is a certificate, and EC2 Instance Connect accepts public keys only")]
    Certificate,
    /// The key does not match its type, or is cut short. Holds the type.
    #[error("is damaged: the key after `{0}` cannot be read")]
    Damaged(String),
    /// Only white space and comments.
    #[error("is empty")]
    Empty,
    /// A key of a type that EC2 Instance Connect does not accept. Holds its description.
    #[error("holds {0}, which EC2 Instance Connect does not accept")]
    Kind(String),
    /// A longer line than `SendSSHPublicKey` takes. Holds its length in characters.
    #[error("has {0} characters, and EC2 Instance Connect accepts no more than 4096")]
    Long(usize),
    /// A line of an authorized_keys or known_hosts file. Holds the words before the key.
    #[error("has {0:?} in front of the key")]
    Prefix(String),
    /// A private key without a public half beside it.
    #[error("holds a private key, and its public half is not beside it")]
    Private,
    /// A private key of `PuTTY`.
    #[error("is a private key of PuTTY, which ssh cannot use")]
    Putty,
    /// A public key in the format of another program. Holds the format's name in `ssh-keygen -m`.
    #[error("is a public key in another format than OpenSSH's")]
    OtherFormat(&'static str),
    /// Several keys. Holds their number.
    #[error("holds {0} keys, and only one can be pushed")]
    Several(usize),
    /// An RSA key of too few bits. Holds their number.
    #[error("holds an RSA key of {0} bits, and EC2 Instance Connect accepts none below 2048")]
    Short(u32),
    /// Text in an encoding that Windows uses.
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
    pub(super) fn hint(&self, path: &Path) -> String {
        let word = |path: &Path| shell_word(path.as_os_str());
        let (file, public) = (word(path), word(&public_half(path)));
        match self {
            Self::Certificate => "name the `.pub` file of the key itself".into(),
            Self::Damaged(_) => "copy it again, as one line; `ssh-keygen -l -f` shows whether it is intact".into(),
            Self::Kind(_) | Self::Short(_) => {
                "use an Ed25519 key, which `ssh-keygen -t ed25519` makes, or leave out `--key-file` for a one-time key"
                    .into()
            }
            Self::Long(_) => "shorten the comment after the key".into(),
            Self::Prefix(_) => "remove it, so that the line begins with the key's type".into(),
            Self::Private => format!("make the public half: `ssh-keygen -y -f {file} > {public}`"),
            Self::Putty => format!(
                "convert it: `puttygen {file} -O private-openssh -o KEY` and `ssh-keygen -y -f KEY > KEY.pub`"
            ),
            Self::OtherFormat(format) => {
                format!("convert it: `ssh-keygen -i -m {format} -f {file} > {public}`")
            }
            Self::Several(_) => "put the one to push in a file of its own".into(),
            Self::Utf16 => "save it as UTF-8 or ASCII".into(),
            Self::Empty | Self::Unknown => {
                "give the `.pub` file of a key pair, for example ~/.ssh/id_ed25519.pub".into()
            }
        }
    }
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
pub(super) fn public_half(path: &Path) -> PathBuf {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".pub");
    beside.into()
}
