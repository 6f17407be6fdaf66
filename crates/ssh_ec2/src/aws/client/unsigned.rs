//! Calls that carry no signature: those that exchange a person's sign-in for credentials.

use aws_config::SdkConfig;
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_runtime::user_agent::UserAgentInterceptor;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use crate::aws::client::endpoint::{self, Place, Service};
use crate::aws::client::error_response::{self, clean, error_code};
use crate::aws::client::operation::{Failure, layer};
use crate::aws::configured_endpoint;
use crate::aws::error::AwsError;
use crate::net::network::causes;

/// Makes calls in one region.
#[derive(Clone)]
pub(in crate::aws) struct Unsigned {
    sdk: SdkConfig,
    place: Place,
}

/// One call. Its `Debug` would show a token, so that there is none.
pub(in crate::aws) struct Request<'a> {
    pub(in crate::aws) service: &'static Service,
    pub(in crate::aws) operation: &'static str,
    pub(in crate::aws) endpoint: &'a str,
    pub(in crate::aws) method: Method,
    /// With the query, if there is one.
    pub(in crate::aws) path: String,
    /// A token or a proof in the place of a signature.
    pub(in crate::aws) header: Option<(&'static str, String)>,
    pub(in crate::aws) body: Option<Value>,
}

/// Why there is no answer.
pub(in crate::aws) enum Denial {
    /// The service said no.
    Refused {
        /// The action that IAM policies would name.
        action: String,
        /// The type of the exception.
        code: String,
        message: String,
        /// OAuth 2's `error`, which distinguishes causes that share one type.
        reason: String,
    },
    /// There was no answer from the service.
    Failed(AwsError),
}

impl From<Denial> for AwsError {
    fn from(denial: Denial) -> Self {
        match denial {
            Denial::Failed(error) => error,
            Denial::Refused { action, code, .. } if code.starts_with("TooManyRequests") => {
                Self::Throttled { action }
            }
            Denial::Refused { action, code, message, .. } => {
                Self::Service { action, code, message, request_id: None }
            }
        }
    }
}

impl Unsigned {
    /// `region` is that of the sign-in; the instances may be in another one.
    pub(in crate::aws) fn new(sdk: &SdkConfig, place: &Place, region: &str) -> Self {
        Self { sdk: sdk.clone(), place: Place { region: region.to_owned(), ..place.clone() } }
    }

    /// Where a service is called: where the user said, or else where `usual` says.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadEndpoint`], [`AwsError::BadRegion`], [`AwsError::UnencryptedEndpoint`].
    pub(in crate::aws) fn endpoint(
        &self,
        service: &Service,
        usual: impl FnOnce(&Place) -> String,
    ) -> Result<String, AwsError> {
        endpoint::check_region(&self.place.region)?;
        let configured = configured_endpoint(&self.sdk, service);
        let endpoint = configured.unwrap_or_else(|| usual(&self.place));
        endpoint::check_endpoint(service, &endpoint)?;
        Ok(endpoint.trim_end_matches('/').to_owned())
    }

    /// Makes a call, with retries; the fields of the answer.
    ///
    /// # Errors
    ///
    /// [`Denial`].
    pub(in crate::aws) async fn call(&self, request: Request<'_>) -> Result<Map<String, Value>, Denial> {
        let action = format!("{}:{}", request.service.prefix, request.operation);
        let host = endpoint::host_of(request.endpoint).unwrap_or_else(|| request.endpoint.to_owned());
        let result = self.operation(request).invoke(()).await;
        tracing::debug!(%action, outcome = if result.is_ok() { "ok" } else { "failed" }, "called AWS");
        let error = match result {
            Ok(answer) => return Ok(answer.0),
            Err(error) => error,
        };
        let failure = match error {
            SdkError::ServiceError(error) => {
                let Denied { meta, reason } = error.into_err();
                let code = meta.code().unwrap_or_default().to_owned();
                let message = meta.message().unwrap_or_default().to_owned();
                return Err(Denial::Refused { action, code, message, reason });
            }
            SdkError::ConstructionFailure(_) => Failure::Malformed(Box::new(error)),
            error => match error.into_source() {
                Ok(source) if causes(source.as_ref()).any(|cause| cause.is::<NotJson>()) => {
                    Failure::Malformed(NotJson.into())
                }
                Ok(source) => Failure::unreachable(source),
                Err(error) => Failure::Unreachable(Box::new(error)),
            },
        };
        Err(Denial::Failed(match failure {
            Failure::Malformed(source) => AwsError::Malformed { action, source },
            Failure::Network(error) => AwsError::Network(error),
            Failure::Unreachable(source) => AwsError::Unreachable { host, source },
            Failure::Refused(refusal) => AwsError::Malformed { action, source: refusal.into() },
        }))
    }

    fn operation(&self, request: Request<'_>) -> Operation<(), Answer, Denied> {
        let Request { service, operation, endpoint, method, path, header, body } = request;
        let retries = self.sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
        let timeouts = self.sdk.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled);
        let mut builder = Operation::builder()
            .service_name(service.id)
            .operation_name(operation)
            .endpoint_url(endpoint)
            .no_auth()
            .standard_retry(&retries)
            .timeout_config(timeouts)
            .with_connection_poisoning()
            .runtime_plugin(self.plugin(service))
            .serializer(move |()| {
                let mut request = http::Request::builder().method(method.clone()).uri(&path);
                if let Some((name, value)) = &header {
                    request = request.header(*name, value);
                }
                let request = match &body {
                    Some(body) => request
                        .header(CONTENT_TYPE, "application/json")
                        .body(SdkBody::from(body.to_string()))?,
                    None => request.body(SdkBody::empty())?,
                };
                Ok(HttpRequest::try_from(request)?)
            })
            .deserializer(read);
        if let Some(version) = self.sdk.behavior_version() {
            builder = builder.behavior_version(version);
        }
        if let Some(client) = self.sdk.http_client() {
            builder = builder.http_client(client);
        }
        builder.build()
    }

    fn plugin(&self, service: &'static Service) -> StaticRuntimePlugin {
        let config = layer(&self.sdk, service);
        let components = RuntimeComponentsBuilder::new("ssh_ec2")
            .with_retry_classifier(AwsErrorCodeClassifier::<Denied>::new())
            .with_retry_classifier(HttpStatusCodeClassifier::default())
            .with_retry_classifier(TransientErrorClassifier::<Denied>::new())
            .with_interceptor(UserAgentInterceptor::new());
        StaticRuntimePlugin::new().with_config(config.freeze()).with_runtime_components(components)
    }
}

/// An answer with a status of success that does not come from AWS, such as a proxy's page.
#[derive(Debug, thiserror::Error)]
#[error("it is not the JSON that was expected")]
struct NotJson;

/// The fields of a successful answer.
struct Answer(Map<String, Value>);

/// The runtime logs its outputs.
impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").finish_non_exhaustive()
    }
}

/// A refusal in the form that the runtime's retry classifiers read.
#[derive(Debug, thiserror::Error)]
#[error("{meta}")]
struct Denied {
    meta: ErrorMetadata,
    reason: String,
}

impl ProvideErrorMetadata for Denied {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
    }
}

fn read(response: &HttpResponse) -> Result<Answer, OrchestratorError<Denied>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        // The error of the parser could quote the answer.
        return serde_json::from_slice(body).map(Answer).map_err(|_| OrchestratorError::other(NotJson));
    }
    let fields = error_response::fields(body);
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    let status = response.status().as_u16();
    let (code, message) = error_code(status, response.headers().get("x-amzn-errortype"), body);
    // AWS's own field is preferred to that of OAuth 2.
    let description =
        error_response::message(&fields).is_none().then(|| field("error_description")).flatten();
    let message = description.map_or(message, |description| clean(status, "", Some(description)).1);
    let (reason, _) = clean(status, field("error").unwrap_or_default(), None);
    let meta = ErrorMetadata::builder().code(code).message(message).build();
    Err(OrchestratorError::operation(Denied { meta, reason }))
}
