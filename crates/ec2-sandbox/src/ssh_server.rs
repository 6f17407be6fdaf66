//! The SSH server of an emulated instance.
//!
//! [`serve`] speaks SSH over any byte stream: public keys only, then commands, terminals, SFTP and
//! forwarding, all as the invoking user. It changes no user, keeps no file and listens on no port (but the
//! client may request one on loopback with `-R`). A connection owns the tasks and processes that it starts:
//! they are gone when `serve` has returned or was dropped.

use std::borrow::Cow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::keys::{PrivateKey, PublicKey};
use russh::server::Config;
use russh::{MethodKind, MethodSet, SshId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio::time::timeout;

use self::connection::Connection;
use self::jobs::Jobs;
use self::process::Processes;
use self::transport::Transport;

mod connection;
mod exec;
mod forward;
mod inbox;
mod jobs;
mod process;
mod sftp;
mod shell;
#[cfg(test)]
mod tests;
mod transport;

/// The SSH server's configuration for one emulated instance.
pub(crate) struct SshConfig {
    /// The host key.
    pub(crate) host_key: PrivateKey,
    /// The name in the shell prompt and in `HOSTNAME`.
    pub(crate) hostname: String,
    /// An existing directory: `HOME`, and where commands and relative paths start.
    pub(crate) home: PathBuf,
    /// The shell that runs commands, as `shell -c command`.
    pub(crate) shell: PathBuf,
    /// Extra variables for every process; they win over the server's own.
    pub(crate) environment: Vec<(String, String)>,
    /// Whether the server offers public key authentication; if not, it offers passwords and accepts none.
    pub(crate) takes_public_keys: bool,
    /// Called when a key is offered, and again when the client has proved that it owns the key.
    pub(crate) authorize: Authorize,
}

/// Whether the named user may log in with a key.
pub(crate) type Authorize = Box<dyn Fn(&str, &PublicKey) -> bool + Send + Sync>;

/// Serves one SSH connection until it ends.
///
/// A client that disconnects without a message is no error. Dropping the future cuts the connection and kills
/// its processes at once.
pub(crate) async fn serve<S>(stream: S, config: Arc<SshConfig>) -> Result<(), russh::Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    // Declared in this order so that a drop first stops the tasks, then cuts the transport of the session
    // that russh has spawned, and last kills the processes.
    let processes = Processes::default();
    let (_cut, transport) = Transport::new(stream);
    let mut tasks = JoinSet::new();

    let (jobs, mut submitted) = Jobs::new();
    let settings = Arc::new(settings(&config));
    let connection = Connection::new(config, processes.register(), jobs);
    let mut session = match russh::server::run_stream(settings, transport, connection).await {
        Ok(session) => session,
        Err(error) => return ending(error),
    };
    let outcome = loop {
        tokio::select! {
            outcome = &mut session => break outcome,
            Some(job) = submitted.recv() => { tasks.spawn(job); }
            Some(_) = tasks.join_next() => {}
        }
    };
    // Every task has seen its channel close by now; those with a process wait for its end after SIGHUP.
    let _ = timeout(TASK_GRACE, async { while tasks.join_next().await.is_some() {} }).await;
    tasks.shutdown().await;
    outcome.or_else(ending)
}

/// Treats a lost peer as the end of the connection, and all else as an error.
fn ending(error: russh::Error) -> Result<(), russh::Error> {
    use std::io::ErrorKind::{BrokenPipe, ConnectionReset, UnexpectedEof};
    match error {
        russh::Error::Disconnect | russh::Error::HUP => Ok(()),
        russh::Error::IO(error) if matches!(error.kind(), BrokenPipe | ConnectionReset | UnexpectedEof) => {
            Ok(())
        }
        error => Err(error),
    }
}

fn settings(config: &SshConfig) -> Config {
    let method = if config.takes_public_keys { MethodKind::PublicKey } else { MethodKind::Password };
    Config {
        server_id: SshId::Standard(Cow::Borrowed(VERSION)),
        methods: MethodSet::from(&[method][..]),
        keys: vec![config.host_key.clone()],
        auth_rejection_time: Duration::ZERO,
        auth_rejection_time_initial: Some(Duration::ZERO),
        max_auth_attempts: AUTH_ATTEMPTS,
        inactivity_timeout: None,
        window_size: inbox::WINDOW,
        maximum_packet_size: MAXIMUM_PACKET,
        channel_buffer_size: 256,
        event_buffer_size: 64,
        ..Config::default()
    }
}

const VERSION: &str = concat!("SSH-2.0-ec2-sandbox_", env!("CARGO_PKG_VERSION"));

/// Six, as sshd allows, and one for the `none` request with which OpenSSH queries the methods: russh counts
/// that one too.
const AUTH_ATTEMPTS: usize = 7;

/// The largest packet that every SSH implementation must take (RFC 4253, section 6.1).
const MAXIMUM_PACKET: u32 = 32 * 1024;

/// Longer than a process has to end after SIGHUP.
const TASK_GRACE: Duration = exec::HANGUP_GRACE.saturating_mul(2);
