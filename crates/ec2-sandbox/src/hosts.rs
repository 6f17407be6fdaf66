//! What answers on the ports of the instances: on 22 the built-in SSH server, or an OpenSSH sshd for each
//! connection; on all others whatever listens there on this machine's loopback.
//!
//! Neither server listens anywhere: a connection is a pair of ends in memory or a socket pair. Each instance has a home
//! directory and a host key of its own for as long as the region runs. No user is changed: whoever logs in to the
//! built-in server, by whatever name, acts as the user who started the region; sshd knows only real users.

use std::{
    collections::HashMap,
    fmt::Write as _,
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    process::{Child, Command},
};

use crate::{
    ssh_server::{self, SshConfig},
    tasks::Tasks,
    world::{Condition, Instance, World},
};

/// The instances' servers.
pub(crate) struct Hosts {
    world: Arc<World>,
    tasks: Tasks,
    directory: TempDir,
    sshd: Option<PathBuf>,
    configs: Mutex<HashMap<String, Arc<SshConfig>>>,
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").field("sshd", &self.sshd).finish_non_exhaustive()
    }
}

/// An established TCP connection, as the SSM agent would hold it.
pub(crate) struct Connection {
    pub(crate) stream: Box<dyn Stream>,
    /// sshd reads the pushed keys from files.
    keys: Option<KeyFiles>,
    /// Killed when dropped.
    _sshd: Option<Child>,
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Hosts {
    pub(crate) fn new(world: Arc<World>, tasks: Tasks, sshd: Option<PathBuf>) -> io::Result<Self> {
        let directory = tempfile::Builder::new().prefix("ec2-sandbox-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
        Ok(Self { world, tasks, directory, sshd, configs: Mutex::default() })
    }

    /// Connects to a port of an instance; `None` when nothing listens there.
    pub(crate) fn connect(&self, instance: &str, port: u16) -> io::Result<Option<Connection>> {
        if port != SSH_PORT {
            return connect_to_this_machine(port);
        }
        let listens = self.world.instance(instance).is_some_and(|i| i.condition != Condition::PortClosed);
        if !listens {
            return Ok(None);
        }
        let home = self.home(instance)?;
        match &self.sshd {
            Some(program) => self.spawn_sshd(program, instance, &home).map(Some),
            None => self.serve(instance, home).map(Some),
        }
    }

    fn home(&self, instance: &str) -> io::Result<PathBuf> {
        let home = self.directory.path().join(instance);
        if !home.exists() {
            fs::create_dir(&home)?;
        }
        Ok(home)
    }

    fn serve(&self, instance: &str, home: PathBuf) -> io::Result<Connection> {
        let config = self.config(instance, home)?;
        let (ours, theirs) = tokio::io::duplex(PIPE_SIZE);
        self.tasks.spawn(async move {
            if let Err(error) = ssh_server::serve(theirs, config).await {
                tracing::debug!(%error, "an ssh connection ended badly");
            }
        });
        Ok(Connection { stream: Box::new(ours), keys: None, _sshd: None })
    }

    fn config(&self, instance: &str, home: PathBuf) -> io::Result<Arc<SshConfig>> {
        let mut configs = self.configs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = configs.get(instance) {
            return Ok(Arc::clone(config));
        }
        let (world, id) = (Arc::clone(&self.world), instance.to_owned());
        let authorize = move |user: &str, key: &russh::keys::PublicKey| {
            let honoured = world.honoured_keys(&id, user, SystemTime::now());
            let parsed = honoured.iter().filter_map(|line| russh::keys::PublicKey::from_openssh(line).ok());
            parsed.into_iter().any(|honoured| honoured.key_data() == key.key_data())
        };
        let config = Arc::new(SshConfig {
            host_key: ssh_server::generate_host_key().map_err(io::Error::other)?,
            hostname: self
                .world
                .instance(instance)
                .map_or_else(|| instance.to_owned(), Instance::harmless_name),
            home,
            shell: PathBuf::from("/bin/sh"),
            environment: Vec::new(),
            authorize: Box::new(authorize),
        });
        configs.insert(instance.to_owned(), Arc::clone(&config));
        Ok(config)
    }

    /// sshd in inetd mode, with nothing of the machine's configuration.
    fn spawn_sshd(&self, program: &Path, instance: &str, home: &Path) -> io::Result<Connection> {
        let keys =
            KeyFiles { world: Arc::clone(&self.world), instance: instance.to_owned(), home: home.into() };
        let host_key = home.join("host_key");
        if !host_key.exists() {
            let key = ssh_server::generate_host_key().map_err(io::Error::other)?;
            let text = key.to_openssh(russh::keys::ssh_key::LineEnding::LF).map_err(io::Error::other)?;
            fs::write(&host_key, text.as_bytes())?;
            fs::set_permissions(&host_key, fs::Permissions::from_mode(0o600))?;
        }
        let config = home.join("sshd_config");
        fs::write(&config, sshd_config(home, &host_key))?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = Command::new(program)
            .args(["-i", "-e", "-f"])
            .arg(&config)
            .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs.try_clone()?)))
            .stdout(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        keys.refresh();
        let stream = Box::new(UnixStream::from_std(ours)?);
        Ok(Connection { stream, keys: Some(keys), _sshd: Some(child) })
    }
}

impl Connection {
    /// Called before bytes from the client are handed on: authentication may be about to happen.
    pub(crate) fn refresh_keys(&self) {
        if let Some(keys) = &self.keys {
            keys.refresh();
        }
    }
}

/// The keys of an instance as files that sshd reads, one a user.
struct KeyFiles {
    world: Arc<World>,
    instance: String,
    home: PathBuf,
}

impl KeyFiles {
    fn refresh(&self) {
        for (user, lines) in self.world.honoured_keys_by_user(&self.instance, SystemTime::now()) {
            let mut text = String::new();
            for line in lines {
                let _ = writeln!(text, "{line}");
            }
            let file = self.home.join(format!("keys.{user}"));
            if fs::read_to_string(&file).is_ok_and(|before| before == text) {
                continue;
            }
            if let Err(error) = fs::write(&file, text) {
                tracing::warn!(%error, "the pushed keys could not be given to sshd");
            }
        }
    }
}

/// Whoever logs in to an instance is the invoking user on this machine, so its other ports are this machine's.
fn connect_to_this_machine(port: u16) -> io::Result<Option<Connection>> {
    // As the SSM agent does: the name, so either family. On loopback the answer is immediate.
    let Ok(stream) = std::net::TcpStream::connect(("localhost", port)) else { return Ok(None) };
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    let stream = Box::new(TcpStream::from_std(stream)?);
    Ok(Some(Connection { stream, keys: None, _sshd: None }))
}

fn sshd_config(home: &Path, host_key: &Path) -> String {
    let home = home.display();
    format!(
        "HostKey {}\n\
         PidFile none\n\
         UsePAM no\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         StrictModes no\n\
         AuthorizedKeysFile {home}/keys.%u\n\
         Subsystem sftp internal-sftp\n",
        host_key.display()
    )
}

const SSH_PORT: u16 = 22;
/// As much as a Linux pipe or socket holds.
const PIPE_SIZE: usize = 256 * 1024;
