//! The user's AWS account: credentials, and the few calls that this program makes.
//!
//! Only this module and the files below it use the AWS SDK. They return types and errors of this crate, never
//! wait without a bound, and show no key, token or signed URL. The commands decide which calls to make in
//! which order, and when to try again after an error that the SDK's retries did not heal.
//!
//! `load` reads the configuration, `credentials` decides whose credentials are used and gets them, `client`
//! makes one call, and `calls` has the operations, one file for each service.

mod calls;
mod client;
mod credentials;
mod error;
mod load;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_config::timeout::TimeoutConfig;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

pub(crate) use self::calls::ec2::{Filter, Instance, InstanceState, Latest};
pub(crate) use self::calls::session::{Document, Resumption, SessionId, StartSession, Token};
pub(crate) use self::calls::sts::Caller;
pub(crate) use self::calls::systems_manager::Managed;
use self::client::call::Api;
use self::client::connections::Connections;
use self::client::endpoint::{self, RegionEndpoints};
use self::client::operation::ApiClient;
use self::credentials::cache::CredentialCache;
pub(crate) use self::credentials::configuration::ConfigurationError;
use self::credentials::providers;
pub(crate) use self::credentials::sign_in::SignIn;
#[cfg(test)]
pub(crate) use self::credentials::{
    configuration::KeyLocation, ini::SyntaxError, process::ProcessError, sign_in::Renewal,
};
pub(crate) use self::error::{AwsError, start_hint};
pub(crate) use self::load::{Settings, ca_bundle, profile_names};
use crate::system::private_file::ReadError;

/// The calls and credentials of one account, in one region.
pub(crate) struct Aws {
    client: ApiClient,
    credentials: CredentialCache,
    endpoints: RegionEndpoints,
    /// The profile that was named by option or environment. None for the default profile.
    profile: Option<String>,
    /// The id of the access key in the environment. Empty if another one is used.
    access_key: String,
    sdk: SdkConfig,
    connections: Connections,
    /// How long a call may take with all its attempts, after credentials are there. None: as long as in the
    /// SDK.
    limit: Option<Duration>,
    /// How long a throttled call is repeated, after the SDK's own attempts.
    patience: Duration,
}

impl Aws {
    /// Gets the credentials, for which the user may be prompted. Without this the first call gets them; but a
    /// prompt must be cancellable, and some calls must not be cancelled.
    ///
    /// # Errors
    ///
    /// Those of credentials.
    pub(crate) async fn sign_in(&self) -> Result<(), AwsError> {
        self.credentials.resolve().await.map(|_| ())
    }

    /// Why a role's credentials in the cache of the AWS CLI were not trusted. None if they were, or there are
    /// none.
    pub(crate) fn fault(&self) -> Option<&ReadError> {
        self.credentials.fault()
    }

    /// The same account and settings, with another time for which a throttled call is repeated.
    pub(crate) fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The same account and settings for other calls, which share credentials and connections with these.
    pub(crate) fn again(&self) -> Self {
        Self {
            client: ApiClient::new(self.sdk.clone(), &self.endpoints.region),
            credentials: self.credentials.clone(),
            endpoints: self.endpoints.clone(),
            profile: self.profile.clone(),
            access_key: self.access_key.clone(),
            sdk: self.sdk.clone(),
            connections: self.connections.clone(),
            limit: self.limit,
            patience: self.patience,
        }
    }

    /// The same account and settings, with a limit on the time of a call with all its attempts, throttled
    /// ones included; the time that credentials take does not count. The call is dropped then, so it must not
    /// be one that starts something.
    pub(crate) fn with_limit(self, limit: Duration) -> Self {
        Self { limit: Some(limit), ..self }
    }

    /// The same account and settings, with a limit on the time of the SDK's attempts at a call.
    pub(crate) fn within(self, limit: Duration) -> Self {
        let timeouts = TimeoutConfig::builder()
            .operation_attempt_timeout(limit.min(providers::ATTEMPT_TIMEOUT))
            .operation_timeout(limit)
            .build();
        let sdk = self.sdk.into_builder().timeout_config(timeouts).build();
        Self { client: ApiClient::new(sdk.clone(), &self.endpoints.region), sdk, ..self }
    }

    /// The region that the calls go to, like `eu-west-1`.
    pub(crate) fn region(&self) -> &str {
        &self.endpoints.region
    }

    /// A key for the account that takes no call to find: the profile, or the access key in the environment.
    /// It is not secret, and not meant for display.
    pub(crate) fn account_name(&self) -> String {
        match self.credentials.sign_in() {
            SignIn::Environment => self.access_key.clone(),
            SignIn::Profile { .. } => format!("profile {}", self.profile.as_deref().unwrap_or("default")),
        }
    }

    /// Where the credentials come from.
    pub(crate) fn credentials_source(&self) -> &SignIn {
        self.credentials.sign_in()
    }

    /// When the credentials expire. None if they do not say.
    ///
    /// # Errors
    ///
    /// Those of credentials.
    pub(crate) async fn credentials_end(&self) -> Result<Option<SystemTime>, AwsError> {
        Ok(self.credentials.resolve().await?.expiry())
    }

    /// How far this machine's clock was off at AWS's last response, and whether it was behind.
    pub(crate) fn clock_skew(&self) -> (Duration, bool) {
        self.client.skew()
    }

    /// The time by AWS's clock, estimated from its last response.
    pub(crate) fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        match self.clock_skew() {
            // Responses are dated to the second, and take a moment.
            (skew, _) if skew < Duration::from_secs(2) => now,
            (skew, true) => now + skew,
            (skew, false) => now - skew,
        }
    }

    /// The same account and settings in another region.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadRegion`].
    pub(crate) fn in_region(&self, region: &str) -> Result<Self, AwsError> {
        endpoint::check_region(region)?;
        let endpoints = RegionEndpoints { region: region.to_owned(), ..self.endpoints.clone() };
        Ok(Self { client: ApiClient::new(self.sdk.clone(), region), endpoints, ..self.again() })
    }
}

/// Shows what a user named. The SDK's configuration would show whole profiles, with the keys in them.
impl fmt::Debug for Aws {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Aws")
            .field("region", &self.endpoints.region)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// A time as AWS writes it: RFC 3339, in UTC.
pub(crate) fn timestamp(time: SystemTime) -> String {
    // No time of AWS or of a clock is outside of what can be written.
    DateTime::from(time).fmt(Format::DateTime).unwrap_or_default()
}
