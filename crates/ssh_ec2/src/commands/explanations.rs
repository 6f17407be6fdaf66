//! Runs ssh, or a program that runs ssh, and returns only when its proxy has explained a failure.
//!
//! The proxy learns of ssh's end from the end of its own input, so it explains a failure after ssh has ended.
//! Without this file the text would come after the shell's next prompt, or after a program has read ssh's
//! output. So the proxy gets the path of a socket, and stays connected to it while it may still print
//! something; see `commands/proxy/words.rs`.

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
    /// Listens in the directory of the sockets. None if that fails: then nothing waits for the proxies.
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

    /// The option of `ssh_ec2 proxy` with the path of this socket.
    pub(super) fn option(&self) -> [String; 2] {
        ["--words".to_owned(), self.path.to_string_lossy().into_owned()]
    }

    /// Waits until every proxy that has connected has hung up. An ssh that shares another one's connection
    /// starts no proxy. The proxy of an ssh in the background hangs up when it receives this byte.
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
    /// What it could not print, since ssh has closed its standard error.
    said: Vec<u8>,
}

impl Proxy {
    /// Whether the proxy is still connected. When it hangs up, its text is printed.
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
///
/// When the program cannot be started.
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
    // Now, since the signal that ended ssh is about to end this process, and then nothing is dropped.
    drop(explanations);
    Ok(ExitCode::Passed(end.imitate()))
}

/// How the names of these sockets begin.
const SOCKET: &str = ".wait.";
/// A proxy begins to look for the cause when ssh ends, and its time limit ends shortly before this.
const PATIENCE: Duration = Duration::from_secs(5);
