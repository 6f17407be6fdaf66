//! The calls of STS that return a role's credentials.

use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_credential_types::Credentials;

use crate::aws::client::configured_endpoint::configured_endpoint;
use crate::aws::client::endpoint::{self, RegionEndpoints};
use crate::aws::client::error_response::ErrorResponse;
use crate::aws::client::operation::{ApiClient, Call, Response};
use crate::aws::client::query::form;
use crate::aws::client::service::{Protocol, STS};
use crate::aws::error::AwsError;

/// STS in one region.
pub(crate) struct StsClient {
    client: ApiClient,
    endpoint: String,
    pub(crate) region: String,
}

impl StsClient {
    pub(crate) fn new(sdk: &SdkConfig, endpoints: &RegionEndpoints) -> Self {
        Self {
            client: ApiClient::new(sdk.clone(), &endpoints.region),
            endpoint: configured_endpoint(sdk, &STS).unwrap_or_else(|| endpoints.endpoint(&STS)),
            region: endpoints.region.clone(),
        }
    }

    /// Makes a call, signed if there are credentials. The inner error is the error response of STS.
    ///
    /// # Errors
    ///
    /// [`AwsError`]: the endpoint cannot be used, or there was no response.
    pub(crate) async fn call<const N: usize>(
        &self,
        operation: &'static str,
        parameters: [(&str, Option<String>); N],
        credentials: Option<Credentials>,
    ) -> Result<Result<Response, ErrorResponse>, AwsError> {
        let Protocol::Query { version } = STS.protocol else { unreachable!("STS has one protocol") };
        let parameters = parameters.into_iter();
        let parameters: Vec<_> =
            parameters.filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
        endpoint::check_endpoint(&STS, &self.endpoint)?;
        let call = Call {
            service: &STS,
            operation,
            endpoint: &self.endpoint,
            credentials,
            body: form(operation, version, &parameters),
        };
        match self.client.invoke(call).await {
            Ok(response) => Ok(Ok(response)),
            Err(error) => error.into_response(&action(operation), &self.endpoint).map(Err),
        }
    }
}

/// The error for a successful response without credentials.
pub(crate) fn no_credentials(operation: &str) -> AwsError {
    AwsError::Malformed { action: action(operation), source: "it holds no credentials".into() }
}

/// The IAM action of an operation of STS.
pub(crate) fn action(operation: &str) -> String {
    format!("sts:{operation}")
}

/// The name of a role's session where the profile sets none.
pub(crate) fn default_session_name() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    format!("ssh_ec2-session-{}", since.as_secs())
}
