//! Calls that are not signed: they exchange a person's sign-in for credentials. All of them are REST with
//! JSON.

use aws_config::SdkConfig;
use aws_runtime::user_agent::UserAgentInterceptor;
use aws_smithy_runtime::client::orchestrator::operation::Operation;
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse, OrchestratorError};
use aws_smithy_types::body::SdkBody;
use http::Method;
use http::header::CONTENT_TYPE;
use serde_json::{Map, Value};

use crate::aws::client::configured_endpoint::configured_endpoint;
use crate::aws::client::endpoint::{self, RegionEndpoints};
use crate::aws::client::error_response::{self, ErrorResponse, clean, error_code};
use crate::aws::client::runtime::{self, CallError, NotJson, ServiceError};
use crate::aws::client::service::Service;
use crate::aws::error::AwsError;

/// Makes calls in one region.
#[derive(Clone)]
pub(crate) struct UnsignedClient {
    sdk: SdkConfig,
    endpoints: RegionEndpoints,
}

/// One call. It has no `Debug`, which would show a token.
pub(crate) struct UnsignedRequest<'a> {
    pub(crate) service: &'static Service,
    pub(crate) operation: &'static str,
    pub(crate) endpoint: &'a str,
    pub(crate) method: Method,
    /// The path, with the query if there is one.
    pub(crate) path: String,
    /// The header with the token, or with the proof of possession of a key.
    pub(crate) header: Option<(&'static str, String)>,
    pub(crate) body: Option<Value>,
}

/// Why an unsigned call has no successful response.
pub(crate) enum UnsignedError {
    /// There is no error response of the service either.
    Failed(AwsError),
    /// The service answered with an error.
    Response {
        /// The action that IAM policies would name.
        action: String,
        response: ErrorResponse,
    },
}

impl From<UnsignedError> for AwsError {
    fn from(error: UnsignedError) -> Self {
        match error {
            UnsignedError::Failed(error) => error,
            UnsignedError::Response { action, response } if response.code.starts_with("TooManyRequests") => {
                Self::Throttled { action }
            }
            UnsignedError::Response { action, response } => {
                let ErrorResponse { code, message, .. } = response;
                Self::Service { action, code, message, request_id: None }
            }
        }
    }
}

impl UnsignedError {
    /// The service's error code. Empty if there is no response.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Failed(_) => "",
            Self::Response { response, .. } => &response.code,
        }
    }
}

impl UnsignedClient {
    /// A client for the region of the sign-in, which need not be that of the instances.
    pub(crate) fn new(sdk: &SdkConfig, endpoints: &RegionEndpoints, region: &str) -> Self {
        let endpoints = RegionEndpoints { region: region.to_owned(), ..endpoints.clone() };
        Self { sdk: sdk.clone(), endpoints }
    }

    /// The endpoint of a service: the user's, or else AWS's own, which `default` returns.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadEndpoint`], [`AwsError::BadRegion`], [`AwsError::UnencryptedEndpoint`].
    pub(crate) fn endpoint(
        &self,
        service: &Service,
        default: impl FnOnce(&RegionEndpoints) -> String,
    ) -> Result<String, AwsError> {
        endpoint::check_region(&self.endpoints.region)?;
        let configured = configured_endpoint(&self.sdk, service);
        let endpoint = configured.unwrap_or_else(|| default(&self.endpoints));
        endpoint::check_endpoint(service, &endpoint)?;
        Ok(endpoint.trim_end_matches('/').to_owned())
    }

    /// Makes a call, with retries, and returns the fields of the response.
    ///
    /// # Errors
    ///
    /// [`UnsignedError`].
    pub(crate) async fn call(
        &self,
        request: UnsignedRequest<'_>,
    ) -> Result<Map<String, Value>, UnsignedError> {
        let action = format!("{}:{}", request.service.prefix, request.operation);
        let endpoint = request.endpoint;
        let result = self.operation(request).invoke(()).await;
        tracing::debug!(%action, outcome = if result.is_ok() { "ok" } else { "failed" }, "called AWS");
        let error = match result {
            Ok(response) => return Ok(response.0),
            Err(error) => CallError::from(error),
        };
        Err(match error.into_response(&action, endpoint) {
            Ok(response) => UnsignedError::Response { action, response },
            Err(error) => UnsignedError::Failed(error),
        })
    }

    fn operation(&self, request: UnsignedRequest<'_>) -> Operation<(), JsonResponse, ServiceError> {
        let UnsignedRequest { service, operation, endpoint, method, path, header, body } = request;
        let components = runtime::components().with_interceptor(UserAgentInterceptor::new());
        runtime::builder(&self.sdk, service, operation, endpoint)
            .no_auth()
            .runtime_plugin(runtime::plugin(&self.sdk, service, components))
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
            .deserializer(read)
            .build()
    }
}

/// The fields of a successful response.
struct JsonResponse(Map<String, Value>);

/// Shows no field, because they hold tokens: the runtime logs its outputs.
impl std::fmt::Debug for JsonResponse {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JsonResponse").finish_non_exhaustive()
    }
}

fn read(response: &HttpResponse) -> Result<JsonResponse, OrchestratorError<ServiceError>> {
    let body = response.body().bytes().unwrap_or_default();
    if response.status().is_success() {
        // The error of the parser could quote the response.
        return serde_json::from_slice(body).map(JsonResponse).map_err(|_| OrchestratorError::other(NotJson));
    }
    let fields = error_response::fields(body);
    let field = |name: &str| fields.get(name).and_then(Value::as_str);
    let status = response.status().as_u16();
    let (code, message) = error_code(status, response.headers().get("x-amzn-errortype"), body);
    // AWS's own field is preferred to that of OAuth 2.
    let description =
        error_response::message(&fields).is_none().then(|| field("error_description")).flatten();
    let message = description.map_or(message, |description| clean(status, "", Some(description)).1);
    let (oauth_error, _) = clean(status, field("error").unwrap_or_default(), None);
    let response = ErrorResponse { status, code, message, request_id: None, oauth_error };
    Err(ServiceError::orchestrator_error(response))
}
