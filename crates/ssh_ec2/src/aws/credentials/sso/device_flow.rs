//! Signing in with IAM Identity Center, where `aws sso login` would have to be run otherwise.
//!
//! The device flow: a code is shown, a browser opens, and the token goes into the file in which the AWS CLI
//! and the SDKs look for it.

use std::error::Error;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value, json};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::{SingleSignOn, TURN_TIMEOUT, is_valid, whole_seconds};
use crate::aws::client::unsigned::Denial;
use crate::aws::credentials::cache::SignIn;
use crate::aws::credentials::token_file::text;
use crate::aws::error::AwsError;
use crate::system::tty;

impl SingleSignOn {
    /// Signs in. False when it was declined, or nobody is there.
    ///
    /// # Errors
    ///
    /// [`AwsError::SignOn`].
    pub(super) async fn sign_on(&self, sign_in: &SignIn) -> Result<bool, AwsError> {
        let before = self.token.read().ok().flatten();
        // Forks that start together sign in once.
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
        let failed = |denial: Denial| AwsError::SignOn { source: Box::new(AwsError::from(denial)) };
        let client = self.register().await.map_err(failed)?;
        let device = self.authorize(&client).await.map_err(failed)?;
        let url = text(&device, "verificationUriComplete").or(text(&device, "verificationUri"));
        let (url, code) = (url.unwrap_or_default(), text(&device, "userCode").unwrap_or_default());
        tty::tell(&format!("Confirm the code {code} at {url}"));
        open(url).await;
        let answer = self.wait(&client, &device).await?;
        self.keep(&client, &answer)?;
        Ok(true)
    }

    async fn register(&self) -> Result<Map<String, Value>, Denial> {
        let mut body = json!({ "clientName": "ssh_ec2", "clientType": "public" });
        // Tokens of a start URL alone cannot be refreshed, and ask for no scope.
        if self.sso.session.is_some() {
            let scopes = self.sso.scopes.as_deref().unwrap_or(DEFAULT_SCOPE).split(',').map(str::trim);
            body["scopes"] = scopes.filter(|scope| !scope.is_empty()).collect();
        }
        self.oidc("RegisterClient", "/client/register", body).await
    }

    async fn authorize(&self, client: &Map<String, Value>) -> Result<Map<String, Value>, Denial> {
        let body = json!({
            "clientId": text(client, "clientId"),
            "clientSecret": text(client, "clientSecret"),
            "startUrl": self.sso.start_url,
        });
        self.oidc("StartDeviceAuthorization", "/device_authorization", body).await
    }

    /// Asks for the token until somebody has confirmed the code.
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
            let denial = match self.oidc("CreateToken", "/token", body.clone()).await {
                Ok(token) => return Ok(token),
                Err(denial) => denial,
            };
            let code = match &denial {
                Denial::Refused { code, .. } => code.as_str(),
                Denial::Failed(_) => "",
            };
            let source: Box<dyn Error + Send + Sync> = match code {
                "AuthorizationPendingException" if Instant::now() < until => continue,
                "SlowDownException" if Instant::now() < until => {
                    interval += Duration::from_secs(5);
                    continue;
                }
                "AuthorizationPendingException" | "SlowDownException" | "ExpiredTokenException" => {
                    "the code was not confirmed in time".into()
                }
                "AccessDeniedException" => "it was refused in the browser".into(),
                _ => Box::new(AwsError::from(denial)),
            };
            return Err(AwsError::SignOn { source });
        }
    }

    fn keep(&self, client: &Map<String, Value>, answer: &Map<String, Value>) -> Result<(), AwsError> {
        let failed = |source| AwsError::SignOn { source };
        let mut token = Map::new();
        self.renew(&mut token, answer).map_err(|error| failed(Box::new(error)))?;
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

/// Opens a browser; the address is on the terminal anyway.
async fn open(url: &str) {
    let named = std::env::var_os("BROWSER").filter(|program| !program.is_empty());
    let usual = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let program = named.unwrap_or_else(|| usual.into());
    let mut command = Command::new(program);
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // A browser that stays must not be waited for.
    if let Ok(mut child) = command.spawn() {
        let _ = tokio::time::timeout(BROWSER_TIMEOUT, child.wait()).await;
    }
}

/// What the CLI asks for as well; with it comes a token for refreshing.
const DEFAULT_SCOPE: &str = "sso:account:access";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// In seconds, of a service that does not say (RFC 8628, 3.2).
const USUAL_INTERVAL: u64 = 5;
const BROWSER_TIMEOUT: Duration = Duration::from_secs(2);
