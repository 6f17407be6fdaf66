//! Makes the provider for a source of credentials: the SDK's, given plain values, or one of this crate.
//!
//! The SDK's chains are not used. They read the user's files by rules of their own, and look further where
//! the AWS CLI would stop.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::imds;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::imds::region::ImdsRegionProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_types::sdk_ua_metadata::FrameworkMetadata;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use tokio::sync::Mutex;

use crate::aws::client::endpoint::{Place, STS};
use crate::aws::client::operation::Client;
use crate::aws::configured_endpoint;
use crate::aws::credentials::assume_role::{AssumedRole, Role};
use crate::aws::credentials::aws_login::Login;
use crate::aws::credentials::cache::Provider;
use crate::aws::credentials::identity::{Endpoints, Identity, Keys, Metadata, RoleSource, Source};
use crate::aws::credentials::process::Process;
use crate::aws::credentials::sso::SingleSignOn;
use crate::aws::credentials::web_identity::WebIdentityRole;
use crate::aws::{ATTEMPT_TIMEOUT, CALL_TIMEOUT, CONNECT_TIMEOUT};

/// The SDK's configuration, from our decision alone.
pub(in crate::aws) fn sdk_config(
    identity: &Identity,
    region: &str,
    http_client: SharedHttpClient,
) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .operation_attempt_timeout(ATTEMPT_TIMEOUT)
        .operation_timeout(CALL_TIMEOUT)
        .build();
    let settings = &identity.settings;
    let adaptive = settings.retry_mode.as_ref().is_some_and(|mode| mode.eq_ignore_ascii_case("adaptive"));
    let retries = if adaptive { RetryConfig::adaptive() } else { RetryConfig::standard() };
    let retries = match settings.max_attempts {
        Some(attempts) if attempts > 0 => retries.with_max_attempts(attempts),
        _ => retries,
    };
    let mut builder = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .region(Region::new(region.to_owned()))
        .http_client(http_client)
        .timeout_config(timeouts)
        .retry_config(retries)
        .service_config(identity.endpoints.clone());
    builder.set_use_fips(identity.fips);
    builder.set_use_dual_stack(identity.dual_stack);
    builder.set_app_name(settings.app_id.clone().and_then(|id| AppName::new(id).ok()));
    builder.set_framework_metadata(FrameworkMetadata::new("ssh_ec2", Some(env!("CARGO_PKG_VERSION"))).ok());
    builder.build()
}

impl LoadServiceConfig for Endpoints {
    /// The SDK's own clients ask for their endpoint by their service id.
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        if key.profile() == "endpoint_url" { self.of(key.service_id()).map(str::to_owned) } else { None }
    }
}

/// The region that the machine's metadata service names.
pub(in crate::aws) async fn region_of_machine(
    metadata: &Metadata,
    http_client: SharedHttpClient,
) -> Option<String> {
    let config = ProviderConfig::without_region().with_http_client(http_client);
    let client = metadata_client(metadata, &config)?;
    let region =
        ImdsRegionProvider::builder().configure(&config).imds_client(client).build().region().await?;
    Some(region.as_ref().to_owned())
}

/// What providers have in common.
pub(in crate::aws) struct Providers<'a> {
    pub(in crate::aws) sdk: &'a SdkConfig,
    pub(in crate::aws) place: &'a Place,
    pub(in crate::aws) home: Option<&'a Path>,
    /// Where `aws login` keeps what it was given.
    pub(in crate::aws) login_cache: Option<PathBuf>,
    /// Whether a person may be asked.
    pub(in crate::aws) may_ask: bool,
}

impl Providers<'_> {
    /// The provider for a source. None if its endpoint is no URL.
    pub(in crate::aws) fn provider(&self, source: &Source) -> Option<Provider> {
        Some(match source {
            Source::Environment(keys) | Source::Keys(keys) => Provider::Sdk(of_keys(keys)),
            Source::Container => {
                let provider = EcsCredentialsProvider::builder().configure(&self.config()).build();
                Provider::Sdk(SharedCredentialsProvider::new(provider))
            }
            Source::Login { session, .. } => {
                let directory = self.login_cache.as_ref()?;
                Provider::Login(Box::new(Login::new(session, self.sdk, self.place, directory)))
            }
            Source::Metadata(metadata) => {
                let client = metadata_client(metadata, &self.config())?;
                let provider =
                    ImdsCredentialsProvider::builder().configure(&self.config()).imds_client(client);
                Provider::Sdk(SharedCredentialsProvider::new(provider.build()))
            }
            Source::Process { command, .. } => Provider::Process(Process::new(command.clone(), self.may_ask)),
            Source::Role(role) => self.role(role)?,
            Source::Sso { sso, .. } => {
                let sso = SingleSignOn::new(sso.clone(), self.sdk, self.place, self.home?, self.may_ask);
                Provider::Sso(Box::new(sso))
            }
            Source::WebIdentity(web_identity) => Provider::WebIdentity(Box::new(WebIdentityRole {
                web_identity: web_identity.clone(),
                client: Client::new(self.sdk.clone(), &self.place.region),
                endpoint: self.sts(),
            })),
        })
    }

    fn role(&self, role: &RoleSource) -> Option<Provider> {
        let region = self.place.region.clone();
        Some(Provider::Role(Box::new(AssumedRole {
            role: Role::of(role),
            source: self.provider(&role.source)?,
            client: Client::new(self.sdk.clone(), &region),
            endpoint: self.sts(),
            region,
            cache: self.home.map(|home| home.join(".aws/cli/cache")),
            owner: rustix::process::getuid().as_raw(),
            fault: OnceLock::new(),
            may_ask: AtomicBool::new(self.may_ask),
            asking: Mutex::default(),
        })))
    }

    fn sts(&self) -> String {
        configured_endpoint(self.sdk, &STS).unwrap_or_else(|| self.place.endpoint(&STS))
    }

    fn config(&self) -> ProviderConfig {
        let sdk = self.sdk;
        let mut config = ProviderConfig::without_region()
            .with_region(sdk.region().cloned())
            .with_behavior_version(sdk.behavior_version())
            .with_use_fips(sdk.use_fips())
            .with_use_dual_stack(sdk.use_dual_stack());
        if let Some(client) = sdk.http_client() {
            config = config.with_http_client(client);
        }
        if let Some(timeouts) = sdk.timeout_config() {
            config = config.with_timeout_config(timeouts.clone());
        }
        if let Some(retries) = sdk.retry_config() {
            config = config.with_retry_config(retries.clone());
        }
        config
    }
}

fn of_keys(keys: &Keys) -> SharedCredentialsProvider {
    let Keys { id, secret, token, expires } = keys.clone();
    SharedCredentialsProvider::new(Credentials::new(id, secret, token, expires, "keys"))
}

/// With the endpoint given, the SDK does not look for one in the user's files.
fn metadata_client(metadata: &Metadata, config: &ProviderConfig) -> Option<imds::Client> {
    Some(imds::Client::builder().configure(config).endpoint(&metadata.endpoint).ok()?.build())
}
