//! IAM Identity Center's access portal: the accounts and roles of a signed-in user, and credentials for them.
//! Calls carry an access token instead of a signature.

use std::time::{Duration, SystemTime};

use http::{StatusCode, request::Parts};
use serde_json::{Value, json};

use super::{Call, error::ApiError, query::Query};
use crate::world::{ACCOUNT, Role, YOU};

/// Performs `operation`; `None` if there is no such operation.
pub(super) fn perform(call: &Call<'_>, operation: &str, parts: &Parts) -> Option<Result<String, ApiError>> {
    let operation = match operation {
        "GetRoleCredentials" => role_credentials,
        "ListAccountRoles" => account_roles,
        "ListAccounts" => accounts,
        "Logout" => |_: &Call<'_>, _: &Query| Ok(Value::Null),
        _ => return None,
    };
    let signs_out = parts.uri.path() == "/logout";
    let query = Query::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let output = check_token(call, parts, signs_out).and_then(|()| operation(call, &query));
    Some(output.map(|output| if output.is_null() { String::new() } else { output.to_string() }))
}

fn check_token(call: &Call<'_>, parts: &Parts, signs_out: bool) -> Result<(), ApiError> {
    let token = parts.headers.get(TOKEN).and_then(|token| token.to_str().ok()).unwrap_or_default();
    let accepted = call.world.identity_center(|identity_center| {
        let accepted = identity_center.accepts(token, call.now);
        if signs_out {
            identity_center.sign_out(token);
        }
        accepted
    });
    if accepted {
        return Ok(());
    }
    let refusal = ApiError::new("UnauthorizedException", "Session token not found or invalid");
    Err(refusal.with_status(StatusCode::UNAUTHORIZED))
}

fn role_credentials(call: &Call<'_>, query: &Query) -> Result<Value, ApiError> {
    check_account(query)?;
    if required(query, "role_name")? != ROLE {
        return Err(no_access());
    }
    let expires = call.now + ROLE_LIFE;
    let credentials = call.world.give_credentials(Role::SingleSignOn.session(YOU), expires);
    let credentials = credentials.map_err(|_| ApiError::internal("InternalServerException"))?;
    let since_1970 = expires.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(json!({"roleCredentials": {
        "accessKeyId": credentials.access_key_id,
        "secretAccessKey": credentials.secret_access_key,
        "sessionToken": credentials.session_token,
        "expiration": u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX),
    }}))
}

fn accounts(_: &Call<'_>, _: &Query) -> Result<Value, ApiError> {
    let account = json!({"accountId": ACCOUNT, "accountName": "sandbox", "emailAddress": "you@example.com"});
    Ok(json!({"accountList": [account]}))
}

fn account_roles(_: &Call<'_>, query: &Query) -> Result<Value, ApiError> {
    check_account(query)?;
    Ok(json!({"roleList": [{"roleName": ROLE, "accountId": ACCOUNT}]}))
}

fn check_account(query: &Query) -> Result<(), ApiError> {
    if required(query, "account_id")? == ACCOUNT { Ok(()) } else { Err(no_access()) }
}

fn required<'a>(query: &'a Query, name: &str) -> Result<&'a str, ApiError> {
    let missing = || ApiError::new("InvalidRequestException", format!("{name} is missing"));
    query.value(name).ok_or_else(missing)
}

/// The portal's error for an account or role that the user does not have. It is not in the service model.
fn no_access() -> ApiError {
    ApiError::new("ForbiddenException", "No access").with_status(StatusCode::FORBIDDEN)
}

/// The permission set of the one user.
const ROLE: &str = "sandbox";
/// The default session duration of a permission set.
const ROLE_LIFE: Duration = Duration::from_secs(60 * 60);
const TOKEN: &str = "x-amz-sso_bearer_token";
