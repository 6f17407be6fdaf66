//! Where the tool keeps its files.

use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};

/// Where the tool keeps its files.
#[derive(Clone, Debug)]
pub struct Places {
    directory: PathBuf,
    sockets: PathBuf,
}

impl Places {
    /// All files below `directory`; its sockets below `shorter` when they could not be below `directory`.
    pub fn below(directory: &Path, shorter: &Path) -> Self {
        let sockets = directory.join("agent");
        let fits = sockets.as_os_str().len() + SOCKET_NAME_LENGTH <= SOCKET_PATH_LIMIT;
        let sockets = if fits { sockets } else { shorter.to_owned() };
        Self { directory: directory.to_owned(), sockets }
    }

    /// The same for the user with this id. The shorter place does not depend on variables, which differ
    /// between a login, cron and su.
    pub fn of_user(directory: &Path, user: u32) -> Self {
        Self::below(directory, Path::new(&format!("/tmp/ssh_ec2-{user}")))
    }

    /// The installed blocks.
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// The same for aliases, which include it.
    pub fn alias(&self) -> PathBuf {
        self.directory.join("alias")
    }

    /// Host keys, by instance id.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// The key agents' sockets.
    pub fn sockets(&self) -> PathBuf {
        self.sockets.clone()
    }

    /// The directory itself.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The parts of ssh's `%C`. Newer versions add the jump host, which a ProxyCommand excludes.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// As gethostname(3) returns it.
    pub local_host: &'a [u8],
    /// `%h`
    pub host: &'a str,
    /// `%p`
    pub port: &'a str,
    /// `%r`
    pub user: &'a str,
}

impl Connection<'_> {
    /// The key agent's socket in the directory `sockets`. Its name is `%C`, which a ProxyCommand cannot use,
    /// computed as by `ssh_connection_hash` in OpenSSH's readconf.c.
    pub fn socket(self, sockets: &Path) -> PathBuf {
        let mut hash = Sha1::new();
        for part in [self.local_host, self.host.as_bytes(), self.port.as_bytes(), self.user.as_bytes()] {
            hash.update(part);
        }
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        sockets.join(name)
    }
}

/// A slash, and SHA-1 in hexadecimal digits.
const SOCKET_NAME_LENGTH: usize = 1 + 40;
/// What a socket address holds on every Unix.
const SOCKET_PATH_LIMIT: usize = 103;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_move_to_a_shorter_place_when_they_must() {
        let places = |length: usize| {
            let directory = format!("/{}", "x".repeat(length - 1));
            (Places::below(Path::new(&directory), Path::new("/tmp/short")), directory)
        };
        let (fitting, directory) = places(103 - "/agent".len() - 41);
        assert_eq!(fitting.sockets(), Path::new(&directory).join("agent"));
        let connection = Connection { local_host: b"here", host: "web-1.ec2", port: "22", user: "me" };
        assert_eq!(connection.socket(&fitting.sockets()).as_os_str().len(), 103);
        let (deep, directory) = places(103 - "/agent".len() - 40);
        assert_eq!(deep.sockets(), Path::new("/tmp/short"));
        assert_eq!(deep.known_hosts(), Path::new(&directory).join("known_hosts"));
    }
}
