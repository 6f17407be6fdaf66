//! What a command can fail with, and how the process then exits.
//!
//! A message names the thing and states one fact; its hints are actions. Messages of the layers below are passed
//! on as they are; here stand only those that need the whole story.

mod plain_ssh;
#[cfg(test)]
mod tests;
mod told;

use std::io;
use std::path::PathBuf;
use std::process;
use std::time::SystemTime;

use thiserror::Error;

pub use self::plain_ssh::{PlainHost, PlainSsh};
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
use crate::ssh::host_key::{HostKey, Source};
use crate::ssh::known_hosts::StoreError;
use crate::system::explain::{Anchor, Explain};
use crate::target::{InstanceId, TargetError};

/// A command failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Failure {
    /// The key agent's socket.
    #[error(transparent)]
    AgentSocket(#[from] SocketError),
    /// A call to AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The cause of what went wrong was found.
    #[error(transparent)]
    Diagnosed(#[from] Diagnosis),
    /// A file of the user's or of ours.
    #[error("cannot {action} {path}")]
    File {
        /// A verb.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// sshd presented another key than the known one.
    #[error(transparent)]
    HostKeyChanged(Box<ChangedKey>),
    /// Nothing and nobody tells a key.
    #[error("no host key of {instance} is known")]
    HostKeyUnknown {
        /// The target.
        instance: InstanceId,
    },
    /// Our own known_hosts.
    #[error(transparent)]
    KnownHosts(#[from] StoreError),
    /// A signal came.
    #[error("interrupted")]
    Interrupted,
    /// The command line of ssh.
    #[error(transparent)]
    Invocation(#[from] InvocationError),
    /// Randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The public key that the user chose.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// sshd did not want the key.
    #[error(transparent)]
    KeyRefused(Box<RefusedKey>),
    /// Nobody can be asked for the host key, for a reason that may pass.
    #[error("the host key of {instance} cannot be checked: {why}")]
    HostKeyUnchecked {
        /// The target.
        instance: InstanceId,
        /// What kept AWS from telling.
        why: String,
        /// What to do about that, an action a line.
        hints: Vec<String>,
    },
    /// The proxy of the connection was asked for the host key, and gave no answer.
    #[error("the host key of {target} cannot be checked: the ssh_ec2 proxy of this connection {fault}")]
    ProxySilent {
        /// The target.
        target: String,
        /// What it does instead.
        fault: &'static str,
    },
    /// A name means another instance than it did when ssh was started.
    #[error("{target} is {new} now, and {old}, which it was a few minutes ago, cannot be connected to")]
    Moved {
        /// The name.
        target: String,
        /// What the cache said.
        old: InstanceId,
        /// What EC2 says.
        new: InstanceId,
    },
    /// A managed node takes no pushed keys.
    #[error("{instance} is not an EC2 instance: EC2 Instance Connect cannot push a key to it")]
    ManagedNode {
        /// The target.
        instance: InstanceId,
    },
    /// Another failure, of a connection that the user began with plain ssh.
    #[error(transparent)]
    PlainSsh(Box<PlainSsh>),
    /// Proxies and certificates.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// Without a home directory there is nowhere for our files.
    #[error("there is no home directory")]
    NoHome,
    /// None of the user's own keys is there.
    #[error("there is no public key in {directory}")]
    NoKey {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// The command for the local region could not be started.
    #[error("cannot run {program}")]
    Command {
        /// What was asked for.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// A name does not mean one instance.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// Bytes do not reach the instance. Calls to AWS are [`Aws`](Self::Aws).
    #[error(transparent)]
    Road(RoadError),
    /// The local region.
    #[error("the local region failed")]
    Sandbox(#[source] io::Error),
    /// The command line leads ssh to the host without our ProxyCommand.
    #[error("`{option}` would lead {program} to the instance without Session Manager")]
    OtherWay {
        /// As typed.
        option: String,
        /// What was called.
        program: &'static str,
    },
    /// ssh, or a program that runs it, cannot be used.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// Standard input or output of the proxy.
    #[error("cannot use standard input and output")]
    Stdio(#[source] io::Error),
    /// The output of a command could not be written.
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    /// The system refused what every process needs.
    #[error("cannot {action}")]
    System {
        /// A verb and its object.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something that should name an instance, a user or a port.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The command line.
    #[error("{0}")]
    Usage(String),
    /// The user's ssh_config cannot be changed.
    #[error("cannot change {path}")]
    UserConfig {
        /// Which file.
        path: PathBuf,
        /// What to do about it.
        hint: String,
        /// Why.
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
            Self::File { action: "make", path, .. } => vec![format!(
                "check the permissions of {}, or set SSH_EC2_DIR to a directory that you can write to",
                path.display()
            )],
            Self::File { path, .. } => vec![format!("check the permissions of {}", path.display())],
            Self::Invocation(error) => error.hints(),
            Self::Usage(_) => vec!["`ssh_ec2 --help` shows how to call it".into()],
            Self::Key(error) => error.hints(),
            Self::KeyFile(error) => error.hints(),
            Self::KeyRefused(refused) => refused.hints(),
            Self::ManagedNode { .. } => {
                vec![
                    "install a key of your own on the node: ssh offers your own keys to `mi-…` targets"
                        .into(),
                ]
            }
            Self::PlainSsh(failure) => failure.hints(),
            Self::Moved { .. } => vec!["connect again".into()],
            Self::NoHome => vec!["set HOME, or SSH_EC2_DIR to a directory that you can write to".into()],
            Self::UserConfig { hint, .. } => vec![hint.clone()],
            Self::NoKey { .. } => {
                vec!["make one with `ssh-keygen -t ed25519`, or name one with `--key-file`".into()]
            }
            Self::HostKeyUnchecked { instance, hints, .. } => {
                let trust = format!(
                    "try again; or say yourself which key it has: `ssh_ec2 known-hosts --trust KEY {instance}`"
                );
                hints.iter().cloned().chain([trust]).collect()
            }
            Self::ProxySilent { .. } => vec!["connect again; `ssh -v` shows what it waits for".into()],
            Self::Sandbox(_) => {
                vec!["check that loopback ports and the temporary directory can be used".into()]
            }
            Self::OtherWay { program, .. } => vec![
                "leave it out".into(),
                format!(
                    "to reach another host through an instance, run `ssh_ec2 config --install`, and then plain {program} with `-J USER@NAME.ec2`"
                ),
            ],
            Self::Ssh(error) => error.hints(),
            Self::Output(source) if source.kind() == io::ErrorKind::StorageFull => {
                vec!["make room where standard output goes, or send it elsewhere".into()]
            }
            Self::Output(_) => vec!["check where standard output goes".into()],
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

impl Failure {
    /// Where more is said about it.
    pub fn link(&self) -> Option<String> {
        self.anchor().map(|anchor| format!("{TROUBLESHOOTING}#{}", anchor.heading()))
    }

    /// How the process exits.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Invocation(_)
            | Self::Resolve(ResolveError::Several { .. })
            | Self::OtherWay { .. }
            | Self::Target(_)
            | Self::Usage(_) => ExitCode::Usage,
            Self::Interrupted => ExitCode::Interrupted,
            Self::PlainSsh(failure) => failure.error.exit_code(),
            // As a shell says it.
            Self::Command { .. } => ExitCode::Passed(127),
            _ => ExitCode::Failure,
        }
    }
}

/// A host key that is not the known one.
#[derive(Debug, Error)]
#[error("{host} presents the host key {} {}, and {told_by} told {old}{}; {}", .new.kind(), .new.fingerprint(), at(.since), told(*.confirmed))]
pub struct ChangedKey {
    /// As known_hosts names it.
    pub host: String,
    /// The key that is known.
    pub old: String,
    /// Who told it.
    pub told_by: Source,
    /// When it was written down, if it was.
    pub since: String,
    /// The key that was presented.
    pub new: HostKey,
    /// Who else tells this one.
    pub confirmed: Option<Source>,
    /// Whether none of its algorithm is known.
    pub other_kind: bool,
}

impl Explain for ChangedKey {
    fn hints(&self) -> Vec<String> {
        let instance = self.host.trim_start_matches('[').split(']').next().unwrap_or_default();
        let port = self.host.split_once("]:").map(|(_, port)| format!(" --port {port}")).unwrap_or_default();
        let trust = format!("`ssh_ec2 known-hosts --trust '{}'{port} {instance}`", self.new);
        let hint = match self.confirmed {
            None if self.other_kind => format!(
                "if HostKeyAlgorithms in your configuration asks for such keys, take it out; only if you know that the instance has it: {trust}"
            ),
            Some(_) => format!("its keys were made anew since; accept the new one: {trust}"),
            None => format!(
                "somebody may be between you and it; only if you know that its keys were made anew: {trust}"
            ),
        };
        vec![hint]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::HostKeyChanged)
    }
}

fn at(since: &str) -> String {
    if since.is_empty() { String::new() } else { format!(" on {since}") }
}

fn told(confirmed: Option<Source>) -> String {
    match confirmed {
        Some(source) => format!("the presented one is told by {source}"),
        None => "the presented one is told by nothing in AWS".into(),
    }
}

/// How the process exits.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ExitCode {
    /// Done.
    Success,
    /// A diagnosed failure, 1.
    Failure,
    /// The command line, 2.
    Usage,
    /// Interrupted, 130 as a shell reports it.
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

/// One heading for each kind of error.
const TROUBLESHOOTING: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/docs/troubleshooting.md");
