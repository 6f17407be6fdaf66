//! Every file that the program writes, with its mode, its writer and what removes it. [`OwnFiles`] has the
//! paths.
//!
//! `DIR` is `SSH_EC2_DIR`, else `~/.ssh/ssh_ec2`. `SOCKETS` is `DIR/agent`, or `/tmp/ssh_ec2-UID` where the
//! path of a socket in `DIR/agent` would be too long. `CACHE` is `SSH_EC2_DIR/cache`, else
//! `$XDG_CACHE_HOME/ssh_ec2`, else `~/.cache/ssh_ec2`. Directories that are missing on the way are made with
//! mode 0700. “Uninstall” is `ssh_ec2 config --uninstall`; a directory goes only when it is empty.
//!
//! | Path | Mode | Writer and purpose | Removed by |
//! |---|---|---|---|
//! | `DIR/` | 0700 | all that connects, `config --install` | uninstall |
//! | `DIR/config` | 0600 | `config --install`: blocks of ssh_config | uninstall |
//! | `DIR/alias` | 0600 | `config --install`: the same for an alias to include | uninstall |
//! | `DIR/known_hosts` | 0600 | `known-hosts`: host keys by instance id | user |
//! | `DIR/known_hosts.lock` | 0600 | `known-hosts`: one process changes the file at a time | user |
//! | `DIR/doctor.PID/` | 0700 | `doctor`: directory of the next file | `doctor` |
//! | `DIR/doctor.PID/failure` | 0600 | `proxy`, `known-hosts` below `doctor`: why they failed | `doctor` |
//! | `SOCKETS/` | 0700 | all that connects | uninstall, `DIR/agent` only |
//! | `SOCKETS/.HASH.PID` | socket 0600 | `proxy`: key agent of a connection | it; after a crash another |
//! | `SOCKETS/%C` | link | `proxy`: leads the `IdentityAgent` to a key agent | the last such `proxy` |
//! | `SOCKETS/.HASH.PID.link` | link | `proxy`: the next `%C` | its rename to `%C` |
//! | `SOCKETS/.HASH.turn` | 0600 | `proxy`: one at a time sets `%C` for its ssh | the last such `proxy` |
//! | `SOCKETS/.host-keys.PID` | socket 0600 | `proxy`: answers `known-hosts` | it; after a crash another |
//! | `SOCKETS/.wait.PID.TIME` | socket, umask | `connect`, `copy`: a proxy reports to it | it, or the proxy |
//! | `CACHE/` | 0700 | all that resolves names | user |
//! | `CACHE/SCOPE.json` | 0600 | instances that names resolved to, valid ten minutes | user |
//! | `CACHE/SCOPE.lock` | 0600 | one process changes that file at a time | user |
//! | `CACHE/XX.turn` | 0600 | one process resolves a name at a time | user |
//! | `CACHE/SCOPE.pace` | 0600 | `proxy`: when the next key may be pushed | user |
//! | `CACHE/SCOPE.sessions.pace` | 0600 | `proxy`: when the next session may start | user |
//! | `~/.aws/cli/cache/SHA1.json` | 0600 | role credentials, as of the AWS CLI | user |
//! | `~/.aws/sso/cache/SHA1.json` | 0600 | Identity Center token, as of the AWS CLI | `aws sso logout` |
//! | `~/.aws/login/cache/SHA256.json` | 0600 | `aws login`'s token, refreshed | `aws logout` |
//! | `ssh_ec2.lock` in these three | 0600 | one process assumes, signs in, refreshes at a time | user |
//! | `~/.ssh/config` | as before, or 0600 | `config --install`: one `Include` line | uninstall: the line |
//! | `$TMPDIR/ssh_ec2-XXXXXX/` | 0700 | `sandbox`: its workspace | `sandbox` |
//! | `$TMPDIR/ec2-sandbox-XXXXXX/` | 0700 | `sandbox`: the files of its instances | `sandbox` |
//!
//! The mode of `.wait.PID.TIME` is 0777 without the bits of the umask. No other user reaches it, since
//! `SOCKETS` has the mode 0700.
//!
//! A file is written beside itself, as `FILE.PID.tmp` (by `config` as `FILE.ssh_ec2.PID`), with the mode of
//! the file, and renamed. Locks and paces are written in place. `AWS_LOGIN_CACHE_DIRECTORY` replaces
//! `~/.aws/login/cache`, and `SSH_EC2_SSH_CONFIG` replaces `~/.ssh/config`; uninstall removes that file where
//! install made it.

use std::path::{Path, PathBuf};

use crate::system::private_socket::PATH_LIMIT;

/// The paths of the program's files below one directory.
#[derive(Clone, Debug)]
pub struct OwnFiles {
    directory: PathBuf,
    sockets: PathBuf,
}

impl OwnFiles {
    /// Puts all files below `directory`, and the sockets below `shorter` if their paths would be too long
    /// there.
    pub fn below(directory: &Path, shorter: &Path) -> Self {
        let sockets = directory.join("agent");
        let fits = sockets.as_os_str().len() + SOCKET_NAME_LENGTH <= PATH_LIMIT;
        let sockets = if fits { sockets } else { shorter.to_owned() };
        Self { directory: directory.to_owned(), sockets }
    }

    /// The same for the user with this id. The shorter directory does not depend on environment variables,
    /// which differ between a login, cron and su.
    pub(crate) fn of_user(directory: &Path, user: u32) -> Self {
        Self::below(directory, Path::new(&format!("/tmp/ssh_ec2-{user}")))
    }

    /// The installed blocks of ssh_config.
    pub fn config(&self) -> PathBuf {
        self.directory.join("config")
    }

    /// The same blocks for an alias, which includes them.
    pub fn alias(&self) -> PathBuf {
        self.directory.join("alias")
    }

    /// Host keys by instance id.
    pub fn known_hosts(&self) -> PathBuf {
        self.directory.join("known_hosts")
    }

    /// The directory of all sockets.
    pub fn sockets(&self) -> PathBuf {
        self.sockets.clone()
    }

    /// The directory of all other files.
    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// A slash, and `%C`: SHA-1 in hexadecimal digits.
const SOCKET_NAME_LENGTH: usize = 1 + 40;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ssh::config::Connection;

    #[test]
    fn sockets_move_to_a_shorter_place_when_they_must() {
        let files = |length: usize| {
            let directory = format!("/{}", "x".repeat(length - 1));
            (OwnFiles::below(Path::new(&directory), Path::new("/tmp/short")), directory)
        };
        let (fitting, directory) = files(103 - "/agent".len() - 41);
        assert_eq!(fitting.sockets(), Path::new(&directory).join("agent"));
        let connection = Connection { local_host: b"here", host: "web-1.ec2", port: "22", user: "me" };
        assert_eq!(connection.socket(&fitting.sockets()).as_os_str().len(), 103);
        let (deep, directory) = files(103 - "/agent".len() - 40);
        assert_eq!(deep.sockets(), Path::new("/tmp/short"));
        assert_eq!(deep.known_hosts(), Path::new(&directory).join("known_hosts"));
    }
}
