//! The messages before any data, and the features of each SSM agent version.
//!
//! The client opens each websocket with one text message that carries its token. Then the SSM agent, for the
//! session types that have one (`Port` is one), sends a request as its stream message 0, the client answers
//! once, and the SSM agent sends HandshakeComplete. Data sent before that is acknowledged and dropped by the
//! SSM agent.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::ProtocolError;

/// The version in this client's messages. SSM agents choose features by it: at least 1.1.70 means smux for
/// `LocalPortForwarding`, above 1.2.331 no smux keep-alive, and 1.2.764.0 is the first that signs the
/// upgrade.
pub const CLIENT_VERSION: &str = "1.2.764.0";

/// The version of an SSM agent, from its handshake request: four numbers.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct SsmAgentVersion([u32; 4]);

impl SsmAgentVersion {
    /// Reads `3.3.1142.0`. Anything but four numbers is `None`, as in the official client.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; 4];
        let mut parts = text.trim().split('.');
        for number in &mut numbers {
            *number = parts.next()?.parse().ok()?;
        }
        parts.next().is_none().then_some(Self(numbers))
    }

    /// Whether it handles the flag that ends a session; older versions need TerminateSession.
    pub fn takes_terminate_flag(self) -> bool {
        self > Self([2, 3, 722, 0])
    }

    /// Whether it supports sessions of this type: by `RELEASENOTES.md` ports came in 2.3.672 and commands
    /// without input in 3.0.1124. Older versions refuse them.
    pub fn knows_session_type(self, session_type: &str) -> bool {
        let since = match session_type {
            PORT => Self([2, 3, 672, 0]),
            "NonInteractiveCommands" => Self([3, 0, 1124, 0]),
            _ => Self([0; 4]),
        };
        self >= since
    }

    /// Whether it acknowledges a repeated message again. Older versions drop it silently, so a lost
    /// acknowledgement is never repeated.
    pub fn acknowledges_duplicates(self) -> bool {
        self >= Self([3, 2, 1041, 0])
    }
}

impl fmt::Display for SsmAgentVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0;
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

/// The type of a session, from the SSM agent's handshake request.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct SessionType {
    /// `Port`, `Standard_Stream`, `InteractiveCommands` or `NonInteractiveCommands`.
    pub session_type: String,
    /// The document's properties; for `Port` an object of strings.
    #[serde(default)]
    pub properties: Value,
}

impl SessionType {
    /// Whether the session is to a port. Only such sessions end when the client sends
    /// [`Flag::TerminateSession`](crate::Flag::TerminateSession); all others acknowledge it and continue
    /// (`agent/session/plugins/port/port.go` handles the flag, `shell` does not).
    pub(crate) fn is_port(&self) -> bool {
        self.session_type == PORT
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct OpenDataChannel<'a> {
    message_schema_version: &'static str,
    request_id: String,
    token_value: &'a str,
    client_id: &'a str,
    client_version: &'static str,
}

/// The first, textual message on a client's websocket.
pub(crate) fn open_message(request_id: String, token: &str, client_id: &str) -> String {
    let open = OpenDataChannel {
        message_schema_version: "1.0",
        request_id,
        token_value: token,
        client_id,
        client_version: CLIENT_VERSION,
    };
    to_json(&open)
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HandshakeRequest {
    #[serde(default)]
    pub(crate) agent_version: String,
    pub(crate) requested_client_actions: Vec<RequestedAction>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestedAction {
    action_type: String,
    #[serde(default)]
    action_parameters: Value,
}

impl HandshakeRequest {
    /// The request of an SSM agent of this version for this session.
    pub(crate) fn new(agent_version: SsmAgentVersion, session: &SessionType) -> Self {
        let action = RequestedAction {
            action_type: SESSION_TYPE.into(),
            action_parameters: serde_json::to_value(session).unwrap_or_default(),
        };
        Self { agent_version: agent_version.to_string(), requested_client_actions: vec![action] }
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        from_json("handshake request", payload)
    }

    pub(crate) fn to_payload(&self) -> String {
        to_json(self)
    }

    /// The session type in the request, if it can be read.
    pub(crate) fn session_type(&self) -> Option<SessionType> {
        let action =
            self.requested_client_actions.iter().find(|action| action.action_type == SESSION_TYPE)?;
        serde_json::from_value(action.action_parameters.clone()).ok()
    }

    /// One result for each action, in order. An action that this client does not support gets an error: the
    /// SSM agent then ends the session with its text.
    pub(crate) fn answer(&self) -> HandshakeResponse {
        let process = |action: &RequestedAction| {
            let supported = action.action_type == SESSION_TYPE;
            ProcessedAction {
                action_type: action.action_type.clone(),
                action_status: if supported { STATUS_SUCCESS } else { STATUS_UNSUPPORTED },
                action_result: Value::Null,
                error: if supported {
                    String::new()
                } else {
                    format!("the client does not support {}", action.action_type)
                },
            }
        };
        HandshakeResponse {
            client_version: CLIENT_VERSION.into(),
            processed_client_actions: self.requested_client_actions.iter().map(process).collect(),
            errors: Some(Vec::new()),
        }
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HandshakeResponse {
    #[serde(default)]
    client_version: String,
    processed_client_actions: Vec<ProcessedAction>,
    #[serde(default)]
    errors: Option<Vec<String>>,
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessedAction {
    action_type: String,
    action_status: u32,
    #[serde(default)]
    action_result: Value,
    #[serde(default)]
    error: String,
}

impl HandshakeResponse {
    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        from_json("handshake response", payload)
    }

    pub(crate) fn to_payload(&self) -> String {
        to_json(self)
    }

    /// The error of the first action that the client did not process.
    pub(crate) fn failure(&self) -> Option<String> {
        let failed =
            self.processed_client_actions.iter().find(|action| action.action_status != STATUS_SUCCESS)?;
        Some(format!("{}: {}", failed.action_type, failed.error))
    }
}

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct HandshakeComplete {
    /// Nanoseconds.
    #[serde(default)]
    handshake_time_to_complete: i64,
    #[serde(default)]
    pub(crate) customer_message: Option<String>,
}

impl HandshakeComplete {
    pub(crate) fn after(time: std::time::Duration) -> Self {
        let nanoseconds = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        Self { handshake_time_to_complete: nanoseconds, customer_message: Some(String::new()) }
    }

    pub(crate) fn parse(payload: &[u8]) -> Result<Self, ProtocolError> {
        from_json("handshake completion", payload)
    }

    pub(crate) fn to_payload(&self) -> String {
        to_json(self)
    }
}

/// The gateway's message at the end of a session. Only the reason is read.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ChannelClosed {
    #[serde(default)]
    pub(crate) output: Option<String>,
}

impl ChannelClosed {
    /// A `channel_closed` ends the session even if its payload is unreadable.
    pub(crate) fn parse(payload: &[u8]) -> Self {
        let payload = payload.trim_ascii_end();
        let end = payload.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        serde_json::from_slice(payload.get(..end).unwrap_or_default()).unwrap_or_default()
    }
}

fn from_json<'a, T: Deserialize<'a>>(what: &'static str, payload: &'a [u8]) -> Result<T, ProtocolError> {
    serde_json::from_slice(payload).map_err(|source| ProtocolError::Payload { what, source })
}

/// Serialising these types cannot fail: no maps with other keys than strings, no `Serialize` of other crates.
fn to_json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

const SESSION_TYPE: &str = "SessionType";
const PORT: &str = "Port";
const STATUS_SUCCESS: u32 = 1;
const STATUS_UNSUPPORTED: u32 = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_number_by_number() {
        let version = |text| SsmAgentVersion::parse(text).unwrap();
        assert!(version("3.3.1142.0") > version("3.3.987.0"));
        assert!(!version("2.3.722.0").takes_terminate_flag());
        assert!(version("2.3.733.0").takes_terminate_flag());
        assert!(!version("3.2.923.0").acknowledges_duplicates());
        assert!(version("3.2.1041.0").acknowledges_duplicates());
    }

    #[test]
    fn session_types_came_one_by_one() {
        let knows = |text| {
            let version = SsmAgentVersion::parse(text).unwrap();
            ["Port", "NonInteractiveCommands"].map(|session_type| version.knows_session_type(session_type))
        };
        assert_eq!(knows("2.3.668.0"), [false, false]);
        assert_eq!(knows("2.3.672.0"), [true, false]);
        assert_eq!(knows("3.0.1031.0"), [true, false]);
        assert_eq!(knows("3.0.1124.0"), [true, true]);
    }

    #[test]
    fn anything_but_four_numbers_is_no_version() {
        for text in ["", "3.3.1142", "3.3.1142.0.1", "3.3.x.0", "3.3.-1.0"] {
            assert_eq!(SsmAgentVersion::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn every_requested_action_is_answered_in_order() {
        let request = br#"{"AgentVersion":"3.3.1142.0","RequestedClientActions":[
            {"ActionType":"Dance","ActionParameters":null},
            {"ActionType":"SessionType","ActionParameters":{"SessionType":"Port","Properties":{"portNumber":"22"}}}]}"#;
        let request = HandshakeRequest::parse(request).unwrap();
        let session = request.session_type().unwrap();
        assert_eq!(session.session_type, "Port");
        let answer = request.answer();
        assert_eq!(answer.failure().as_deref(), Some("Dance: the client does not support Dance"));
        assert_eq!(
            answer.to_payload(),
            concat!(
                r#"{"ClientVersion":"1.2.764.0","ProcessedClientActions":["#,
                r#"{"ActionType":"Dance","ActionStatus":3,"ActionResult":null,"Error":"the client does not support Dance"},"#,
                r#"{"ActionType":"SessionType","ActionStatus":1,"ActionResult":null,"Error":""}],"Errors":[]}"#
            )
        );
    }

    #[test]
    fn a_close_with_padding_or_rubbish_is_still_a_close() {
        assert_eq!(ChannelClosed::parse(b"{\"Output\":\"bye\"}\0\0").output.as_deref(), Some("bye"));
        assert_eq!(ChannelClosed::parse(b"\xff").output, None);
        assert_eq!(ChannelClosed::parse(b"").output, None);
    }
}
