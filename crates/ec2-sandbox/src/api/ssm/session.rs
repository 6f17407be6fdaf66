//! StartSession, ResumeSession and TerminateSession.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{constraint, required};
use crate::{
    api::{Call, error::ApiError},
    world::{ACCOUNT, AwsRegion, Instance, Opening, SessionRecord, SessionState, StreamTicket},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StartSession {
    target: Option<String>,
    document_name: Option<String>,
    parameters: Option<BTreeMap<String, Vec<String>>>,
    reason: Option<String>,
}

/// Starts a session, after the checks in the order of AWS: form, permission, rate, document, target.
pub(super) fn start(call: &Call<'_>, input: StartSession) -> Result<Value, ApiError> {
    let target = required(input.target.as_deref(), "target", 400)?.to_owned();
    if let Some(reason) = &input.reason {
        required(Some(reason), "reason", 256)?;
        if reason.contains(['\r', '\n']) {
            return Err(constraint("reason", "Member must satisfy regular expression pattern: ^.{1,256}$"));
        }
    }
    let instance = call.instance(&target);
    if let Some(instance) = instance {
        if !instance.permits("ssm:StartSession") {
            return Err(call.denied("ssm:StartSession", &call.instance_arn(&target)));
        }
        if call.world.throttles(instance) {
            return Err(ApiError::new("ThrottlingException", "Rate exceeded"));
        }
    }
    let document = document(call.region, input.document_name.as_deref())?;
    let port = port(&input.parameters.unwrap_or_default())?;
    if !instance.is_some_and(Instance::is_managed) {
        return Err(ApiError::new("TargetNotConnected", format!("{target} is not connected.")));
    }
    let opening = Opening { target, region: call.region, document, port, reason: input.reason };
    let ticket = call
        .world
        .start_session(opening, &call.caller, call.now)
        .map_err(|_| ApiError::internal(INTERNAL))?;
    Ok(write(&ticket))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SessionIdInput {
    session_id: Option<String>,
}

/// Gives out a fresh token, an empty one if the session has ended.
pub(super) fn resume(call: &Call<'_>, input: &SessionIdInput) -> Result<Value, ApiError> {
    let id = permitted(call, input, "ssm:ResumeSession")?;
    let absent = || ApiError::new("DoesNotExistException", format!("Session with id {id} does not exist."));
    find(call, id).ok_or_else(absent)?;
    let ticket = call.world.resume_session(id).map_err(|_| ApiError::internal(INTERNAL))?;
    Ok(write(&ticket.ok_or_else(absent)?))
}

/// Ends a session.
///
/// An unknown id succeeds: the service model has no error for it, and cloud-custodian's pull request 8823
/// observes the same. A session that has ended already does not: gossm's pull request 49 quotes the error.
pub(super) fn terminate(call: &Call<'_>, input: &SessionIdInput) -> Result<Value, ApiError> {
    let id = permitted(call, input, "ssm:TerminateSession")?;
    if let Some(session) = find(call, id) {
        if session.state() == SessionState::Terminated {
            return Err(ApiError::new("ValidationException", "Session is not in a valid state"));
        }
        call.world.terminate(id, call.now);
    }
    Ok(json!({"SessionId": id}))
}

/// The session id, if the caller may perform `action` on the instance of that session.
fn permitted<'a>(call: &Call<'_>, input: &'a SessionIdInput, action: &str) -> Result<&'a str, ApiError> {
    let id = required(input.session_id.as_deref(), "sessionId", 96)?;
    let instance = find(call, id).and_then(|session| call.instance(&session.opening.target));
    if instance.is_some_and(|instance| !instance.permits(action)) {
        let resource = format!("arn:aws:ssm:{}:{ACCOUNT}:session/{id}", call.region);
        return Err(call.denied(action, &resource));
    }
    Ok(id)
}

/// The session with this id, unless it is in another region.
fn find(call: &Call<'_>, id: &str) -> Option<SessionRecord> {
    let sessions = call.world.sessions().into_iter();
    sessions.filter(|session| session.opening.region == call.region).find(|session| session.id == id)
}

fn write(ticket: &StreamTicket) -> Value {
    json!({"SessionId": ticket.session_id, "StreamUrl": ticket.stream_url, "TokenValue": ticket.token})
}

/// The name of the document, which may come as an ARN.
fn document(region: AwsRegion, name: Option<&str>) -> Result<String, ApiError> {
    // Without a name the account's shell document is meant.
    let name = name.unwrap_or("SSM-SessionManagerRunShell");
    let bare = name.strip_prefix("arn:aws:ssm:").and_then(|arn| arn.strip_prefix(region.name()));
    let bare = bare.and_then(|arn| arn.strip_prefix("::document/")).unwrap_or(name);
    if bare == SSH_DOCUMENT {
        return Ok(bare.to_owned());
    }
    Err(ApiError::new("InvalidDocument", format!("Document with name {name} does not exist.")))
}

/// The one parameter of the document, `portNumber`: a list of one.
fn port(parameters: &BTreeMap<String, Vec<String>>) -> Result<u16, ApiError> {
    if let Some(unknown) = parameters.keys().find(|name| *name != PORT) {
        let message = format!("Parameter {unknown} is not defined in the document.");
        return Err(ApiError::new("InvalidParameters", message));
    }
    let Some(values) = parameters.get(PORT) else { return Ok(22) };
    let port = match values.as_slice() {
        [value] if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0') => {
            value.parse()
        }
        _ => "".parse(),
    };
    port.map_err(|_| ApiError::new("InvalidParameters", format!("Parameter {PORT} has an invalid value.")))
}

const INTERNAL: &str = "InternalServerError";
const PORT: &str = "portNumber";
const SSH_DOCUMENT: &str = "AWS-StartSSHSession";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_may_be_an_arn_of_this_region() {
        for name in ["AWS-StartSSHSession", "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession"] {
            assert_eq!(document(AwsRegion::HOME, Some(name)), Ok("AWS-StartSSHSession".to_owned()));
        }
        for name in [
            None,
            Some("AWS-StartPortForwardingSession"),
            Some("arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession"),
        ] {
            assert!(document(AwsRegion::HOME, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_port_is_a_list_of_one_number() {
        let with = |values: &[&str]| {
            let values = values.iter().map(|value| (*value).to_owned()).collect();
            port(&BTreeMap::from([(PORT.to_owned(), values)]))
        };
        assert_eq!(port(&BTreeMap::new()), Ok(22));
        assert_eq!(with(&["2222"]), Ok(2222));
        for values in [&[][..], &[""], &["0"], &["+22"], &["65536"], &["22", "22"]] {
            assert!(with(values).is_err(), "{values:?}");
        }
        assert!(port(&BTreeMap::from([("host".to_owned(), vec![])])).is_err());
    }
}
