//! The credentials of `aws login`, refreshed while its session lasts.
//!
//! They are valid for a quarter of an hour. Their file has what a refresh needs: a token for one use, and the
//! key that has to sign for it. The AWS CLI (botocore, `LoginCredentialFetcher`) and this program refresh the
//! same file, so it has to stay whole: fields that only the CLI uses are kept.

mod proof;

use std::path::Path;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use http::Method;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use self::proof::Key;
use crate::aws::client::endpoint::RegionEndpoints;
use crate::aws::client::service::SIGN_IN;
use crate::aws::client::unsigned::{UnsignedClient, UnsignedError, UnsignedRequest};
use crate::aws::credentials::expiry;
use crate::aws::credentials::sign_in::SignIn;
use crate::aws::credentials::token_file::{Fields, TokenFile, text};
use crate::aws::error::AwsError;
use crate::aws::timestamp;

/// The sign-in of a profile with `login_session`.
pub(crate) struct AwsLogin {
    sdk: SdkConfig,
    endpoints: RegionEndpoints,
    token: TokenFile,
}

impl AwsLogin {
    /// The sign-in of a session, by its ARN. `directory` is the cache of `aws login`:
    /// AWS_LOGIN_CACHE_DIRECTORY, or `~/.aws/login/cache`.
    pub(crate) fn new(session: &str, sdk: &SdkConfig, endpoints: &RegionEndpoints, directory: &Path) -> Self {
        let token = TokenFile::new(directory, Sha256::digest(session));
        Self { sdk: sdk.clone(), endpoints: endpoints.clone(), token }
    }

    /// The credentials, refreshed if they are about to expire.
    ///
    /// # Errors
    ///
    /// [`AwsError::SignedOut`], and those of a call.
    pub(crate) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let signed_out = |why: &str| AwsError::SignedOut { sign_in: sign_in.clone(), why: why.to_owned() };
        let (_, credentials) = self.read(&signed_out)?;
        if lasts(&credentials, REFRESH_WINDOW) {
            return Ok(credentials);
        }
        let _turn = self.token.turn(TURN_TIMEOUT).await;
        // Another process may have refreshed them meanwhile.
        let (token, credentials) = self.read(&signed_out)?;
        if lasts(&credentials, REFRESH_WINDOW) {
            return Ok(credentials);
        }
        match self.refresh(token).await {
            Ok(credentials) => Ok(credentials),
            Err(error) if lasts(&credentials, Duration::ZERO) => {
                let error = AwsError::from(error);
                tracing::info!("the sign-in cannot be refreshed, and is used while it lasts: {error}");
                Ok(credentials)
            }
            Err(error) => Err(of_refresh(error, &signed_out)),
        }
    }

    fn read(&self, signed_out: &impl Fn(&str) -> AwsError) -> Result<(Fields, Credentials), AwsError> {
        let token = self.token.read().map_err(|error| signed_out(&format!("is not trusted: {error}")))?;
        let token = token.ok_or_else(|| signed_out("is missing"))?;
        if NEEDED.iter().any(|name| token.text(name).is_none()) {
            return Err(signed_out("is incomplete"));
        }
        let credentials = credentials(&token.0).ok_or_else(|| signed_out("is incomplete"))?;
        Ok((token, credentials))
    }

    async fn refresh(&self, mut token: Fields) -> Result<Credentials, UnsignedError> {
        // Earlier versions of the CLI did not write the region of the session.
        let region = token.text("signInRegion").unwrap_or(&self.endpoints.region);
        let client = UnsignedClient::new(&self.sdk, &self.endpoints, region);
        let endpoint =
            client.endpoint(&SIGN_IN, RegionEndpoints::sign_in_endpoint).map_err(UnsignedError::Failed)?;
        let unusable = |what: &str| AwsError::Malformed { action: ACTION.into(), source: what.into() };
        let key = Key::read(token.text("dpopKey").unwrap_or_default());
        let proof = key.and_then(|key| key.prove(&format!("{endpoint}{PATH}"), SystemTime::now()));
        let proof =
            proof.ok_or_else(|| UnsignedError::Failed(unusable("the key in its file cannot sign")))?;
        let request = UnsignedRequest {
            service: &SIGN_IN,
            operation: "CreateOAuth2Token",
            endpoint: &endpoint,
            method: Method::POST,
            path: PATH.into(),
            header: Some(("DPoP", proof)),
            body: Some(json!({
                "clientId": token.text("clientId"),
                "grantType": "refresh_token",
                "refreshToken": token.text("refreshToken"),
            })),
        };
        let response = client.call(request).await?;
        let renewed = renew(&mut token.0, &response, SystemTime::now());
        let credentials = renewed.ok_or_else(|| UnsignedError::Failed(unusable("it has no credentials")))?;
        match self.token.replace(&token.0) {
            Ok(()) => tracing::info!("the sign-in of `aws login` was refreshed"),
            // The token in the file is used up. The CLI's next refresh will fail and ask for a new sign-in.
            Err(error) => tracing::warn!("the refreshed sign-in of `aws login` cannot be kept: {error}"),
        }
        Ok(credentials)
    }
}

/// Puts what was refreshed into the fields of the file; all others stay.
fn renew(
    token: &mut Map<String, Value>,
    response: &Map<String, Value>,
    now: SystemTime,
) -> Option<Credentials> {
    let new = response.get(ACCESS_TOKEN)?.as_object()?;
    let seconds = response.get("expiresIn")?.as_u64()?;
    // The file has whole seconds, rounded down: it must not promise too much.
    let since = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs().checked_add(seconds)?;
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(since))?;
    let refresh_token = text(response, "refreshToken")?;
    let kept = token.get_mut(ACCESS_TOKEN)?.as_object_mut()?;
    for name in ["accessKeyId", "secretAccessKey", "sessionToken"] {
        kept.insert(name.into(), text(new, name)?.into());
    }
    kept.insert("expiresAt".into(), timestamp(expires).into());
    token.insert("refreshToken".into(), refresh_token.into());
    credentials(token)
}

fn credentials(token: &Map<String, Value>) -> Option<Credentials> {
    let fields = token.get(ACCESS_TOKEN)?.as_object()?;
    let text = |name: &str| text(fields, name).map(str::to_owned);
    let expires = expiry::read(&text("expiresAt")?)?;
    let (id, secret) = (text("accessKeyId")?, text("secretAccessKey")?);
    Some(Credentials::new(id, secret, Some(text("sessionToken")?), Some(expires), "aws login"))
}

fn lasts(credentials: &Credentials, margin: Duration) -> bool {
    credentials.expiry().is_some_and(|time| time > SystemTime::now() + margin)
}

fn of_refresh(error: UnsignedError, signed_out: &impl Fn(&str) -> AwsError) -> AwsError {
    let UnsignedError::Response { action, response } = error else { return error.into() };
    match response.oauth_error.as_str() {
        "TOKEN_EXPIRED" => signed_out("has expired"),
        "USER_CREDENTIALS_CHANGED" => signed_out("is not valid any more: the password was changed"),
        "INSUFFICIENT_PERMISSIONS" => AwsError::AccessDenied {
            action,
            subject: "the sign-in of `aws login`".into(),
            principal: None,
            message: response.message,
            request_id: None,
        },
        _ => UnsignedError::Response { action, response }.into(),
    }
}

const ACTION: &str = "signin:CreateOAuth2Token";
const PATH: &str = "/v1/token";
const ACCESS_TOKEN: &str = "accessToken";
/// The CLI treats a file without one of these as damaged.
const NEEDED: [&str; 3] = ["refreshToken", "dpopKey", "clientId"];
/// As in the CLI: a token that expires within this time is refreshed.
const REFRESH_WINDOW: Duration = Duration::from_secs(5 * 60);
/// A call with all its retries.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
