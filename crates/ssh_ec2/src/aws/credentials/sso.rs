//! IAM Identity Center: exchanges the user's sign-in for the credentials of a role in an account.
//!
//! The token of the sign-in is in a file of the AWS CLI. A token that can be refreshed is refreshed here as
//! the CLI does it (botocore, `SSOTokenProvider`), but by one process at a time. Where only a new sign-in
//! helps, it is offered once, on the terminal, before there is a connection.

mod device_flow;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use http::Method;
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use crate::aws::client::endpoint::RegionEndpoints;
use crate::aws::client::query::encode;
use crate::aws::client::service::{SSO, SSO_OIDC};
use crate::aws::client::unsigned::{UnsignedClient, UnsignedError, UnsignedRequest};
use crate::aws::credentials::identity::Sso;
use crate::aws::credentials::sign_in::SignIn;
use crate::aws::credentials::token_file::{Fields, TokenFile, text};
use crate::aws::error::AwsError;
use crate::aws::timestamp;

/// A role in an account, whose credentials Identity Center gives for a sign-in.
pub(crate) struct SsoRole {
    sso: Sso,
    client: UnsignedClient,
    token: TokenFile,
    may_ask: AtomicBool,
}

impl SsoRole {
    /// The calls go to the region of Identity Center, which can be another than that of the instances.
    pub(crate) fn new(
        sso: Sso,
        sdk: &SdkConfig,
        endpoints: &RegionEndpoints,
        home: &Path,
        may_ask: bool,
    ) -> Self {
        let key = Sha1::digest(sso.session.as_ref().unwrap_or(&sso.start_url));
        Self {
            client: UnsignedClient::new(sdk, endpoints, &sso.region),
            token: TokenFile::new(&home.join(".aws/sso/cache"), key),
            sso,
            may_ask: AtomicBool::new(may_ask),
        }
    }

    /// Forbids prompts: from now on ssh uses the terminal.
    pub(crate) fn ask_no_more(&self) {
        self.may_ask.store(false, Ordering::Relaxed);
    }

    /// Exchanges the sign-in for the role's credentials, after a new sign-in if one is needed.
    ///
    /// # Errors
    ///
    /// [`AwsError`].
    pub(crate) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let error = match self.exchange(sign_in).await {
            Err(error @ AwsError::SignedOut { .. }) if self.may_ask.load(Ordering::Relaxed) => error,
            result => return result,
        };
        if self.log_in(sign_in).await? { self.exchange(sign_in).await } else { Err(error) }
    }

    async fn exchange(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let signed_out = |why: &str| AwsError::SignedOut { sign_in: sign_in.clone(), why: why.to_owned() };
        let token = self.token(&signed_out).await?;
        let response = match self.role_credentials(&token).await {
            Ok(response) => response,
            Err(error) => {
                return Err(match error.code() {
                    "UnauthorizedException" => signed_out("is not valid any more"),
                    // AWS does not say whether there is such an account.
                    "ForbiddenException" | "ResourceNotFoundException" => AwsError::NoRole {
                        role: self.sso.role_name.clone(),
                        account: self.sso.account_id.clone(),
                        sign_in: sign_in.clone(),
                    },
                    _ => error.into(),
                });
            }
        };
        read(&response).ok_or_else(|| AwsError::Malformed {
            action: "sso:GetRoleCredentials".into(),
            source: "it holds no credentials".into(),
        })
    }

    async fn role_credentials(&self, token: &Fields) -> Result<Map<String, Value>, UnsignedError> {
        let endpoint =
            self.client.endpoint(&SSO, |place| place.endpoint(&SSO)).map_err(UnsignedError::Failed)?;
        let mut path = "/federation/credentials?role_name=".to_owned();
        encode(&self.sso.role_name, &mut path);
        path.push_str("&account_id=");
        encode(&self.sso.account_id, &mut path);
        let access_token = token.text(ACCESS_TOKEN).unwrap_or_default().to_owned();
        let request = UnsignedRequest {
            service: &SSO,
            operation: "GetRoleCredentials",
            endpoint: &endpoint,
            method: Method::GET,
            path,
            header: Some(("x-amz-sso_bearer_token", access_token)),
            body: None,
        };
        self.client.call(request).await
    }

    /// The token, refreshed if it is about to expire and can be.
    async fn token(&self, signed_out: &impl Fn(&str) -> AwsError) -> Result<Fields, AwsError> {
        let read = || match self.token.read() {
            Ok(Some(token)) if token.text(ACCESS_TOKEN).is_some() => Ok(token),
            Ok(_) => Err(signed_out("is missing")),
            // A new sign-in replaces the file.
            Err(error) => Err(signed_out(&format!("is not trusted: {error}"))),
        };
        let token = read()?;
        if is_valid(&token, REFRESH_WINDOW) || !self.is_refreshable(&token) {
            return if is_valid(&token, Duration::ZERO) { Ok(token) } else { Err(signed_out("has expired")) };
        }
        // A refresh token may be good for one use only.
        let _turn = self.token.turn(TURN_TIMEOUT).await;
        let token = read()?;
        if is_valid(&token, REFRESH_WINDOW) {
            return Ok(token);
        }
        match self.refresh(&token).await {
            Ok(token) => Ok(token),
            Err(error) if is_valid(&token, Duration::ZERO) => {
                let error = AwsError::from(error);
                tracing::info!("the sign-in cannot be refreshed, and is used while it lasts: {error}");
                Ok(token)
            }
            Err(UnsignedError::Response { response, .. }) if !is_temporary(&response.code) => {
                Err(signed_out("has expired"))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether the file has all that a refresh needs. Without an `sso-session` the token is not refreshed, as
    /// in the CLI.
    fn is_refreshable(&self, token: &Fields) -> bool {
        let registered = token.time("registrationExpiresAt").is_some_and(|time| time > SystemTime::now());
        self.sso.session.is_some()
            && registered
            && ["clientId", "clientSecret", REFRESH_TOKEN].iter().all(|name| token.text(name).is_some())
    }

    async fn refresh(&self, token: &Fields) -> Result<Fields, UnsignedError> {
        let body = json!({
            "clientId": token.text("clientId"),
            "clientSecret": token.text("clientSecret"),
            "grantType": "refresh_token",
            "refreshToken": token.text(REFRESH_TOKEN),
        });
        let response = self.oidc("CreateToken", "/token", body).await?;
        let mut token = token.clone();
        self.renew(&mut token.0, &response).map_err(UnsignedError::Failed)?;
        match self.token.replace(&token.0) {
            Ok(()) => tracing::info!("the sign-in with IAM Identity Center was refreshed"),
            Err(error) => tracing::info!("cannot keep the refreshed sign-in: {error}"),
        }
        Ok(token)
    }

    /// Puts what was refreshed into the fields of the file; all others stay.
    fn renew(&self, token: &mut Map<String, Value>, response: &Map<String, Value>) -> Result<(), AwsError> {
        let malformed = || AwsError::Malformed {
            action: "sso-oidc:CreateToken".into(),
            source: "it has no token".into(),
        };
        let access_token = text(response, ACCESS_TOKEN).ok_or_else(malformed)?;
        let seconds = response.get("expiresIn").and_then(Value::as_u64).ok_or_else(malformed)?;
        let expires = SystemTime::now().checked_add(Duration::from_secs(seconds)).ok_or_else(malformed)?;
        token.insert("startUrl".into(), self.sso.start_url.as_str().into());
        token.insert("region".into(), self.sso.region.as_str().into());
        token.insert(ACCESS_TOKEN.into(), access_token.into());
        token.insert("expiresAt".into(), whole_seconds(expires).into());
        if let Some(refresh_token) = text(response, REFRESH_TOKEN) {
            token.insert(REFRESH_TOKEN.into(), refresh_token.into());
        }
        Ok(())
    }

    /// Calls the service that issues tokens.
    async fn oidc(
        &self,
        operation: &'static str,
        path: &str,
        body: Value,
    ) -> Result<Map<String, Value>, UnsignedError> {
        let endpoint = self
            .client
            .endpoint(&SSO_OIDC, |place| place.endpoint(&SSO_OIDC))
            .map_err(UnsignedError::Failed)?;
        let request = UnsignedRequest {
            service: &SSO_OIDC,
            operation,
            endpoint: &endpoint,
            method: Method::POST,
            path: path.to_owned(),
            header: None,
            body: Some(body),
        };
        self.client.call(request).await
    }
}

/// Whether a token lasts for longer than `margin`.
fn is_valid(token: &Fields, margin: Duration) -> bool {
    token.time("expiresAt").is_some_and(|time| time > SystemTime::now() + margin)
}

/// Whether an error has nothing to do with the sign-in, so that a new sign-in would not help.
fn is_temporary(code: &str) -> bool {
    TEMPORARY.iter().any(|temporary| code.starts_with(temporary))
}

/// The credentials in a response. They expire at a number of milliseconds since 1970.
fn read(response: &Map<String, Value>) -> Option<Credentials> {
    let fields = response.get("roleCredentials")?.as_object()?;
    let text = |name: &str| text(fields, name).map(str::to_owned);
    let milliseconds = fields.get("expiration")?.as_u64()?;
    let expires = SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))?;
    let (id, secret) = (text("accessKeyId")?, text("secretAccessKey")?);
    Some(Credentials::new(id, secret, Some(text("sessionToken")?), Some(expires), "IAM Identity Center"))
}

/// A time as the CLI writes it into its files.
fn whole_seconds(time: SystemTime) -> String {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    timestamp(SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs()))
}

const ACCESS_TOKEN: &str = "accessToken";
const REFRESH_TOKEN: &str = "refreshToken";
/// The beginnings of error codes, or of the HTTP status that stands for one.
const TEMPORARY: [&str; 6] =
    ["TooManyRequests", "SlowDown", "Throttling", "InternalServer", "ServiceUnavailable", "status 5"];
/// As in the CLI: a token that expires within this time is refreshed at its next use.
const REFRESH_WINDOW: Duration = Duration::from_secs(15 * 60);
/// The user may be signing in through another process.
const TURN_TIMEOUT: Duration = Duration::from_secs(300);
