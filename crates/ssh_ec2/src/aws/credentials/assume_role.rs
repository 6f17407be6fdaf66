//! A profile's role: assumed with an MFA code if it wants one, and shared with the AWS CLI.
//!
//! The SDK's chain knows neither `mfa_serial` nor `duration_seconds`, and asks STS in every process. Here the
//! CLI's cache is read and written, so that one code, and one call, serve both tools for as long as the
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

use crate::aws::client::endpoint::{self, Protocol, STS};
use crate::aws::client::error_response::Circumstances;
use crate::aws::client::operation::{Call, Client, Failure};
use crate::aws::client::query::{child, child_text, form};
use crate::aws::credentials::cache::{Provider, SignIn};
use crate::aws::credentials::expiry;
use crate::aws::credentials::identity::RoleSource;
use crate::aws::credentials::mfa;
use crate::aws::error::AwsError;
use crate::system::private_file::{self, ReadError};
use crate::system::tty::{self, AskError};

/// What a profile says of its role.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(in crate::aws) struct Role {
    pub(in crate::aws) arn: String,
    pub(in crate::aws) session_name: Option<String>,
    pub(in crate::aws) external_id: Option<String>,
    pub(in crate::aws) mfa_serial: Option<String>,
    pub(in crate::aws) duration_seconds: Option<u32>,
}

impl Role {
    /// From the settings of a profile.
    pub(in crate::aws) fn of(source: &RoleSource) -> Self {
        let source = source.clone();
        Self {
            arn: source.arn,
            session_name: source.session_name,
            external_id: source.external_id,
            mfa_serial: source.mfa_serial,
            duration_seconds: source.duration_seconds,
        }
    }

    /// The name of its file in the CLI's cache: the SHA-1 of the call's parameters as Python's `json.dumps`
    /// writes them, sorted, without what changes each time (botocore,
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

/// A role's credentials, from the cache or from STS.
pub(in crate::aws) struct AssumedRole {
    pub(in crate::aws) role: Role,
    /// Whoever may assume it.
    pub(in crate::aws) source: Provider,
    pub(in crate::aws) client: Client,
    pub(in crate::aws) endpoint: String,
    pub(in crate::aws) region: String,
    /// `~/.aws/cli/cache`, if there is a home directory.
    pub(in crate::aws) cache: Option<PathBuf>,
    /// Who alone may have written what is in it.
    pub(in crate::aws) owner: u32,
    /// Why a file in it was not believed.
    pub(in crate::aws) fault: OnceLock<ReadError>,
    /// Whether a person may be asked. Only before there is a connection: then the terminal is ssh's.
    pub(in crate::aws) may_ask: AtomicBool,
    /// One question at a time.
    pub(in crate::aws) asking: Mutex<()>,
}

impl AssumedRole {
    pub(in crate::aws) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        if let Some(credentials) = self.cached() {
            return Ok(credentials);
        }
        if let Some(serial) = &self.role.mfa_serial {
            mfa::check_serial(serial, sign_in)?;
        }
        let _asking = self.asking.lock().await;
        let source = self.source.credentials(sign_in).await?;
        // Forks that start together ask once: who waits for the lock reads what the first was given.
        let _turn = match &self.role.mfa_serial {
            Some(_) => self.turn().await,
            None => None,
        };
        if let Some(credentials) = self.cached() {
            return Ok(credentials);
        }
        let (credentials, text) = match &self.role.mfa_serial {
            Some(serial) => self.assume_with_code(serial, &source, sign_in).await?,
            None => self.assume(source, None, sign_in).await?,
        };
        self.keep(&text);
        Ok(credentials)
    }

    /// Asks for a code, and again if it was mistyped or came too late.
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

    async fn assume(
        &self,
        source: Credentials,
        code: Option<String>,
        sign_in: &SignIn,
    ) -> Result<(Credentials, Value), AwsError> {
        let Protocol::Query { version } = STS.protocol else { unreachable!("STS has one protocol") };
        let role = &self.role;
        let default_name = || {
            let seconds =
                SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
            format!("ssh_ec2-session-{seconds}")
        };
        let parameters = [
            ("RoleArn", Some(role.arn.clone())),
            ("RoleSessionName", Some(role.session_name.clone().unwrap_or_else(default_name))),
            ("ExternalId", role.external_id.clone()),
            ("SerialNumber", role.mfa_serial.clone()),
            ("TokenCode", code),
            ("DurationSeconds", role.duration_seconds.map(|seconds| seconds.to_string())),
        ];
        let parameters: Vec<_> = parameters
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name.to_owned(), value)))
            .collect();
        let action = "sts:AssumeRole".to_owned();
        endpoint::check_endpoint(&STS, &self.endpoint)?;
        let call = Call {
            service: &STS,
            operation: "AssumeRole",
            endpoint: &self.endpoint,
            credentials: Some(source),
            body: form("AssumeRole", version, &parameters),
        };
        let answer = match self.client.invoke(call).await {
            Ok(answer) => answer,
            Err(Failure::Malformed(source)) => return Err(AwsError::Malformed { action, source }),
            Err(Failure::Network(error)) => return Err(AwsError::Network(error)),
            Err(Failure::Refused(refusal)) => {
                if let Some(serial) = &role.mfa_serial
                    && refusal.message.starts_with("MultiFactorAuthentication failed")
                {
                    return Err(AwsError::MfaRefused { serial: serial.clone(), message: refusal.message });
                }
                let circumstances =
                    Circumstances { action, subject: &role.arn, region: &self.region, sign_in };
                return Err(circumstances.explain(refusal));
            }
            Err(Failure::Unreachable(source)) => {
                let host = endpoint::host_of(&self.endpoint).unwrap_or_else(|| self.endpoint.clone());
                return Err(AwsError::Unreachable { host, source });
            }
        };
        let malformed =
            || AwsError::Malformed { action: action.clone(), source: "it holds no credentials".into() };
        let text = std::str::from_utf8(&answer.body).map_err(|_| malformed())?;
        let document = Document::parse(text).map_err(|_| malformed())?;
        let entry = entry(document.root_element()).ok_or_else(malformed)?;
        let credentials = read_entry(&entry, SystemTime::now(), Duration::ZERO).ok_or_else(malformed)?;
        tracing::info!("assumed {}", role.arn);
        Ok((credentials, entry))
    }

    fn path(&self) -> Option<PathBuf> {
        Some(self.cache.as_ref()?.join(self.role.cache_key() + ".json"))
    }

    fn cached(&self) -> Option<Credentials> {
        let text = match private_file::read(&self.path()?, self.owner) {
            Ok(text) => text?,
            Err(error) => {
                // Somebody else's credentials would lead to somebody else's instances.
                tracing::info!("what the role was given is not believed: {error}");
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
            tracing::info!("the role's session is not kept in {}: {error}", path.display());
        }
    }

    /// Held by the one process that asks.
    async fn turn(&self) -> Option<private_file::Lock> {
        private_file::lock(&self.cache.as_ref()?.join("ssh_ec2.lock"), TURN_TIMEOUT).await.ok()
    }
}

/// STS's answer in the form of the CLI's cache.
fn entry(answer: Node<'_, '_>) -> Option<Value> {
    let result = child(answer, "AssumeRoleResult")?;
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

/// A session must not end while a connection is being made. The CLI makes a new one earlier, at 15 minutes.
const CACHE_MARGIN: Duration = Duration::from_secs(5 * 60);
/// The default of sudo.
const CODE_ATTEMPTS: usize = 3;
/// Somebody is typing in another process.
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
