//! Session Manager sessions: start, resume, terminate.
//!
//! The caller of `StartSession` must terminate the session, even if its channel was never opened, or the
//! session stays in the account until it times out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::aws::client::request_id::RequestId;
use crate::aws::client::service::SSM;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::net::websocket::StreamUrl;
use crate::target::SessionTarget;

/// The parameters of `StartSession`.
#[derive(Clone, Debug)]
pub(crate) struct StartSession<'a> {
    /// The instance or managed node of the session.
    pub target: &'a SessionTarget,
    /// The session document, which determines what the session does.
    pub document: Document,
    /// The document's parameters; every value is a list.
    pub parameters: BTreeMap<&'static str, Vec<String>>,
    /// A line for CloudTrail. An empty one counts as none, because the service takes no empty ones.
    pub reason: Option<&'a str>,
}

/// A session document. These are AWS's own, which every account has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Document {
    /// Runs one command without a terminal, as the user that the account's preferences say, and returns what
    /// it printed.
    NonInteractiveCommand,
    /// A byte stream to a TCP port of the target, for the AWS CLI's port forwarding.
    PortForwarding,
    /// The same to a port of another host.
    RemotePortForwarding,
    /// A byte stream to a TCP port of the target, for SSH.
    Ssh,
}

impl Document {
    /// The document's name, in requests, ARNs and messages.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::NonInteractiveCommand => "AWS-StartNonInteractiveCommand",
            Self::PortForwarding => "AWS-StartPortForwardingSession",
            Self::RemotePortForwarding => "AWS-StartPortForwardingSessionToRemoteHost",
            Self::Ssh => "AWS-StartSSHSession",
        }
    }
}

/// A session, as AWS knows it. Printable ASCII, and no secret.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct SessionId(String);

impl SessionId {
    /// The id as AWS wrote it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Authorizes one connection to a data channel. Printed nowhere, wiped when dropped.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub(crate) struct Token(Zeroizing<String>);

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self(Zeroizing::new(token))
    }
}

impl Token {
    /// The token itself, for the channel's opening message.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

/// As [`Token::expose`], for generic code.
impl AsRef<str> for Token {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// What it takes to open a session's data channel, once.
#[derive(Clone, Debug)]
pub(crate) struct SessionTicket {
    /// The session's id, for ResumeSession and TerminateSession.
    pub session_id: SessionId,
    /// The URL of the channel's websocket. [`Aws::sign_upgrade`] checks that it is AWS's.
    pub stream_url: StreamUrl,
    /// The token for the first message on that websocket, valid once.
    pub token: Token,
}

/// Whether a session can continue.
#[derive(Clone, Debug)]
pub(crate) enum Resumption {
    /// The session has ended: it timed out, or somebody terminated it.
    Expired,
    /// The session continues, with this ticket for another websocket.
    Ticket(SessionTicket),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StartInput<'a> {
    target: &'a str,
    document_name: &'a str,
    parameters: &'a BTreeMap<&'static str, Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct SessionInput<'a> {
    session_id: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    session_id: Option<String>,
    stream_url: Option<String>,
    token_value: Option<Token>,
}

#[derive(Deserialize)]
struct Ignored {}

impl Aws {
    /// Starts a session.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; among others [`AwsError::TargetNotConnected`] and [`AwsError::InvalidDocument`].
    pub(crate) async fn start_session(&self, request: &StartSession<'_>) -> Result<SessionTicket, AwsError> {
        let target = request.target.to_string();
        let input = StartInput {
            target: &target,
            document_name: request.document.name(),
            parameters: &request.parameters,
            reason: request.reason.filter(|reason| !reason.is_empty()),
        };
        let started = self.call(&START_SESSION, &target, &input).await;
        let (output, _): (Output, _) = started.map_err(|error| match error {
            AwsError::Service { code, .. } if code == "InvalidDocument" => {
                AwsError::InvalidDocument { document: request.document.name().to_owned() }
            }
            error => error,
        })?;
        let started = output.session_id.as_deref().and_then(session_id);
        let fault = match ticket(output, None) {
            Ok(Some(ticket)) => return Ok(ticket),
            Ok(None) => "it has no token",
            Err(fault) => fault,
        };
        if let Some(session) = started {
            // Nothing else knows the session's id. Best effort: the fault of the answer is the error to
            // report.
            self.end_session(&session).await;
        }
        Err(malformed(&START_SESSION, fault))
    }

    /// Asks for another ticket to a session whose websocket was lost. The websocket was at `stream_url`, and
    /// still is if the answer has no URL.
    ///
    /// # Errors
    ///
    /// [`AwsError`]. That the session has ended is not an error.
    pub(crate) async fn resume_session(
        &self,
        session: &SessionId,
        stream_url: &StreamUrl,
    ) -> Result<Resumption, AwsError> {
        let input = SessionInput { session_id: session.as_str() };
        let (output, _) = match self.call(&RESUME_SESSION, session.as_str(), &input).await {
            Ok(resumed) => resumed,
            Err(AwsError::Service { code, .. }) if code == "DoesNotExistException" => {
                return Ok(Resumption::Expired);
            }
            Err(error) => return Err(error),
        };
        match ticket(output, Some((session, stream_url))) {
            Ok(Some(ticket)) => Ok(Resumption::Ticket(ticket)),
            Ok(None) => Ok(Resumption::Expired),
            Err(fault) => Err(malformed(&RESUME_SESSION, fault)),
        }
    }

    /// Terminates a session of no further use, within [`TERMINATE_TIMEOUT`]. Best effort: for a caller
    /// without ssm:TerminateSession the session ends when the SSM agent reads the flag that the tunnel sent.
    pub(crate) async fn end_session(&self, session: &SessionId) {
        match timeout(TERMINATE_TIMEOUT, self.terminate_session(session)).await {
            Ok(Ok(_)) => tracing::info!("ended the session at AWS"),
            Ok(Err(error)) => tracing::info!("the session could not be ended at AWS: {error}"),
            Err(_) => tracing::info!("AWS did not confirm the session's end in time"),
        }
    }

    /// Terminates a session. A session that has ended already is no error.
    ///
    /// # Errors
    ///
    /// [`AwsError`].
    pub(crate) async fn terminate_session(&self, session: &SessionId) -> Result<RequestId, AwsError> {
        let input = SessionInput { session_id: session.as_str() };
        match self.call::<_, Ignored>(&TERMINATE_SESSION, session.as_str(), &input).await {
            Ok((_, request_id)) => Ok(request_id),
            // AWS made the session id, so this can only mean a state in which nothing is left to end.
            Err(AwsError::Service { code, request_id, .. })
                if matches!(code.as_str(), "DoesNotExistException" | "ValidationException") =>
            {
                Ok(request_id.unwrap_or_else(RequestId::absent))
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads a ticket; `None` without a token. An answer to ResumeSession may leave out what `resumed` has.
fn ticket(
    output: Output,
    resumed: Option<(&SessionId, &StreamUrl)>,
) -> Result<Option<SessionTicket>, &'static str> {
    let Some(token) = output.token_value.filter(|token| !token.expose().is_empty()) else {
        return Ok(None);
    };
    let session_id = match (output.session_id, resumed) {
        (Some(id), _) => session_id(&id).ok_or("its session id is not printable")?,
        (None, Some((session, _))) => session.clone(),
        (None, None) => return Err("it has no session id"),
    };
    let stream_url = match (output.stream_url.filter(|url| !url.is_empty()), resumed) {
        (Some(url), _) => StreamUrl::new(&url).map_err(|_| "its stream URL is not a websocket URL")?,
        (None, Some((_, stream_url))) => stream_url.clone(),
        (None, None) => return Err("it has no stream URL"),
    };
    Ok(Some(SessionTicket { session_id, stream_url, token }))
}

/// The id stands in messages and logs, so it must be as harmless as it is documented to be.
fn session_id(text: &str) -> Option<SessionId> {
    let printable = text.bytes().all(|byte| byte.is_ascii_graphic());
    let valid = (1..=MAX_SESSION_ID).contains(&text.len()) && printable;
    valid.then(|| SessionId(text.to_owned()))
}

fn malformed(api: &Api, fault: &'static str) -> AwsError {
    AwsError::Malformed { action: api.action(), source: fault.into() }
}

/// How long TerminateSession may take. The session is not needed any more: ssh has ended, or its user waits
/// for an error.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
/// The service's limit is 96; this leaves room for it to grow, and none for nonsense.
const MAX_SESSION_ID: usize = 256;
const START_SESSION: Api = Api { service: &SSM, operation: "StartSession" };
const RESUME_SESSION: Api = Api { service: &SSM, operation: "ResumeSession" };
const TERMINATE_SESSION: Api = Api { service: &SSM, operation: "TerminateSession" };
