//! Whose credentials we use, how long they last, and how their owner renews them.
//!
//! They are cached here because the websocket upgrade is signed outside the SDK's request path, whose cache
//! is out of reach there; and because that cache times out after five seconds, too soon for a
//! `credential_process` that asks its user something.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use tokio::sync::Mutex;

use crate::aws::client::sdk_error;
use crate::aws::credentials::assume_role::AssumedRole;
use crate::aws::credentials::aws_login::Login;
use crate::aws::credentials::identity::{Identity, Source};
use crate::aws::credentials::process::Process;
use crate::aws::credentials::sso::SingleSignOn;
use crate::aws::credentials::web_identity::WebIdentityRole;
use crate::aws::error::AwsError;
use crate::system::private_file::ReadError;

/// A call must not outlive the credentials that it is signed with.
const MARGIN: Duration = Duration::from_secs(60);
/// For credentials that do not say when they end; the SDK's own cache keeps those as long.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

/// Credentials, resolved when needed and kept while they last. Clones share them.
#[derive(Clone)]
pub(in crate::aws) struct CredentialCache {
    provider: Arc<Provider>,
    sign_in: SignIn,
    cached: Arc<Mutex<Option<(Credentials, SystemTime)>>>,
}

impl CredentialCache {
    pub(in crate::aws) fn new(provider: Provider, sign_in: SignIn) -> Self {
        Self { provider: Arc::new(provider), sign_in, cached: Arc::new(Mutex::new(None)) }
    }

    pub(in crate::aws) fn sign_in(&self) -> &SignIn {
        &self.sign_in
    }

    /// Credentials that are good for the next minute. Callers that come at once wait for one resolution.
    pub(in crate::aws) async fn resolve(&self) -> Result<Credentials, AwsError> {
        let mut cached = self.cached.lock().await;
        let now = SystemTime::now();
        if let Some((credentials, until)) = &*cached
            && now < *until
        {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.credentials(&self.sign_in).await?;
        // What follows may be a connection, whose ssh then has the terminal.
        self.provider.ask_no_more();
        let until = credentials.expiry().map_or(now + DEFAULT_LIFETIME, |expiry| expiry - MARGIN);
        *cached = Some((credentials.clone(), until));
        Ok(credentials)
    }

    /// Why credentials that were kept are not believed.
    pub(in crate::aws) fn fault(&self) -> Option<&ReadError> {
        self.provider.fault()
    }

    /// Makes the next call resolve credentials again.
    pub(in crate::aws) async fn forget(&self) {
        *self.cached.lock().await = None;
    }
}

/// A source of credentials.
pub(in crate::aws) enum Provider {
    Login(Box<Login>),
    Process(Process),
    Sdk(SharedCredentialsProvider),
    Role(Box<AssumedRole>),
    Sso(Box<SingleSignOn>),
    WebIdentity(Box<WebIdentityRole>),
}

impl Provider {
    /// Credentials that a call can be signed with.
    pub(in crate::aws) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let credentials = self.fetch(sign_in).await?;
        // A program or a file may give credentials that have expired. Where AWS cannot be reached, no call
        // would reveal that.
        if credentials.expiry().is_some_and(|expiry| expiry <= SystemTime::now()) {
            return Err(AwsError::ExpiredToken { sign_in: sign_in.clone() });
        }
        check_characters(&credentials, sign_in)?;
        Ok(credentials)
    }

    async fn fetch(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let of_sdk = async |provider: &SharedCredentialsProvider| {
            provider.provide_credentials().await.map_err(|source| explain(&source, sign_in.clone()))
        };
        match self {
            Self::Login(login) => login.credentials(sign_in).await,
            Self::Process(process) => process
                .credentials()
                .await
                .map_err(|source| AwsError::Process { sign_in: sign_in.clone(), source }),
            // A role may be assumed by another one.
            Self::Role(role) => Box::pin(role.credentials(sign_in)).await,
            Self::Sdk(provider) => of_sdk(provider).await,
            Self::Sso(sso) => sso.credentials(sign_in).await,
            Self::WebIdentity(role) => role.credentials(sign_in).await,
        }
    }

    fn fault(&self) -> Option<&ReadError> {
        let Self::Role(role) = self else { return None };
        role.fault.get().or_else(|| role.source.fault())
    }

    fn ask_no_more(&self) {
        match self {
            Self::Process(process) => process.ask_no_more(),
            Self::Role(role) => {
                role.may_ask.store(false, Ordering::Relaxed);
                role.source.ask_no_more();
            }
            Self::Sso(sso) => sso.ask_no_more(),
            Self::Login(_) | Self::Sdk(_) | Self::WebIdentity(_) => {}
        }
    }
}

/// Refuses an access key id or a token that no header of a request can have: the SDK's signer panics.
fn check_characters(credentials: &Credentials, sign_in: &SignIn) -> Result<(), AwsError> {
    let is_sendable = |text: &str| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    let parts = [
        ("access key id", Some(credentials.access_key_id())),
        ("session token", credentials.session_token()),
    ];
    for (part, text) in parts {
        if !text.is_none_or(is_sendable) {
            let source = format!("the {part} has a line end or another character that no request can have");
            return Err(AwsError::Credentials { sign_in: sign_in.clone(), source: source.into() });
        }
    }
    Ok(())
}

fn explain(source: &CredentialsError, sign_in: SignIn) -> AwsError {
    match source {
        CredentialsError::CredentialsNotLoaded(_) => AwsError::NoCredentials { sign_in },
        // No profile, and the machine, asked last, gave none either, whatever it answered.
        source
            if matches!(sign_in, SignIn::Profile { renewal: Renewal::Absent, .. })
                && is_from_metadata_service(source) =>
        {
            AwsError::NoCredentials { sign_in }
        }
        source => AwsError::Credentials { sign_in, source: sdk_error::in_words(source).into() },
    }
}

fn is_from_metadata_service(error: &CredentialsError) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        if cause.is::<ImdsError>() {
            return true;
        }
        source = cause.source();
    }
    false
}

/// Where credentials come from, as far as their owner can do something about it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SignIn {
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment,
    /// A profile, or what stands in for one.
    Profile {
        /// Its name, if one was given.
        name: Option<String>,
        /// How its credentials are made.
        renewal: Renewal,
    },
}

/// How the credentials of a profile are renewed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Renewal {
    /// There is no such profile: only a role of the machine could give credentials.
    Absent,
    /// `login_session`: by `aws login`.
    AwsLogin,
    /// `credential_process`: by a program.
    Process,
    /// An SSO session or start URL: by `aws sso login`.
    Sso,
    /// Keys in a file, a role of the machine, or nothing at all.
    Unknown,
}

impl SignIn {
    /// Where an identity's credentials come from, through all roles.
    pub(in crate::aws) fn of(identity: &Identity) -> Self {
        let renewal = match identity.source.as_ref().map(Source::origin) {
            Some(Source::Environment(_)) if !identity.is_role() => return Self::Environment,
            Some(Source::Sso { .. }) => Renewal::Sso,
            Some(Source::Login { .. }) => Renewal::AwsLogin,
            Some(Source::Process { .. }) => Renewal::Process,
            _ if !identity.has_profile => Renewal::Absent,
            _ => Renewal::Unknown,
        };
        Self::Profile { name: identity.profile.clone(), renewal }
    }

    /// True of credentials that nothing can renew while this process runs.
    pub(in crate::aws) fn is_fixed(&self) -> bool {
        matches!(self, Self::Environment)
    }

    /// What renews the credentials, an action a line.
    pub(in crate::aws) fn hints(&self) -> Vec<String> {
        let Self::Profile { name, renewal } = self else {
            return vec![
                "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN together, AWS_CREDENTIAL_EXPIRATION too if it is set, or unset them to use a profile"
                    .into(),
            ];
        };
        let option = name.as_ref().map(|name| format!(" --profile {name}")).unwrap_or_default();
        let hint = match renewal {
            Renewal::Absent => {
                "sign in with `aws configure sso` or `aws login`, or name a profile with `--profile` or AWS_PROFILE".into()
            }
            Renewal::AwsLogin => format!("sign in again: `aws login{option}`"),
            Renewal::Process => {
                "run the `credential_process` of the profile by hand to see what it says".into()
            }
            Renewal::Sso => format!("sign in again: `aws sso login{option}`"),
            Renewal::Unknown => format!(
                "make `aws sts get-caller-identity{option}` work first, or name another profile with `--profile`"
            ),
        };
        vec![hint]
    }
}

impl fmt::Display for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment"),
            Self::Profile { name: Some(name), .. } => write!(f, "profile {name}"),
            Self::Profile { name: None, .. } => f.write_str("the default profile"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::credentials::identity::Options;
    use crate::aws::credentials::variables::Variables;
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use std::path::Path;
    use std::sync::atomic::AtomicU64;

    /// A cache whose provider hands out credentials that end in `seconds`, and a count of its calls.
    fn cache(seconds: Option<u64>) -> (CredentialCache, Arc<AtomicU64>) {
        let calls = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&calls);
        let provider = provide_credentials_fn(move || {
            let call = counted.fetch_add(1, Ordering::Relaxed);
            let expiry = seconds.map(|seconds| SystemTime::now() + Duration::from_secs(seconds));
            async move { Ok(Credentials::new(format!("AKID{call}"), "secret", None, expiry, "test")) }
        });
        (
            CredentialCache::new(
                Provider::Sdk(SharedCredentialsProvider::new(provider)),
                SignIn::Environment,
            ),
            calls,
        )
    }

    #[tokio::test]
    async fn credentials_are_kept_while_they_last() {
        for (lifetime, resolutions) in [(Some(3600), 1), (None, 1), (Some(30), 2)] {
            let (cache, calls) = cache(lifetime);
            cache.resolve().await.unwrap();
            cache.resolve().await.unwrap();
            assert_eq!(calls.load(Ordering::Relaxed), resolutions, "{lifetime:?}");
        }
    }

    #[tokio::test]
    async fn credentials_that_are_over_are_not_used() {
        let provider = provide_credentials_fn(|| async {
            Ok(Credentials::new("AKID", "secret", None, Some(SystemTime::UNIX_EPOCH), "test"))
        });
        let provider = Provider::Sdk(SharedCredentialsProvider::new(provider));
        let resolved = CredentialCache::new(provider, SignIn::Environment).resolve().await;
        assert!(matches!(resolved, Err(AwsError::ExpiredToken { .. })), "{resolved:?}");
    }

    /// Each would end the process in the SDK.
    #[tokio::test]
    async fn credentials_that_no_request_can_have_are_refused_with_the_part() {
        for (id, token, part) in [
            ("AKID\nmore", Some("t"), "access key id"),
            ("AK\0ID", None, "access key id"),
            ("Schlüssel", None, "access key id"),
            ("AKID", Some("a\r\nb"), "session token"),
            ("AKID", Some("\x1b[0m"), "session token"),
        ] {
            let credentials = Credentials::new(id, "secret", token.map(str::to_owned), None, "test");
            let provider = Provider::Sdk(SharedCredentialsProvider::new(credentials));
            let error = CredentialCache::new(provider, SignIn::Environment).resolve().await.unwrap_err();
            let source = std::error::Error::source(&error).unwrap().to_string();
            assert!(source.starts_with(&format!("the {part} has a line end")), "{source}");
        }
    }

    #[tokio::test]
    async fn forgotten_credentials_are_resolved_anew() {
        let (cache, calls) = cache(None);
        cache.resolve().await.unwrap();
        cache.forget().await;
        cache.resolve().await.unwrap();
        assert_eq!(calls.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn the_hint_renews_what_the_profile_is_made_of() {
        let config = "[profile sso]\nsso_session = s\nsso_account_id = 1\nsso_role_name = r\n\
                      [sso-session s]\nsso_start_url = u\nsso_region = r\n\
                      [profile role]\nrole_arn = r\nsource_profile = sso\n\
                      [profile login]\nlogin_session = arn\n[profile process]\ncredential_process = p\n\
                      [profile a]\naws_access_key_id = a\naws_secret_access_key = b\n";
        let read = |path: &Path| Ok(path.ends_with("config").then(|| config.as_bytes().to_vec()));
        let variables = Variables::new([], Some("/home/me".into()));
        for (name, hint) in [
            ("sso", "`aws sso login --profile sso`"),
            ("role", "`aws sso login --profile role`"),
            ("login", "`aws login --profile login`"),
            ("process", "`credential_process` of the profile"),
            ("a", "`aws sts get-caller-identity --profile a`"),
        ] {
            let options = Options { profile: Some(name), region: None };
            let hints = SignIn::of(&Identity::resolve(options, &variables, &read).unwrap()).hints();
            assert!(hints.iter().any(|line| line.contains(hint)), "{name}: {hints:?}");
        }
    }

    #[tokio::test]
    async fn a_chain_without_credentials_is_told_apart_from_one_that_fails() {
        let resolve = async |error: fn() -> CredentialsError| {
            let provider = provide_credentials_fn(move || async move { Err(error()) });
            let provider = Provider::Sdk(SharedCredentialsProvider::new(provider));
            CredentialCache::new(
                provider,
                SignIn::Profile { name: Some("dev".into()), renewal: Renewal::Unknown },
            )
            .resolve()
            .await
            .unwrap_err()
        };
        let error = resolve(CredentialsError::not_loaded_no_source).await;
        assert_eq!(error.to_string(), "there are no AWS credentials for profile dev");
        let error = resolve(|| CredentialsError::provider_error("the SSO token has expired")).await;
        assert!(matches!(error, AwsError::Credentials { .. }), "{error:?}");
    }
}
