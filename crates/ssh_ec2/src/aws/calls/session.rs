//! Session Manager sessions: start, resume, terminate.
//!
//! A started session must be terminated by whoever started it, even if its channel was never opened, or it
//! stays in the account until it times out.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::aws::client::endpoint::SSM;
use crate::aws::client::refusal::RequestId;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::net::websocket::StreamUrl;
use crate::target::InstanceId;

const START_SESSION: Api = Api { service: &SSM, operation: "StartSession" };
const RESUME_SESSION: Api = Api { service: &SSM, operation: "ResumeSession" };
const TERMINATE_SESSION: Api = Api { service: &SSM, operation: "TerminateSession" };

/// For ending a session that is of no use.
const END_TIMEOUT: Duration = Duration::from_secs(2);

/// The service's limit is 96; this leaves room for it to grow, and none for nonsense.
const MAX_SESSION_ID: usize = 256;

/// What to start.
#[derive(Clone, Debug)]
pub struct StartSession {
    /// The instance.
    pub target: InstanceId,
    /// The session document, by name or ARN.
    pub document_name: String,
    /// The document's parameters; every value is a list.
    pub parameters: BTreeMap<String, Vec<String>>,
    /// A line for CloudTrail. An empty one counts as none, because the service takes no empty ones.
    pub reason: Option<String>,
}

/// A session, as AWS knows it. Printable ASCII, and no secret.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct SessionId(String);

impl SessionId {
    /// The id as AWS wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What admits one connection to a data channel. Shown nowhere, wiped when dropped.
#[derive(Clone, Deserialize)]
#[serde(from = "String")]
pub struct Token(Zeroizing<String>);

impl From<String> for Token {
    fn from(token: String) -> Self {
        Self(Zeroizing::new(token))
    }
}

impl Token {
    /// The token itself, for the channel's opening message.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// As [`Token::expose`], for who takes any text.
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
pub struct SessionTicket {
    /// The session.
    pub session_id: SessionId,
    /// Where the channel is. [`Aws::sign_upgrade`] checks it.
    pub stream_url: StreamUrl,
    /// What admits to it.
    pub token: Token,
    /// What AWS calls the request.
    pub request_id: RequestId,
}

/// Whether a session can go on.
#[derive(Clone, Debug)]
pub enum Resumption {
    /// The session has ended, on its own or by someone else's hand.
    Expired,
    /// It can, with this.
    Ticket(SessionTicket),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StartInput<'a> {
    target: &'a str,
    document_name: &'a str,
    parameters: &'a BTreeMap<String, Vec<String>>,
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
    pub async fn start_session(&self, request: &StartSession) -> Result<SessionTicket, AwsError> {
        let input = StartInput {
            target: request.target.as_str(),
            document_name: &request.document_name,
            parameters: &request.parameters,
            reason: request.reason.as_deref().filter(|reason| !reason.is_empty()),
        };
        let started = self.call(&START_SESSION, request.target.as_str(), &input).await;
        let (output, request_id): (Output, _) = started.map_err(|error| match error {
            AwsError::Service { code, .. } if code == "InvalidDocument" => {
                AwsError::InvalidDocument { document: request.document_name.clone() }
            }
            error => error,
        })?;
        let started = output.session_id.as_deref().and_then(session_id);
        let fault = match ticket(output, request_id, None) {
            Ok(Some(ticket)) => return Ok(ticket),
            Ok(None) => "it has no token",
            Err(fault) => fault,
        };
        if let Some(session) = started {
            // Only we know that it is there. Best effort: what is wrong with the answer says more.
            let _ = timeout(END_TIMEOUT, self.terminate_session(&session)).await;
        }
        Err(malformed(&START_SESSION, fault))
    }

    /// Asks for another ticket to a session whose connection was lost; it was at `stream_url`, and still is if
    /// the answer names no other place.
    ///
    /// # Errors
    ///
    /// [`AwsError`]. That the session has ended is not an error.
    pub async fn resume_session(
        &self,
        session: &SessionId,
        stream_url: &StreamUrl,
    ) -> Result<Resumption, AwsError> {
        let input = SessionInput { session_id: session.as_str() };
        let (output, request_id) = match self.call(&RESUME_SESSION, session.as_str(), &input).await {
            Ok(resumed) => resumed,
            Err(AwsError::Service { code, .. }) if code == "DoesNotExistException" => {
                return Ok(Resumption::Expired);
            }
            Err(error) => return Err(error),
        };
        match ticket(output, request_id, Some((session, stream_url))) {
            Ok(Some(ticket)) => Ok(Resumption::Ticket(ticket)),
            Ok(None) => Ok(Resumption::Expired),
            Err(fault) => Err(malformed(&RESUME_SESSION, fault)),
        }
    }

    /// Ends a session. Ending one that has ended is no error.
    ///
    /// # Errors
    ///
    /// [`AwsError`].
    pub async fn terminate_session(&self, session: &SessionId) -> Result<RequestId, AwsError> {
        let input = SessionInput { session_id: session.as_str() };
        match self.call::<_, Ignored>(&TERMINATE_SESSION, session.as_str(), &input).await {
            Ok((_, request_id)) => Ok(request_id),
            // Of a session id that AWS gave out, this can only mean a state in which nothing is left to end.
            Err(AwsError::Service { code, request_id, .. })
                if matches!(code.as_str(), "DoesNotExistException" | "ValidationException") =>
            {
                Ok(request_id.unwrap_or_else(RequestId::absent))
            }
            Err(error) => Err(error),
        }
    }
}

/// Reads a ticket; `None` without a token. What `resumed` says, the answer may leave out.
fn ticket(
    output: Output,
    request_id: RequestId,
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
    Ok(Some(SessionTicket { session_id, stream_url, token, request_id }))
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
