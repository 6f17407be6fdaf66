//! The servers and programs of the instances. On port 22 the built-in SSH server answers, or an OpenSSH sshd
//! for each connection; all other ports are those of this machine's loopback.
//!
//! Neither SSH server listens on a socket: a connection is a pipe in memory or a socket pair. Each instance
//! has a directory with its files and a host key of its own for as long as the region runs. No user is
//! changed: every login to the built-in server, under any name, acts as the user who started the region; sshd
//! accepts only users of this machine. `authorized_keys` says which keys they accept.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
};

use russh::keys::{HashAlg, ssh_key::LineEnding};
use tempfile::{NamedTempFile, TempDir};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    process::Child,
};

use crate::{
    ssh_server::{self, SshConfig},
    tasks::Tasks,
    world::{Condition, Instance, World},
};

pub(crate) use self::program::{Interrupt, OutputStream, Program, SeparateProgram, Start};
use self::{
    authorized_keys::KeyFiles,
    command::{Command, Environment, SeparateCommand},
    instance_files::InstanceFiles,
};

mod authorized_keys;
mod command;
mod instance_files;
mod program;
mod shlex;

/// The instances' servers.
pub(crate) struct Hosts {
    world: Arc<World>,
    tasks: Tasks,
    directory: TempDir,
    sshd: Option<PathBuf>,
    /// Locked while the files of an instance are written.
    layout: Mutex<()>,
}

impl std::fmt::Debug for Hosts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hosts").field("sshd", &self.sshd).finish_non_exhaustive()
    }
}

/// An established TCP connection, as the SSM agent would hold it.
pub(crate) struct Connection {
    /// Bytes in both directions.
    pub(crate) stream: Box<dyn Stream>,
    /// Only for sshd, which reads the pushed keys from files.
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
        instance_files::write_programs(&directory.path().join(PROGRAMS))?;
        Ok(Self { world, tasks, directory, sshd, layout: Mutex::default() })
    }

    /// Connects to a port of an instance; `None` when nothing listens there.
    pub(crate) fn connect(&self, instance: &str, port: u16) -> io::Result<Option<Connection>> {
        if port != SSH_PORT {
            return connect_to_this_machine(port);
        }
        let instance = self.world.instance(instance).filter(|i| i.condition != Condition::PortClosed);
        let Some(instance) = instance else { return Ok(None) };
        if instance.condition == Condition::NotSsh {
            return Ok(Some(self.serve_web()));
        }
        let files = self.files(instance)?;
        match &self.sshd {
            Some(program) => self.spawn_sshd(program, instance, &files.sshd()).map(Some),
            None => self.serve(instance, files.home()).map(Some),
        }
    }

    /// Runs a command on an instance, split into words as the SSM agent splits it.
    ///
    /// An instance is emulated: the program runs on this machine as the user who started the region, and
    /// nothing is isolated. Paths of an instance's own files, such as `/etc/ssh/`, are replaced by paths in
    /// the instance's directory, some programs are replaced, and HOME is a directory of the instance.
    pub(crate) fn run(&self, instance: &str, command: &str, separate: bool) -> io::Result<Start> {
        let instance =
            self.world.instance(instance).ok_or_else(|| io::Error::other("there is no such instance"))?;
        let words = match shlex::split(command) {
            Ok(words) if words.is_empty() => return Ok(Start::Blank),
            Ok(words) => words,
            Err(reason) => return Ok(Start::Unparsable(reason)),
        };
        let files = self.files(instance)?;
        let words: Vec<_> = words.iter().map(|word| files.rewrite(word)).collect();
        let path = instance_files::program_path(&self.directory.path().join(PROGRAMS), instance);
        let home = files.home();
        let environment = Environment { home: &home, path: &path };
        let started = match separate {
            true => SeparateCommand::spawn(&words, environment)
                .map(|command| Start::RunningSeparate(Box::new(command))),
            false => Command::spawn(&words, environment).map(|command| Start::Running(Box::new(command))),
        };
        Ok(started.unwrap_or_else(|text| Start::NotStarted { text, separate }))
    }

    fn files(&self, instance: &Instance) -> io::Result<InstanceFiles> {
        let keys = self.world.host_keys(instance)?;
        let _layout = self.layout.lock().unwrap_or_else(PoisonError::into_inner);
        InstanceFiles::lay_out(self.directory.path(), instance, &keys)
    }

    /// A web server, which answers an SSH client's greeting with status 400.
    fn serve_web(&self) -> Connection {
        let (ours, mut theirs) = tokio::io::duplex(PIPE_SIZE);
        self.tasks.spawn(async move {
            if matches!(theirs.read(&mut [0; 1024]).await, Ok(length) if length > 0) {
                let _ = theirs.write_all(BAD_REQUEST).await;
            }
        });
        Connection::new(Box::new(ours))
    }

    fn serve(&self, instance: &Instance, home: PathBuf) -> io::Result<Connection> {
        let config = self.config(instance, home)?;
        let (ours, theirs) = tokio::io::duplex(PIPE_SIZE);
        self.tasks.spawn(async move {
            if let Err(error) = ssh_server::serve(theirs, config).await {
                tracing::debug!(%error, "an ssh connection ended badly");
            }
        });
        Ok(Connection::new(Box::new(ours)))
    }

    fn config(&self, instance: &Instance, home: PathBuf) -> io::Result<Arc<SshConfig>> {
        Ok(Arc::new(SshConfig {
            host_key: self.world.host_keys(instance)?.presented,
            hostname: instance.harmless_name(),
            home,
            shell: PathBuf::from("/bin/sh"),
            environment: Vec::new(),
            takes_public_keys: instance.condition != Condition::PublicKeysOff,
            authorize: authorized_keys::authorize(Arc::clone(&self.world), instance),
        }))
    }

    /// Starts sshd in inetd mode, without this machine's configuration.
    fn spawn_sshd(&self, program: &Path, instance: &Instance, directory: &Path) -> io::Result<Connection> {
        let keys = KeyFiles::new(Arc::clone(&self.world), instance, directory);
        let host_key = self.host_key_file(instance, directory)?;
        let config = directory.join("sshd_config");
        replace(&config, &sshd_config(instance, directory, &host_key))?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let child = tokio::process::Command::new(program)
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

    /// The file that sshd reads its host key from. Each key has its own file, since an sshd started earlier
    /// may still be reading the last one.
    fn host_key_file(&self, instance: &Instance, directory: &Path) -> io::Result<PathBuf> {
        let key = self.world.host_keys(instance)?.presented;
        let fingerprint = key.fingerprint(HashAlg::Sha256);
        let name: String = fingerprint.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        let file = directory.join(format!("host_key.{name}"));
        if !file.exists() {
            let text = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
            replace(&file, &text)?;
        }
        Ok(file)
    }
}

/// Replaces a file atomically, readable by its owner alone. An sshd that was just started for another
/// connection may be reading it, and would use this machine's host keys if it read half a configuration.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let directory = file.parent().unwrap_or(Path::new("."));
    let mut new = NamedTempFile::new_in(directory)?;
    new.write_all(text.as_bytes())?;
    new.persist(file)?;
    Ok(())
}

impl Connection {
    /// A connection to anything but sshd.
    pub(crate) fn new(stream: Box<dyn Stream>) -> Self {
        Self { stream, keys: None, _sshd: None }
    }

    /// Updates sshd's files. To be called before each write of the client's bytes: authentication may follow.
    pub(crate) fn refresh_keys(&self) {
        if let Some(keys) = &self.keys {
            keys.refresh();
        }
    }
}

/// Every login acts as the user who started the region, on this machine; so the other ports of an instance
/// are those of this machine.
fn connect_to_this_machine(port: u16) -> io::Result<Option<Connection>> {
    // By name, so IPv4 or IPv6, like the SSM agent. On loopback the connection succeeds or fails at once.
    let Ok(stream) = std::net::TcpStream::connect(("localhost", port)) else { return Ok(None) };
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(Some(Connection::new(Box::new(TcpStream::from_std(stream)?))))
}

fn sshd_config(instance: &Instance, directory: &Path, host_key: &Path) -> String {
    let directory = directory.display();
    // sshd uses the first value of an option.
    let particular = match instance.condition {
        Condition::Fips => "PubkeyAcceptedAlgorithms -ssh-ed25519*\n",
        Condition::PublicKeysOff => "PubkeyAuthentication no\nPasswordAuthentication yes\n",
        _ => "",
    };
    format!(
        "{particular}HostKey {}\n\
         PidFile none\n\
         UsePAM no\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\n\
         StrictModes no\n\
         AuthorizedKeysFile {directory}/keys.%u\n\
         Subsystem sftp internal-sftp\n",
        host_key.display()
    )
}

const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\r\n";
/// The directory of the instances' programs, beside the directories of the instances.
const PROGRAMS: &str = "programs";
const SSH_PORT: u16 = 22;
/// The capacity of a Linux pipe or socket.
const PIPE_SIZE: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, time::SystemTime};

    use russh::{
        client,
        keys::{PublicKey, PublicKeyOrCertificate},
    };

    use super::*;
    use crate::world::Settings;

    /// Keeps the key that a server presents.
    struct Witness(std::sync::mpsc::Sender<PublicKey>);

    impl client::Handler for Witness {
        type Error = russh::Error;

        async fn check_server_key(&mut self, key: &PublicKeyOrCertificate) -> Result<bool, Self::Error> {
            if let PublicKeyOrCertificate::PublicKey { key, .. } = key {
                self.0.send(key.clone()).unwrap();
            }
            Ok(false)
        }
    }

    #[tokio::test]
    async fn a_server_presents_what_the_world_says() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4321));
        let world = Arc::new(World::new(address, Settings::default(), SystemTime::now()).unwrap());
        let hosts = Hosts::new(Arc::clone(&world), Tasks::default(), None).unwrap();
        let instance = world.instance("i-0decaf00000000001").unwrap();
        for replaced in [false, true] {
            if replaced {
                world.replace_host_key(instance).unwrap();
            }
            let connection = hosts.connect(&instance.id, 22).unwrap().unwrap();
            let (sender, seen) = std::sync::mpsc::channel();
            let _ = client::connect_stream(Arc::default(), connection.stream, Witness(sender)).await;
            let keys = world.host_keys(instance).unwrap();
            let seen = seen.recv().unwrap();
            assert_eq!(seen.key_data(), keys.presented.public_key().key_data());
            assert_eq!(seen.key_data() == keys.ed25519.key_data(), !replaced);
        }
    }
}
