//! The device flow of IAM Identity Center's OIDC service: a client registers, starts a device authorization,
//! and polls for tokens until the user has approved it. The calls are not signed.
//!
//! The authorization code flow, which needs a browser, is left out.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::{Call, error::ApiError};
use crate::world::{DEVICE_LIFE, SignInError};

/// Performs `operation`; `None` if there is no such operation.
pub(super) fn perform(call: &Call<'_>, operation: &str, body: &[u8]) -> Option<Result<String, ApiError>> {
    let output = match operation {
        "CreateToken" => read(body).and_then(|input| create_token(call, &input)),
        "RegisterClient" => read(body).and_then(|input| register_client(call, &input)),
        "StartDeviceAuthorization" => read(body).and_then(|input| start_device(call, &input)),
        _ => return None,
    };
    Some(output.map(|output| output.to_string()))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RegisterClient {
    client_name: String,
    client_type: String,
    #[serde(default)]
    scopes: Vec<String>,
}

fn register_client(call: &Call<'_>, input: &RegisterClient) -> Result<Value, ApiError> {
    if input.client_name.is_empty() || input.client_type != "public" {
        return Err(ApiError::new("InvalidClientMetadataException", "Only public clients are supported"));
    }
    let has_scope = !input.scopes.is_empty();
    let registration =
        call.world.identity_center(|identity_center| identity_center.register(has_scope, call.now))?;
    Ok(json!({
        "clientId": registration.client_id,
        "clientSecret": registration.client_secret,
        "clientIdIssuedAt": seconds(call.now),
        "clientSecretExpiresAt": seconds(registration.expires),
    }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct StartDeviceAuthorization {
    client_id: String,
    client_secret: String,
    start_url: String,
}

fn start_device(call: &Call<'_>, input: &StartDeviceAuthorization) -> Result<Value, ApiError> {
    // The console shows the URL with `/#` at its end.
    if input.start_url.trim_end_matches(['#', '/']) != START_URL {
        return Err(invalid("Invalid start URL"));
    }
    let codes = call.world.identity_center(|identity_center| {
        identity_center.authorize_device(&input.client_id, &input.client_secret, call.now)
    })?;
    let page = call.world.device_page();
    Ok(json!({
        "deviceCode": codes.device_code,
        "userCode": codes.user_code,
        "verificationUri": page,
        "verificationUriComplete": format!("{page}?user_code={}", codes.user_code),
        "expiresIn": DEVICE_LIFE.as_secs(),
        "interval": 1,
    }))
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreateToken {
    client_id: String,
    client_secret: String,
    grant_type: String,
    device_code: Option<String>,
    refresh_token: Option<String>,
}

fn create_token(call: &Call<'_>, input: &CreateToken) -> Result<Value, ApiError> {
    let (id, secret) = (&input.client_id, &input.client_secret);
    let tokens = match input.grant_type.as_str() {
        DEVICE_GRANT => {
            let code = input.device_code.as_deref().ok_or_else(|| invalid("deviceCode is missing"))?;
            call.world.identity_center(|identity_center| {
                identity_center.device_tokens(id, secret, code, call.now)
            })?
        }
        "refresh_token" => {
            let token = input.refresh_token.as_deref().ok_or_else(|| invalid("refreshToken is missing"))?;
            call.world.identity_center(|identity_center| {
                identity_center.refreshed_tokens(id, secret, token, call.now)
            })?
        }
        _ => return Err(ApiError::new("UnsupportedGrantTypeException", "Grant type is not supported")),
    };
    let mut output = json!({
        "accessToken": tokens.access,
        "tokenType": "Bearer",
        "expiresIn": tokens.life.as_secs(),
    });
    if let Some(refresh) = tokens.refresh {
        output["refreshToken"] = json!(refresh);
    }
    Ok(output)
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| invalid(&error.to_string()))
}

fn invalid(message: &str) -> ApiError {
    ApiError::new("InvalidRequestException", message)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).as_ref().map_or(0, Duration::as_secs)
}

impl From<SignInError> for ApiError {
    fn from(refusal: SignInError) -> Self {
        match refusal {
            SignInError::Client => Self::new("InvalidClientException", "Invalid client credentials")
                .with_status(StatusCode::UNAUTHORIZED),
            SignInError::Expired => Self::new("ExpiredTokenException", "Device code has expired"),
            SignInError::Grant => Self::new("InvalidGrantException", "Invalid grant provided"),
            SignInError::Pending => {
                Self::new("AuthorizationPendingException", "Authorization is still pending")
            }
            SignInError::Internal => Self::internal("InternalServerException"),
        }
    }
}

const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
const START_URL: &str = "https://sandbox.awsapps.com/start";
