//! Signs in with IAM Identity Center, as `aws sso login` does.
//!
//! This is OAuth's device flow (RFC 8628): a code is shown, a browser opens, and the token goes into the file
//! in which the AWS CLI and the SDKs look for it.

use std::error::Error;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{SsoRole, TURN_TIMEOUT, is_valid, whole_seconds};
use crate::aws::client::unsigned::UnsignedError;
use crate::aws::credentials::sign_in::SignIn;
use crate::aws::credentials::token_file::text;
use crate::aws::error::AwsError;
use crate::system::tty;

impl SsoRole {
    /// Signs in. False if the user declined, or there is no terminal.
    ///
    /// # Errors
    ///
    /// [`AwsError::SsoLogin`].
    pub(super) async fn log_in(&self, sign_in: &SignIn) -> Result<bool, AwsError> {
        let before = self.token.read().ok().flatten();
        // Of several processes that start together one signs in.
        let _turn = self.token.turn(TURN_TIMEOUT).await;
        let now = self.token.read().ok().flatten();
        if now != before && now.is_some_and(|token| is_valid(&token, Duration::ZERO)) {
            return Ok(true);
        }
        let offer = format!(
            "The AWS sign-in of {sign_in} has expired. Press Enter to sign in with a browser, Ctrl-C to leave it: "
        );
        if tty::confirm(&offer).await.is_err() {
            return Ok(false);
        }
        self.ask_no_more();
        let failed = |error: UnsignedError| AwsError::SsoLogin { source: Box::new(AwsError::from(error)) };
        let client = self.register().await.map_err(failed)?;
        let device = self.authorize(&client).await.map_err(failed)?;
        let url = text(&device, "verificationUriComplete").or(text(&device, "verificationUri"));
        let (url, code) = (url.unwrap_or_default(), text(&device, "userCode").unwrap_or_default());
        tty::print_line(&format!("Confirm the code {code} at {url}"));
        open(url).await;
        let response = self.wait(&client, &device).await?;
        self.keep(&client, &response)?;
        Ok(true)
    }

    async fn register(&self) -> Result<Map<String, Value>, UnsignedError> {
        let mut body = json!({ "clientName": "ssh_ec2", "clientType": "public" });
        // Without an `sso-session` a token cannot be refreshed, and needs no scope.
        if self.sso.session.is_some() {
            let scopes = self.sso.scopes.as_deref().unwrap_or(DEFAULT_SCOPE).split(',').map(str::trim);
            body["scopes"] = scopes.filter(|scope| !scope.is_empty()).collect();
        }
        self.oidc("RegisterClient", "/client/register", body).await
    }

    async fn authorize(&self, client: &Map<String, Value>) -> Result<Map<String, Value>, UnsignedError> {
        let body = json!({
            "clientId": text(client, "clientId"),
            "clientSecret": text(client, "clientSecret"),
            "startUrl": self.sso.start_url,
        });
        self.oidc("StartDeviceAuthorization", "/device_authorization", body).await
    }

    /// Asks for the token until the user has confirmed the code.
    async fn wait(
        &self,
        client: &Map<String, Value>,
        device: &Map<String, Value>,
    ) -> Result<Map<String, Value>, AwsError> {
        let seconds = |name: &str| device.get(name).and_then(Value::as_u64);
        let mut interval = Duration::from_secs(seconds("interval").unwrap_or(USUAL_INTERVAL).clamp(1, 60));
        let until = Instant::now() + Duration::from_secs(seconds("expiresIn").unwrap_or(600).min(3600));
        let body = json!({
            "clientId": text(client, "clientId"),
            "clientSecret": text(client, "clientSecret"),
            "grantType": DEVICE_GRANT,
            "deviceCode": text(device, "deviceCode"),
        });
        loop {
            sleep(interval).await;
            let error = match self.oidc("CreateToken", "/token", body.clone()).await {
                Ok(token) => return Ok(token),
                Err(error) => error,
            };
            let source: Box<dyn Error + Send + Sync> = match error.code() {
                "AuthorizationPendingException" if Instant::now() < until => continue,
                "SlowDownException" if Instant::now() < until => {
                    interval += Duration::from_secs(5);
                    continue;
                }
                "AuthorizationPendingException" | "SlowDownException" | "ExpiredTokenException" => {
                    "the code was not confirmed in time".into()
                }
                "AccessDeniedException" => "it was refused in the browser".into(),
                _ => Box::new(AwsError::from(error)),
            };
            return Err(AwsError::SsoLogin { source });
        }
    }

    fn keep(&self, client: &Map<String, Value>, response: &Map<String, Value>) -> Result<(), AwsError> {
        let failed = |source| AwsError::SsoLogin { source };
        let mut token = Map::new();
        self.renew(&mut token, response).map_err(|error| failed(Box::new(error)))?;
        for name in ["clientId", "clientSecret"] {
            token.insert(name.into(), text(client, name).into());
        }
        let registered = client.get("clientSecretExpiresAt").and_then(Value::as_u64).unwrap_or(0);
        let registered = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(registered));
        let registered = whole_seconds(registered.unwrap_or(SystemTime::UNIX_EPOCH));
        token.insert("registrationExpiresAt".into(), registered.into());
        self.token.replace(&token).map_err(|error| failed(error.into()))
    }
}

/// Opens a browser. It may fail: the address is on the terminal as well.
async fn open(url: &str) {
    let named = std::env::var_os("BROWSER").filter(|program| !program.is_empty());
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let program = named.unwrap_or_else(|| usual.into());
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A browser may stay in the foreground; it is not waited for.
    if let Ok(mut child) = command.spawn() {
        let _ = tokio::time::timeout(BROWSER_TIMEOUT, child.wait()).await;
    }
}

/// The CLI's default as well. With it comes a refresh token.
const DEFAULT_SCOPE: &str = "sso:account:access";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// The polling interval in seconds, if the service names none (RFC 8628, 3.2).
const USUAL_INTERVAL: u64 = 5;
const BROWSER_TIMEOUT: Duration = Duration::from_secs(2);
