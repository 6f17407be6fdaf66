//! The errors of commands, and the exit status of the process.
//!
//! A message names the thing and states one fact; its hints are actions. Errors of the floors below are
//! passed on as they are; only those that a command itself finds are defined here. `messages.txt` shows all
//! of them.

mod changed_key;
mod plain_ssh;
mod reported;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::process;
use std::time::SystemTime;

use thiserror::Error;

pub(crate) use self::changed_key::ChangedKey;
pub(crate) use self::plain_ssh::{PlainHost, PlainSsh};
use crate::aws::AwsError;
use crate::doctor::diagnosis::{Diagnosis, RefusedKey};
use crate::instances::resolve::ResolveError;
use crate::key::agent::socket::SocketError;
use crate::key::file::KeyFileError;
use crate::key::one_time::KeyError;
use crate::net::network::NetworkError;
use crate::road::error::RoadError;
use crate::ssh::client::InvocationError;
use crate::ssh::error::SshError;
use crate::ssh::known_hosts::StoreError;
use crate::system::explain::{Anchor, Explain};
use crate::target::{InstanceId, TargetError};

/// Why a command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum Failure {
    /// The key agent's socket.
    #[error(transparent)]
    AgentSocket(#[from] SocketError),
    /// A call to AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The cause was found on the instance or in AWS.
    #[error(transparent)]
    Diagnosed(#[from] Diagnosis),
    /// A file of this program or of the user.
    #[error("cannot {action} {path}")]
    File {
        /// The verb of the message.
        action: &'static str,
        /// The file's path.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// sshd presented another host key than the known one.
    #[error(transparent)]
    HostKeyChanged(Box<ChangedKey>),
    /// No host key is known, and AWS lists none.
    #[error("no host key of {instance} is known")]
    HostKeyUnknown {
        /// The target.
        instance: InstanceId,
    },
    /// The file of known host keys.
    #[error(transparent)]
    KnownHosts(#[from] StoreError),
    /// A signal ended the command.
    #[error("interrupted")]
    Interrupted,
    /// The command line of ssh.
    #[error(transparent)]
    Invocation(#[from] InvocationError),
    /// No one-time key could be made.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public key that the user chose.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// sshd refused the key.
    #[error(transparent)]
    KeyRefused(Box<RefusedKey>),
    /// AWS could not be asked for the host key now: throttled, unreachable, no credentials.
    #[error("the host key of {instance} cannot be checked: {why}")]
    HostKeyUnchecked {
        /// The target.
        instance: InstanceId,
        /// The error of the call.
        why: String,
        /// The hints of that error.
        hints: Vec<String>,
    },
    /// `ssh_ec2 known-hosts` asked the proxy of its connection for the host key and got no answer.
    #[error("the host key of {target} cannot be checked: the ssh_ec2 proxy of this connection {fault}")]
    ProxySilent {
        /// The target.
        target: String,
        /// The proxy's fault, as the end of the sentence.
        fault: &'static str,
    },
    /// The name resolves to another instance than when ssh was started.
    #[error("{target} is {new} now; a few minutes ago it was {old}, which cannot be reached")]
    Moved {
        /// The name.
        target: String,
        /// The cached instance.
        old: InstanceId,
        /// The instance in EC2 now.
        new: InstanceId,
    },
    /// EC2 Instance Connect does not support managed nodes.
    #[error("{instance} is not an EC2 instance: EC2 Instance Connect cannot push a key to it")]
    ManagedNode {
        /// The target.
        instance: InstanceId,
    },
    /// An error of a connection that the user began with plain ssh.
    #[error(transparent)]
    PlainSsh(Box<PlainSsh>),
    /// Proxies and certificates.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The directory of this program's files is below the home directory.
    #[error("there is no home directory")]
    NoHome,
    /// The user has no public key.
    #[error("there is no public key in {directory}")]
    NoKey {
        /// The directory that was searched.
        directory: PathBuf,
    },
    /// The command for the local region could not be started.
    #[cfg_attr(not(feature = "sandbox"), expect(dead_code, reason = "only the local region makes it"))]
    #[error("cannot run {program}")]
    Command {
        /// The program of the command line.
        program: String,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The target is not one running instance.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Bytes do not reach the instance. Calls to AWS are [`Aws`](Self::Aws).
    #[error(transparent)]
    Road(RoadError),
    /// The local region.
    #[cfg_attr(not(feature = "sandbox"), expect(dead_code, reason = "only the local region makes it"))]
    #[error("the local region failed")]
    Sandbox(#[source] io::Error),
    /// The command line would make ssh reach the host without our ProxyCommand.
    #[error("`{option}` would make {program} bypass Session Manager")]
    OtherWay {
        /// The option as typed.
        option: String,
        /// The program: ssh, scp, sftp or rsync.
        program: &'static str,
    },
    /// ssh, or a program that runs it, cannot be used.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The proxy cannot read standard input or write standard output.
    #[error("cannot use standard input and output")]
    Stdio(#[source] io::Error),
    /// The output of a command could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The system refused a basic operation.
    #[error("cannot {action}")]
    System {
        /// The verb of the message, with its object.
        action: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// A word that should be an instance, a user or a port.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// The user's ssh_config cannot be changed.
    #[error("cannot change {path}")]
    UserConfig {
        /// The file's path.
        path: PathBuf,
        /// The action for the user.
        hint: String,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// A call to AWS fails in the same way whether a road or a command has made it.
impl From<RoadError> for Failure {
    fn from(error: RoadError) -> Self {
        match error {
            RoadError::Aws(error) => Self::Aws(error),
            error => Self::Road(error),
        }
    }
}

impl Explain for Failure {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::AgentSocket(error) => error.hints(),
            Self::Aws(error) => error.hints(),
            Self::Diagnosed(cause) => cause.hints(),
            Self::Road(error) => error.hints(),
            Self::Network(error) => error.hints(),
            Self::HostKeyChanged(changed) => changed.hints(),
            Self::HostKeyUnknown { instance } => vec![format!(
                "connect once: if AWS lists no key, the one that sshd presents is accepted and kept; or add a key yourself: `ssh_ec2 known-hosts --trust KEY {instance}`"
            )],
            Self::Interrupted => Vec::new(),
            Self::KnownHosts(error) => error.hints(),
            Self::Resolve(error) => error.hints(),
            Self::Target(error) => error.hints(),
            Self::Command { program, .. } => vec![format!("check that {program} is installed and in PATH")],
            Self::File { action: "create", path, .. } => vec![format!(
                "check the permissions of {}, or set SSH_EC2_DIR to a directory that you can write to",
                path.display()
            )],
            Self::File { path, .. } => vec![format!("check the permissions of {}", path.display())],
            Self::Invocation(error) => error.hints(),
            Self::Usage(_) => vec!["`ssh_ec2 --help` shows how to call it".into()],
            Self::Key(error) => error.hints(),
            Self::KeyFile(error) => error.hints(),
            Self::KeyRefused(refused) => refused.hints(),
            Self::ManagedNode { .. } => vec![MANAGED_NODE_HINT.into()],
            Self::PlainSsh(failure) => failure.hints(),
            Self::Moved { .. } => vec!["connect again".into()],
            Self::NoHome => vec!["set HOME, or SSH_EC2_DIR to a directory that you can write to".into()],
            Self::UserConfig { hint, .. } => vec![hint.clone()],
            Self::NoKey { .. } => {
                vec!["make one with `ssh-keygen -t ed25519`, or name one with `--key-file`".into()]
            }
            Self::HostKeyUnchecked { instance, hints, .. } => unchecked_hints(instance, hints),
            Self::ProxySilent { .. } => vec!["connect again; `ssh -v` shows what it waits for".into()],
            Self::Sandbox(_) => {
                vec!["check that loopback ports and the temporary directory can be used".into()]
            }
            Self::OtherWay { program, .. } => other_way_hints(program),
            Self::Ssh(error) => error.hints(),
            Self::Output(source) if source.kind() == io::ErrorKind::StorageFull => {
                vec!["free disk space, or redirect standard output elsewhere".into()]
            }
            Self::Output(_) => vec!["check the file, pipe or terminal that standard output goes to".into()],
            Self::System { .. } => {
                vec!["check the limits of this process (`ulimit -a`) and of the system".into()]
            }
            Self::Stdio(_) => {
                vec![
                    "`ssh_ec2 proxy` is for ssh's ProxyCommand; to connect, use `ssh_ec2 USER@INSTANCE`"
                        .into(),
                ]
            }
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        let anchor = match self {
            Self::Interrupted | Self::OtherWay { .. } | Self::Usage(_) => return None,
            Self::AgentSocket(error) => return error.anchor(),
            Self::Aws(error) => return error.anchor(),
            Self::Diagnosed(cause) => return cause.anchor(),
            Self::Road(error) => return error.anchor(),
            Self::HostKeyChanged(changed) => return changed.anchor(),
            Self::Invocation(error) => return error.anchor(),
            Self::Key(error) => return error.anchor(),
            Self::KeyFile(error) => return error.anchor(),
            Self::KeyRefused(refused) => return refused.anchor(),
            Self::KnownHosts(error) => return error.anchor(),
            Self::Network(error) => return error.anchor(),
            Self::PlainSsh(failure) => return failure.anchor(),
            Self::Resolve(error) => return error.anchor(),
            Self::Ssh(error) => return error.anchor(),
            Self::Target(error) => return error.anchor(),
            Self::Command { .. } | Self::Sandbox(_) => Anchor::Sandbox,
            Self::File { .. } | Self::NoHome | Self::UserConfig { .. } => Anchor::Files,
            Self::HostKeyUnknown { .. } => Anchor::HostKeyUnknown,
            Self::HostKeyUnchecked { .. } | Self::ProxySilent { .. } => Anchor::HostKeyUnchecked,
            Self::ManagedNode { .. } => Anchor::ManagedNode,
            Self::Moved { .. } => Anchor::NameMoved,
            Self::NoKey { .. } => Anchor::OwnKey,
            Self::Output(_) | Self::Stdio(_) => Anchor::StandardStreams,
            Self::System { .. } => Anchor::SystemLimits,
        };
        Some(anchor)
    }

    fn details(&self, now: SystemTime) -> Vec<String> {
        match self {
            Self::PlainSsh(failure) => failure.details(now),
            Self::Resolve(error) => error.details(now),
            _ => Vec::new(),
        }
    }
}

fn unchecked_hints(instance: &InstanceId, hints: &[String]) -> Vec<String> {
    let trust = format!("try again, or give the key yourself: `ssh_ec2 known-hosts --trust KEY {instance}`");
    hints.iter().cloned().chain([trust]).collect()
}

fn other_way_hints(program: &str) -> Vec<String> {
    vec![
        "remove that option".into(),
        format!(
            "to reach another host through an instance, run `ssh_ec2 config --install`, and then plain {program} with `-J USER@NAME.ec2`"
        ),
    ]
}

impl Failure {
    /// The address of the heading in docs/troubleshooting.md.
    pub(crate) fn link(&self) -> Option<String> {
        self.anchor().map(|anchor| format!("{TROUBLESHOOTING}#{}", anchor.heading()))
    }

    /// The exit status for this error.
    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Invocation(_)
            | Self::Resolve(ResolveError::Several { .. })
            | Self::OtherWay { .. }
            | Self::Target(_)
            | Self::Usage(_) => ExitCode::Usage,
            Self::Interrupted => ExitCode::Interrupted,
            Self::PlainSsh(failure) => failure.error.exit_code(),
            // The status with which a shell reports a command that it cannot run.
            Self::Command { .. } => ExitCode::Passed(127),
            _ => ExitCode::Failure,
        }
    }
}

/// The exit status of the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitCode {
    /// 0.
    Success,
    /// 1: an error that was printed.
    Failure,
    /// 2: the command line cannot be understood.
    Usage,
    /// 130: interrupted, as a shell reports it.
    Interrupted,
    /// The exit status of ssh, of a copying program, or of a command in the local region.
    Passed(u8),
}

impl From<ExitCode> for process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(match code {
            ExitCode::Success => 0,
            ExitCode::Failure => 1,
            ExitCode::Usage => 2,
            ExitCode::Interrupted => 130,
            ExitCode::Passed(code) => code,
        })
    }
}

/// EC2 Instance Connect pushes no keys to managed nodes.
const MANAGED_NODE_HINT: &str =
    "install a key of your own on the node: ssh offers your own keys to `mi-…` targets";
/// The document with a heading for each kind of error.
const TROUBLESHOOTING: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/troubleshooting.md");
