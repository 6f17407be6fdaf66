//! How a client's command becomes a process: command line, environment, working directory.
//!
//! The environment starts empty, as sshd's does. The shell is not a login shell: the system's profile would
//! replace the configured `PATH` and prompt.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::process::Stdio;

use pty_process::{Pts, Pty, Size};
use tokio::process::{Child, Command};

use super::SshConfig;

/// The requests of a session channel that come before its command.
#[derive(Default)]
pub(super) struct SessionSetup {
    /// The environment variables that the client sent.
    pub(super) environment: Vec<(String, String)>,
    pub(super) terminal: Option<Terminal>,
}

/// A terminal that no process uses yet.
pub(super) struct Terminal {
    name: String,
    pty: Pty,
    end: Pts,
}

impl Terminal {
    pub(super) fn open(name: &str, size: Size) -> Result<Self, pty_process::Error> {
        let (pty, end) = pty_process::open()?;
        pty.resize(size)?;
        Ok(Self { name: name.to_owned(), pty, end })
    }
}

/// Starts a command, or an interactive shell without one. Returns the controlling side of the terminal.
pub(super) fn start(
    config: &SshConfig,
    user: &str,
    setup: SessionSetup,
    command: Option<&[u8]>,
) -> io::Result<(Child, Option<Pty>)> {
    let mut shell = Command::new(&config.shell);
    shell.current_dir(&config.home).kill_on_drop(true).env_clear();
    match command {
        Some(command) => shell.arg("-c").arg(OsStr::from_bytes(command)),
        None => shell.env("PS1", format!("{user}@{}$ ", config.hostname)),
    };
    shell.env("PATH", DEFAULT_PATH).env("HOME", &config.home).env("SHELL", &config.shell);
    shell.env("USER", user).env("LOGNAME", user).env("HOSTNAME", &config.hostname);
    if let Some(terminal) = &setup.terminal {
        shell.env("TERM", &terminal.name);
    }
    shell.envs(setup.environment).envs(config.environment.iter().map(|(name, value)| (name, value)));

    let Some(terminal) = setup.terminal else {
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        return Ok((shell.spawn()?, None));
    };
    let child = pty_process::Command::from(shell).spawn(terminal.end).map_err(io::Error::other)?;
    Ok((child, Some(terminal.pty)))
}

/// Whether a client may set a variable, by the usual `AcceptEnv` of sshd.
pub(super) fn accepts_variable(name: &str) -> bool {
    matches!(name, "LANG" | "TERM") || name.starts_with("LC_")
}

/// Returns the size of a terminal; the protocol allows larger numbers than terminals do.
pub(super) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Size {
    let [rows, columns, width, height] =
        [rows, columns, width, height].map(|number| u16::try_from(number).unwrap_or(u16::MAX));
    Size::new_with_pixel(rows, columns, width, height)
}

/// Where commands are looked for unless the configured environment says otherwise.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_language_and_terminal_variables_are_accepted() {
        for name in ["LANG", "LC_ALL", "LC_TIME", "TERM"] {
            assert!(accepts_variable(name), "{name}");
        }
        for name in ["LANGUAGE", "PATH", "LD_PRELOAD", "lc_all", ""] {
            assert!(!accepts_variable(name), "{name}");
        }
    }
}
