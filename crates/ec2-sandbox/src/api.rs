//! The AWS APIs of the region: a request and its body go in, a response comes out.
//!
//! This file checks, performs and records a call. How the services differ is in `service`, what their
//! operations do in one file for each, the state that they read and change in `world`. No sockets and no
//! clock here. Error codes follow each service: a wrong secret is `InvalidSignatureException` in the JSON
//! services, `SignatureDoesNotMatch` in STS, `AuthFailure` in EC2.

use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, header, request::Parts};
use http_body_util::Full;

use self::{error::ApiError, query::Query, service::Service};
use crate::{
    sigv4::{self, Claim, SignatureError},
    world::{ACCOUNT, ApiCall, AwsRegion, Caller, Instance, World},
};

pub(crate) mod authorization;
mod constraint;
mod ec2;
mod ec2_instance_connect;
mod error;
mod iam;
mod page;
mod query;
mod service;
mod ssm;
mod sso;
mod sso_oidc;
mod sts;
mod xml;

/// The header that names the operation of a JSON service.
pub(crate) const TARGET: HeaderName = HeaderName::from_static("x-amz-target");

/// Answers one API call.
pub(crate) fn respond(world: &World, parts: &Parts, body: &[u8], now: SystemTime) -> Response<Full<Bytes>> {
    let request_id = request_id();
    let query = Query::of(&parts.headers, body);
    let service = Service::of(parts, &query);
    let operation = service.operation(parts, &query);
    let answer = service.check_signature(world, parts, body, now).and_then(|(caller, region)| {
        service.check_route(parts)?;
        service.check_form(parts, operation, &query)?;
        if !world.admits(operation, region, now) {
            return Err(service.throttled());
        }
        let action = format!("{}:{operation}", service.name());
        if !world.allows(&action) {
            return Err(service.denied(&caller.arn, &action));
        }
        let call = Call { world, caller, region, now, request_id: &request_id };
        authorization::check(&call, service, operation, &query, body)?;
        service.perform(&call, operation, parts, &query, body)
    });
    world.record(ApiCall {
        action: format!("{}:{operation}", service.name()),
        region: Claim::of(&parts.headers).map(|claim| claim.region.to_owned()).unwrap_or_default(),
        ok: answer.is_ok(),
    });
    let mut response = Response::new(Full::default());
    *response.body_mut() = match answer {
        Ok(text) => Full::from(text),
        Err(error) => {
            *response.status_mut() = error.status;
            if let Some(Ok(code)) = service.error_type(&error).map(HeaderValue::try_from) {
                response.headers_mut().insert("x-amzn-errortype", code);
            }
            Full::from(service.write_error(&error, &request_id))
        }
    };
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(service.content_type()));
    add_request_id(&mut response, &request_id);
    response
}

/// Checks the signature of a request to `service`, and that the credentials have not expired. Returns the
/// caller and the region that the request is for.
pub(crate) fn authenticate(
    world: &World,
    request: sigv4::Parts<'_>,
    service: &str,
    now: SystemTime,
) -> Result<(Caller, AwsRegion), SignatureError> {
    let claim = Claim::of(request.headers)?;
    let grant = world.grant(claim.access_key_id).ok_or(SignatureError::UnknownCredentials)?;
    // A region that does not exist is refused like a region for which the signature was not made.
    let region = AwsRegion::parse(claim.region).unwrap_or(AwsRegion::HOME);
    sigv4::verify(request, &grant.credentials, region.name(), service, now)?;
    if grant.has_expired(now) { Err(SignatureError::Expired) } else { Ok((grant.caller, region)) }
}

/// A fresh request id, in the form of a version 4 UUID.
pub(crate) fn request_id() -> String {
    let mut bytes = [0; 16];
    // The id only helps to read logs. Without random bytes the region would have failed at its start.
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
    caller: Caller,
    region: AwsRegion,
    now: SystemTime,
    request_id: &'a str,
}

impl<'a> Call<'a> {
    /// The instances in the region of the call.
    fn instances(&self) -> impl Iterator<Item = &'a Instance> {
        let region = self.region;
        self.world.instances().iter().filter(move |instance| instance.region == region)
    }

    /// The instance with this id, unless it is in another region.
    fn instance(&self, id: &str) -> Option<&'a Instance> {
        self.world.instance(id).filter(|instance| instance.region == self.region)
    }

    /// Whether the caller may call `action` on an instance.
    fn permits(&self, action: &str, instance: &Instance) -> bool {
        instance.permits(action) && self.world.allows_on(action, &instance.id)
    }

    /// The caller's policies do not allow `action` on `resource`.
    fn denied(&self, action: &str, resource: &str) -> ApiError {
        ApiError::access_denied(&self.caller.arn, action, resource)
    }

    /// The ARN of an instance in this region.
    fn instance_arn(&self, id: &str) -> String {
        format!("arn:aws:ec2:{}:{ACCOUNT}:instance/{id}", self.region)
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
