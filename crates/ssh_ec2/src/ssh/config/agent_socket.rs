//! The path of the key agent's socket: ssh computes it from the `%C` in `IdentityAgent`, and the proxy here.

use std::path::{Path, PathBuf};

use sha1::{Digest as _, Sha1};

/// The parts of ssh's `%C`. Newer versions add the jump host, which a ProxyCommand excludes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Connection<'a> {
    /// `%l`: the local host's name, as gethostname(3) returns it.
    pub local_host: &'a [u8],
    /// `%h`
    pub host: &'a str,
    /// `%p`
    pub port: &'a str,
    /// `%r`
    pub user: &'a str,
}

impl Connection<'_> {
    /// The key agent's socket in the directory `sockets`. Its name is the value of `%C`, computed as
    /// `ssh_connection_hash` in OpenSSH's readconf.c does, since ssh does not replace `%C` in a ProxyCommand.
    pub(crate) fn socket(self, sockets: &Path) -> PathBuf {
        let mut hash = Sha1::new();
        for part in [self.local_host, self.host.as_bytes(), self.port.as_bytes(), self.user.as_bytes()] {
            hash.update(part);
        }
        let name: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        sockets.join(name)
    }
}
