//! IAM Identity Center: a person's sign-in, and the role in an account that it is exchanged for.
//!
//! The token lies in a file of the AWS CLI's. One that can be refreshed is refreshed here as the CLI does it
//! (botocore, `SSOTokenProvider`), but by one process at a time. Where only signing in helps, that is offered
//! once, before there is a connection, to a person at a terminal.

mod device_flow;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use http::Method;
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use crate::aws::client::endpoint::{Place, SSO, SSO_OIDC};
use crate::aws::client::query::encode;
use crate::aws::client::unsigned::{Denial, Request, Unsigned};
use crate::aws::credentials::cache::SignIn;
use crate::aws::credentials::identity::Sso;
use crate::aws::credentials::token_file::{Fields, TokenFile, text};
use crate::aws::error::AwsError;
use crate::aws::timestamp;

/// Credentials of a role, for a person who has signed in.
pub(in crate::aws) struct SingleSignOn {
    sso: Sso,
    calls: Unsigned,
    token: TokenFile,
    may_ask: AtomicBool,
}

impl SingleSignOn {
    /// The calls go to the region of Identity Center, which need not be that of the instances.
    pub(in crate::aws) fn new(sso: Sso, sdk: &SdkConfig, place: &Place, home: &Path, may_ask: bool) -> Self {
        let key = Sha1::digest(sso.session.as_ref().unwrap_or(&sso.start_url));
        Self {
            calls: Unsigned::new(sdk, place, &sso.region),
            token: TokenFile::new(&home.join(".aws/sso/cache"), key),
            sso,
            may_ask: AtomicBool::new(may_ask),
        }
    }

    /// From here on the terminal is ssh's.
    pub(in crate::aws) fn ask_no_more(&self) {
        self.may_ask.store(false, Ordering::Relaxed);
    }

    /// Exchanges the sign-in for the role's credentials; signs in first if that is what it takes.
    ///
    /// # Errors
    ///
    /// [`AwsError`].
    pub(in crate::aws) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let error = match self.exchange(sign_in).await {
            Err(error @ AwsError::SignedOut { .. }) if self.may_ask.load(Ordering::Relaxed) => error,
            result => return result,
        };
        if self.sign_on(sign_in).await? { self.exchange(sign_in).await } else { Err(error) }
    }

    async fn exchange(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let signed_out = |why: &str| AwsError::SignedOut { sign_in: sign_in.clone(), why: why.to_owned() };
        let token = self.token(&signed_out).await?;
        let answer = match self.role_credentials(&token).await {
            Ok(answer) => answer,
            Err(Denial::Refused { code, .. }) if code == "UnauthorizedException" => {
                return Err(signed_out("is not valid any more"));
            }
            // AWS does not say whether there is such an account.
            Err(Denial::Refused { code, .. })
                if ["ForbiddenException", "ResourceNotFoundException"].contains(&code.as_str()) =>
            {
                return Err(AwsError::NoRole {
                    role: self.sso.role_name.clone(),
                    account: self.sso.account_id.clone(),
                    sign_in: sign_in.clone(),
                });
            }
            Err(denial) => return Err(denial.into()),
        };
        read(&answer).ok_or_else(|| AwsError::Malformed {
            action: "sso:GetRoleCredentials".into(),
            source: "it holds no credentials".into(),
        })
    }

    async fn role_credentials(&self, token: &Fields) -> Result<Map<String, Value>, Denial> {
        let endpoint = self.calls.endpoint(&SSO, |place| place.endpoint(&SSO)).map_err(Denial::Failed)?;
        let mut path = "/federation/credentials?role_name=".to_owned();
        encode(&self.sso.role_name, &mut path);
        path.push_str("&account_id=");
        encode(&self.sso.account_id, &mut path);
        let access_token = token.text(ACCESS_TOKEN).unwrap_or_default().to_owned();
        let request = Request {
            service: &SSO,
            operation: "GetRoleCredentials",
            endpoint: &endpoint,
            method: Method::GET,
            path,
            header: Some(("x-amz-sso_bearer_token", access_token)),
            body: None,
        };
        self.calls.call(request).await
    }

    /// The token, refreshed if it is about to expire and can be.
    async fn token(&self, signed_out: &impl Fn(&str) -> AwsError) -> Result<Fields, AwsError> {
        let read = || match self.token.read() {
            Ok(Some(token)) if token.text(ACCESS_TOKEN).is_some() => Ok(token),
            Ok(_) => Err(signed_out("is missing")),
            // Signing in writes another one.
            Err(error) => Err(signed_out(&format!("is not believed: {error}"))),
        };
        let token = read()?;
        if is_valid(&token, REFRESH_WINDOW) || !self.is_refreshable(&token) {
            return if is_valid(&token, Duration::ZERO) { Ok(token) } else { Err(signed_out("has expired")) };
        }
        // Refresh tokens may be good for one use.
        let _turn = self.token.turn(TURN_TIMEOUT).await;
        let token = read()?;
        if is_valid(&token, REFRESH_WINDOW) {
            return Ok(token);
        }
        match self.refresh(&token).await {
            Ok(token) => Ok(token),
            Err(error) if is_valid(&token, Duration::ZERO) => {
                tracing::info!(
                    "the sign-in is used as it is: it cannot be refreshed: {}",
                    AwsError::from(error)
                );
                Ok(token)
            }
            Err(Denial::Refused { code, .. }) if !may_pass(&code) => Err(signed_out("has expired")),
            Err(denial) => Err(denial.into()),
        }
    }

    /// Whether the file has all that a refresh needs; a token of a start URL alone is not refreshed, as in
    /// the CLI.
    fn is_refreshable(&self, token: &Fields) -> bool {
        let registered = token.time("registrationExpiresAt").is_some_and(|time| time > SystemTime::now());
        self.sso.session.is_some()
            && registered
            && ["clientId", "clientSecret", REFRESH_TOKEN].iter().all(|name| token.text(name).is_some())
    }

    async fn refresh(&self, token: &Fields) -> Result<Fields, Denial> {
        let body = json!({
            "clientId": token.text("clientId"),
            "clientSecret": token.text("clientSecret"),
            "grantType": "refresh_token",
            "refreshToken": token.text(REFRESH_TOKEN),
        });
        let answer = self.oidc("CreateToken", "/token", body).await?;
        let mut token = token.clone();
        self.renew(&mut token.0, &answer).map_err(Denial::Failed)?;
        match self.token.replace(&token.0) {
            Ok(()) => tracing::info!("the sign-in with IAM Identity Center was refreshed"),
            Err(error) => tracing::info!("the refreshed sign-in cannot be kept: {error}"),
        }
        Ok(token)
    }

    /// Takes what is new into a token's fields; all others stay.
    fn renew(&self, token: &mut Map<String, Value>, answer: &Map<String, Value>) -> Result<(), AwsError> {
        let malformed = || AwsError::Malformed {
            action: "sso-oidc:CreateToken".into(),
            source: "it has no token".into(),
        };
        let access_token = text(answer, ACCESS_TOKEN).ok_or_else(malformed)?;
        let seconds = answer.get("expiresIn").and_then(Value::as_u64).ok_or_else(malformed)?;
        let expires = SystemTime::now().checked_add(Duration::from_secs(seconds)).ok_or_else(malformed)?;
        token.insert("startUrl".into(), self.sso.start_url.as_str().into());
        token.insert("region".into(), self.sso.region.as_str().into());
        token.insert(ACCESS_TOKEN.into(), access_token.into());
        token.insert("expiresAt".into(), whole_seconds(expires).into());
        if let Some(refresh_token) = text(answer, REFRESH_TOKEN) {
            token.insert(REFRESH_TOKEN.into(), refresh_token.into());
        }
        Ok(())
    }

    /// Calls the service that hands out tokens.
    async fn oidc(
        &self,
        operation: &'static str,
        path: &str,
        body: Value,
    ) -> Result<Map<String, Value>, Denial> {
        let endpoint =
            self.calls.endpoint(&SSO_OIDC, |place| place.endpoint(&SSO_OIDC)).map_err(Denial::Failed)?;
        let request = Request {
            service: &SSO_OIDC,
            operation,
            endpoint: &endpoint,
            method: Method::POST,
            path: path.to_owned(),
            header: None,
            body: Some(body),
        };
        self.calls.call(request).await
    }
}

/// Whether a token is good for longer than `margin`.
fn is_valid(token: &Fields, margin: Duration) -> bool {
    token.time("expiresAt").is_some_and(|time| time > SystemTime::now() + margin)
}

/// Whether a refusal has nothing to do with the sign-in, so that signing in again would not help.
fn may_pass(code: &str) -> bool {
    const PASSING: [&str; 6] =
        ["TooManyRequests", "SlowDown", "Throttling", "InternalServer", "ServiceUnavailable", "status 5"];
    PASSING.iter().any(|passing| code.starts_with(passing))
}

/// The credentials in an answer. They end at a number of milliseconds since 1970.
fn read(answer: &Map<String, Value>) -> Option<Credentials> {
    let fields = answer.get("roleCredentials")?.as_object()?;
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
/// As in the CLI: a token that ends within it is refreshed at its next use.
const REFRESH_WINDOW: Duration = Duration::from_secs(15 * 60);
/// Somebody may be signing in in another process.
const TURN_TIMEOUT: Duration = Duration::from_secs(300);
