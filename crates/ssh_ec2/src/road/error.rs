//! The errors of a connection to an instance: why it does not open, or why it ended.

use thiserror::Error;

use crate::aws::AwsError;
use crate::net::websocket::DialError;
use crate::system::explain::{Anchor, Explain};
use crate::target::{Port, SessionTarget};

/// Why a connection was not possible, or ended.
#[derive(Debug, Error)]
#[non_exhaustive]
pub(crate) enum RoadError {
    /// A call to AWS, or its signature.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The session was refused before the SSM agent connected to the port: by the SSM agent, the service, or
    /// this client, which does not support something that the SSM agent asked for.
    #[error("the session on {target} could not be started: {reason}")]
    ChannelRefused {
        /// Where the session was to end.
        target: SessionTarget,
        /// Printable text of the service, the SSM agent or this client.
        reason: String,
    },
    /// The session's websocket could not be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The SSM agent sent nothing.
    #[error(
        "the session on {target} is open, but its SSM agent did not complete the handshake within a minute"
    )]
    HandshakeTimeout {
        /// Where the SSM agent should run.
        target: SessionTarget,
    },
    /// The session could not be resumed in time.
    #[error("the connection to {target} was lost, and could not be resumed within {minutes} minutes")]
    Lost {
        /// Where the session ends.
        target: SessionTarget,
        /// How long the attempts lasted.
        minutes: u64,
        /// Why the last attempt failed.
        source: Box<Self>,
    },
    /// The SSM agent acknowledges nothing any more.
    #[error("{target} has acknowledged nothing for five minutes")]
    NoProgress {
        /// Where the SSM agent should run.
        target: SessionTarget,
    },
    /// Another server than sshd listens on the port.
    #[error("port {port} of {target} answers, but not as an SSH server: {greeting:?}")]
    NotSsh {
        /// The host of the server.
        target: SessionTarget,
        /// The server's port.
        port: Port,
        /// The server's first line, printable.
        greeting: String,
    },
    /// The SSM agent could not connect to the port.
    #[error("nothing answered on port {port} of {target}{}", after_colon(.reason))]
    NothingAnswered {
        /// Where the SSM agent runs.
        target: SessionTarget,
        /// sshd's port.
        port: Port,
        /// Printable text of the SSM agent, often empty.
        reason: String,
        /// Whether a note has already asked if sshd runs.
        is_noted: bool,
    },
    /// The operating system gave no random bytes.
    #[error("the operating system gave no random bytes for a session")]
    Random(#[source] getrandom::Error),
    /// The service ended the session, and says why.
    #[error("the session on {target} was ended: {reason}")]
    SessionEnded {
        /// Where the session ended.
        target: SessionTarget,
        /// Printable text of the service.
        reason: String,
    },
    /// The session was idle for too long, or reached its maximum duration, or somebody terminated it.
    #[error("the session on {target} has ended at AWS and cannot be resumed")]
    SessionExpired {
        /// Where the session ended.
        target: SessionTarget,
    },
    /// sshd has too many clients, or penalizes one.
    #[error("sshd on port {port} of {target} rejects connections: {greeting:?}")]
    SshdBusy {
        /// The host of sshd.
        target: SessionTarget,
        /// sshd's port.
        port: Port,
        /// sshd's first line, printable.
        greeting: String,
    },
    /// The websocket of a session that is not resumed was lost.
    #[error("the websocket of the session on {target} was lost")]
    WebsocketLost {
        /// Where the session ends.
        target: SessionTarget,
    },
}

impl Explain for RoadError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Aws(error) => error.hints(),
            Self::ChannelRefused { .. } => vec![
                "check the session document and the SSM agent's version: `aws ssm describe-instance-information`".into(),
            ],
            Self::Dial(error) => error.hints(),
            Self::HandshakeTimeout { target } => vec![
                format!("restart the SSM agent on {target}, or reboot it, and check that it can reach ssmmessages on port 443"),
            ],
            Self::Lost { source, .. } => source.hints(),
            Self::NoProgress { target } => {
                vec![format!("check that {target} is still running, then connect again")]
            }
            Self::NotSsh { port, .. } => {
                vec![format!("give the port that sshd listens on: `ssh -p PORT …` (tried {port})")]
            }
            Self::NothingAnswered { is_noted: true, .. } => Vec::new(),
            Self::NothingAnswered { port, .. } => vec![
                format!("start sshd on the instance, or give the port it listens on: `ssh -p PORT …` (tried {port})"),
            ],
            Self::Random(_) => vec!["try again".into()],
            Self::SessionEnded { .. } => vec!["connect again".into()],
            Self::SessionExpired { .. } => vec![
                "connect again; `ServerAliveInterval 60` in ssh_config keeps an idle session from timing out".into(),
            ],
            Self::SshdBusy { .. } => vec![SSHD_BUSY_HINT.into()],
            Self::WebsocketLost { .. } => vec![WEBSOCKETS_HINT.into()],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        let anchor = match self {
            Self::Aws(error) => return error.anchor(),
            Self::ChannelRefused { .. } => Anchor::SessionRefused,
            Self::Dial(error) => return error.anchor(),
            Self::HandshakeTimeout { .. } => Anchor::AgentSilent,
            Self::Lost { source, .. } => return source.anchor().or(Some(Anchor::ConnectionLost)),
            Self::NoProgress { .. } | Self::WebsocketLost { .. } => Anchor::ConnectionLost,
            Self::NotSsh { .. } | Self::NothingAnswered { .. } => Anchor::SshdNotThere,
            Self::Random(_) => Anchor::NoRandomness,
            Self::SessionEnded { .. } | Self::SessionExpired { .. } => Anchor::SessionEnded,
            Self::SshdBusy { .. } => Anchor::SshdBusy,
        };
        Some(anchor)
    }
}

fn after_colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// For an sshd that rejects connections. Through Session Manager every client has the instance's own address.
const SSHD_BUSY_HINT: &str = "wait a little; sessions all come from 127.0.0.1, which MaxStartups and PerSourcePenalties in sshd_config should allow for";
/// The hint for sessions whose websocket does not open or is lost.
pub(super) const WEBSOCKETS_HINT: &str =
    "check that no proxy or firewall between this machine and ssmmessages on port 443 blocks websockets";
