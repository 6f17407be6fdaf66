//! StartSession, ResumeSession and TerminateSession.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{Call, constraint::Constraints, error::ApiError},
    world::{ACCOUNT, AwsRegion, Instance, Opening, Purpose, SessionRecord, SessionState, StreamTicket},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StartSession {
    target: Option<String>,
    document_name: Option<String>,
    parameters: Option<BTreeMap<String, Vec<String>>>,
    reason: Option<String>,
}

/// Starts a session, after the checks in AWS's order: form, permission, rate, document, target.
pub(super) fn start(call: &Call<'_>, input: StartSession) -> Result<Value, ApiError> {
    let target = check_form(&input)?.to_owned();
    // The default is the account's shell document.
    let name = input.document_name.as_deref().unwrap_or("SSM-SessionManagerRunShell");
    let document = bare_name(call.region, name);
    if !call.world.allows_on(START, document) {
        return Err(call.denied(START, &format!("arn:aws:ssm:{}::document/{document}", call.region)));
    }
    let instance = call.instance(&target);
    if let Some(instance) = instance {
        if !call.permits(START, instance) {
            return Err(call.denied(START, &call.instance_arn(&target)));
        }
        if call.world.throttles(instance) {
            return Err(ApiError::new("ThrottlingException", "Rate exceeded"));
        }
    }
    let purpose = purpose(document, &input.parameters.unwrap_or_default())?;
    if !instance.is_some_and(Instance::is_managed) {
        return Err(ApiError::new("TargetNotConnected", format!("{target} is not connected.")));
    }
    let (region, document) = (call.region, document.to_owned());
    let opening = Opening { target, region, document, purpose, reason: input.reason };
    let ticket = call
        .world
        .start_session(opening, &call.caller, call.now)
        .map_err(|_| ApiError::internal(INTERNAL))?;
    Ok(write(&ticket))
}

/// Checks the constraints of the service model. Returns the target.
fn check_form(input: &StartSession) -> Result<&str, ApiError> {
    let mut constraints = Constraints::default();
    let target = constraints.required("target", input.target.as_deref());
    constraints.length("target", input.target.as_deref(), 1, 400);
    let document = input.document_name.as_deref();
    constraints.pattern("documentName", document, r"^[a-zA-Z0-9_\-.:/]{3,128}$", is_document_name);
    let reason = input.reason.as_deref();
    // An empty reason and a long one violate the pattern too; one error is enough.
    match reason {
        Some(text) if text.contains(['\r', '\n']) => {
            constraints.pattern("reason", reason, "^.{1,256}$", |_| false);
        }
        _ => constraints.length("reason", reason, 1, 256),
    }
    for (name, values) in input.parameters.iter().flatten() {
        constraints.length("parameters", Some(name), 1, 255);
        for (number, value) in (1..).zip(values) {
            let member = format!("parameters.{name}.member.{number}");
            constraints.length(&member, Some(value), 1, 65_535);
        }
    }
    constraints.finish().map(|()| target)
}

fn is_document_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte);
    (3..=128).contains(&name.len()) && name.bytes().all(allowed)
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SessionIdInput {
    session_id: Option<String>,
}

/// Returns a new token, an empty one if the session has ended.
pub(super) fn resume(call: &Call<'_>, input: &SessionIdInput) -> Result<Value, ApiError> {
    let id = permitted(call, input, "ssm:ResumeSession")?;
    let absent = || ApiError::new("DoesNotExistException", format!("Session with id {id} does not exist."));
    find(call, id).ok_or_else(absent)?;
    let ticket = call.world.resume_session(id, call.now).map_err(|_| ApiError::internal(INTERNAL))?;
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
    let mut constraints = Constraints::default();
    let id = constraints.required("sessionId", input.session_id.as_deref());
    constraints.length("sessionId", input.session_id.as_deref(), 1, 96);
    constraints.finish()?;
    let instance = find(call, id).and_then(|session| call.instance(&session.opening.target));
    if instance.is_some_and(|instance| !call.permits(action, instance)) {
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

/// The name of a document, which may be given as the ARN of AWS's document in this region.
fn bare_name(region: AwsRegion, name: &str) -> &str {
    let bare = name.strip_prefix("arn:aws:ssm:").and_then(|arn| arn.strip_prefix(region.name()));
    bare.and_then(|arn| arn.strip_prefix("::document/")).unwrap_or(name)
}

/// The work that a document does with its parameters.
fn purpose(document: &str, parameters: &BTreeMap<String, Vec<String>>) -> Result<Purpose, ApiError> {
    match document {
        COMMAND_DOCUMENT => {
            check_names(parameters, &[COMMAND, SEPARATE])?;
            let command = command(values(parameters, COMMAND))?;
            let separate = flag(values(parameters, SEPARATE), SEPARATE)?;
            Ok(if separate { Purpose::SeparateCommand(command) } else { Purpose::Command(command) })
        }
        SSH_DOCUMENT => {
            check_names(parameters, &[PORT])?;
            port(values(parameters, PORT)).map(Purpose::Port)
        }
        _ => Err(ApiError::new("InvalidDocument", format!("Document with name {document} does not exist."))),
    }
}

/// Refuses parameters that a document does not have.
fn check_names(parameters: &BTreeMap<String, Vec<String>>, known: &[&str]) -> Result<(), ApiError> {
    match parameters.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(ApiError::new(
            "InvalidParameters",
            format!("Parameter {unknown} is not defined in the document."),
        )),
        None => Ok(()),
    }
}

fn values<'a>(parameters: &'a BTreeMap<String, Vec<String>>, name: &str) -> Option<&'a [String]> {
    parameters.get(name).map(Vec::as_slice)
}

/// Reads a list of one `true` or `false`; false by default.
fn flag(values: Option<&[String]>, name: &str) -> Result<bool, ApiError> {
    match values {
        None => Ok(false),
        Some([value]) if value == "true" || value == "false" => Ok(value == "true"),
        Some(_) => Err(invalid(name)),
    }
}

/// Reads a list of one command, which is required.
fn command(values: Option<&[String]>) -> Result<String, ApiError> {
    match values {
        None => Err(ApiError::new("InvalidParameters", format!("Parameter {COMMAND} must have a value."))),
        Some([command]) if !command.is_empty() => Ok(command.clone()),
        Some(_) => Err(invalid(COMMAND)),
    }
}

/// Reads a list of one port; 22 by default.
fn port(values: Option<&[String]>) -> Result<u16, ApiError> {
    let Some(values) = values else { return Ok(22) };
    let port = match values {
        [value] if value.bytes().all(|byte| byte.is_ascii_digit()) && !value.starts_with('0') => {
            value.parse()
        }
        _ => "".parse(),
    };
    port.map_err(|_| invalid(PORT))
}

fn invalid(parameter: &str) -> ApiError {
    ApiError::new("InvalidParameters", format!("Parameter {parameter} has an invalid value."))
}

const COMMAND: &str = "command";
const COMMAND_DOCUMENT: &str = "AWS-StartNonInteractiveCommand";
const INTERNAL: &str = "InternalServerError";
const PORT: &str = "portNumber";
const SEPARATE: &str = "separateOutputStream";
const SSH_DOCUMENT: &str = "AWS-StartSSHSession";
const START: &str = "ssm:StartSession";

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: &str, values: &[&str]) -> BTreeMap<String, Vec<String>> {
        BTreeMap::from([(name.to_owned(), values.iter().map(|value| (*value).to_owned()).collect())])
    }

    #[test]
    fn the_document_may_be_an_arn_of_this_region() {
        for document in [SSH_DOCUMENT, COMMAND_DOCUMENT] {
            assert_eq!(bare_name(AwsRegion::HOME, document), document);
            let here = format!("arn:aws:ssm:us-east-1::document/{document}");
            assert_eq!(bare_name(AwsRegion::HOME, &here), document);
            let elsewhere = format!("arn:aws:ssm:eu-west-1::document/{document}");
            assert_eq!(bare_name(AwsRegion::HOME, &elsewhere), elsewhere);
        }
        let unknown =
            |name| ApiError::new("InvalidDocument", format!("Document with name {name} does not exist."));
        for document in ["SSM-SessionManagerRunShell", "AWS-StartPortForwardingSession", "arn:aws:ssm:"] {
            assert_eq!(purpose(document, &BTreeMap::new()).unwrap_err(), unknown(document));
        }
    }

    #[test]
    fn the_port_is_a_list_of_one_number() {
        let port = |values: &[&str]| purpose(SSH_DOCUMENT, &with(PORT, values));
        assert_eq!(purpose(SSH_DOCUMENT, &BTreeMap::new()), Ok(Purpose::Port(22)));
        assert_eq!(port(&["2222"]), Ok(Purpose::Port(2222)));
        for values in [&[][..], &[""], &["0"], &["+22"], &["65536"], &["22", "22"]] {
            assert!(port(values).is_err(), "{values:?}");
        }
        assert!(purpose(SSH_DOCUMENT, &with("host", &[])).is_err());
    }

    #[test]
    fn the_command_is_a_list_of_one_text() {
        let command = |values: &[&str]| purpose(COMMAND_DOCUMENT, &with(COMMAND, values));
        assert_eq!(command(&["true"]), Ok(Purpose::Command("true".to_owned())));
        for values in [&[][..], &[""], &["true", "true"]] {
            assert!(command(values).is_err(), "{values:?}");
        }
        let with_flag = |flag: &[&str]| {
            let mut parameters = with(COMMAND, &["true"]);
            parameters.extend(with(SEPARATE, flag));
            purpose(COMMAND_DOCUMENT, &parameters)
        };
        assert_eq!(with_flag(&["true"]), Ok(Purpose::SeparateCommand("true".to_owned())));
        assert_eq!(with_flag(&["false"]), Ok(Purpose::Command("true".to_owned())));
        assert!(with_flag(&["1"]).is_err() && with_flag(&[]).is_err());
        assert!(purpose(COMMAND_DOCUMENT, &BTreeMap::new()).is_err());
        assert!(purpose(COMMAND_DOCUMENT, &with(PORT, &["22"])).is_err());
    }
}
