//! The Systems Manager operations for sessions and the state of SSM agents.
//!
//! Sessions run the documents AWS-StartSSHSession and AWS-StartNonInteractiveCommand and no others. `gateway`
//! serves their data channels.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Call, constraint::Constraints, error::ApiError, page::InvalidToken};
use crate::world::Instance;

mod describe;
mod session_calls;

/// Performs `operation`; `None` if there is no such operation.
pub(super) fn perform(call: &Call<'_>, operation: &str, body: &[u8]) -> Option<Result<String, ApiError>> {
    let output = match operation {
        "DescribeInstanceInformation" => read(body).and_then(|input| describe::instances(call, &input)),
        "DescribeSessions" => read(body).and_then(|input| describe::sessions(call, &input)),
        "GetConnectionStatus" => read(body).and_then(|input| connection_status(call, &input)),
        "ResumeSession" => read(body).and_then(|input| session_calls::resume(call, &input)),
        "StartSession" => read(body).and_then(|input| session_calls::start(call, input)),
        "TerminateSession" => read(body).and_then(|input| session_calls::terminate(call, &input)),
        _ => return None,
    };
    Some(output.map(|output| output.to_string()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetConnectionStatus {
    target: Option<String>,
}

fn connection_status(call: &Call<'_>, input: &GetConnectionStatus) -> Result<Value, ApiError> {
    let mut constraints = Constraints::default();
    let target = constraints.required("target", input.target.as_deref());
    constraints.length("target", input.target.as_deref(), 1, 400);
    constraints.finish()?;
    let connected = call.instance(target).is_some_and(Instance::is_managed);
    Ok(json!({"Target": target, "Status": if connected { "connected" } else { "notconnected" }}))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| ApiError::coral("SerializationException", error.to_string()))
}

impl From<InvalidToken> for ApiError {
    fn from(InvalidToken: InvalidToken) -> Self {
        Self::new("InvalidNextToken", "The specified token isn't valid.")
    }
}
