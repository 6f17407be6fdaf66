//! Runs ssh, or a program that runs it, and does not return before its proxy has explained a failure.
//!
//! The proxy learns of ssh's end from the end of its own input, so it explains a failure after ssh has ended:
//! behind the shell's next prompt, or after a program has read ssh's output. So the proxy gets the path of a
//! socket, and stays connected to it for as long as it may print something; see `commands/proxy/words.rs`.

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;
use std::time::{Duration, Instant, SystemTime};

use crate::error::{ExitCode, Failure};
use crate::ssh::client::Command;
use crate::ssh::error::SshError;
use crate::ssh::job::{End, Job};
use crate::system::private_socket::{PATH_LIMIT, make_directory, sweep};
use crate::ui;

/// The socket to which the proxies of a program connect.
pub(super) struct Explanations {
    listener: UnixListener,
    path: PathBuf,
}

impl Explanations {
    /// Listens in the directory of our sockets. None if that fails: then the proxies are not waited for.
    pub(super) fn listen(directory: &Path) -> Option<Self> {
        let listen = || {
            make_directory(directory).map_err(|_| io::ErrorKind::PermissionDenied)?;
            // If a proxy was killed too, nobody else removes it.
            sweep(directory, |name| name.strip_prefix(SOCKET)?.split('.').next()?.parse().ok())?;
            // In containers that share a home directory, processes have the same numbers.
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let path = directory.join(format!("{SOCKET}{}.{:x}", process::id(), now.as_nanos()));
            if path.as_os_str().len() > PATH_LIMIT {
                return Err(io::ErrorKind::InvalidFilename.into());
            }
            let listener = UnixListener::bind(&path)?;
            let explanations = Self { listener, path };
            explanations.listener.set_nonblocking(true)?;
            Ok(explanations)
        };
        listen()
            .inspect_err(|error: &io::Error| tracing::debug!(%error, "explanations are not waited for"))
            .ok()
    }

    /// The option of `ssh_ec2 proxy` that names it.
    pub(super) fn option(&self) -> [String; 2] {
        ["--words".to_owned(), self.path.to_string_lossy().into_owned()]
    }

    /// Waits until every proxy that has connected has hung up. An ssh that uses the connection of another one
    /// starts no proxy.
    /// A proxy that goes on for an ssh in the background hangs up when it hears of this.
    fn wait(&self, job: &mut Job) {
        let deadline = Instant::now() + PATIENCE;
        let mut proxies: Vec<Proxy> = Vec::new();
        loop {
            while let Ok((mut stream, _)) = self.listener.accept() {
                let reaches = stream.set_nonblocking(true).and_then(|()| stream.write_all(&[0]));
                proxies.extend(reaches.is_ok().then(|| Proxy { stream, said: Vec::new() }));
            }
            proxies.retain_mut(Proxy::is_speaking);
            let open = proxies.iter().map(|proxy| proxy.stream.as_fd()).chain([self.listener.as_fd()]);
            let open: Vec<_> = open.collect();
            if proxies.is_empty() || !job.sleep(&open, deadline) {
                return;
            }
        }
    }
}

struct Proxy {
    stream: UnixStream,
    /// What it could not print itself.
    said: Vec<u8>,
}

impl Proxy {
    /// Whether there may be more to come. At the end, what it said is printed.
    fn is_speaking(&mut self) -> bool {
        match self.stream.read_to_end(&mut self.said) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            _ => {
                String::from_utf8_lossy(&self.said).lines().for_each(ui::note);
                false
            }
        }
    }
}

impl Drop for Explanations {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Runs `command` as if this process became it. After an exit status for which `may_need_words` is true, its
/// proxies get time to explain it.
///
/// # Errors
/// When it cannot be started.
pub(super) fn run(
    own_program: &Path,
    command: &Command,
    explanations: Option<Explanations>,
    may_need_words: impl Fn(u8) -> bool,
) -> Result<ExitCode, Failure> {
    let fail = |source| SshError::NotRun { program: command.program.to_string_lossy().into_owned(), source };
    let mut job = Job::start(own_program, command).map_err(fail)?;
    let end = job.wait().map_err(fail)?;
    if let (Some(explanations), End::Exited(code)) = (&explanations, end)
        && may_need_words(code)
    {
        explanations.wait(&mut job);
    }
    // The signal that ended ssh ends us as well, and nothing is dropped then.
    drop(explanations);
    Ok(ExitCode::Passed(end.imitate()))
}

/// How the names of these sockets begin.
const SOCKET: &str = ".wait.";
/// A proxy begins to look for the cause when ssh ends, and gives up shortly before this.
const PATIENCE: Duration = Duration::from_secs(5);
