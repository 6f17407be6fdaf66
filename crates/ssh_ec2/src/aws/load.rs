//! Reads the user's AWS configuration: which profile, region and credentials an [`Aws`] works with.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use crate::aws::Aws;
use crate::aws::client::call::THROTTLED_PATIENCE;
use crate::aws::client::connections::Connections;
use crate::aws::client::endpoint::{self, RegionEndpoints};
use crate::aws::client::http_client;
use crate::aws::client::operation::ApiClient;
use crate::aws::credentials::cache::CredentialCache;
use crate::aws::credentials::identity::{self, Identity, Options, Source};
use crate::aws::credentials::providers::{self, Providers};
use crate::aws::credentials::variables::Variables;
use crate::aws::error::AwsError;
use crate::net::network::Network;

/// The account and region that the command line names.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    /// The profile. It beats AWS_PROFILE and credentials in the environment, but not AWS_REGION.
    pub profile: Option<String>,
    /// The region. It beats AWS_REGION and the profile.
    pub region: Option<String>,
    /// Whether the user must not be asked anything, such as an MFA code.
    pub batch: bool,
}

impl Settings {
    fn options(&self) -> Options<'_> {
        Options { profile: self.profile.as_deref(), region: self.region.as_deref() }
    }
}

/// The names of the user's profiles; none if the files cannot be read.
pub(crate) fn profile_names() -> Vec<String> {
    identity::profile_names(&variables(), &read_file).unwrap_or_default()
}

/// The CA bundle that the profile names (`ca_bundle`), for [`crate::net::network::NetworkEnvironment`] if the
/// environment names none. None as well if the configuration cannot be read, which [`Aws::load`] reports.
pub(crate) fn ca_bundle(settings: &Settings) -> Option<PathBuf> {
    Identity::resolve(settings.options(), &variables(), &read_file).ok()?.settings.ca_bundle
}

impl Aws {
    /// Reads environment and profiles. Uses the network only if nothing names a region: then this machine's
    /// metadata service is asked, for a second at most. Credentials are resolved at the first call.
    ///
    /// # Errors
    ///
    /// [`AwsError::Configuration`], [`AwsError::NoRegion`], [`AwsError::BadRegion`],
    /// [`AwsError::NoCredentials`].
    pub(crate) async fn load(settings: &Settings, network: &Network) -> Result<Self, AwsError> {
        let variables = variables();
        let identity = Identity::resolve(settings.options(), &variables, &read_file)?;
        let connections = Connections::default();
        let http_client = http_client::http_client(network, &connections);
        let endpoints = RegionEndpoints {
            region: region(&identity, &http_client).await?,
            fips: identity.fips.unwrap_or(false),
            dual_stack: identity.dual_stack.unwrap_or(false),
        };
        let sdk = providers::sdk_config(&identity, &endpoints.region, http_client);
        Ok(Self {
            client: ApiClient::new(sdk.clone(), &endpoints.region),
            credentials: credentials(settings, &variables, &identity, &sdk, &endpoints)?,
            access_key: match &identity.source {
                Some(Source::Environment(keys)) => keys.id.clone(),
                _ => String::new(),
            },
            endpoints,
            profile: identity.profile,
            sdk,
            connections,
            limit: None,
            patience: THROTTLED_PATIENCE,
        })
    }
}

/// The region: option, environment, profile, and last the instance that this machine may be.
async fn region(identity: &Identity, http_client: &SharedHttpClient) -> Result<String, AwsError> {
    let region = match (&identity.region, &identity.metadata) {
        (Some(region), _) => Some(region.clone()),
        (None, Some(metadata)) => providers::region_of_machine(metadata, http_client.clone()).await,
        (None, None) => None,
    };
    let region = region.ok_or(AwsError::NoRegion)?;
    endpoint::check_region(&region)?;
    Ok(region)
}

fn credentials(
    settings: &Settings,
    variables: &Variables,
    identity: &Identity,
    sdk: &SdkConfig,
    endpoints: &RegionEndpoints,
) -> Result<CredentialCache, AwsError> {
    let providers = Providers {
        sdk,
        endpoints,
        home: variables.home(),
        login_cache: variables.path("AWS_LOGIN_CACHE_DIRECTORY", ".aws/login/cache")?,
        may_ask: !settings.batch,
    };
    let sign_in = identity.sign_in();
    match identity.source.as_ref().and_then(|source| providers.provider(source)) {
        Some(provider) => Ok(CredentialCache::new(provider, sign_in)),
        None => Err(AwsError::NoCredentials { sign_in }),
    }
}

/// The environment of this process.
fn variables() -> Variables {
    Variables::new(std::env::vars_os(), std::env::home_dir())
}

/// Reads a regular file. None for one in a directory that must not be entered, as in the CLI.
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
