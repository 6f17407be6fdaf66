//! Calls to AWS on the SDK's own runtime: its retries, timeouts, signatures and clock-skew correction.
//!
//! The generated service crates cost minutes of compiler time for a handful of calls. What they add to the
//! runtime is here, by hand, for two protocols: JSON 1.1 and Query. The runtime's crates are public but "not intended to
//! be used directly", so their use is here; elsewhere only their names occur, where stable crates take them.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::auth::SigV4OperationSigningConfig;
use aws_runtime::auth::sigv4::{SCHEME_ID, SigV4AuthScheme};
use aws_runtime::invocation_id::InvocationIdInterceptor;
use aws_runtime::request_info::RequestInfoInterceptor;
use aws_runtime::retries::classifiers::AwsErrorCodeClassifier;
use aws_runtime::service_clock_skew::{ServiceClockSkewClassifier, ServiceClockSkewInterceptor};
use aws_runtime::user_agent::{ApiMetadata, UserAgentInterceptor};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime::client::retries::classifiers::{HttpStatusCodeClassifier, TransientErrorClassifier};
use aws_smithy_runtime_api::client::auth::AuthSchemeOptionResolverParams;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::interceptors::SharedInterceptor;
use aws_smithy_runtime_api::client::orchestrator::{
    HttpRequest, HttpResponse, OrchestratorError, SensitiveOutput,
};
use aws_smithy_runtime_api::client::result::{ConnectorError, SdkError};
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::date_time::Format;
use aws_smithy_types::error::ErrorMetadata;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::retry::RetryConfig;
use aws_smithy_types::timeout::TimeoutConfig;
use aws_types::SigningName;
use aws_types::region::{Region, SigningRegion};
use bytes::Bytes;
use http::header::CONTENT_TYPE;

use crate::aws::client::endpoint::{Protocol, Service};
use crate::aws::client::error_response::{Refusal, RequestId, error_code};
use crate::aws::client::query;
use crate::net::network::NetworkError;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The SDK's signer tolerates this much too; below it a difference of clocks is the network's delay.
const TOLERATED_SKEW: Duration = Duration::from_secs(4 * 60);

/// Makes calls in one region. Connections and the known clock skew live here.
pub(in crate::aws) struct Client {
    sdk: SdkConfig,
    region: Region,
    skew_interceptor: SharedInterceptor,
    /// AWS's clock minus ours, in milliseconds, as of the last answer.
    skew: Arc<AtomicI64>,
}

/// One call, ready to be made.
pub(in crate::aws) struct Call<'a> {
    pub(in crate::aws) service: &'static Service,
    pub(in crate::aws) operation: &'static str,
    pub(in crate::aws) endpoint: &'a str,
    /// None for a call that carries no signature.
    pub(in crate::aws) credentials: Option<Credentials>,
    pub(in crate::aws) body: String,
}

/// A successful answer.
pub(in crate::aws) struct Answer {
    pub(in crate::aws) request_id: Option<RequestId>,
    pub(in crate::aws) body: Bytes,
}

/// Does not show the body, which may hold a session token: the runtime logs its outputs.
impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

/// Why there is no successful answer.
#[derive(Debug)]
pub(in crate::aws) enum Failure {
    /// There was an answer that is none, or the request could not be built.
    Malformed(BoxError),
    /// No connection was tried, for want of usable settings.
    Network(NetworkError),
    /// The service said no.
    Refused(Refusal),
    /// There was no answer in time.
    Unreachable(BoxError),
}

impl Client {
    pub(in crate::aws) fn new(sdk: SdkConfig, region: &str) -> Self {
        Self {
            sdk,
            region: Region::new(region.to_owned()),
            skew_interceptor: SharedInterceptor::new(ServiceClockSkewInterceptor::new()),
            skew: Arc::default(),
        }
    }

    /// How far this machine's clock was off at the last answer, and whether it was behind.
    pub(in crate::aws) fn skew(&self) -> (Duration, bool) {
        let skew = self.skew.load(Ordering::Relaxed);
        (Duration::from_millis(skew.unsigned_abs()), skew > 0)
    }

    /// AWS's time, as well as we know it; ours, if no answer of AWS said that it is far off.
    pub(in crate::aws) fn now(&self) -> SystemTime {
        let (now, skew) = (SystemTime::now(), self.skew.load(Ordering::Relaxed));
        let offset = Duration::from_millis(skew.unsigned_abs());
        match skew {
            _ if offset < TOLERATED_SKEW => now,
            0.. => now + offset,
            _ => now - offset,
        }
    }

    /// Makes the call, with retries.
    pub(in crate::aws) async fn invoke(&self, call: Call<'_>) -> Result<Answer, Failure> {
        let Call { service, operation, endpoint, credentials, body } = call;
        let started = Instant::now();
        let result = self.operation(service, operation, endpoint, credentials).invoke(body).await;
        let (outcome, request_id) = match &result {
            Ok(answer) => ("ok", answer.request_id.as_ref()),
            Err(SdkError::ServiceError(error)) => {
                (error.err().meta.code().unwrap_or("refused"), error.err().request_id.as_ref())
            }
            Err(_) => ("no answer", None),
        };
        tracing::debug!(
            action = %format_args!("{}:{operation}", service.prefix),
            request_id = request_id.map(RequestId::as_str),
            milliseconds = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            outcome,
            "called AWS"
        );
        result.map_err(Failure::from)
    }

    fn operation(
        &self,
        service: &'static Service,
        operation: &'static str,
        endpoint: &str,
        credentials: Option<Credentials>,
    ) -> Operation<String, Answer, Refused> {
        let retries = self.sdk.retry_config().cloned().unwrap_or_else(RetryConfig::standard);
        let timeouts = self.sdk.timeout_config().cloned().unwrap_or_else(TimeoutConfig::disabled);
        let skew = Arc::clone(&self.skew);
        let mut builder = Operation::builder()
            .service_name(service.id)
            .operation_name(operation)
            .endpoint_url(endpoint)
            .standard_retry(&retries)
            .timeout_config(timeouts)
            .with_connection_poisoning()
            .runtime_plugin(self.plugin(service))
            .serializer(move |body: String| {
                let request = http::Request::post("/");
                let request = match service.protocol {
                    Protocol::Json { target } => request
                        .header(CONTENT_TYPE, "application/x-amz-json-1.1")
                        .header("x-amz-target", format!("{target}.{operation}")),
                    Protocol::Query { .. } => {
                        request.header(CONTENT_TYPE, "application/x-www-form-urlencoded; charset=utf-8")
                    }
                };
                Ok(HttpRequest::try_from(request.body(SdkBody::from(body))?)?)
            })
            .deserializer(move |response: &HttpResponse| {
                note_skew(&skew, response);
                read(response, service.protocol)
            });
        builder = match credentials {
            Some(credentials) => builder.runtime_plugin(self.signing(service, credentials)),
            None => builder.no_auth(),
        };
        if let Some(version) = self.sdk.behavior_version() {
            builder = builder.behavior_version(version);
        }
        if let Some(client) = self.sdk.http_client() {
            builder = builder.http_client(client);
        }
        builder.build()
    }

    /// What a generated client would have registered for itself.
    fn plugin(&self, service: &'static Service) -> StaticRuntimePlugin {
        let config = layer(&self.sdk, service);
        let components = RuntimeComponentsBuilder::new("ssh_ec2")
            .with_retry_classifier(AwsErrorCodeClassifier::<Refused>::new())
            .with_retry_classifier(HttpStatusCodeClassifier::default())
            .with_retry_classifier(TransientErrorClassifier::<Refused>::new())
            .with_retry_classifier(ServiceClockSkewClassifier::<Refused>::new())
            .with_interceptor(self.skew_interceptor.clone())
            .with_interceptor(InvocationIdInterceptor::new())
            .with_interceptor(RequestInfoInterceptor::new())
            .with_interceptor(UserAgentInterceptor::new());
        StaticRuntimePlugin::new().with_config(config.freeze()).with_runtime_components(components)
    }

    /// What signs a call.
    fn signing(&self, service: &'static Service, credentials: Credentials) -> StaticRuntimePlugin {
        let mut config = Layer::new("signature");
        config.store_put(AuthSchemeOptionResolverParams::new(()));
        config.store_put(SigV4OperationSigningConfig {
            region: Some(SigningRegion::from(self.region.clone())),
            name: Some(SigningName::from_static(service.prefix)),
            ..SigV4OperationSigningConfig::default()
        });
        let components = RuntimeComponentsBuilder::new("signature")
            .with_auth_scheme(SigV4AuthScheme::new())
            .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![SCHEME_ID])))
            .with_identity_resolver(SCHEME_ID, SharedCredentialsProvider::new(credentials))
            .with_identity_cache(Some(IdentityCache::no_cache()));
        StaticRuntimePlugin::new().with_config(config.freeze()).with_runtime_components(components)
    }
}

/// The settings of a call that every client has.
pub(super) fn layer(sdk: &SdkConfig, service: &'static Service) -> Layer {
    let mut config = Layer::new("ssh_ec2");
    config.store_put(ApiMetadata::new(service.prefix, env!("CARGO_PKG_VERSION")));
    for metadata in sdk.framework_metadata() {
        config.store_append(metadata.clone());
    }
    if let Some(name) = sdk.app_name() {
        config.store_put(name.clone());
    }
    // Keeps answers, which carry tokens and keys, out of the runtime's logs.
    config.store_put(SensitiveOutput);
    config
}

/// A refusal in the form that the runtime's retry classifiers read.
#[derive(Debug, thiserror::Error)]
#[error("{meta}")]
struct Refused {
    meta: ErrorMetadata,
    request_id: Option<RequestId>,
}

impl ProvideErrorMetadata for Refused {
    fn meta(&self) -> &ErrorMetadata {
        &self.meta
    }
}

impl From<SdkError<Refused, HttpResponse>> for Failure {
    fn from(error: SdkError<Refused, HttpResponse>) -> Self {
        match error {
            SdkError::ServiceError(error) => {
                let status = error.raw().status().as_u16();
                let Refused { meta, request_id } = error.into_err();
                let code = meta.code().unwrap_or_default().to_owned();
                let message = meta.message().unwrap_or_default().to_owned();
                Self::Refused(Refusal { status, code, message, request_id })
            }
            SdkError::ConstructionFailure(_) => Self::Malformed(Box::new(error)),
            error => match error.into_source() {
                Ok(source) => Self::unreachable(source),
                Err(error) => Self::Unreachable(Box::new(error)),
            },
        }
    }
}

impl Failure {
    /// Unwraps what the SDK wrapped, so that the first line says the cause and not "dispatch failure".
    pub(super) fn unreachable(source: BoxError) -> Self {
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

fn read(response: &HttpResponse, protocol: Protocol) -> Result<Answer, OrchestratorError<Refused>> {
    let header = |name: &str| response.headers().get(name);
    let request_id = header("x-amzn-requestid").or_else(|| header("x-amzn-request-id")).map(RequestId::clean);
    let body = response.body().bytes().unwrap_or_default();
    // Every operation of these protocols succeeds with 200. Another success is not from AWS.
    if response.status().as_u16() == 200 {
        return Ok(Answer { request_id, body: Bytes::copy_from_slice(body) });
    }
    let status = response.status().as_u16();
    let (code, message) = match protocol {
        Protocol::Json { .. } => error_code(status, header("x-amzn-errortype"), body),
        Protocol::Query { .. } => query::error_code(status, body),
    };
    let meta = ErrorMetadata::builder().code(code).message(message).build();
    Err(OrchestratorError::operation(Refused { meta, request_id }))
}

fn note_skew(skew: &AtomicI64, response: &HttpResponse) {
    let date =
        response.headers().get("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok());
    let theirs = date.and_then(|date| date.to_millis().ok());
    let ours = DateTime::from(SystemTime::now()).to_millis().ok();
    if let (Some(theirs), Some(ours)) = (theirs, ours) {
        skew.store(theirs.saturating_sub(ours), Ordering::Relaxed);
    }
}
