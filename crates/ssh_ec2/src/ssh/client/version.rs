//! The version of the ssh in PATH, and whether it has a known vulnerability.

use std::fmt;
use std::io;
use std::process::{Command, Stdio};

/// The version of an OpenSSH client.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct Version {
    /// The 9 of 9.2.
    pub major: u32,
    /// The 2 of 9.2.
    pub minor: u32,
    /// Whether a distribution built it, and may have backported fixes.
    pub is_distributed: bool,
}

impl Version {
    /// The first with `KnownHostsCommand`, without which host keys could not be checked.
    pub(crate) const NEEDED: Self = Self { major: 8, minor: 5, is_distributed: false };

    /// The first that refuses host and user names with shell metacharacters.
    const SAFE: Self = Self { major: 9, minor: 6, is_distributed: false };

    /// A warning about CVE-2023-51385, unless this version is safe or its distribution has fixed it.
    pub(crate) fn danger(self) -> Option<String> {
        let is_fixed = || self.is_distributed && refuses_shell_characters();
        (self < Self::SAFE && !is_fixed()).then(|| {
            format!(
                "OpenSSH {self} may run commands that a host name contains (CVE-2023-51385), so do not connect \
                 to names that you do not trust; OpenSSH {} does not, and some distributions have fixed older versions",
                Self::SAFE
            )
        })
    }

    /// Runs `ssh -V`. None if the ssh in PATH is not OpenSSH's.
    ///
    /// # Errors
    ///
    /// When it cannot be run.
    pub(crate) fn of_ssh() -> Result<Option<Self>, io::Error> {
        let output = Command::new("ssh").arg("-V").stdin(Stdio::null()).output()?;
        Ok(Self::parse(&String::from_utf8_lossy(&output.stderr)))
    }

    /// Reads `OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL …`.
    fn parse(text: &str) -> Option<Self> {
        let (major, rest) = text.split_once("OpenSSH_")?.1.split_once('.')?;
        let end = rest.find(|character: char| !character.is_ascii_digit()).unwrap_or(rest.len());
        // `9.2p1 Debian-2+deb12u10, OpenSSL`, where others have no second word.
        let version = rest.split(',').next().unwrap_or_default();
        Some(Self {
            major: major.parse().ok()?,
            minor: rest[..end].parse().ok()?,
            is_distributed: version.trim().contains(' '),
        })
    }
}

/// Whether ssh refuses a host name with a quote: the distribution has fixed CVE-2023-51385.
fn refuses_shell_characters() -> bool {
    let mut ssh = Command::new("ssh");
    ssh.args(["-F", "none", "-G", "--", "a'b"]).stdin(Stdio::null());
    ssh.output().is_ok_and(|output| !output.status.success())
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_ssh_says_of_itself() {
        for (text, version) in [
            ("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026\n", Some((9, 2, true))),
            ("OpenSSH_10.0p2, LibreSSL 3.3.6", Some((10, 0, false))),
            ("OpenSSH_8.5", Some((8, 5, false))),
            ("Sun_SSH_1.1.5", None),
        ] {
            assert_eq!(
                Version::parse(text),
                version.map(|(major, minor, is_distributed)| Version { major, minor, is_distributed }),
                "{text}"
            );
        }
        let version = |major, minor| Version { major, minor, is_distributed: false };
        assert!(version(10, 0) > Version::NEEDED);
        for (version, is_safe) in [((9, 5), false), ((9, 6), true), ((10, 0), true)]
            .map(|((major, minor), is_safe)| (version(major, minor), is_safe))
        {
            assert_eq!(version.danger().is_none(), is_safe, "{version}");
        }
    }
}
