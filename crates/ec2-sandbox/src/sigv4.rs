//! Checks Signature Version 4 in the `Authorization` header, independently of the code that makes it.
//!
//! A pure function: it compares a request with the credentials, region and service that it should be signed
//! for. Only header signatures; no presigned URLs, no chunked or unsigned payloads, and no S3, whose rules
//! for paths differ. AWS puts the value of `x-amz-content-sha256` into the canonical request when that header
//! is there. Here it must also be the digest of the body: a wrong one is refused, no matter which of the two
//! digests was signed.
//!
//! Rules: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use std::{
    fmt::Write,
    time::{Duration, SystemTime},
};

use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderName, Uri, header};
use sha2::{Digest, Sha256};

use crate::{calendar, form, world::Credentials};

/// The parts of a request that a signature covers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    pub(crate) method: &'a str,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) body: &'a [u8],
}

/// Why a request is refused, in the order in which it is examined.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SignatureError {
    #[error("Missing Authentication Token")]
    Missing,
    #[error("{0}")]
    Incomplete(&'static str),
    #[error("The security token included in the request is invalid.")]
    UnknownCredentials,
    #[error("The security token included in the request is expired")]
    Expired,
    #[error("Credential should be scoped to {0}.")]
    Scope(&'static str),
    #[error("{0}")]
    Skew(String),
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
         Access Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
}

/// Checks that `parts` carry the signature of `credentials` for `service` in `region`, made about `now`.
pub(crate) fn verify(
    parts: Parts<'_>,
    credentials: &Credentials,
    region: &str,
    service: &str,
    now: SystemTime,
) -> Result<(), SignatureError> {
    let authorization = Authorization::of(parts.headers)?;
    if authorization.access_key_id != credentials.access_key_id
        || text(parts.headers, &SECURITY_TOKEN) != credentials.session_token.as_deref()
    {
        return Err(SignatureError::UnknownCredentials);
    }
    let date =
        text(parts.headers, &DATE).ok_or(SignatureError::Incomplete("the header X-Amz-Date is missing"))?;
    authorization.check_scope(region, service, date)?;
    check_skew(date, now)?;
    authorization.check_headers(parts.headers)?;
    let digest = hex(&Sha256::digest(parts.body));
    if parts.headers.get(&CONTENT_DIGEST).is_some_and(|sent| sent.as_bytes() != digest.as_bytes()) {
        return Err(SignatureError::Mismatch);
    }

    let scope = [authorization.day, region, service, TERMINATOR].join("/");
    let request = hex(&Sha256::digest(canonical_request(parts, authorization.signed_headers, &digest)));
    let string_to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{request}");
    let mut key = format!("AWS4{}", credentials.secret_access_key).into_bytes();
    for part in [authorization.day, region, service, TERMINATOR] {
        key = mac(&key, part)?.finalize().into_bytes().to_vec();
    }
    let signature = unhex(authorization.signature).ok_or(SignatureError::Mismatch)?;
    // `verify_slice` compares in constant time.
    mac(&key, &string_to_sign)?.verify_slice(&signature).map_err(|_| SignatureError::Mismatch)
}

/// The access key id and scope that a request claims in its signature, unchecked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) access_key_id: &'a str,
    pub(crate) region: &'a str,
    pub(crate) service: &'a str,
}

impl<'a> Claim<'a> {
    /// Reads the header `Authorization`.
    pub(crate) fn of(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let Authorization { access_key_id, region, service, .. } = Authorization::of(headers)?;
        Ok(Self { access_key_id, region, service })
    }
}

/// The fields of the header `Authorization`.
struct Authorization<'a> {
    access_key_id: &'a str,
    day: &'a str,
    region: &'a str,
    service: &'a str,
    terminator: &'a str,
    signed_headers: &'a str,
    signature: &'a str,
}

impl<'a> Authorization<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, SignatureError> {
        let value = text(headers, &header::AUTHORIZATION).ok_or(SignatureError::Missing)?;
        let fields = value.strip_prefix(ALGORITHM).ok_or(SignatureError::Missing)?;
        let field = |name: &str| {
            let mut fields = fields.split(',').map(str::trim);
            fields.find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
        };
        let credential =
            field("Credential").ok_or(SignatureError::Incomplete("Authorization lacks Credential"))?;
        let mut credential = credential.split('/');
        let mut next = || credential.next().ok_or(SignatureError::Incomplete("Credential has too few parts"));
        Ok(Self {
            access_key_id: next()?,
            day: next()?,
            region: next()?,
            service: next()?,
            terminator: next()?,
            signed_headers: field("SignedHeaders")
                .ok_or(SignatureError::Incomplete("Authorization lacks SignedHeaders"))?,
            signature: field("Signature")
                .ok_or(SignatureError::Incomplete("Authorization lacks Signature"))?,
        })
    }

    fn check_scope(&self, region: &str, service: &str, date: &str) -> Result<(), SignatureError> {
        if self.region != region {
            return Err(SignatureError::Scope("a valid region"));
        }
        if self.service != service {
            return Err(SignatureError::Scope("correct service"));
        }
        if self.terminator != TERMINATOR {
            return Err(SignatureError::Scope("`aws4_request`"));
        }
        if date.split('T').next() != Some(self.day) {
            return Err(SignatureError::Scope("the day of X-Amz-Date"));
        }
        Ok(())
    }

    /// `host` and every `x-amz-` header must be signed, or a proxy could change them.
    fn check_headers(&self, headers: &HeaderMap) -> Result<(), SignatureError> {
        let signed = |name: &str| self.signed_headers.split(';').any(|signed| signed == name);
        let needs = |name: &str| name == "host" || name.starts_with("x-amz-");
        let all = headers.keys().map(HeaderName::as_str).filter(|name| needs(name)).all(signed);
        if all && headers.contains_key(header::HOST) { Ok(()) } else { Err(SignatureError::Mismatch) }
    }
}

fn check_skew(date: &str, now: SystemTime) -> Result<(), SignatureError> {
    let signed = calendar::parse_basic(date).ok_or(SignatureError::Incomplete("X-Amz-Date is not a date"))?;
    let now_text = calendar::basic(now);
    if signed + SKEW < now {
        let earliest = calendar::basic(now - SKEW);
        let message =
            format!("Signature expired: {date} is now earlier than {earliest} ({now_text} - 5 min.)");
        return Err(SignatureError::Skew(message));
    }
    if now + SKEW < signed {
        let latest = calendar::basic(now + SKEW);
        let message =
            format!("Signature not yet current: {date} is still later than {latest} ({now_text} + 5 min.)");
        return Err(SignatureError::Skew(message));
    }
    Ok(())
}

fn canonical_request(parts: Parts<'_>, signed_headers: &str, digest: &str) -> String {
    let mut request = format!(
        "{}\n{}\n{}\n",
        parts.method,
        canonical_path(parts.uri.path()),
        canonical_query(parts.uri.query().unwrap_or_default())
    );
    for name in signed_headers.split(';') {
        let values = parts.headers.get_all(name).iter();
        let values = values.map(|value| collapse(&String::from_utf8_lossy(value.as_bytes())));
        request.push_str(&format!("{name}:{}\n", values.collect::<Vec<_>>().join(",")));
    }
    request + "\n" + signed_headers + "\n" + digest
}

/// Removes dot segments and doubled slashes, then encodes everything again, `%` included.
fn canonical_path(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
        if segment == ".." {
            kept.pop();
        } else {
            kept.push(form::encode(segment.as_bytes()));
        }
    }
    let slash = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{slash}", kept.join("/"))
}

/// Reads the query as form data, where `+` is a space, and writes it again, as AWS's signers in Go and Rust
/// do.
fn canonical_query(query: &str) -> String {
    let pairs = form::parse(query.as_bytes());
    let mut pairs: Vec<_> =
        pairs.iter().map(|(name, value)| (form::encode(name), form::encode(value))).collect();
    pairs.sort();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Trims a header value and makes one space of every run of them.
fn collapse(value: &str) -> String {
    value.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn mac(key: &[u8], data: &str) -> Result<Hmac<Sha256>, SignatureError> {
    // HMAC takes keys of any length; the error exists for other kinds of MAC.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| SignatureError::Mismatch)?;
    mac.update(data.as_bytes());
    Ok(mac)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a `String` does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const TERMINATOR: &str = "aws4_request";
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");

/// How far the caller's clock may be off: "5 min." in AWS's own messages.
const SKEW: Duration = Duration::from_secs(5 * 60);

#[cfg(test)]
mod tests;
