//! The options that ssh will have for a host, read before ssh is started.

use std::io::{self, Write as _};
use std::path;
use std::process::{Command, Stdio};

use super::SshOptions;
use crate::ssh::client::Invocation;

impl SshOptions {
    /// The options from ssh's files and this command line. None if `ssh -G` fails.
    pub(crate) fn configured(ssh: &Invocation) -> Option<Self> {
        let files = match ssh.config_file() {
            Some(file) if file == "none" => String::new(),
            Some(file) => format!("Include \"{}\"\n", path::absolute(file).ok()?.display()),
            None => "Include ~/.ssh/config\nInclude /etc/ssh/ssh_config\n".to_owned(),
        };
        // `ssh -G` prints a user in any case. This one, after all others, shows that none is configured.
        let config = format!("{files}Match all\n    User {UNCONFIGURED}\n");
        let mut command = Command::new("ssh");
        // ssh takes the last `-F` and the last `-E`: messages of `ssh -G` do not go to the user's log file.
        command.arg("-G").args(&ssh.options).args(["-F", "/dev/stdin", "-E", "/dev/null"]);
        command.arg(&ssh.destination);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = command.spawn().ok()?;
        // Smaller than a pipe's buffer, so the write does not block until ssh reads.
        running.stdin.take()?.write_all(config.as_bytes()).ok()?;
        let output = running.wait_with_output().ok()?;
        output.status.success().then(|| Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// The options from ssh's files for a host. The inner error is ssh's message.
    ///
    /// # Errors
    ///
    /// When ssh cannot be run.
    pub(crate) fn for_host(host: &str) -> Result<Result<Self, String>, io::Error> {
        let output = Command::new("ssh").args(["-G", "--", host]).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Ok(Err(said.lines().next().unwrap_or("it gives no reason").to_owned()));
        }
        Ok(Ok(Self::parse(&String::from_utf8_lossy(&output.stdout))))
    }

    /// The user in the options from [`configured`](Self::configured). None if the files and the options name
    /// none.
    pub(crate) fn user(&self) -> Option<String> {
        self.get("user").filter(|user| *user != UNCONFIGURED).map(str::to_owned)
    }
}

/// The `HostName` that ssh's files have for a host, if it differs from the host.
pub(crate) fn alias(host: &str) -> Option<String> {
    let options = SshOptions::for_host(host).ok()?.ok()?;
    let name = options.get("hostname")?;
    (!name.eq_ignore_ascii_case(host)).then(|| name.to_owned())
}

/// A user name that nobody has.
const UNCONFIGURED: &str = "ssh_ec2-asks";
