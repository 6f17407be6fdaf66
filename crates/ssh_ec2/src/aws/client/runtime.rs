//! What every call needs of the SDK's runtime: retries, timeouts, the HTTP client, the user agent.
//!
//! The generated service crates cost minutes of compiler time for a handful of calls. What they add to the
//! runtime is here, by hand. The runtime's crates are public but "not intended to be used directly", so they
//! are used in `client/` alone; elsewhere only their names occur, where stable crates take them.

use std::error::Error as StdError;

use aws_config::SdkConfig;
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_runtime::user_agent::ApiMetadata;
use aws_smithy_runtime::client::orchestrator::operation::{Operation, OperationBuilder};
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::client::orchestrator::{HttpResponse, OrchestratorError, SensitiveOutput};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;

use crate::aws::client::endpoint;
use crate::aws::client::error_response::ErrorResponse;
use crate::aws::client::service::Service;
use crate::aws::error::AwsError;
use crate::net::network::{NetworkError, causes};

type BoxError = Box<dyn StdError + Send + Sync>;

/// Why a call has no successful response.
#[derive(Debug)]
pub(crate) enum CallError {
    /// The response is not one of the service, or the request could not be built.
    Malformed(BoxError),
    /// No connection was tried, because the network settings cannot be used.
    Network(NetworkError),
    /// The service answered with an error.
    Response(ErrorResponse),
    /// There was no response in time.
    Unreachable(BoxError),
}

impl CallError {
    /// The service's error response. A call without any response is an error of `action` or of the endpoint.
    pub(crate) fn into_response(self, action: &str, endpoint: &str) -> Result<ErrorResponse, AwsError> {
        match self {
            Self::Malformed(source) => Err(AwsError::Malformed { action: action.to_owned(), source }),
            Self::Network(error) => Err(AwsError::Network(error)),
            Self::Response(response) => Ok(response),
            Self::Unreachable(source) => {
                let host = endpoint::host_of(endpoint).unwrap_or_else(|| endpoint.to_owned());
                Err(AwsError::Unreachable { host, source })
            }
        }
    }

    /// Unwraps what the SDK wrapped, so that the first line names the cause and not "dispatch failure".
    fn without_response(source: BoxError) -> Self {
        if causes(source.as_ref()).any(|cause| cause.is::<NotJson>()) {
            return Self::Malformed(NotJson.into());
        }
        let source = match source.downcast::<ConnectorError>() {
            Ok(error) => error.into_source(),
            Err(source) => source,
        };
        match source.downcast::<NetworkError>() {
            Ok(error) => Self::Network(*error),
            Err(source) => Self::Unreachable(source),
        }
    }
}

impl From<SdkError<ServiceError, HttpResponse>> for CallError {
    fn from(error: SdkError<ServiceError, HttpResponse>) -> Self {
        match error {
            SdkError::ServiceError(error) => Self::Response(*error.into_err().response),
            SdkError::ConstructionFailure(_) => Self::Malformed(Box::new(error)),
            error => match error.into_source() {
                Ok(source) => Self::without_response(source),
                Err(error) => Self::Unreachable(Box::new(error)),
            },
        }
    }
}

/// A successful HTTP response that does not come from AWS, such as a proxy's page.
#[derive(Debug, thiserror::Error)]
#[error("it is not the JSON that was expected")]
pub(super) struct NotJson;

/// An error response in the form that the runtime's retry classifiers read.
#[derive(Debug, thiserror::Error)]
#[error("{response}")]
pub(super) struct ServiceError {
    /// Boxed, because a large error makes every result large.
    pub(super) response: Box<ErrorResponse>,
    meta: ErrorMetadata,
}

impl ServiceError {
    /// The error with which a response handler returns an error response.
    pub(super) fn orchestrator_error(response: ErrorResponse) -> OrchestratorError<Self> {
        let meta = ErrorMetadata::builder().code(&response.code).message(&response.message).build();
        OrchestratorError::operation(Self { response: Box::new(response), meta })
    }
}

impl ProvideErrorMetadata for ServiceError {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
    }
}

/// A call with the settings of every call.
pub(super) fn builder(
    sdk: &SdkConfig,
    service: &'static Service,
    operation: &'static str,
    endpoint: &str,
) -> OperationBuilder {
    let retries = sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
    let timeouts = sdk.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled);
    let mut builder = Operation::builder()
        .service_name(service.id)
        .operation_name(operation)
        .endpoint_url(endpoint)
        .standard_retry(&retries)
        .timeout_config(timeouts)
        .with_connection_poisoning();
    if let Some(version) = sdk.behavior_version() {
        builder = builder.behavior_version(version);
    }
    if let Some(client) = sdk.http_client() {
        builder = builder.http_client(client);
    }
    builder
}

/// The retry classifiers of every call.
pub(super) fn components() -> RuntimeComponentsBuilder {
    RuntimeComponentsBuilder::new("ssh_ec2")
        .with_retry_classifier(AwsErrorCodeClassifier::<ServiceError>::new())
        .with_retry_classifier(HttpStatusCodeClassifier::default())
        .with_retry_classifier(TransientErrorClassifier::<ServiceError>::new())
}

/// What a generated client would register for itself.
pub(super) fn plugin(
    sdk: &SdkConfig,
    service: &'static Service,
    components: RuntimeComponentsBuilder,
) -> StaticRuntimePlugin {
    let mut config = Layer::new("ssh_ec2");
    config.store_put(ApiMetadata::new(service.prefix, env!("CARGO_PKG_VERSION")));
    for metadata in sdk.framework_metadata() {
        config.store_append(metadata.clone());
    }
    if let Some(name) = sdk.app_name() {
        config.store_put(name.clone());
    }
    // Keeps responses, which carry tokens and keys, out of the runtime's logs.
    config.store_put(SensitiveOutput);
    StaticRuntimePlugin::new().with_config(config.freeze()).with_runtime_components(components)
}
