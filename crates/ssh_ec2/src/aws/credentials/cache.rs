//! Gets the credentials and keeps them in memory while they last.
//!
//! The SDK has such a cache, but the websocket upgrade is signed outside of the SDK's request path, where it
//! is out of reach; and it times out after five seconds, too soon for a `credential_process` that asks its
//! user something.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::imds::client::error::ImdsError;
use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use tokio::sync::Mutex;

use crate::aws::client::sdk_error;
use crate::aws::credentials::assume_role::AssumedRole;
use crate::aws::credentials::aws_login::AwsLogin;
use crate::aws::credentials::process::Process;
use crate::aws::credentials::sign_in::{Renewal, SignIn};
use crate::aws::credentials::sso::SsoRole;
use crate::aws::credentials::web_identity::WebIdentityRole;
use crate::aws::error::AwsError;
use crate::net::network::causes;
use crate::system::private_file::ReadError;

/// Credentials, resolved when needed and kept while they last. Clones share them.
#[derive(Clone)]
pub(crate) struct CredentialCache {
    provider: Arc<Provider>,
    sign_in: SignIn,
    cached: Arc<Mutex<Option<(Credentials, SystemTime)>>>,
}

impl CredentialCache {
    pub(crate) fn new(provider: Provider, sign_in: SignIn) -> Self {
        Self { provider: Arc::new(provider), sign_in, cached: Arc::new(Mutex::new(None)) }
    }

    pub(crate) fn sign_in(&self) -> &SignIn {
        &self.sign_in
    }

    /// Credentials that are good for the next minute. Several callers at once wait for one resolution.
    pub(crate) async fn resolve(&self) -> Result<Credentials, AwsError> {
        let mut cached = self.cached.lock().await;
        let now = SystemTime::now();
        if let Some((credentials, until)) = &*cached
            && now < *until
        {
            return Ok(credentials.clone());
        }
        let credentials = self.provider.credentials(&self.sign_in).await?;
        // The caller may connect next, and from then on ssh uses the terminal.
        self.provider.ask_no_more();
        let until = credentials.expiry().map_or(now + DEFAULT_LIFETIME, |expiry| expiry - MARGIN);
        *cached = Some((credentials.clone(), until));
        Ok(credentials)
    }

    /// Why a role's session in the cache of the AWS CLI was not trusted.
    pub(crate) fn fault(&self) -> Option<&ReadError> {
        self.provider.fault()
    }

    /// Makes the next call resolve credentials again.
    pub(crate) async fn forget(&self) {
        *self.cached.lock().await = None;
    }
}

/// A source of credentials.
pub(crate) enum Provider {
    AwsLogin(Box<AwsLogin>),
    Process(Process),
    Sdk(SharedCredentialsProvider),
    Role(Box<AssumedRole>),
    Sso(Box<SsoRole>),
    WebIdentity(Box<WebIdentityRole>),
}

impl Provider {
    /// Credentials that a call can be signed with.
    pub(crate) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
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
            provider.provide_credentials().await.map_err(|error| of_sdk_error(&error, sign_in.clone()))
        };
        match self {
            Self::AwsLogin(login) => login.credentials(sign_in).await,
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

    pub(crate) fn fault(&self) -> Option<&ReadError> {
        let Self::Role(role) = self else { return None };
        role.fault()
    }

    pub(crate) fn ask_no_more(&self) {
        match self {
            Self::Process(process) => process.ask_no_more(),
            Self::Role(role) => role.ask_no_more(),
            Self::Sso(sso) => sso.ask_no_more(),
            Self::AwsLogin(_) | Self::Sdk(_) | Self::WebIdentity(_) => {}
        }
    }
}

/// Refuses an access key id or a token that cannot be in a header: the SDK's signer would panic.
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

fn of_sdk_error(error: &CredentialsError, sign_in: SignIn) -> AwsError {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => AwsError::NoCredentials { sign_in },
        // Without a profile the metadata service is the last source. Whatever it answered, there are no
        // credentials.
        error
            if matches!(sign_in, SignIn::Profile { renewal: Renewal::Absent, .. })
                && causes(error).any(|cause| cause.is::<ImdsError>()) =>
        {
            AwsError::NoCredentials { sign_in }
        }
        error => AwsError::Credentials { sign_in, source: sdk_error::in_words(error).into() },
    }
}

/// A call must not outlive the credentials that it is signed with.
const MARGIN: Duration = Duration::from_secs(60);
/// How long credentials without an expiry time are cached; the SDK's own cache keeps them as long.
const DEFAULT_LIFETIME: Duration = Duration::from_secs(15 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws::credentials::identity::{Identity, Options};
    use crate::aws::credentials::variables::Variables;
    use aws_credential_types::credential_fn::provide_credentials_fn;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// A cache whose provider gives credentials that expire in `seconds`, and a count of its calls.
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

    /// Each would panic in the SDK.
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
    async fn forgotten_credentials_are_resolved_again() {
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
            let hints = Identity::resolve(options, &variables, &read).unwrap().sign_in().hints();
            assert!(hints.iter().any(|line| line.contains(hint)), "{name}: {hints:?}");
        }
    }

    #[tokio::test]
    async fn a_chain_without_credentials_is_distinguished_from_one_that_fails() {
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
