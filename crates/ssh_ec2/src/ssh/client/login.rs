//! Tries whether sshd accepts a login, with a verbose ssh.

use std::io;
use std::pin::pin;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::time::timeout;

use super::Command;

/// The result of a login that was tried.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Login {
    /// sshd accepted the user.
    Accepted,
    /// ssh ended before it was accepted. Holds all that ssh itself printed.
    Refused(String),
    /// sshd neither accepted nor refused the user in time.
    TimedOut,
}

impl Command {
    /// Starts ssh, whose arguments have it be verbose and run nothing, and waits until sshd has accepted the
    /// user or ssh has ended. Then ssh is terminated, and gets a moment to end its proxy.
    ///
    /// ssh's own messages go to a pipe of their own: on standard error ssh also prints the server's banner.
    ///
    /// # Errors
    ///
    /// When ssh cannot be started.
    pub(crate) async fn log_in(&self, limit: Duration) -> Result<Login, io::Error> {
        let mut ssh = tokio::process::Command::new(&self.program)
            .args(["-E", "/dev/stdout"])
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let (Some(stdout), Some(mut stderr)) = (ssh.stdout.take(), ssh.stderr.take()) else {
            return Ok(Login::TimedOut);
        };
        let mut said = String::new();
        let hear = async {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if line.starts_with(ACCEPTED) {
                    return true;
                }
                if said.len() < SAID_LIMIT {
                    said.push_str(&line);
                    said.push('\n');
                }
            }
            false
        };
        let heard = timeout(limit, async {
            let (mut hear, mut nothing) = (pin!(hear), tokio::io::sink());
            let mut others = pin!(tokio::io::copy(&mut stderr, &mut nothing));
            tokio::select! {
                is_accepted = hear.as_mut() => {
                    if !is_accepted {
                        // The proxy has the same standard error, and may still be writing its report.
                        let _ = others.await;
                    }
                    is_accepted
                }
                _ = others.as_mut() => hear.await,
            }
        })
        .await;
        if let Some(id) =
            ssh.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw)
        {
            // ssh may have ended in the meantime. Until it is waited for, no other process gets its id.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        let _ = timeout(END_TIMEOUT, ssh.wait()).await;
        Ok(match heard {
            Ok(true) => Login::Accepted,
            Ok(false) => Login::Refused(said),
            Err(_) => Login::TimedOut,
        })
    }
}

/// A verbose ssh's message when sshd has accepted the user.
const ACCEPTED: &str = "Authenticated to ";
/// More than any login prints.
const SAID_LIMIT: usize = 256 * 1024;
/// How long a terminated ssh and its proxy may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
