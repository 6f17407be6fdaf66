//! Calls of the protocols AWS JSON 1.1 and AWS Query, on the SDK's own runtime: its retries, timeouts,
//! signatures and clock-skew correction.

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
use aws_runtime::service_clock_skew::{ServiceClockSkewClassifier, ServiceClockSkewInterceptor};
use aws_runtime::user_agent::UserAgentInterceptor;
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::auth::AuthSchemeOptionResolverParams;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::interceptors::SharedInterceptor;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponentsBuilder;
use aws_smithy_runtime_api::client::runtime_plugin::StaticRuntimePlugin;
use aws_smithy_types::DateTime;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::Layer;
use aws_smithy_types::date_time::Format;
use aws_types::SigningName;
use aws_types::region::{Region, SigningRegion};
use bytes::Bytes;
use http::header::CONTENT_TYPE;

use crate::aws::client::error_response::{ErrorResponse, error_code};
use crate::aws::client::query;
use crate::aws::client::request_id::RequestId;
use crate::aws::client::runtime::{self, CallError, ServiceError};
use crate::aws::client::service::{Protocol, Service};

/// Makes calls in one region. It keeps the clock skew that the responses show.
pub(crate) struct ApiClient {
    sdk: SdkConfig,
    region: Region,
    skew_interceptor: SharedInterceptor,
    /// AWS's clock minus this machine's, in milliseconds, as of the last response.
    skew: Arc<AtomicI64>,
}

/// One call, ready to be made.
pub(crate) struct Call<'a> {
    pub(crate) service: &'static Service,
    pub(crate) operation: &'static str,
    pub(crate) endpoint: &'a str,
    /// The credentials that sign the call. None for a call that is not signed.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) body: String,
}

/// A successful response.
pub(crate) struct Response {
    pub(crate) request_id: Option<RequestId>,
    pub(crate) body: Bytes,
}

/// Does not show the body, which may hold a session token: the runtime logs its outputs.
impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("request_id", &self.request_id).finish_non_exhaustive()
    }
}

impl ApiClient {
    pub(crate) fn new(sdk: SdkConfig, region: &str) -> Self {
        Self {
            sdk,
            region: Region::new(region.to_owned()),
            skew_interceptor: SharedInterceptor::new(ServiceClockSkewInterceptor::new()),
            skew: Arc::default(),
        }
    }

    /// How far this machine's clock was off at the last response, and whether it was behind.
    pub(crate) fn skew(&self) -> (Duration, bool) {
        let skew = self.skew.load(Ordering::Relaxed);
        (Duration::from_millis(skew.unsigned_abs()), skew > 0)
    }

    /// AWS's time for a signature: this machine's, unless a response showed that it is far off.
    pub(crate) fn now(&self) -> SystemTime {
        let (now, skew) = (SystemTime::now(), self.skew.load(Ordering::Relaxed));
        let offset = Duration::from_millis(skew.unsigned_abs());
        match skew {
            _ if offset < TOLERATED_SKEW => now,
            0.. => now + offset,
            _ => now - offset,
        }
    }

    /// Makes the call, with retries.
    pub(crate) async fn invoke(&self, call: Call<'_>) -> Result<Response, CallError> {
        let Call { service, operation, endpoint, credentials, body } = call;
        let started = Instant::now();
        let result = self.operation(service, operation, endpoint, credentials).invoke(body).await;
        let (outcome, request_id) = match &result {
            Ok(response) => ("ok", response.request_id.as_ref()),
            Err(SdkError::ServiceError(error)) => {
                let response = &error.err().response;
                (response.code.as_str(), response.request_id.as_ref())
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
        result.map_err(CallError::from)
    }

    fn operation(
        &self,
        service: &'static Service,
        operation: &'static str,
        endpoint: &str,
        credentials: Option<Credentials>,
    ) -> Operation<String, Response, ServiceError> {
        let skew = Arc::clone(&self.skew);
        let builder = runtime::builder(&self.sdk, service, operation, endpoint)
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
        match credentials {
            Some(credentials) => builder.runtime_plugin(self.signing(service, credentials)).build(),
            None => builder.no_auth().build(),
        }
    }

    fn plugin(&self, service: &'static Service) -> StaticRuntimePlugin {
        let components = runtime::components()
            .with_retry_classifier(ServiceClockSkewClassifier::<ServiceError>::new())
            .with_interceptor(self.skew_interceptor.clone())
            .with_interceptor(InvocationIdInterceptor::new())
            .with_interceptor(RequestInfoInterceptor::new())
            .with_interceptor(UserAgentInterceptor::new());
        runtime::plugin(&self.sdk, service, components)
    }

    /// Signs a call with SigV4.
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

fn read(response: &HttpResponse, protocol: Protocol) -> Result<Response, OrchestratorError<ServiceError>> {
    let header = |name: &str| response.headers().get(name);
    let request_id = header("x-amzn-requestid").or_else(|| header("x-amzn-request-id")).map(RequestId::clean);
    let body = response.body().bytes().unwrap_or_default();
    let status = response.status().as_u16();
    // Every operation of these protocols succeeds with 200. Another status of success is not from AWS.
    if status == 200 {
        return Ok(Response { request_id, body: Bytes::copy_from_slice(body) });
    }
    let (code, message) = match protocol {
        Protocol::Json { .. } => error_code(status, header("x-amzn-errortype"), body),
        Protocol::Query { .. } => query::error_code(status, body),
    };
    let response = ErrorResponse { status, code, message, request_id, oauth_error: String::new() };
    Err(ServiceError::orchestrator_error(response))
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

/// The SDK's signer tolerates this much too; a smaller difference of the clocks may be the network's delay.
const TOLERATED_SKEW: Duration = Duration::from_secs(4 * 60);
