//! The AWS account: who we are in it, and the few calls that we make.
//!
//! Only this module and the files below it know the AWS SDK. They return our own types and errors, never wait
//! without a bound, and show no key, token or signed URL. Which calls to make in which order is the commands'
//! business; so is when to try again after a failure that the SDK's retries did not heal.

mod calls;
mod client;
mod credentials;
mod error;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_credential_types::Credentials;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_types::service_config::ServiceConfigKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

pub use self::calls::ec2::{Filter, Instance, InstanceState, Latest};
pub use self::calls::session::{Document, Resumption, SessionId, SessionTicket, StartSession, Token};
pub use self::calls::sts::{Caller, Endpoint};
pub use self::calls::systems_manager::Managed;
use self::client::connections::Connections;
use self::client::endpoint::{EC2, Place, SSM, SSM_MESSAGES, Service};
use self::client::error_response::Circumstances;
pub use self::client::error_response::RequestId;
use self::client::operation::{Answer, Call, Client, Failure};
use self::client::{endpoint, http_client};
use self::credentials::cache::CredentialCache;
pub use self::credentials::cache::{Renewal, SignIn};
pub use self::credentials::configuration::{ConfigurationError, KeyPlace};
use self::credentials::identity::{Identity, Options, Source};
pub use self::credentials::ini::SyntaxError;
pub use self::credentials::process::ProcessError;
use self::credentials::providers::Providers;
use self::credentials::variables::Variables;
use self::credentials::{identity, providers};
pub use self::error::AwsError;
use self::error::NoAnswer;
use crate::net::network::Network;
use crate::net::websocket::StreamUrl;
use crate::system::jitter;
use crate::system::private_file::ReadError;

/// The SDK's own value, which only its loader would set.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);
/// One attempt at a call. The slowest of ours, StartSession, takes a second or two.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call with its retries, but for those of throttled ones.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The names of the user's profiles; none if they cannot be read.
pub fn profile_names() -> Vec<String> {
    identity::profile_names(&variables(), &read_file).unwrap_or_default()
}

/// A time as AWS writes it: RFC 3339, in UTC.
pub fn timestamp(time: SystemTime) -> String {
    // Nothing that AWS or a clock says is outside of what can be written.
    DateTime::from(time).fmt(Format::DateTime).unwrap_or_default()
}

/// Long enough for fifty at three a second, which is the quota of StartSession.
const THROTTLED_PATIENCE: Duration = Duration::from_secs(20);
const THROTTLED_DELAY: Duration = Duration::from_secs(1);
const THROTTLED_MAX_DELAY: Duration = Duration::from_secs(4);

/// Which account and region, as far as the command line says.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The profile; it then beats AWS_PROFILE, and credentials in the environment, but not AWS_REGION.
    pub profile: Option<String>,
    /// The region; it then beats AWS_REGION and the profile.
    pub region: Option<String>,
    /// Whether nobody must be asked anything.
    pub batch: bool,
}

/// One account and region to work in.
pub struct Aws {
    client: Client,
    credentials: CredentialCache,
    place: Place,
    profile: Option<String>,
    /// The id of the key in the environment, if that is used.
    access_key: String,
    sdk: SdkConfig,
    connections: Connections,
    /// For how long a call may take with all its attempts, after credentials were had. None: as the SDK has
    /// it.
    limit: Option<Duration>,
    /// For how long a throttled call is tried again, after the SDK's own attempts.
    patience: Duration,
}

/// The CA bundle that the profile names (`ca_bundle`), for [`crate::net::network::NetworkEnvironment`] if the
/// environment names none. A configuration that cannot be read names none either; [`Aws::load`] reports it.
pub fn ca_bundle(settings: &Settings) -> Option<PathBuf> {
    Identity::resolve(settings.options(), &variables(), &read_file).ok()?.settings.ca_bundle
}

impl Settings {
    fn options(&self) -> Options<'_> {
        Options { profile: self.profile.as_deref(), region: self.region.as_deref() }
    }
}

impl Aws {
    /// Reads environment and profiles. Asks the network only if nothing names a region and this is, perhaps, an
    /// EC2 instance, for a second at most. Credentials are resolved at the first call.
    ///
    /// # Errors
    ///
    /// [`AwsError::Configuration`], [`AwsError::NoRegion`], [`AwsError::BadRegion`],
    /// [`AwsError::NoCredentials`].
    pub async fn load(settings: &Settings, network: &Network) -> Result<Self, AwsError> {
        let variables = variables();
        let identity = Identity::resolve(settings.options(), &variables, &read_file)?;
        let connections = Connections::default();
        let http_client = http_client::http_client(network, &connections);
        // The machine is asked last, and only then.
        let region = match (&identity.region, &identity.metadata) {
            (Some(region), _) => Some(region.clone()),
            (None, Some(metadata)) => providers::region_of_machine(metadata, http_client.clone()).await,
            (None, None) => None,
        };
        let region = region.ok_or(AwsError::NoRegion)?;
        endpoint::check_region(&region)?;
        let sdk = providers::sdk_config(&identity, &region, http_client);
        let place = Place {
            region,
            fips: identity.fips.unwrap_or(false),
            dual_stack: identity.dual_stack.unwrap_or(false),
        };
        let providers = Providers {
            sdk: &sdk,
            place: &place,
            home: variables.home(),
            login_cache: variables.path("AWS_LOGIN_CACHE_DIRECTORY", ".aws/login/cache")?,
            may_ask: !settings.batch,
        };
        let sign_in = SignIn::of(&identity);
        let provider = identity.source.as_ref().and_then(|source| providers.provider(source));
        let provider = provider.ok_or_else(|| AwsError::NoCredentials { sign_in: sign_in.clone() })?;
        Ok(Self {
            client: Client::new(sdk.clone(), &place.region),
            credentials: CredentialCache::new(provider, sign_in),
            access_key: match &identity.source {
                Some(Source::Environment(keys)) => keys.id.clone(),
                _ => String::new(),
            },
            place,
            profile: identity.profile,
            sdk,
            connections,
            limit: None,
            patience: THROTTLED_PATIENCE,
        })
    }

    /// Gets the credentials, for which a person may have to be asked something. Otherwise the first call does; but a
    /// question can be given up, and some calls must not be.
    ///
    /// # Errors
    ///
    /// Those of credentials.
    pub async fn sign_in(&self) -> Result<(), AwsError> {
        self.credentials.resolve().await.map(|_| ())
    }

    /// Why a role's credentials in the cache of the AWS CLI were not believed, if there were such.
    pub fn fault(&self) -> Option<&ReadError> {
        self.credentials.fault()
    }

    /// The same, for calls that are better given up than waited for: a throttled one is made again for so long.
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same account and settings for other calls, which share credentials and connections with these.
    pub fn again(&self) -> Self {
        Self {
            client: Client::new(self.sdk.clone(), &self.place.region),
            credentials: self.credentials.clone(),
            place: self.place.clone(),
            profile: self.profile.clone(),
            access_key: self.access_key.clone(),
            sdk: self.sdk.clone(),
            connections: self.connections.clone(),
            limit: self.limit,
            patience: self.patience,
        }
    }

    /// The same, for calls that take at most so long with all their attempts, throttled ones included, not
    /// counting the time that credentials take. A call is dropped then, so that it must not be one that
    /// starts something.
    pub fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same, for calls that take at most so long, with all their attempts.
    pub fn within(self, limit: Duration) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(limit.min(ATTEMPT_TIMEOUT))
            .operation_timeout(limit)
            .build();
        let sdk = self.sdk.into_builder().timeout_config(timeouts).build();
        Self { client: Client::new(sdk.clone(), &self.place.region), sdk, ..self }
    }

    /// The region.
    pub fn region(&self) -> &str {
        &self.place.region
    }

    /// The profile, if one was named.
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// A name for the account, as far as it is known without a call: the profile, or the access key that the
    /// environment has. Not a secret, and not for people.
    pub fn account_name(&self) -> String {
        match self.credentials.sign_in() {
            SignIn::Environment => self.access_key.clone(),
            SignIn::Profile { .. } => format!("profile {}", self.profile.as_deref().unwrap_or("default")),
        }
    }

    /// Where instances are described, when the user configured it.
    pub fn instances_endpoint(&self) -> Option<String> {
        self.configured_endpoint(&EC2)
    }

    /// The same account and settings in another region.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadRegion`].
    pub fn in_region(&self, region: &str) -> Result<Self, AwsError> {
        endpoint::check_region(region)?;
        let place = Place { region: region.to_owned(), ..self.place.clone() };
        Ok(Self { client: Client::new(self.sdk.clone(), region), place, ..self.again() })
    }

    /// Where the websockets of sessions are expected, to connect there early. None when an endpoint was configured:
    /// then only the service knows.
    pub fn message_gateway(&self) -> Option<StreamUrl> {
        let overridden =
            [&SSM, &SSM_MESSAGES].iter().any(|service| self.configured_endpoint(service).is_some());
        if overridden { None } else { self.place.message_gateway() }
    }

    /// Refuses a stream URL that does not lead to Session Manager of this region, or to what the user
    /// configured in its stead; unencrypted ones may lead to this machine only.
    ///
    /// # Errors
    ///
    /// [`AwsError::UntrustedStreamUrl`].
    pub fn check_stream_url(&self, url: &StreamUrl) -> Result<(), AwsError> {
        let overrides: Vec<_> = [&SSM, &SSM_MESSAGES]
            .into_iter()
            .filter_map(|service| self.configured_endpoint(service))
            .collect();
        self.place.check_stream_url(url, &overrides)
    }

    /// Makes a call of JSON 1.1 about `subject`, an instance or a session.
    async fn call<I: Serialize, O: DeserializeOwned>(
        &self,
        api: &Api,
        subject: &str,
        input: &I,
    ) -> Result<(O, RequestId), AwsError> {
        let malformed = |source| AwsError::Malformed { action: api.action(), source };
        let body = serde_json::to_string(input).map_err(|error| malformed(error.into()))?;
        let answer = self.invoke(api, subject, body).await?;
        match serde_json::from_slice(&answer.body) {
            Ok(output) => Ok((output, answer.request_id.unwrap_or_else(RequestId::absent))),
            // Its text may quote the answer, and with it a token.
            Err(_) => Err(malformed("it is not the JSON that was expected".into())),
        }
    }

    /// Makes a call whose body is written already, and makes it again for a while if AWS throttles it: of many that
    /// begin at once the last have to wait longer than the SDK does. No clock runs while credentials are
    /// fetched.
    async fn invoke(&self, api: &Api, subject: &str, body: String) -> Result<Answer, AwsError> {
        let mut spent = Duration::ZERO;
        let mut delay = THROTTLED_DELAY;
        let mut is_throttled = false;
        loop {
            let credentials = self.credentials.resolve().await?;
            let started = Instant::now();
            let attempt = self.invoke_once(api, subject, body.clone(), credentials);
            let result = match self.limit {
                Some(limit) => match timeout(limit.saturating_sub(spent), attempt).await {
                    Ok(result) => result,
                    // AWS has answered, and the attempt after that had too little time left.
                    Err(_) if is_throttled => Err(AwsError::Throttled { action: api.action() }),
                    Err(_) => Err(self.unanswered(&self.endpoint(api.service)?, NoAnswer(limit).into())),
                },
                None => attempt.await,
            };
            spent += started.elapsed();
            match result {
                Err(AwsError::Throttled { action }) if spent + delay < self.patience => {
                    tracing::info!("AWS throttles {action}; trying again");
                    is_throttled = true;
                    sleep(jitter::up_to(delay)).await;
                    spent += delay;
                    delay = (delay * 2).min(THROTTLED_MAX_DELAY);
                }
                result => return result,
            }
        }
    }

    async fn invoke_once(
        &self,
        api: &Api,
        subject: &str,
        body: String,
        credentials: Credentials,
    ) -> Result<Answer, AwsError> {
        let action = api.action();
        let endpoint = self.endpoint(api.service)?;
        let call = Call {
            service: api.service,
            operation: api.operation,
            endpoint: &endpoint,
            credentials: Some(credentials),
            body,
        };
        match self.client.invoke(call).await {
            Ok(answer) => Ok(answer),
            Err(Failure::Malformed(source)) => Err(AwsError::Malformed { action, source }),
            Err(Failure::Network(error)) => Err(AwsError::Network(error)),
            Err(Failure::Refused(refusal)) => {
                let sign_in = self.credentials.sign_in();
                let error =
                    Circumstances { action, subject, region: self.region(), sign_in }.explain(refusal);
                if matches!(error, AwsError::ExpiredToken { .. } | AwsError::RejectedCredentials { .. }) {
                    // Their owner may renew them while we run.
                    self.credentials.forget().await;
                }
                Err(error)
            }
            Err(Failure::Unreachable(source)) => Err(self.unanswered(&endpoint, source)),
        }
    }

    /// An endpoint did not answer: because no connection to it can be made, or in spite of one.
    fn unanswered(&self, endpoint: &str, source: Box<dyn StdError + Send + Sync>) -> AwsError {
        let host = endpoint::host_of(endpoint).unwrap_or_else(|| endpoint.to_owned());
        match self.connections.are_impossible(endpoint) {
            true => AwsError::NoConnection { host, source },
            false => AwsError::Unreachable { host, source },
        }
    }

    fn endpoint(&self, service: &Service) -> Result<String, AwsError> {
        let Some(endpoint) = self.configured_endpoint(service) else {
            return Ok(self.place.endpoint(service));
        };
        endpoint::check_endpoint(service, &endpoint)?;
        Ok(endpoint)
    }

    /// The endpoint from the environment or the profile, for this service or for all.
    fn configured_endpoint(&self, service: &Service) -> Option<String> {
        configured_endpoint(&self.sdk, service)
    }
}

fn configured_endpoint(sdk: &SdkConfig, service: &Service) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service.id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    sdk.service_config()?.load_config(key).filter(|endpoint| !endpoint.is_empty())
}

/// Shows what a user named. The SDK's configuration would show whole profiles, with the keys in them.
impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws")
            .field("region", &self.place.region)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// An operation of a service.
struct Api {
    service: &'static Service,
    operation: &'static str,
}

impl Api {
    /// The action that IAM policies name.
    fn action(&self) -> String {
        format!("{}:{}", self.service.prefix, self.operation)
    }
}

/// The environment of this process.
fn variables() -> Variables {
    Variables::new(std::env::vars_os(), std::env::home_dir())
}

/// Reads a regular file. A directory that must not be entered has none, for the CLI either.
fn read_file(path: &Path) -> io::Result<Option<Vec<u8>>> {
    if !path.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(CONFIGURATION_LIMIT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > CONFIGURATION_LIMIT {
        let what = format!("it is longer than {} MiB", CONFIGURATION_LIMIT >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, what));
    }
    Ok(Some(bytes))
}

/// The size of about a hundred thousand profiles.
const CONFIGURATION_LIMIT: u64 = 16 << 20;
