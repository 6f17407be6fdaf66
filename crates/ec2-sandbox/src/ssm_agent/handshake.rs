//! The JSON of the handshake, written as the SSM agent writes it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use ssm_channel::{SessionType, SsmAgentVersion};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    agent_version: String,
    requested_client_actions: [Requested<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Requested<'a> {
    action_type: &'static str,
    action_parameters: &'a SessionType,
}

/// The payload of HandshakeRequest.
pub(super) fn request(version: SsmAgentVersion, session: &SessionType) -> String {
    let action = Requested { action_type: "SessionType", action_parameters: session };
    to_json(&Request { agent_version: version.to_string(), requested_client_actions: [action] })
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Complete {
    /// Nanoseconds.
    handshake_time_to_complete: u128,
    customer_message: &'static str,
}

/// The payload of HandshakeComplete.
pub(super) fn complete(time: Duration) -> String {
    to_json(&Complete { handshake_time_to_complete: time.as_nanos(), customer_message: "" })
}

/// Nothing here can fail to serialise.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Response {
    #[serde(default)]
    processed_client_actions: Option<Vec<Processed>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Processed {
    #[serde(default)]
    action_type: String,
    #[serde(default)]
    action_status: i64,
    #[serde(default)]
    error: String,
}

/// The failed action in a HandshakeResponse, if any; `None` if the response cannot be read. In an empty
/// response nothing has failed.
pub(super) fn failure(payload: &[u8]) -> Option<Option<String>> {
    let response: Response = serde_json::from_slice(payload).ok()?;
    let actions = response.processed_client_actions.unwrap_or_default();
    let failed = actions.iter().find(|action| action.action_status != STATUS_SUCCESS);
    Some(failed.map(|Processed { action_type, action_status, error }| {
        format!("{action_type} failed on client with status {action_status} error: {error}")
    }))
}

/// The output of a session whose handshake failed.
pub(super) fn failed(text: &str) -> String {
    format!("{ERROR}Encountered error while initiating handshake. {text}")
}

/// The number in an acknowledgement.
pub(super) fn acknowledged_number(payload: &[u8]) -> Option<i64> {
    let payload: serde_json::Value = serde_json::from_slice(payload).ok()?;
    payload.get("AcknowledgedMessageSequenceNumber")?.as_i64()
}

/// The heading of an error in a session's output.
pub(super) const ERROR: &str = "\n----------ERROR-------\n";
pub(super) const TIMED_OUT: &str =
    "Handshake timed out. Please ensure that you have the latest version of the session manager plugin.";
const STATUS_SUCCESS: i64 = 1;
