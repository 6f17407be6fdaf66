//! Makes the provider for a source of credentials: the SDK's, given plain values, or one of this crate.
//!
//! The SDK's chains are not used. They read the user's files by rules of their own, and try further sources
//! where the AWS CLI would stop.

use std::path::{Path, PathBuf};
use std::time::Duration;

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

use crate::aws::client::endpoint::RegionEndpoints;
use crate::aws::credentials::assume_role::AssumedRole;
use crate::aws::credentials::aws_login::AwsLogin;
use crate::aws::credentials::cache::Provider;
use crate::aws::credentials::identity::{
    ConfiguredEndpoints, Identity, Keys, MetadataService, RoleSource, Source,
};
use crate::aws::credentials::process::Process;
use crate::aws::credentials::sso::SsoRole;
use crate::aws::credentials::sts_client::StsClient;
use crate::aws::credentials::web_identity::WebIdentityRole;

/// The SDK's configuration, made of the resolved identity alone.
pub(crate) fn sdk_config(identity: &Identity, region: &str, http_client: SharedHttpClient) -> SdkConfig {
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

impl LoadServiceConfig for ConfiguredEndpoints {
    /// The SDK's own clients ask for their endpoint by their service id.
    fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
        if key.profile() == "endpoint_url" { self.of(key.service_id()).map(str::to_owned) } else { None }
    }
}

/// The region that the machine's metadata service names.
pub(crate) async fn region_of_machine(
    metadata: &MetadataService,
    http_client: SharedHttpClient,
) -> Option<String> {
    let config = ProviderConfig::without_region().with_http_client(http_client);
    let client = metadata_client(metadata, &config)?;
    let region =
        ImdsRegionProvider::builder().configure(&config).imds_client(client).build().region().await?;
    Some(region.as_ref().to_owned())
}

/// The settings that several providers use.
pub(crate) struct Providers<'a> {
    pub(crate) sdk: &'a SdkConfig,
    pub(crate) endpoints: &'a RegionEndpoints,
    pub(crate) home: Option<&'a Path>,
    /// The directory in which `aws login` keeps its tokens.
    pub(crate) login_cache: Option<PathBuf>,
    /// Whether the user may be asked.
    pub(crate) may_ask: bool,
}

impl Providers<'_> {
    /// The provider for a source. None if its endpoint is not a URL, or it needs a home directory and there
    /// is none.
    pub(crate) fn provider(&self, source: &Source) -> Option<Provider> {
        Some(match source {
            Source::Environment(keys) | Source::Keys(keys) => Provider::Sdk(of_keys(keys)),
            Source::Container => {
                let provider = EcsCredentialsProvider::builder().configure(&self.config()).build();
                Provider::Sdk(SharedCredentialsProvider::new(provider))
            }
            Source::AwsLogin { session, .. } => {
                let directory = self.login_cache.as_ref()?;
                Provider::AwsLogin(Box::new(AwsLogin::new(session, self.sdk, self.endpoints, directory)))
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
                let sso = SsoRole::new(sso.clone(), self.sdk, self.endpoints, self.home?, self.may_ask);
                Provider::Sso(Box::new(sso))
            }
            Source::WebIdentity(web_identity) => {
                Provider::WebIdentity(Box::new(WebIdentityRole::new(web_identity.clone(), self.sts())))
            }
        })
    }

    fn role(&self, role: &RoleSource) -> Option<Provider> {
        let source = self.provider(&role.source)?;
        let cache = self.home.map(|home| home.join(".aws/cli/cache"));
        let role = AssumedRole::new(role.role.clone(), source, self.sts(), cache, self.may_ask);
        Some(Provider::Role(Box::new(role)))
    }

    fn sts(&self) -> StsClient {
        StsClient::new(self.sdk, self.endpoints)
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

/// A client with the endpoint set, so that the SDK does not look for one in the user's files.
fn metadata_client(metadata: &MetadataService, config: &ProviderConfig) -> Option<imds::Client> {
    Some(imds::Client::builder().configure(config).endpoint(&metadata.endpoint).ok()?.build())
}

/// The SDK's own value, which only its loader would set.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(3100);
/// One attempt at a call. The slowest call here, StartSession, takes a second or two.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// A call with the SDK's retries. Those of throttled calls come on top.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
