//! The options of an ssh that runs.

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

use super::SshOptions;
use crate::ssh::client::{Invocation, is_ssh};

impl SshOptions {
    /// Runs `ssh -G` with the arguments of the ssh that has this command line, the program included. None if
    /// the program is not ssh, and if `ssh -G` fails or is too slow. Dropping the future kills it.
    pub(crate) async fn of(command_line: &[OsString]) -> Option<Self> {
        let (program, arguments) = command_line.split_first()?;
        if program.is_empty() || !is_ssh(command_line) {
            return None;
        }
        let invocation = Invocation::parse(arguments).ok()?;
        let mut ssh = Command::new(program);
        // ssh takes the last `-E`: messages of `ssh -G` do not go to the user's log file.
        ssh.arg("-G").args(&invocation.options).args(["-E", "/dev/null"]);
        // The remote command matters for `Match command` and `Match sessiontype`.
        ssh.arg(&invocation.destination).args(&invocation.command);
        ssh.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let output = timeout(LIMIT, ssh.spawn().ok()?.wait_with_output()).await.ok()?.ok()?;
        output.status.success().then(|| Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }
}

/// A hundred times the usual duration of `ssh -G`.
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
