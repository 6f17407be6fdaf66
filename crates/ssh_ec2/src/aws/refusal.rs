//! What a service says when it says no: read from whichever protocol it came in, then sorted by its code.
//! (Pure.)
//!
//! Codes are matched here and nowhere else, so that callers meet cases and not strings. A stranger's text is
//! made printable and bounded on the way in.

use std::fmt;

use serde::Deserialize;
use thiserror::Error;

use super::credentials::SignIn;
use super::error::AwsError;
use crate::network::foreign_text;

/// Error messages are shown, so a stranger's must end somewhere; IAM's longest name two ARNs.
const SHOWN_MESSAGE: usize = 600;

/// What AWS calls a request; a key to CloudTrail and to AWS support.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestId(String);

impl RequestId {
    /// Takes a stranger's text, bounded and printable; AWS's own are UUIDs.
    pub(super) fn clean(text: &str) -> Self {
        Self(foreign_text(text, 64))
    }

    /// For an answer that does not say, which AWS's always do.
    pub(super) fn absent() -> Self {
        Self("(none)".into())
    }

    /// The id as AWS wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A service's refusal, before it is known what it means. Its texts are clean.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{code}: {message}")]
pub(super) struct Refusal {
    /// Of HTTP.
    pub(super) status: u16,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) request_id: Option<RequestId>,
}

/// The call that was refused, for the message.
pub(super) struct Circumstances<'a> {
    pub(super) action: String,
    /// The instance or session.
    pub(super) subject: &'a str,
    pub(super) region: &'a str,
    pub(super) sign_in: &'a SignIn,
}

impl Circumstances<'_> {
    /// Sorts a refusal by its code.
    pub(super) fn explain(self, refusal: Refusal) -> AwsError {
        let Self { action, subject, region, sign_in } = self;
        let (instance, region, sign_in) = (subject.to_owned(), region.to_owned(), sign_in.clone());
        let Refusal { status, code, message, request_id } = refusal;
        // After a denial a host key may be accepted that nothing confirms. The error of a service that fails
        // (5xx) must not pass for one, whatever its code.
        let is_answer = (400..500).contains(&status);
        match code.as_str() {
            // AuthException is EC2 Instance Connect's, UnauthorizedOperation is EC2's.
            "AccessDeniedException" | "AccessDenied" | "AuthException" | "UnauthorizedOperation"
                if is_answer =>
            {
                let principal = principal(&message);
                AwsError::AccessDenied { action, subject: instance, principal, message, request_id }
            }
            "ExpiredTokenException" | "ExpiredToken" | "RequestExpired" => AwsError::ExpiredToken { sign_in },
            // AuthFailure is EC2's.
            "UnrecognizedClientException" | "InvalidClientTokenId" | "AuthFailure" => {
                AwsError::RejectedCredentials { sign_in }
            }
            "InvalidSignatureException" | "SignatureDoesNotMatch" | "RequestTimeTooSkewed" => {
                // AWS goes on with the request that it saw, in which the session token is
                // (docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-troubleshooting.html).
                let message = message.split("The Canonical String").next().unwrap_or_default();
                AwsError::InvalidSignature { action, message: message.trim_end().to_owned() }
            }
            "TargetNotConnected" => AwsError::TargetNotConnected { instance, region },
            "EC2InstanceNotFoundException" | "InvalidInstanceID.NotFound" => {
                AwsError::InstanceNotFound { instance, region }
            }
            "EC2InstanceStateInvalidException" => AwsError::InstanceNotRunning { instance },
            "ThrottlingException" | "Throttling" | "RequestLimitExceeded" | "TooManyRequestsException" => {
                AwsError::Throttled { action }
            }
            "UnsupportedOperation" if is_answer => AwsError::Unsupported { action, message },
            _ => AwsError::Service { action, code, message, request_id },
        }
    }
}

/// The caller, from IAM's "User: arn:… is not authorized to perform: …".
fn principal(message: &str) -> Option<String> {
    let (before, _) = message.split_once(" is not authorized")?;
    let (_, arn) = before.split_once("User: ")?;
    arn.starts_with("arn:").then(|| arn.to_owned())
}

/// Code and message of a refusal: the code is in a header or in one of two fields, with or without a
/// namespace before it and a URL behind it, depending on what stands before the service.
pub(super) fn error_code(status: u16, header: Option<&str>, body: &[u8]) -> (String, String) {
    #[derive(Default, Deserialize)]
    struct Body {
        #[serde(rename = "__type")]
        kind: Option<String>,
        code: Option<String>,
        #[serde(alias = "Message", alias = "errorMessage")]
        message: Option<String>,
    }
    let parsed: Body = serde_json::from_slice(body).unwrap_or_default();
    let code = header.map(str::to_owned).or(parsed.kind).or(parsed.code).unwrap_or_default();
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default();
    clean(status, code, parsed.message.as_deref())
}

/// Code and message for people, whatever the service wrote.
pub(super) fn clean(status: u16, code: &str, message: Option<&str>) -> (String, String) {
    let code = if code.is_empty() { format!("status {status}") } else { foreign_text(code, 100) };
    let message = match message {
        Some(message) => foreign_text(message, SHOWN_MESSAGE),
        None => "it gave no reason".to_owned(),
    };
    (code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explain(code: &str, message: &str) -> AwsError {
        let sign_in = SignIn::Environment;
        let action = "ssm:StartSession".to_owned();
        let circumstances =
            Circumstances { action, subject: "i-0a1b2c3d", region: "eu-west-1", sign_in: &sign_in };
        let (code, message) = (code.into(), message.into());
        circumstances.explain(Refusal { status: 400, code, message, request_id: None })
    }

    #[test]
    fn a_denial_names_action_instance_and_caller() {
        let message = "User: arn:aws:sts::123456789012:assumed-role/dev/me is not authorized to perform: x";
        let error = explain("AccessDeniedException", message);
        assert_eq!(error.to_string(), format!("AWS refused ssm:StartSession on i-0a1b2c3d: {message}"));
        let AwsError::AccessDenied { principal, .. } = error else { panic!("{error:?}") };
        assert_eq!(principal.unwrap(), "arn:aws:sts::123456789012:assumed-role/dev/me");
    }

    #[test]
    fn codes_become_cases() {
        assert!(matches!(explain("TargetNotConnected", ""), AwsError::TargetNotConnected { .. }));
        assert!(matches!(explain("ThrottlingException", ""), AwsError::Throttled { .. }));
        assert!(matches!(explain("EC2InstanceNotFoundException", ""), AwsError::InstanceNotFound { .. }));
        assert!(matches!(
            explain("EC2InstanceStateInvalidException", ""),
            AwsError::InstanceNotRunning { .. }
        ));
        assert!(matches!(explain("InvalidSignatureException", ""), AwsError::InvalidSignature { .. }));
        let error = explain("Weird", "why");
        assert_eq!(error.to_string(), "ssm:StartSession failed with Weird: why");
    }

    #[test]
    fn a_refused_signature_says_nothing_of_the_request() {
        let message = "It does not match. The Canonical String for this request should have been 'POST / \
                       x-amz-security-token:SECRET";
        let error = explain("SignatureDoesNotMatch", message);
        assert_eq!(
            error.to_string(),
            "AWS did not accept the signature of ssm:StartSession: It does not match."
        );
    }

    #[test]
    fn messages_and_hints_follow_the_house_style() {
        let errors = ["AccessDenied", "ExpiredToken", "UnrecognizedClientException", "TargetNotConnected"]
            .map(|code| explain(code, "no"));
        for error in errors {
            let text = error.to_string();
            assert!(!text.ends_with('.') && !error.hints().is_empty(), "{text}");
        }
    }

    #[test]
    fn error_codes_are_found_wherever_they_are() {
        let code = |header, body: &str| error_code(400, header, body.as_bytes());
        let expected = ("TargetNotConnected".to_owned(), "i-1 is not connected.".to_owned());
        let message = r#""message":"i-1 is not connected.""#;
        assert_eq!(code(None, &format!(r#"{{"__type":"TargetNotConnected",{message}}}"#)), expected);
        assert_eq!(
            code(None, &format!(r#"{{"__type":"com.amazonaws.ssm#TargetNotConnected",{message}}}"#)),
            expected
        );
        assert_eq!(code(None, &format!(r#"{{"code":"TargetNotConnected",{message}}}"#)), expected);
        assert_eq!(code(Some("TargetNotConnected:http://x/y"), &format!("{{{message}}}")), expected);
        assert_eq!(code(None, r#"{"__type":"x#A","Message":"b"}"#), ("A".into(), "b".into()));
        assert_eq!(code(None, "<html>"), ("status 400".into(), "it gave no reason".into()));
        assert_eq!(
            code(None, r#"{"__type":"A\u001b[1m","message":"\u001b[2Jb"}"#),
            ("A [1m".into(), "[2Jb".into())
        );
    }
}
