//! The AWS account: who we are in it, and the few calls that we make.
//!
//! Only this module and the files below it know the AWS SDK. They return our own types and errors, never wait
//! without a bound, and show no key, token or signed URL. Which calls to make in which order is the commands'
//! business; so is when to try again after a failure that the SDK's retries did not heal.

mod assume_role;
mod check;
mod credentials;
mod ec2;
mod endpoint;
mod error;
mod http_client;
mod managed;
mod operation;
mod push_key;
mod query;
mod refusal;
mod session;
mod sso;
#[cfg(test)]
mod tests;
mod upgrade;

use std::borrow::Cow;
use std::fmt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant, SystemTime};

use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::{ProfileFileLoadError, ProfileFileRegionProvider, ProfileSet};
use aws_config::provider_config::ProviderConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_runtime::env_config::file::EnvConfigFiles;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use aws_types::os_shim_internal::{Env, Fs};
use aws_types::sdk_ua_metadata::FrameworkMetadata;
use aws_types::service_config::ServiceConfigKey;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Mutex;
use tokio::time::sleep;

use self::assume_role::{AssumedRole, Role};
pub use self::check::{Caller, Endpoint};
use self::credentials::{CredentialCache, Provider};
pub use self::credentials::{Renewal, SignIn};
pub use self::ec2::{Filter, Instance, InstanceState, Latest};
use self::endpoint::{EC2, Place, SSM, SSM_MESSAGES, STS, Service};
pub use self::error::AwsError;
pub use self::managed::Managed;
use self::operation::{Answer, Call, Client, Failure};
use self::refusal::Circumstances;
pub use self::refusal::RequestId;
pub use self::session::{Resumption, SessionId, SessionTicket, StartSession, Token};
use self::sso::SignOn;
use crate::network::Network;
use crate::private_file::ReadError;
use crate::websocket::StreamUrl;

/// One attempt at a call. The slowest of ours, StartSession, takes a second or two.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call with its retries, but for those of throttled ones.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// The names of the user's profiles; none if they cannot be read.
pub async fn profile_names() -> Vec<String> {
    let Ok(profiles) = load_profiles(&Settings::default()).await else { return Vec::new() };
    let mut names: Vec<_> = profiles.profiles().map(str::to_owned).collect();
    names.sort();
    names
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
    /// The profile; it then beats AWS_PROFILE, and credentials in the environment.
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
    sdk: SdkConfig,
    /// For how long a throttled call is tried again, after the SDK's own attempts.
    patience: Duration,
}

/// The CA bundle that the profile names (`ca_bundle`), for [`crate::network::NetworkEnvironment`] if the
/// environment names none. A configuration that cannot be read names none either; [`Aws::load`] reports it.
pub async fn ca_bundle(settings: &Settings) -> Option<PathBuf> {
    let profiles = load_profiles(settings).await.ok()?;
    profiles.get("ca_bundle").filter(|path| !path.is_empty()).map(PathBuf::from)
}

impl Aws {
    /// Reads environment and profiles. Asks the network only if nothing names a region and this is, perhaps, an
    /// EC2 instance, for a second at most. Credentials are resolved at the first call.
    ///
    /// # Errors
    ///
    /// [`AwsError::Profiles`], [`AwsError::UnknownProfile`], [`AwsError::NoRegion`], [`AwsError::BadRegion`].
    pub async fn load(settings: &Settings, network: &Network) -> Result<Self, AwsError> {
        let profiles =
            load_profiles(settings).await.map_err(|source| AwsError::Profiles { source: source.into() })?;
        let environment = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
        let profile = settings.profile.clone().or(environment);
        if let Some(name) = profile.as_ref().filter(|name| profiles.get_profile(name).is_none()) {
            return Err(AwsError::UnknownProfile { profile: name.clone() });
        }
        let http_client = http_client::http_client(network);
        let region = match &settings.region {
            Some(region) => region.clone(),
            None => find_region(settings, &http_client).await.ok_or(AwsError::NoRegion)?,
        };
        endpoint::check_region(&region)?;
        let sdk = load_sdk(settings, &region, http_client).await;
        let keys_in_environment = std::env::var_os("AWS_ACCESS_KEY_ID").is_some_and(|key| !key.is_empty());
        let sign_in = match &settings.profile {
            None if keys_in_environment => SignIn::Environment,
            _ => SignIn::of_profile(profile.as_deref(), &profiles),
        };
        let place = Place {
            region: region.clone(),
            fips: sdk.use_fips().unwrap_or(false),
            dual_stack: sdk.use_dual_stack().unwrap_or(false),
        };
        let role = match sign_in {
            SignIn::Environment => None,
            SignIn::Profile { .. } => {
                let section = profile.as_deref().unwrap_or(profiles.selected_profile());
                Roles { profiles: &profiles, sdk: &sdk, place: &place, may_ask: !settings.batch }
                    .provider(section, 0)
            }
        };
        let sign_on = match sign_in {
            SignIn::Environment => None,
            SignIn::Profile { .. } => {
                let section = profile.as_deref().unwrap_or(profiles.selected_profile());
                SignOn::of_profile(section, &profiles, &sdk, !settings.batch)
            }
        };
        let chain = match (role, &settings.profile) {
            (Some(role), _) => Some(role),
            (None, Some(name)) => Some(Provider::Sdk(credentials::of_profile(name, &sdk))),
            (None, None) => sdk.credentials_provider().map(Provider::Sdk),
        };
        // The loader always makes a chain unless told not to.
        let chain = chain.ok_or_else(|| AwsError::NoCredentials { sign_in: sign_in.clone() })?;
        let client = Client::new(sdk.clone(), &region);
        Ok(Self {
            client,
            credentials: CredentialCache::new(chain, sign_in, sign_on),
            place,
            profile,
            sdk,
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
            SignIn::Environment => std::env::var("AWS_ACCESS_KEY_ID").unwrap_or_default(),
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
        Ok(Self {
            client: Client::new(self.sdk.clone(), region),
            credentials: self.credentials.clone(),
            place: Place { region: region.to_owned(), ..self.place.clone() },
            profile: self.profile.clone(),
            sdk: self.sdk.clone(),
            patience: self.patience,
        })
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
    /// begin at once the last have to wait longer than the SDK does.
    async fn invoke(&self, api: &Api, subject: &str, body: String) -> Result<Answer, AwsError> {
        let started = Instant::now();
        let mut delay = THROTTLED_DELAY;
        loop {
            match self.invoke_once(api, subject, body.clone()).await {
                Err(AwsError::Throttled { action }) if started.elapsed() + delay < self.patience => {
                    tracing::info!("AWS throttles {action}; trying again");
                    sleep(jitter(delay)).await;
                    delay = (delay * 2).min(THROTTLED_MAX_DELAY);
                }
                result => return result,
            }
        }
    }

    async fn invoke_once(&self, api: &Api, subject: &str, body: String) -> Result<Answer, AwsError> {
        let action = api.action();
        let endpoint = self.endpoint(api.service)?;
        let call = Call {
            service: api.service,
            operation: api.operation,
            endpoint: &endpoint,
            credentials: self.credentials.resolve().await?,
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
            Err(Failure::Unreachable(source)) => {
                let host = endpoint::host_of(&endpoint).unwrap_or(endpoint);
                Err(AwsError::Unreachable { host, source })
            }
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

/// The roles of profiles, as the AWS CLI reads them.
struct Roles<'a> {
    profiles: &'a ProfileSet,
    sdk: &'a SdkConfig,
    place: &'a Place,
    may_ask: bool,
}

impl Roles<'_> {
    /// The role of a profile, if it has one that we understand. What we do not is left to the SDK, which explains it.
    fn provider(&self, name: &str, depth: usize) -> Option<Provider> {
        let profile = self.profiles.get_profile(name)?;
        let get = |key: &str| profile.get(key).map(str::to_owned);
        let role = Role::of_profile(get)?;
        let source = match (get("source_profile"), get("credential_source")) {
            // A profile may name itself, for the keys that stand in it.
            (Some(source), None) if source == name => Provider::Sdk(credentials::of_keys(get)?),
            // Bounded: they may lead in a circle.
            (Some(source), None) if depth < 8 => {
                let keys = self.profiles.get_profile(&source)?;
                match credentials::of_keys(|key| keys.get(key).map(str::to_owned)) {
                    Some(keys) => Provider::Sdk(keys),
                    None => match self.provider(&source, depth + 1) {
                        Some(role) => role,
                        None => Provider::Sdk(credentials::of_profile(&source, self.sdk)),
                    },
                }
            }
            (None, Some(source)) => Provider::Sdk(credentials::of_source(&source, self.sdk)?),
            _ => return None,
        };
        let region = self.place.region.clone();
        Some(Provider::Role(Box::new(AssumedRole {
            role,
            source,
            client: Client::new(self.sdk.clone(), &region),
            endpoint: configured_endpoint(self.sdk, &STS).unwrap_or_else(|| self.place.endpoint(&STS)),
            region,
            cache: std::env::home_dir().map(|home| home.join(".aws/cli/cache")),
            owner: rustix::process::getuid().as_raw(),
            fault: OnceLock::new(),
            may_ask: AtomicBool::new(self.may_ask),
            asking: Mutex::default(),
        })))
    }
}

/// Anything up to `delay`, so that those who were refused together do not come back together.
fn jitter(delay: Duration) -> Duration {
    let mut random = [0; 1];
    let share = if getrandom::fill(&mut random).is_ok() { f64::from(random[0]) / 255.0 } else { 1.0 };
    delay.mul_f64(share)
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

/// The region that environment, profile or, last, the machine names. Asked apart from the rest, because the
/// SDK's loader would ask a silent metadata service three times over.
async fn find_region(settings: &Settings, http_client: &SharedHttpClient) -> Option<String> {
    let config = ProviderConfig::without_region().with_http_client(http_client.clone());
    let mut of_profile = ProfileFileRegionProvider::builder().configure(&config);
    if let Some(profile) = &settings.profile {
        of_profile = of_profile.profile_name(profile);
    }
    let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
        .or_else(of_profile.build())
        .or_else(ImdsRegionProvider::builder().configure(&config).build());
    let region = chain.region().await?;
    Some(region.as_ref().to_owned())
}

async fn load_sdk(settings: &Settings, region: &str, http_client: SharedHttpClient) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    let mut loader: ConfigLoader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(http_client)
        .region(Region::new(region.to_owned()))
        .timeout_config(timeouts);
    if let Ok(metadata) = FrameworkMetadata::new("ssh_ec2", Some(env!("CARGO_PKG_VERSION"))) {
        loader = loader.framework_metadata(metadata);
    }
    if let Some(profile) = &settings.profile {
        loader = loader.profile_name(profile);
    }
    loader.load().await
}

/// The user's profiles; the selected one is that of `settings`, else of the environment.
async fn load_profiles(settings: &Settings) -> Result<ProfileSet, ProfileFileLoadError> {
    let selected = settings.profile.clone().map(Cow::Owned);
    aws_config::profile::load(&Fs::real(), &Env::real(), &EnvConfigFiles::default(), selected).await
}
