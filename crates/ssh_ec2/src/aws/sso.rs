//! Signing in with IAM Identity Center, where `aws sso login` would have to be run otherwise.
//!
//! The device flow: a code is shown, a browser opens, and the token goes into the file in which the AWS CLI and the
//! SDKs look for it. It is offered once, before there is a connection, to a person at a terminal.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_config::{Region, SdkConfig};
use aws_sdk_ssooidc::error::{DisplayErrorContext, ProvideErrorMetadata as _};
use aws_sdk_ssooidc::operation::register_client::RegisterClientOutput;
use aws_sdk_ssooidc::operation::start_device_authorization::StartDeviceAuthorizationOutput;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use serde_json::{Value, json};
use sha1::{Digest as _, Sha1};
use tokio::process::Command;
use tokio::time::{Instant, sleep};

use super::credentials::SignIn;
use super::error::AwsError;
use super::identity::Sso;
use crate::private_file;
use crate::tty;

/// Where somebody signs in, and where the token is kept.
pub(super) struct SignOn {
    client: aws_sdk_ssooidc::Client,
    region: String,
    start_url: String,
    scopes: Vec<String>,
    /// The file in `~/.aws/sso/cache`.
    token: PathBuf,
    may_ask: AtomicBool,
}

impl SignOn {
    /// That of a profile; none if there is no home directory to keep a token in.
    pub(super) fn new(sso: &Sso, sdk: &SdkConfig, home: Option<&Path>, may_ask: bool) -> Option<Self> {
        let scopes = sso.scopes.as_deref().unwrap_or(DEFAULT_SCOPE);
        // Legacy profiles cannot refresh, and ask for no scope.
        let scopes = if sso.session.is_some() { scopes } else { "" };
        let key = Sha1::digest(sso.session.as_ref().unwrap_or(&sso.start_url));
        let key: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
        let config = sdk.to_builder().region(Region::new(sso.region.clone())).build();
        Some(Self {
            client: aws_sdk_ssooidc::Client::new(&config),
            region: sso.region.clone(),
            start_url: sso.start_url.clone(),
            scopes: scopes
                .split(',')
                .map(str::trim)
                .filter(|scope| !scope.is_empty())
                .map(str::to_owned)
                .collect(),
            token: home?.join(".aws/sso/cache").join(key + ".json"),
            may_ask: AtomicBool::new(may_ask),
        })
    }

    /// From here on the terminal is ssh's.
    pub(super) fn ask_no_more(&self) {
        self.may_ask.store(false, Ordering::Relaxed);
    }

    /// Whether signing in again could help, and somebody could be asked to.
    pub(super) fn is_due(&self) -> bool {
        self.may_ask.load(Ordering::Relaxed) && !self.has_token(SystemTime::now())
    }

    fn has_token(&self, now: SystemTime) -> bool {
        // A file that others could have written is as good as none: it is written anew.
        let owner = rustix::process::getuid().as_raw();
        let text = private_file::read(&self.token, owner).ok().flatten();
        let token = text.and_then(|text| serde_json::from_slice::<Value>(&text).ok());
        let expires = token.and_then(|token| {
            let text = token.get("expiresAt")?.as_str()?.replace("UTC", "Z");
            DateTime::from_str(&text, Format::DateTimeWithOffset).ok()
        });
        expires.and_then(|time| SystemTime::try_from(time).ok()).is_some_and(|time| time > now)
    }

    /// Signs in. False when it was declined, or nobody is there.
    ///
    /// # Errors
    /// What Identity Center said.
    pub(super) async fn run(&self, sign_in: &SignIn) -> Result<bool, AwsError> {
        // Forks that start together sign in once.
        let lock = self.token.with_file_name("ssh_ec2.lock");
        let _turn = private_file::lock(&lock, TURN_TIMEOUT).await;
        if !self.is_due() {
            return Ok(true);
        }
        let offer = format!(
            "The AWS sign-in of {sign_in} has expired. Press Enter to sign in with a browser, Ctrl-C to leave it: "
        );
        if tty::confirm(&offer).await.is_err() {
            return Ok(false);
        }
        self.ask_no_more();
        let (client, device) = self.start().await?;
        let (url, code) = (device.verification_uri_complete(), device.user_code().unwrap_or_default());
        let url = url.or(device.verification_uri()).unwrap_or_default();
        tty::tell(&format!("Confirm the code {code} at {url}"));
        open(url).await;
        self.wait(&client, &device).await.map(|()| true)
    }

    async fn start(&self) -> Result<(RegisterClientOutput, StartDeviceAuthorizationOutput), AwsError> {
        let client = self.client.register_client().client_name("ssh_ec2").client_type("public");
        let client = client.set_scopes(Some(self.scopes.clone()).filter(|scopes| !scopes.is_empty()));
        let client = client.send().await.map_err(|error| failed(&error))?;
        let device = self
            .client
            .start_device_authorization()
            .set_client_id(client.client_id().map(str::to_owned))
            .set_client_secret(client.client_secret().map(str::to_owned))
            .start_url(&self.start_url)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        Ok((client, device))
    }

    /// Asks for the token until somebody has confirmed the code.
    async fn wait(
        &self,
        client: &RegisterClientOutput,
        device: &StartDeviceAuthorizationOutput,
    ) -> Result<(), AwsError> {
        let mut interval = Duration::from_secs(u64::try_from(device.interval()).unwrap_or(0).max(1));
        let until = Instant::now() + Duration::from_secs(u64::try_from(device.expires_in()).unwrap_or(600));
        loop {
            sleep(interval).await;
            let asked = self
                .client
                .create_token()
                .set_client_id(client.client_id().map(str::to_owned))
                .set_client_secret(client.client_secret().map(str::to_owned))
                .grant_type(DEVICE_GRANT)
                .set_device_code(device.device_code().map(str::to_owned))
                .send()
                .await;
            let error = match asked {
                Ok(token) => {
                    let lifetime = Duration::from_secs(u64::try_from(token.expires_in()).unwrap_or(0));
                    let expires = SystemTime::now() + lifetime;
                    let registered = client.client_secret_expires_at();
                    let mut kept = json!({
                        "startUrl": self.start_url,
                        "region": self.region,
                        "accessToken": token.access_token(),
                        "expiresAt": timestamp(DateTime::from(expires)),
                        "clientId": client.client_id(),
                        "clientSecret": client.client_secret(),
                        "registrationExpiresAt": timestamp(DateTime::from_secs(registered)),
                    });
                    if let Some(refresh) = token.refresh_token() {
                        kept["refreshToken"] = refresh.into();
                    }
                    let written = private_file::replace(&self.token, kept.to_string().as_bytes());
                    return written.map_err(|source| AwsError::SignOn { source: source.into() });
                }
                Err(error) => error,
            };
            match error.code() {
                Some("AuthorizationPendingException") if Instant::now() < until => {}
                Some("SlowDownException") if Instant::now() < until => interval += Duration::from_secs(5),
                _ => return Err(failed(&error)),
            }
        }
    }
}

fn failed<E, R>(error: &aws_sdk_ssooidc::error::SdkError<E, R>) -> AwsError
where
    E: std::error::Error + 'static,
    R: std::fmt::Debug,
{
    let text = DisplayErrorContext(error).to_string();
    AwsError::SignOn { source: crate::network::foreign_text(&text, 300).into() }
}

fn timestamp(time: DateTime) -> String {
    time.fmt(Format::DateTime).unwrap_or_default()
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
/// Somebody signs in in another process.
const TURN_TIMEOUT: Duration = Duration::from_secs(300);
const BROWSER_TIMEOUT: Duration = Duration::from_secs(2);
