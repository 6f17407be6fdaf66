//! AssumeRole: the role of a profile, assumed with an MFA code if it needs one, and shared with the AWS CLI.
//!
//! The SDK's chain supports neither `mfa_serial` nor `duration_seconds`, and calls STS in every process. Here
//! the CLI's cache is read and written, so that one code, and one call, serve both tools while the role's
//! session lasts.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use roxmltree::{Document, Node};
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};
use tokio::sync::Mutex;

use crate::aws::client::error_response::{ErrorResponse, FailedCall};
use crate::aws::client::query::{child, child_text};
use crate::aws::credentials::cache::Provider;
use crate::aws::credentials::expiry;
use crate::aws::credentials::identity::Role;
use crate::aws::credentials::mfa;
use crate::aws::credentials::sign_in::SignIn;
use crate::aws::credentials::sts_client::{self, StsClient, default_session_name};
use crate::aws::error::AwsError;
use crate::system::private_file::{self, ReadError};
use crate::system::tty::{self, AskError};

impl Role {
    /// The name of the role's file in the CLI's cache: the SHA-1 of the call's parameters as Python's
    /// `json.dumps` writes them, sorted, without those that change each time (botocore,
    /// `BaseAssumeRoleCredentialFetcher._create_cache_key`).
    fn cache_key(&self) -> String {
        let text = |value: &String| python_string(value);
        let parameters = [
            ("DurationSeconds", self.duration_seconds.map(|seconds| seconds.to_string())),
            ("ExternalId", self.external_id.as_ref().map(text)),
            ("RoleArn", Some(text(&self.arn))),
            ("RoleSessionName", self.session_name.as_ref().map(text)),
            ("SerialNumber", self.mfa_serial.as_ref().map(text)),
        ];
        let pairs: Vec<_> = parameters
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| format!("\"{name}\": {value}")))
            .collect();
        let digest = Sha1::digest(format!("{{{}}}", pairs.join(", ")));
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// A JSON string as Python writes it: ASCII only.
fn python_string(text: &str) -> String {
    let mut written = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => written.push_str("\\\""),
            '\\' => written.push_str("\\\\"),
            ' '..='~' => written.push(character),
            other => {
                let mut units = [0; 2];
                for unit in other.encode_utf16(&mut units) {
                    written.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    written + "\""
}

/// The credentials of a role, from the cache or from STS.
pub(crate) struct AssumedRole {
    role: Role,
    /// The credentials that assume the role.
    source: Provider,
    sts: StsClient,
    /// `~/.aws/cli/cache`. None without a home directory.
    cache: Option<PathBuf>,
    /// The only user whose files in the cache are trusted.
    owner: u32,
    /// Why a file in the cache was not trusted.
    fault: OnceLock<ReadError>,
    /// Whether the user may be asked. Only before there is a connection: then the terminal is ssh's.
    may_ask: AtomicBool,
    /// Held while the user is asked: one question at a time.
    asking: Mutex<()>,
}

impl AssumedRole {
    pub(crate) fn new(
        role: Role,
        source: Provider,
        sts: StsClient,
        cache: Option<PathBuf>,
        may_ask: bool,
    ) -> Self {
        Self {
            role,
            source,
            sts,
            cache,
            owner: rustix::process::getuid().as_raw(),
            fault: OnceLock::new(),
            may_ask: AtomicBool::new(may_ask),
            asking: Mutex::default(),
        }
    }

    /// Why a file in the cache was not trusted: that of this role, or of another one in its chain.
    pub(crate) fn fault(&self) -> Option<&ReadError> {
        self.fault.get().or_else(|| self.source.fault())
    }

    /// Forbids prompts: from now on ssh uses the terminal.
    pub(crate) fn ask_no_more(&self) {
        self.may_ask.store(false, Ordering::Relaxed);
        self.source.ask_no_more();
    }

    pub(crate) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        if let Some(credentials) = self.cached() {
            return Ok(credentials);
        }
        if let Some(serial) = &self.role.mfa_serial {
            mfa::check_serial(serial, sign_in)?;
        }
        let _asking = self.asking.lock().await;
        let source = self.source.credentials(sign_in).await?;
        // Of several processes that start together one asks; the others wait, and then find its session in
        // the cache.
        let _turn = match &self.role.mfa_serial {
            Some(_) => self.turn().await,
            None => None,
        };
        if let Some(credentials) = self.cached() {
            return Ok(credentials);
        }
        let (credentials, entry) = match &self.role.mfa_serial {
            Some(serial) => self.assume_with_code(serial, &source, sign_in).await?,
            None => self.assume(source, None, sign_in).await?,
        };
        self.keep(&entry);
        Ok(credentials)
    }

    /// Asks for a code, and asks again if it was mistyped or too late.
    async fn assume_with_code(
        &self,
        serial: &str,
        source: &Credentials,
        sign_in: &SignIn,
    ) -> Result<(Credentials, Value), AwsError> {
        let mut problem = None;
        for _ in 0..CODE_ATTEMPTS {
            let typed = self.ask(serial, &mfa::question(serial, problem.as_ref()), sign_in).await?;
            let result = match mfa::code(&typed) {
                Some(code) => self.assume(source.clone(), Some(code), sign_in).await,
                None => Err(AwsError::MfaTypo { serial: serial.to_owned() }),
            };
            match result {
                Err(error @ (AwsError::MfaRefused { .. } | AwsError::MfaTypo { .. })) => {
                    problem = Some(error)
                }
                result => return result,
            }
        }
        Err(problem.unwrap_or_else(|| AwsError::MfaTypo { serial: serial.to_owned() }))
    }

    async fn ask(&self, serial: &str, question: &str, sign_in: &SignIn) -> Result<String, AwsError> {
        let (serial, sign_in) = (serial.to_owned(), sign_in.clone());
        if !self.may_ask.load(Ordering::Relaxed) {
            return Err(AwsError::MfaNeeded { serial, sign_in, source: AskError::Unwanted });
        }
        tty::ask(question).await.map_err(|source| AwsError::MfaNeeded { serial, sign_in, source })
    }

    /// Calls STS. Returns the credentials, and the entry for the cache.
    async fn assume(
        &self,
        source: Credentials,
        code: Option<String>,
        sign_in: &SignIn,
    ) -> Result<(Credentials, Value), AwsError> {
        let role = self.role.clone();
        let parameters = [
            ("RoleArn", Some(role.arn)),
            ("RoleSessionName", Some(role.session_name.unwrap_or_else(default_session_name))),
            ("ExternalId", role.external_id),
            ("SerialNumber", role.mfa_serial),
            ("TokenCode", code),
            ("DurationSeconds", role.duration_seconds.map(|seconds| seconds.to_string())),
        ];
        let called = self.sts.call(ASSUME_ROLE, parameters, Some(source)).await?;
        let response = called.map_err(|response| self.refused(response, sign_in))?;
        let entry = entry(&response.body).ok_or_else(|| sts_client::no_credentials(ASSUME_ROLE))?;
        let credentials = read_entry(&entry, SystemTime::now(), Duration::ZERO)
            .ok_or_else(|| sts_client::no_credentials(ASSUME_ROLE))?;
        tracing::info!("assumed {}", self.role.arn);
        Ok((credentials, entry))
    }

    fn refused(&self, response: ErrorResponse, sign_in: &SignIn) -> AwsError {
        match &self.role.mfa_serial {
            Some(serial) if response.message.starts_with("MultiFactorAuthentication failed") => {
                AwsError::MfaRefused { serial: serial.clone(), message: response.message }
            }
            _ => {
                let (action, subject) = (sts_client::action(ASSUME_ROLE), self.role.arn.as_str());
                FailedCall { action, subject, region: &self.sts.region, sign_in }.error(response)
            }
        }
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(self.role.cache_key() + ".json"))
    }

    fn cached(&self) -> Option<Credentials> {
        let text = match private_file::read(&self.path()?, self.owner) {
            Ok(text) => text?,
            Err(error) => {
                // Credentials that another user put there would lead to that user's instances.
                tracing::info!("the role's session in the cache is not trusted: {error}");
                let _ = self.fault.set(error);
                return None;
            }
        };
        let entry: Value = serde_json::from_slice(&text).ok()?;
        let credentials = read_entry(&entry, SystemTime::now(), CACHE_MARGIN)?;
        tracing::info!("{} was assumed before", self.role.arn);
        Some(credentials)
    }

    fn keep(&self, entry: &Value) {
        let Some(path) = self.path() else { return };
        if let Err(error) = private_file::replace_durably(&path, entry.to_string().as_bytes()) {
            tracing::info!("cannot keep the role's session in {}: {error}", path.display());
        }
    }

    /// The lock of the one process that asks.
    async fn turn(&self) -> Option<private_file::Lock> {
        private_file::lock(&self.cache.as_ref()?.join("ssh_ec2.lock"), TURN_TIMEOUT).await.ok()
    }
}

/// The entry for the CLI's cache, from a response of STS.
fn entry(response: &[u8]) -> Option<Value> {
    let document = Document::parse(std::str::from_utf8(response).ok()?).ok()?;
    cache_entry(document.root_element())
}

fn cache_entry(response: Node<'_, '_>) -> Option<Value> {
    let result = child(response, "AssumeRoleResult")?;
    let credentials = child(result, "Credentials")?;
    let mut kept = Map::new();
    for name in ["AccessKeyId", "SecretAccessKey", "SessionToken", "Expiration"] {
        kept.insert(name.to_owned(), child_text(credentials, name)?.into());
    }
    let user = child(result, "AssumedRoleUser")?;
    let arn = child_text(user, "Arn")?;
    if let Some(account) = arn.split(':').nth(4) {
        kept.insert("AccountId".to_owned(), account.into());
    }
    Some(json!({
        "Credentials": kept,
        "AssumedRoleUser": { "AssumedRoleId": child_text(user, "AssumedRoleId"), "Arn": arn },
    }))
}

/// The credentials of an entry that lasts for longer than `margin`.
fn read_entry(entry: &Value, now: SystemTime, margin: Duration) -> Option<Credentials> {
    let credentials = entry.get("Credentials")?;
    let text = |name: &str| credentials.get(name)?.as_str().map(str::to_owned);
    let expires = expiry::read(&text("Expiration")?)?;
    if expires < now + margin {
        return None;
    }
    let (id, secret) = (text("AccessKeyId")?, text("SecretAccessKey")?);
    Some(Credentials::new(id, secret, Some(text("SessionToken")?), Some(expires), "role of a profile"))
}

const ASSUME_ROLE: &str = "AssumeRole";
/// A role's session must not end while a connection is being made. The CLI renews it earlier, at 15 minutes.
const CACHE_MARGIN: Duration = Duration::from_secs(5 * 60);
/// The default of sudo.
const CODE_ATTEMPTS: usize = 3;
/// The user may be typing a code in another process.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_the_cli_names_them() {
        // From botocore 1.43.11: AssumeRoleCredentialFetcher(…)._cache_key
        let role = Role { arn: "arn:aws:iam::123456789012:role/mfa".into(), ..Role::default() };
        assert_eq!(role.cache_key(), "5e2654ed66f14a775991c5890b771abd703f9baa");
        let role = Role {
            session_name: Some("mé \"x\"".into()),
            external_id: Some("e".into()),
            mfa_serial: Some("arn:aws:iam::123456789012:mfa/you".into()),
            duration_seconds: Some(3600),
            ..role
        };
        assert_eq!(role.cache_key(), "005858bee9b32721e426a1b88485be07951117db");
    }

    #[test]
    fn entries_are_read_while_they_last() {
        let entry = |expiration: &str| {
            json!({"Credentials": {
                "AccessKeyId": "ASIA", "SecretAccessKey": "s", "SessionToken": "t", "Expiration": expiration,
            }})
        };
        let now = expiry::read("2026-01-01T00:00:00Z").unwrap();
        for time in ["2026-01-01T01:00:00Z", "2026-01-01T01:00:00UTC", "2026-01-01T02:00:00+01:00"] {
            let credentials = read_entry(&entry(time), now, CACHE_MARGIN).unwrap();
            assert_eq!(credentials.expiry(), Some(now + Duration::from_secs(3600)), "{time}");
        }
        for time in ["2026-01-01T00:04:59Z", "2025-01-01T00:00:00Z", "soon", ""] {
            assert_eq!(read_entry(&entry(time), now, CACHE_MARGIN), None, "{time}");
        }
    }
}
