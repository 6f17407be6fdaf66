//! Why ssh, or a program that runs it, cannot be used.

use std::io;

use thiserror::Error;

use crate::ssh::client::Version;
use crate::system::explain::{Anchor, Explain};

/// A client program that is missing, cannot be run or is too old.
#[derive(Debug, Error)]
pub(crate) enum SshError {
    /// The program could not be started.
    #[error("cannot run {program}")]
    NotRun {
        /// Its name or path: ssh, scp, sftp or rsync.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The ssh has no `KnownHostsCommand`. It would refuse the user's whole configuration because of that
    /// keyword.
    #[error("ssh is OpenSSH {found}, but checking host keys needs {} or later", Version::NEEDED)]
    Old {
        /// The version of the ssh in PATH.
        found: Version,
    },
}

impl Explain for SshError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::NotRun { program, source } if source.kind() == io::ErrorKind::NotFound => {
                let (package, name) = match program.as_str() {
                    "rsync" => ("rsync", "rsync"),
                    _ => ("openssh-client", "OpenSSH's client"),
                };
                format!("install {name} (Debian: `apt install {package}`), or put it in PATH")
            }
            Self::NotRun { program, .. } => format!("check that the {program} in PATH can be executed"),
            Self::Old { .. } => NEWER_HINT.into(),
        };
        vec![hint]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::SshClient)
    }
}

/// The hint for an ssh that is too old, or has a known vulnerability.
pub(crate) const NEWER_HINT: &str = "put a newer ssh in PATH";
