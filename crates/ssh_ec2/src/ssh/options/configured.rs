//! Options that ssh's configuration has for a host, looked up before ssh is started.

use std::io::{self, Write as _};
use std::path;
use std::process::{Command, Stdio};

use super::SshOptions;
use crate::ssh::client::Invocation;

impl SshOptions {
    /// What ssh's configuration and these options come to. None if ssh does not say.
    pub fn configured(ssh: &Invocation) -> Option<Self> {
        let files = match ssh.config_file() {
            Some(file) if file == "none" => String::new(),
            Some(file) => format!("Include \"{}\"\n", path::absolute(file).ok()?.display()),
            None => "Include ~/.ssh/config\nInclude /etc/ssh/ssh_config\n".to_owned(),
        };
        // ssh reports a user in any case. This one, behind all others, shows that none is configured.
        let config = format!("{files}Match all\n    User {UNCONFIGURED}\n");
        let mut command = Command::new("ssh");
        // The last `-F` and `-E` count: the user's log gets no second set of messages.
        command.arg("-G").args(&ssh.options).args(["-F", "/dev/stdin", "-E", "/dev/null"]);
        command.arg(&ssh.destination);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut running = command.spawn().ok()?;
        // Smaller than a pipe: it does not wait for ssh to read.
        running.stdin.take()?.write_all(config.as_bytes()).ok()?;
        let output = running.wait_with_output().ok()?;
        output.status.success().then(|| Self::parse(&String::from_utf8_lossy(&output.stdout)))
    }

    /// What ssh's configuration comes to for a host. An inner error is what ssh complains of.
    ///
    /// # Errors
    /// When ssh cannot be run.
    pub fn for_host(host: &str) -> Result<Result<Self, String>, io::Error> {
        let output = Command::new("ssh").args(["-G", "--", host]).stdin(Stdio::null()).output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            return Ok(Err(said.lines().next().unwrap_or("it gives no reason").to_owned()));
        }
        Ok(Ok(Self::parse(&String::from_utf8_lossy(&output.stdout))))
    }

    /// The configured login name, among options from [`configured`](Self::configured).
    pub fn user(&self) -> Option<String> {
        self.get("user").filter(|user| *user != UNCONFIGURED).map(str::to_owned)
    }
}

/// The name that ssh's configuration has for a host, by `HostName`, if it has another one.
pub fn alias(host: &str) -> Option<String> {
    let options = SshOptions::for_host(host).ok()?.ok()?;
    let name = options.get("hostname")?;
    (!name.eq_ignore_ascii_case(host)).then(|| name.to_owned())
}

/// A user that nobody has.
const UNCONFIGURED: &str = "ssh_ec2-asks";
