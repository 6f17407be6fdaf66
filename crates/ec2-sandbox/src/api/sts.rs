//! STS: the caller's identity, and credentials for roles and after MFA.
//!
//! Unlike AWS, it ignores session policies, tags and source identities, and an MFA code works many times.

use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::{Call, error::ApiError, query::Query, xml::Xml};
use crate::{
    calendar,
    world::{ACCOUNT, Caller, Credentials, MFA_SERIAL, Origin, Role},
};

/// Performs `action`; `None` if there is no such action.
pub(super) fn perform(call: &Call<'_>, action: &str, query: &Query) -> Option<Result<String, ApiError>> {
    match action {
        "AssumeRole" => Some(assume_role(call, query)),
        "GetCallerIdentity" => Some(Ok(caller_identity(call))),
        "GetSessionToken" => Some(session_token(call, query)),
        _ => None,
    }
}

fn caller_identity(call: &Call<'_>) -> String {
    answer(call, "GetCallerIdentity", |xml| {
        xml.text("Arn", &call.caller.arn);
        xml.text("UserId", &call.caller.user_id);
        xml.text("Account", ACCOUNT);
    })
}

fn assume_role(call: &Call<'_>, query: &Query) -> Result<String, ApiError> {
    let arn = text(query, "RoleArn", 20, 2048, |_| true)?.ok_or_else(|| missing("roleArn"))?;
    let name = text(query, "RoleSessionName", 2, 64, |b| is_word(b) || b"+=,.@-".contains(&b))?
        .ok_or_else(|| missing("roleSessionName"))?;
    text(query, "ExternalId", 2, 1224, |b| is_word(b) || b"+=,.@:/-".contains(&b))?;
    let life = duration(query, 43_200)?.unwrap_or(HOUR);
    if !arn.starts_with("arn:aws:iam::") {
        return Err(invalid(format!("{arn} is invalid")));
    }
    let mfa = check_mfa(call, query)?;
    let role = Role::parse(arn).filter(|role| *role != Role::Mfa || mfa || call.caller.mfa);
    let role = role.ok_or_else(|| {
        let caller = &call.caller.arn;
        denied(format!("User: {caller} is not authorized to perform: sts:AssumeRole on resource: {arn}"))
    })?;
    if call.caller.origin == Origin::Role && life > HOUR {
        let limit = "the 1 hour session limit for roles assumed by role chaining.";
        return Err(invalid(format!("The requested DurationSeconds exceeds {limit}")));
    }
    let caller = role.session(name);
    let (credentials, expires) = give(call, caller.clone(), life)?;
    Ok(answer(call, "AssumeRole", |xml| {
        xml.element("AssumedRoleUser", |xml| {
            xml.text("AssumedRoleId", &caller.user_id);
            xml.text("Arn", &caller.arn);
        });
        write_credentials(xml, &credentials, expires);
    }))
}

fn session_token(call: &Call<'_>, query: &Query) -> Result<String, ApiError> {
    let life = duration(query, 129_600)?.unwrap_or(12 * HOUR);
    // The first credentials are temporary too, but emulate the long-lived ones of a user.
    if call.caller.origin != Origin::Start {
        return Err(denied("Cannot call GetSessionToken with session credentials"));
    }
    let mfa = check_mfa(call, query)?;
    let caller = Caller { origin: Origin::Session, mfa, ..call.caller.clone() };
    let (credentials, expires) = give(call, caller, life)?;
    Ok(answer(call, "GetSessionToken", |xml| write_credentials(xml, &credentials, expires)))
}

/// Whether the call has an MFA code. A wrong code is an error.
fn check_mfa(call: &Call<'_>, query: &Query) -> Result<bool, ApiError> {
    let serial = text(query, "SerialNumber", 9, 256, |b| is_word(b) || b"+=/:,.@-".contains(&b))?;
    let code = text(query, "TokenCode", 6, 6, |b| b.is_ascii_digit())?;
    let message = match (serial, code) {
        (None, None) => return Ok(false),
        (Some(MFA_SERIAL), Some(code)) if code == call.world.mfa_code() => return Ok(true),
        (Some(MFA_SERIAL), Some(_)) => " with invalid MFA one time pass code. ",
        (Some(_), Some(_)) => {
            ", unable to validate MFA code.  Please verify your MFA serial number is valid and associated with \
             this user."
        }
        _ => ", must provide both MFA serial number and one time pass code. ",
    };
    Err(denied(format!("MultiFactorAuthentication failed{message}")))
}

/// Credentials for `caller`, and their expiry at a whole second, since the response has no fractions.
fn give(call: &Call<'_>, caller: Caller, life: Duration) -> Result<(Credentials, SystemTime), ApiError> {
    let since_1970 = call.now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expires = SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs()) + life;
    let credentials = call.world.give_credentials(caller, expires);
    Ok((credentials.map_err(|_| ApiError::internal("InternalFailure"))?, expires))
}

fn answer(call: &Call<'_>, action: &str, result: impl FnOnce(&mut Xml)) -> String {
    let mut xml = Xml::document();
    xml.root(&format!("{action}Response"), NAMESPACE, |xml| {
        xml.element(&format!("{action}Result"), result);
        xml.element("ResponseMetadata", |xml| xml.text("RequestId", call.request_id));
    });
    xml.finish()
}

fn write_credentials(xml: &mut Xml, credentials: &Credentials, expires: SystemTime) {
    xml.element("Credentials", |xml| {
        xml.text("AccessKeyId", &credentials.access_key_id);
        xml.text("SecretAccessKey", &credentials.secret_access_key);
        xml.text("SessionToken", credentials.session_token.as_deref().unwrap_or_default());
        xml.text("Expiration", calendar::whole_seconds(expires));
    });
}

/// Checks that a parameter, if present, has between `low` and `high` characters of its alphabet.
fn text<'a>(
    query: &'a Query,
    name: &str,
    low: usize,
    high: usize,
    alphabet: fn(u8) -> bool,
) -> Result<Option<&'a str>, ApiError> {
    let Some(value) = query.value(name) else { return Ok(None) };
    let rule = match value.chars().count() {
        length if length < low => format!("Member must have length greater than or equal to {low}"),
        length if length > high => format!("Member must have length less than or equal to {high}"),
        _ if !value.bytes().all(alphabet) => "Member must satisfy its regular expression pattern".to_owned(),
        _ => return Ok(Some(value)),
    };
    Err(constraint(&format!("'{value}'"), name, &rule))
}

/// The requested life of credentials, between 15 minutes and `most` seconds.
fn duration(query: &Query, most: u64) -> Result<Option<Duration>, ApiError> {
    let Some(value) = query.value("DurationSeconds") else { return Ok(None) };
    let rule = match value.parse() {
        Ok(0..900) => "Member must have value greater than or equal to 900".to_owned(),
        Ok(seconds) if seconds <= most => return Ok(Some(Duration::from_secs(seconds))),
        _ => format!("Member must have value less than or equal to {most}"),
    };
    Err(constraint(&format!("'{value}'"), "DurationSeconds", &rule))
}

fn missing(name: &str) -> ApiError {
    constraint("null", name, "Member must not be null")
}

/// `name` is the parameter's name. AWS writes the member's name, which begins with a small letter.
fn constraint(value: &str, name: &str, rule: &str) -> ApiError {
    let (first, rest) = name.split_at(1);
    let member = first.to_lowercase() + rest;
    let found = format!("Value {value} at '{member}' failed to satisfy constraint: {rule}");
    invalid(format!("1 validation error detected: {found}"))
}

fn invalid(message: String) -> ApiError {
    ApiError::new("ValidationError", message)
}

fn denied(message: impl Into<String>) -> ApiError {
    ApiError::new("AccessDenied", message).with_status(StatusCode::FORBIDDEN)
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// The namespace of every answer.
pub(super) const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const HOUR: Duration = Duration::from_secs(60 * 60);
