//! The AWS APIs of the region: a request and its body go in, a response comes out.
//!
//! This file tells the services apart, has the signature checked and writes answers and errors as each
//! service's protocol wants them. What the operations do is in one file per service; what they act on is in
//! `world`. No sockets and no clock here. Error codes follow each service: a wrong secret is
//! `InvalidSignatureException` in the JSON services, `SignatureDoesNotMatch` in STS, `AuthFailure` in EC2.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};
use http_body_util::Full;

use self::{error::ApiError, query::Query};
use crate::{
    sigv4::{self, Claim, Refusal},
    world::{ACCOUNT, AwsRegion, Instance, World},
};

mod ec2;
mod ec2_instance_connect;
mod error;
mod page;
mod query;
mod ssm;
mod sts;
mod xml;

/// The header that names the operation of a JSON service.
pub(crate) const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// Answers one API call.
pub(crate) fn respond(world: &World, parts: &Parts, body: &[u8], now: SystemTime) -> Response<Full<Bytes>> {
    let request_id = request_id();
    let query = Query::parse(body);
    let service = Service::of(&parts.headers, &query);
    let answer = service.check_signature(world, parts, body, now).and_then(|region| {
        service.check_route(parts)?;
        let call = Call { world, region, now, request_id: &request_id };
        service.perform(&call, &parts.headers, &query, body)
    });
    let (status, text) = match answer {
        Ok(text) => (StatusCode::OK, text),
        Err(error) => (error.status, service.write_error(&error, &request_id)),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(service.content_type()));
    add_request_id(&mut response, &request_id);
    response
}

/// Checks the signature of a request to `service`, and that the session behind it is not over; tells the region
/// that it is for.
pub(crate) fn authenticate(
    world: &World,
    request: sigv4::Parts<'_>,
    service: &str,
    now: SystemTime,
) -> Result<AwsRegion, Refusal> {
    let claimed = Claim::of(request.headers).and_then(|claim| AwsRegion::parse(claim.region));
    // A region that there is not is refused as one for which the signature was not made.
    let region = claimed.unwrap_or(AwsRegion::HOME);
    sigv4::verify(request, world.credentials(), region.name(), service, now)?;
    if world.credentials_expired() { Err(Refusal::Expired) } else { Ok(region) }
}

/// A fresh request id, in the form of a version 4 UUID.
pub(crate) fn request_id() -> String {
    let mut bytes = [0; 16];
    // An id is for reading logs; a region without random bytes has failed at its start already.
    let _ = getrandom::fill(&mut bytes);
    let bits = u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Adds the header that every AWS response carries.
pub(crate) fn add_request_id(response: &mut Response<Full<Bytes>>, request_id: &str) {
    if let Ok(value) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert("x-amzn-requestid", value);
    }
}

/// What an operation works with besides its input.
struct Call<'a> {
    world: &'a World,
    region: AwsRegion,
    now: SystemTime,
    request_id: &'a str,
}

impl<'a> Call<'a> {
    /// The instances of the region that is called.
    fn instances(&self) -> impl Iterator<Item = &'a Instance> {
        let region = self.region;
        self.world.instances().iter().filter(move |instance| instance.region == region)
    }

    /// The instance with this id, unless it is in another region.
    fn instance(&self, id: &str) -> Option<&'a Instance> {
        self.world.instance(id).filter(|instance| instance.region == self.region)
    }

    /// The ARN of an instance in this region.
    fn instance_arn(&self, id: &str) -> String {
        format!("arn:aws:ec2:{}:{ACCOUNT}:instance/{id}", self.region)
    }
}

/// The services behind the one endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Service {
    Ec2,
    Ec2InstanceConnect,
    Ssm,
    Sts,
}

impl Service {
    /// JSON services are known by their target; the two XML services by signature, else by API version.
    fn of(headers: &HeaderMap, query: &Query) -> Self {
        let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
        let claimed = Claim::of(headers).map(|claim| claim.service);
        match (target.split('.').next(), claimed, query.value("Version")) {
            (Some("AmazonSSM"), _, _) | (_, Some("ssm"), _) => Self::Ssm,
            (Some("AWSEC2InstanceConnectService"), _, _) | (_, Some("ec2-instance-connect"), _) => {
                Self::Ec2InstanceConnect
            }
            (_, Some("sts"), _) | (_, None, Some("2011-06-15")) => Self::Sts,
            _ => Self::Ec2,
        }
    }

    /// Its name in the scope of a signature.
    fn scope(self) -> &'static str {
        match self {
            Self::Ec2 => "ec2",
            Self::Ec2InstanceConnect => "ec2-instance-connect",
            Self::Ssm => "ssm",
            Self::Sts => "sts",
        }
    }

    fn content_type(self) -> &'static str {
        match self {
            Self::Ec2InstanceConnect | Self::Ssm => "application/x-amz-json-1.1",
            Self::Ec2 => "text/xml;charset=UTF-8",
            Self::Sts => "text/xml",
        }
    }

    fn check_signature(
        self,
        world: &World,
        parts: &Parts,
        body: &[u8],
        now: SystemTime,
    ) -> Result<AwsRegion, ApiError> {
        let signed =
            sigv4::Parts { method: parts.method.as_str(), uri: &parts.uri, headers: &parts.headers, body };
        authenticate(world, signed, self.scope(), now).map_err(|refusal| self.refuse(&refusal))
    }

    fn refuse(self, refusal: &Refusal) -> ApiError {
        match self {
            Self::Ec2 => error::ec2_refusal(refusal),
            Self::Ec2InstanceConnect | Self::Ssm => error::json_refusal(refusal),
            Self::Sts => error::sts_refusal(refusal),
        }
    }

    fn check_route(self, parts: &Parts) -> Result<(), ApiError> {
        if parts.method == Method::POST && parts.uri.path() == "/" {
            return Ok(());
        }
        Err(self.unknown_operation(&format!("{} {}", parts.method, parts.uri.path())))
    }

    fn unknown_operation(self, operation: &str) -> ApiError {
        match self {
            Self::Ec2 | Self::Sts => {
                let message = format!("The action {operation} is not valid for this web service.");
                ApiError::new("InvalidAction", message)
            }
            Self::Ec2InstanceConnect | Self::Ssm => {
                ApiError::coral("UnknownOperationException", format!("unknown operation {operation}"))
            }
        }
    }

    fn perform(
        self,
        call: &Call<'_>,
        headers: &HeaderMap,
        query: &Query,
        body: &[u8],
    ) -> Result<String, ApiError> {
        let target = headers.get(TARGET).and_then(|target| target.to_str().ok()).unwrap_or_default();
        let operation = target.split_once('.').map_or(target, |(_, operation)| operation);
        let action = query.value("Action").unwrap_or_default();
        let answer = match self {
            Self::Ec2 => ec2::perform(call, action, query),
            Self::Ec2InstanceConnect => ec2_instance_connect::perform(call, operation, body),
            Self::Ssm => ssm::perform(call, operation, body),
            Self::Sts => sts::perform(call, action),
        };
        let name = if matches!(self, Self::Ec2 | Self::Sts) { action } else { operation };
        answer.unwrap_or_else(|| Err(self.unknown_operation(name)))
    }

    fn write_error(self, error: &ApiError, request_id: &str) -> String {
        match self {
            Self::Ec2 => error.ec2_xml(request_id),
            Self::Ec2InstanceConnect => error.json("com.amazonaws.ec2instanceconnect#"),
            Self::Ssm => error.json(""),
            Self::Sts => error.sts_xml(request_id),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_version_4_uuids() {
        let id = request_id();
        let parts: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12]);
        assert_eq!(&id[14..15], "4");
        assert!("89ab".contains(&id[19..20]), "{id}");
    }
}
