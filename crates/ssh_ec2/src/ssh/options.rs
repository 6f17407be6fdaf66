//! ssh's options, as ssh itself combines them from its command line and its files.
//!
//! `ssh -G` prints them. It makes no connection and takes a few milliseconds, unless the user's configuration
//! looks up names or runs programs (`CanonicalizeHostname`, `Match exec`): a proxy waits for it with a time
//! limit. The options are unknown if the caller is not ssh, if the system has no `/proc`, and if `ssh -G`
//! fails.

mod configured;
mod running;

pub(crate) use self::configured::alias;

/// Keywords in lower case and their values, in the order of `ssh -G`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct SshOptions(Vec<(String, String)>);

impl SshOptions {
    /// Reads the output of `ssh -G`: a line for each value.
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Self(lines.map(|(keyword, value)| (keyword.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// The first value of a keyword, which the caller gives in lower case.
    pub(crate) fn get(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == keyword).map(|(_, value)| value.as_str())
    }

    /// The value of `PubkeyAcceptedAlgorithms`, or of `PubkeyAcceptedKeyTypes` before OpenSSH 8.5.
    pub(crate) fn accepted_algorithms(&self) -> Option<&str> {
        self.get("pubkeyacceptedalgorithms").or_else(|| self.get("pubkeyacceptedkeytypes"))
    }

    /// Whether ssh offers no Ed25519 key, but RSA keys with SHA-2 signatures.
    pub(crate) fn want_rsa(&self) -> bool {
        let Some(value) = self.accepted_algorithms() else { return false };
        let accepts = |name: &str| value.split(',').any(|accepted| accepted == name);
        !accepts("ssh-ed25519") && (accepts("rsa-sha2-256") || accepts("rsa-sha2-512"))
    }

    /// All values of a keyword: `IdentityFile` and `CertificateFile` have several.
    #[cfg(test)]
    fn all<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == keyword).map(|(_, value)| value.as_str())
    }

    /// Whether `name` is in the value of a keyword, a list with commas. None if the keyword has no value.
    pub(crate) fn lists(&self, keyword: &str, name: &str) -> Option<bool> {
        Some(self.get(keyword)?.split(',').any(|listed| listed == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rsa_is_wanted_where_ed25519_is_left_out() {
        for (text, wanted) in [
            ("pubkeyacceptedalgorithms rsa-sha2-512", true),
            ("pubkeyacceptedkeytypes ecdsa-sha2-nistp256,rsa-sha2-256", true),
            ("pubkeyacceptedalgorithms ssh-ed25519-cert-v01@openssh.com,rsa-sha2-512", true),
            ("pubkeyacceptedalgorithms rsa-sha2-512,ssh-ed25519", false),
            ("pubkeyacceptedalgorithms ecdsa-sha2-nistp256", false),
            ("pubkeyacceptedalgorithms ssh-rsa", false),
            ("user me", false),
        ] {
            assert_eq!(SshOptions::parse(text).want_rsa(), wanted, "{text}");
        }
    }
}
