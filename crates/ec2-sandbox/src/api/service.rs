//! The services behind the one endpoint, and their differences: detection, names, protocols.

use std::time::SystemTime;

use http::{Method, StatusCode, request::Parts};

use super::{
    Call, TARGET, authenticate, ec2, ec2_instance_connect,
    error::{self, ApiError},
    iam,
    query::{self, Query},
    ssm, sso, sso_oidc, sts,
};
use crate::{
    sigv4::{self, Claim, SignatureError},
    world::{AwsRegion, Caller, World},
};

/// The services behind the one endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Service {
    Ec2,
    Ec2InstanceConnect,
    Iam,
    Ssm,
    Sso,
    SsoOidc,
    Sts,
}

impl Service {
    /// The service that a request is for: a REST service by the path, a JSON service by the target, an XML
    /// service by the signature or else by the API version.
    pub(super) fn of(parts: &Parts, query: &Query) -> Self {
        let headers = &parts.headers;
        if let Some(route) = Route::of(parts) {
            return route.service;
        }
        let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
        let claimed = Claim::of(headers).ok().map(|claim| claim.service);
        match (target.split('.').next(), claimed, query.value("Version")) {
            (Some("AmazonSSM"), _, _) | (_, Some("ssm"), _) => Self::Ssm,
            (Some("AWSEC2InstanceConnectService"), _, _) | (_, Some("ec2-instance-connect"), _) => {
                Self::Ec2InstanceConnect
            }
            (_, Some("iam"), _) | (_, None, Some("2010-05-08")) => Self::Iam,
            (_, Some("sts"), _) | (_, None, Some("2011-06-15")) => Self::Sts,
            _ => Self::Ec2,
        }
    }

    /// Its name in the scope of a signature, or in the AWS CLI if its calls are not signed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Ec2InstanceConnect => "ec2-instance-connect",
            Self::Iam => "iam",
            Self::Ssm => "ssm",
            Self::Sso => "sso",
            Self::SsoOidc => "sso-oidc",
            Self::Sts => "sts",
        }
    }

    /// The content type of its responses.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Ec2InstanceConnect | Self::Ssm => "application/x-amz-json-1.1",
            Self::Ec2 => "text/xml;charset=UTF-8",
            Self::Sso | Self::SsoOidc => "application/json",
            Self::Iam | Self::Sts => "text/xml",
        }
    }

    /// The name of the operation that a request is for, empty if it has none.
    pub(super) fn operation<'a>(self, parts: &'a Parts, query: &'a Query) -> &'a str {
        match self {
            Self::Ec2 | Self::Iam | Self::Sts => query.value("Action").unwrap_or_default(),
            Self::Ec2InstanceConnect | Self::Ssm => {
                let target = parts.headers.get(TARGET).and_then(|target| target.to_str().ok());
                let target = target.unwrap_or_default();
                target.split_once('.').map_or(target, |(_, operation)| operation)
            }
            Self::Sso | Self::SsoOidc => Route::of(parts).map_or("", |route| route.operation),
        }
    }

    /// The value of the header `x-amzn-ErrorType`, in services that have it. The code ends at the colon; AWS
    /// sends the suffix, as debug output of the AWS CLI shows.
    pub(super) fn error_type(self, error: &ApiError) -> Option<String> {
        match self {
            Self::Sso => Some(error.code.to_owned()),
            Self::SsoOidc => {
                Some(format!("{}:http://internal.amazon.com/coral/com.amazonaws.sso.oidc/", error.code))
            }
            Self::Ec2 | Self::Ec2InstanceConnect | Self::Iam | Self::Ssm | Self::Sts => None,
        }
    }

    /// Authenticates a request. The error is that of the service.
    pub(super) fn check_signature(
        self,
        world: &World,
        parts: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<(Caller, AwsRegion), ApiError> {
        if matches!(self, Self::Sso | Self::SsoOidc) {
            // These calls are unsigned, so the caller is the region's first user.
            return Ok((Caller::you(), AwsRegion::HOME));
        }
        let signed =
            sigv4::Parts { method: parts.method.as_str(), uri: &parts.uri, headers: &parts.headers, body };
        match authenticate(world, signed, self.name(), now) {
            // IAM is global; its endpoint is in us-east-1.
            Ok((_, region)) if self == Self::Iam && region != AwsRegion::UsEast1 => {
                Err(self.refuse(&SignatureError::Scope("a valid region")))
            }
            verdict => verdict.map_err(|refusal| self.refuse(&refusal)),
        }
    }

    fn refuse(self, refusal: &SignatureError) -> ApiError {
        match self {
            Self::Ec2 => error::ec2_signature_error(refusal),
            Self::Ec2InstanceConnect | Self::Ssm | Self::Sso | Self::SsoOidc => {
                error::json_signature_error(refusal)
            }
            Self::Iam | Self::Sts => error::sts_signature_error(refusal),
        }
    }

    /// The query and JSON protocols have one route, the REST services have their own.
    pub(super) fn check_route(self, parts: &Parts) -> Result<(), ApiError> {
        let known = match Route::of(parts) {
            Some(route) => parts.method == route.method,
            None => parts.method == Method::POST && parts.uri.path() == "/",
        };
        if known {
            return Ok(());
        }
        Err(self.unknown_operation(&format!("{} {}", parts.method, parts.uri.path())))
    }

    /// Checks the content type of a JSON service and the API version of a query service.
    ///
    /// No public source has the error code of Systems Manager and EC2 Instance Connect for a wrong content
    /// type. Other services of the same framework handle such a request like one without an operation.
    pub(super) fn check_form(self, parts: &Parts, operation: &str, query: &Query) -> Result<(), ApiError> {
        match self {
            Self::Ec2InstanceConnect | Self::Ssm => {
                let is_json = query::has_type(&parts.headers, self.content_type());
                if is_json { Ok(()) } else { Err(self.unknown_operation("of another content type")) }
            }
            Self::Sso | Self::SsoOidc => Ok(()),
            Self::Ec2 | Self::Iam | Self::Sts if operation.is_empty() => {
                Err(ApiError::new("MissingAction", "The request is missing an action"))
            }
            Self::Ec2 => check_ec2_version(query),
            Self::Iam => check_version(operation, query, "2010-05-08"),
            Self::Sts => check_version(operation, query, "2011-06-15"),
        }
    }

    fn unknown_operation(self, operation: &str) -> ApiError {
        match self {
            Self::Ec2 | Self::Iam | Self::Sts => {
                let message = format!("The action {operation} is not valid for this web service.");
                ApiError::new("InvalidAction", message)
            }
            Self::Ec2InstanceConnect | Self::Ssm | Self::Sso | Self::SsoOidc => {
                ApiError::coral("UnknownOperationException", format!("unknown operation {operation}"))
            }
        }
    }

    /// The error for an action that the caller's policies do not allow on any resource.
    pub(super) fn denied(self, caller: &str, action: &str) -> ApiError {
        self.in_its_form(ApiError::access_denied(caller, action, "*"))
    }

    /// Gives an access error the code and status of this service.
    pub(super) fn in_its_form(self, refusal: ApiError) -> ApiError {
        match self {
            Self::Ec2 => ApiError::new(
                "UnauthorizedOperation",
                format!("You are not authorized to perform this operation. {}", refusal.message),
            )
            .with_status(StatusCode::FORBIDDEN),
            Self::Iam | Self::Sts => {
                ApiError::new("AccessDenied", refusal.message).with_status(StatusCode::FORBIDDEN)
            }
            _ => refusal,
        }
    }

    /// The error for a call above the rate limit.
    pub(super) fn throttled(self) -> ApiError {
        match self {
            Self::Ec2 => ApiError::new("RequestLimitExceeded", "Request limit exceeded.")
                .with_status(StatusCode::SERVICE_UNAVAILABLE),
            Self::Ec2InstanceConnect | Self::Ssm => ApiError::new("ThrottlingException", "Rate exceeded"),
            Self::Sso => ApiError::new("TooManyRequestsException", "Rate exceeded")
                .with_status(StatusCode::TOO_MANY_REQUESTS),
            Self::SsoOidc => ApiError::new("SlowDownException", "Rate exceeded"),
            Self::Iam | Self::Sts => ApiError::new("Throttling", "Rate exceeded"),
        }
    }

    /// Performs the operation.
    pub(super) fn perform(
        self,
        call: &Call<'_>,
        operation: &str,
        parts: &Parts,
        query: &Query,
        body: &[u8],
    ) -> Result<String, ApiError> {
        let answer = match self {
            Self::Ec2 => ec2::perform(call, operation, query),
            Self::Ec2InstanceConnect => ec2_instance_connect::perform(call, operation, body),
            Self::Ssm => ssm::perform(call, operation, body),
            Self::Sso => sso::perform(call, operation, parts),
            Self::SsoOidc => sso_oidc::perform(call, operation, body),
            Self::Iam => iam::perform(call, operation, query),
            Self::Sts => sts::perform(call, operation, query),
        };
        answer.unwrap_or_else(|| Err(self.unknown_operation(operation)))
    }

    /// Writes an error in the service's protocol.
    pub(super) fn write_error(self, error: &ApiError, request_id: &str) -> String {
        match self {
            Self::Ec2 => error.ec2_xml(request_id),
            Self::Ec2InstanceConnect => error.json("com.amazonaws.ec2instanceconnect#"),
            Self::Ssm => error.json(""),
            Self::Sso => error.portal_json(),
            Self::SsoOidc => error.oauth_json(),
            Self::Iam => error.query_xml(iam::NAMESPACE, request_id),
            Self::Sts => error.query_xml(sts::NAMESPACE, request_id),
        }
    }
}

/// The text of `NoSuchVersion` is as EC2 wrote it in boto3's issue 1138. AWS has older versions too; the
/// region answers in the form of the latest.
fn check_ec2_version(query: &Query) -> Result<(), ApiError> {
    match query.value("Version") {
        Some("2016-11-15") => Ok(()),
        None => Err(ApiError::new("MissingParameter", "The request must contain the parameter Version")),
        Some(version) => {
            let message = format!("The requested version ({version}) of service AmazonEC2 does not exist");
            Err(ApiError::new("NoSuchVersion", message))
        }
    }
}

fn check_version(operation: &str, query: &Query, expected: &str) -> Result<(), ApiError> {
    let version = query.value("Version").unwrap_or("NO_VERSION_SPECIFIED");
    if version == expected {
        return Ok(());
    }
    let message = format!("Could not find operation {operation} for version {version}");
    Err(ApiError::new("InvalidAction", message))
}

/// An operation of a REST service.
struct Route {
    method: Method,
    path: &'static str,
    service: Service,
    operation: &'static str,
}

impl Route {
    /// The route with the path of a request.
    fn of(parts: &Parts) -> Option<&'static Self> {
        ROUTES.iter().find(|route| route.path == parts.uri.path())
    }

    const fn new(method: Method, path: &'static str, service: Service, operation: &'static str) -> Self {
        Self { method, path, service, operation }
    }
}

static ROUTES: [Route; 7] = [
    Route::new(Method::POST, "/client/register", Service::SsoOidc, "RegisterClient"),
    Route::new(Method::POST, "/device_authorization", Service::SsoOidc, "StartDeviceAuthorization"),
    Route::new(Method::POST, "/token", Service::SsoOidc, "CreateToken"),
    Route::new(Method::GET, "/federation/credentials", Service::Sso, "GetRoleCredentials"),
    Route::new(Method::GET, "/assignment/accounts", Service::Sso, "ListAccounts"),
    Route::new(Method::GET, "/assignment/roles", Service::Sso, "ListAccountRoles"),
    Route::new(Method::POST, "/logout", Service::Sso, "Logout"),
];
