//! ssh's options, as ssh itself combines them from its command line and its files.
//!
//! `ssh -G` prints them. It connects to nothing and takes a few milliseconds, unless the user's configuration
//! looks names up or runs programs (`CanonicalizeHostname`, `Match exec`): a proxy waits for it within a
//! bound. Another program than ssh, a system without `/proc` or an ssh that refuses to answer leave the
//! options unknown.

mod configured;

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

pub use self::configured::alias;
use crate::ssh::client::{Invocation, is_ssh};

/// Keywords in lower case and their values, in the order of `ssh -G`.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SshOptions(Vec<(String, String)>);

impl SshOptions {
    /// The options of the ssh that runs with `command_line` (the program and its arguments). None if that is
    /// not an ssh, or if it does not answer in time. Dropping the future ends the ssh that was asked.
    pub async fn of(command_line: &[OsString]) -> Option<Self> {
        let (program, arguments) = command_line.split_first()?;
        if program.is_empty() || !is_ssh(command_line) {
            return None;
        }
        let invocation = Invocation::parse(arguments).ok()?;
        let mut ssh = Command::new(program);
        // ssh takes the last `-E`: the user's log file gets no second set of messages.
        ssh.arg("-G").args(&invocation.options).args(["-E", "/dev/null"]);
        // The remote command matters for `Match command` and `Match sessiontype`.
        ssh.arg(&invocation.destination).args(&invocation.command);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, ssh.spawn().ok()?.wait_with_output()).await.ok()?.ok()?;
        output.status.success().then(|| Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Reads what `ssh -G` prints: a line for each value.
    pub fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        Self(lines.map(|(keyword, value)| (keyword.to_ascii_lowercase(), value.to_owned())).collect())
    }

    /// The first value of a keyword, which is to be in lower case.
    pub fn get(&self, keyword: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == keyword).map(|(_, value)| value.as_str())
    }

    /// The value of `PubkeyAcceptedAlgorithms`, which was `PubkeyAcceptedKeyTypes` before OpenSSH 8.5.
    pub fn accepted_algorithms(&self) -> Option<&str> {
        self.get("pubkeyacceptedalgorithms").or_else(|| self.get("pubkeyacceptedkeytypes"))
    }

    /// Whether ssh offers no Ed25519 key, and RSA keys with signatures that are not of SHA-1.
    pub fn want_rsa(&self) -> bool {
        let Some(value) = self.accepted_algorithms() else { return false };
        let accepts = |name: &str| value.split(',').any(|accepted| accepted == name);
        !accepts("ssh-ed25519") && (accepts("rsa-sha2-256") || accepts("rsa-sha2-512"))
    }

    /// All values of a keyword: `IdentityFile` and `CertificateFile` have several.
    #[cfg(test)]
    fn all<'a>(&'a self, keyword: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(found, _)| found == keyword).map(|(_, value)| value.as_str())
    }

    /// Whether the value of a keyword is a list that has `name`, separated by commas. None if it is unknown.
    pub fn lists(&self, keyword: &str, name: &str) -> Option<bool> {
        Some(self.get(keyword)?.split(',').any(|listed| listed == name))
    }
}

/// A hundred times what `ssh -G` takes.
const LIMIT: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;
    use std::path::Path;

    use super::*;

    fn words(words: &[&str]) -> Vec<OsString> {
        words.iter().map(OsString::from).collect()
    }

    /// A program named ssh.
    fn script(directory: &Path, text: &str) -> String {
        let path = directory.join("ssh");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
        path.display().to_string()
    }

    #[tokio::test]
    async fn options_of_the_command_line_and_of_the_file_are_combined() {
        let directory = tempfile::tempdir().unwrap();
        let (file, log) = (directory.path().join("config"), directory.path().join("log"));
        fs::write(&file, "Host box\n  IdentitiesOnly yes\n  PubkeyAcceptedAlgorithms -ssh-ed25519*\n")
            .unwrap();
        let (file, log_file) = (file.display().to_string(), log.display().to_string());
        let ssh = words(&[
            "ssh",
            "-vE",
            &log_file,
            "-F",
            &file,
            "-oIdentityFile=/a",
            "me@box",
            "-oIdentityFile=/b",
            "ls",
            "-G",
        ]);
        let options = SshOptions::of(&ssh).await.unwrap();
        assert_eq!(options.get("user"), Some("me"));
        assert_eq!(options.get("identitiesonly"), Some("yes"));
        assert_eq!(options.all("identityfile").collect::<Vec<_>>(), ["/a", "/b"]);
        assert_eq!(options.lists("pubkeyacceptedalgorithms", "ssh-ed25519"), Some(false));
        assert_eq!(options.lists("pubkeyacceptedalgorithms", "rsa-sha2-512"), Some(true));
        assert_eq!(options.lists("nosuchkeyword", "x"), None);
        assert!(!log.exists(), "the user's log is the first ssh's");
    }

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

    #[tokio::test]
    async fn options_are_unknown_of_what_is_not_ssh_and_of_an_ssh_that_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let refuses = script(directory.path(), "exit 255");
        for line in [
            &[][..],
            &[""],
            &["node", "server.js"],
            &["ssh"],
            &["ssh", "-F", "/nonexistent/config", "box"],
            &["/nonexistent/ssh", "box"],
            &[&refuses, "box"],
        ] {
            assert_eq!(SshOptions::of(&words(line)).await, None, "{line:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_ssh_that_does_not_answer_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let hangs = script(directory.path(), "exec sleep 600");
        assert_eq!(SshOptions::of(&words(&[&hangs, "box"])).await, None);
    }
}
