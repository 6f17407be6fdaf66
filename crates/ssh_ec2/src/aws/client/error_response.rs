//! What a service says when it says no: read from whichever protocol it came in, then sorted by its code.
//! (Pure.)
//!
//! Codes are matched here and nowhere else, so that callers meet cases and not strings. A stranger's text is
//! made printable and bounded on the way in.

use std::fmt;

use serde_json::{Map, Value};
use thiserror::Error;

use crate::aws::credentials::cache::SignIn;
use crate::aws::error::AwsError;
use crate::system::text::foreign_text;

/// Error messages are shown, so a stranger's must end somewhere; IAM's longest name two ARNs.
const SHOWN_MESSAGE: usize = 600;

/// What AWS calls a request; a key to CloudTrail and to AWS support.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct RequestId(String);

impl RequestId {
    /// Takes a stranger's text, bounded and printable; AWS's own are UUIDs.
    pub(in crate::aws) fn clean(text: &str) -> Self {
        Self(foreign_text(text, 64))
    }

    /// For an answer that does not say, which AWS's always do.
    pub(in crate::aws) fn absent() -> Self {
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
pub(in crate::aws) struct Refusal {
    /// Of HTTP.
    pub(in crate::aws) status: u16,
    pub(in crate::aws) code: String,
    pub(in crate::aws) message: String,
    pub(in crate::aws) request_id: Option<RequestId>,
}

/// The call that was refused, for the message.
pub(in crate::aws) struct Circumstances<'a> {
    pub(in crate::aws) action: String,
    /// The instance or session.
    pub(in crate::aws) subject: &'a str,
    pub(in crate::aws) region: &'a str,
    pub(in crate::aws) sign_in: &'a SignIn,
}

impl Circumstances<'_> {
    /// Sorts a refusal by its code.
    pub(in crate::aws) fn explain(self, refusal: Refusal) -> AwsError {
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

/// Code and message of a refusal in JSON. The code is in a header or in a field, with or without a namespace
/// before it and a URL behind it. The fields depend on what answers: the service, a gateway in front of it,
/// or an emulator. Some write one field in two spellings.
///
/// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>
pub(in crate::aws) fn error_code(status: u16, header: Option<&str>, body: &[u8]) -> (String, String) {
    let fields = fields(body);
    let code = [header].into_iter().chain(CODES.map(|name| text(&fields, name))).flatten();
    let code = code.map(bare_code).find(|code| !code.is_empty()).unwrap_or_default();
    clean(status, code, message(&fields))
}

/// The fields of a refusal, without the envelope that some answers have.
pub(in crate::aws) fn fields(body: &[u8]) -> Map<String, Value> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    match ENVELOPES.iter().find_map(|envelope| fields.get(*envelope)?.as_object()) {
        Some(inner) => inner.clone(),
        None => fields,
    }
}

/// The reason that the service gives, if it gives one.
pub(in crate::aws) fn message(fields: &Map<String, Value>) -> Option<&str> {
    MESSAGES.iter().find_map(|name| text(fields, name))
}

fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    fields.get(name).and_then(Value::as_str).map(str::trim).filter(|text| !text.is_empty())
}

/// `TargetNotConnected` of `com.amazonaws.ssm#TargetNotConnected:http://internal.amazon.com/coral/`.
fn bare_code(code: &str) -> &str {
    let code = code.split(':').next().unwrap_or_default();
    code.rsplit('#').next().unwrap_or_default().trim()
}

/// Code and message for people, whatever the service wrote.
pub(in crate::aws) fn clean(status: u16, code: &str, message: Option<&str>) -> (String, String) {
    let code = if code.is_empty() { format!("status {status}") } else { foreign_text(code, 100) };
    let message = match message {
        Some(message) => foreign_text(message, SHOWN_MESSAGE),
        None => "it gave no reason".to_owned(),
    };
    (code, message)
}

const CODES: [&str; 5] = ["__type", "code", "Code", "errorCode", "ErrorCode"];
const MESSAGES: [&str; 4] = ["message", "Message", "errorMessage", "ErrorMessage"];
/// `Output` is that of AWS's own servers for an operation that they do not know.
const ENVELOPES: [&str; 3] = ["Error", "error", "Output"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::explain::Explain as _;

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
        let header = Some("TargetNotConnected:http://internal.amazon.com/coral/com.amazonaws.ssm/");
        for (header, body) in [
            (None, r#"{"__type":"TargetNotConnected","message":"why"}"#),
            (None, r#"{"__type":"com.amazonaws.ssm#TargetNotConnected","message":"why"}"#),
            (None, r#"{"__type":"com.amazonaws.ssm#TargetNotConnected:http://x#y","message":"why"}"#),
            (None, r#"{"code":"TargetNotConnected","message":"why"}"#),
            (None, r#"{"Code":"TargetNotConnected","Message":"why"}"#),
            (None, r#"{"errorCode":"TargetNotConnected","errorMessage":"why"}"#),
            (header, r#"{"message":"why"}"#),
            (header, r#"{"__type":"Other","code":"Another","message":"why"}"#),
            (Some("aws.ssm#TargetNotConnected"), r#"{"Message":"why"}"#),
            // Two of a kind.
            (None, r#"{"__type":"TargetNotConnected","code":"x","message":"why","Message":"why"}"#),
            (None, r#"{"__type":"TargetNotConnected","Message":"why","message":"why"}"#),
            (None, r#"{"__type":"TargetNotConnected","message":"why","errorMessage":"other"}"#),
            (None, r#"{"__type":"TargetNotConnected","__type":"TargetNotConnected","message":"why"}"#),
            (None, r#"{"__type":"","code":"TargetNotConnected","message":"","Message":"why"}"#),
            (Some(""), r#"{"__type":"TargetNotConnected","message":null,"Message":"why"}"#),
            // One that is no text.
            (None, r#"{"__type":"TargetNotConnected","code":400,"message":"why"}"#),
            (None, r#"{"__type":null,"code":"TargetNotConnected","message":{"a":1},"Message":"why"}"#),
            // In an envelope.
            (None, r#"{"Error":{"Code":"TargetNotConnected","Message":"why"},"RequestId":"x"}"#),
            (
                None,
                r#"{"Output":{"__type":"com.amazon#TargetNotConnected","message":"why"},"Version":"1.0"}"#,
            ),
        ] {
            let expected = ("TargetNotConnected".to_owned(), "why".to_owned());
            assert_eq!(error_code(400, header, body.as_bytes()), expected, "{header:?} {body}");
        }
    }

    #[test]
    fn a_refusal_without_code_or_reason_shows_its_status() {
        let none = "it gave no reason";
        for (body, code, message) in [
            ("", "status 400", none),
            ("<html>", "status 400", none),
            ("[]", "status 400", none),
            (r#""no""#, "status 400", none),
            (r#"{"__type":"A","#, "status 400", none),
            (r#"{"__type":"A"}"#, "A", none),
            (r#"{"__type":"A","message":" "}"#, "A", none),
            (r#"{"__type":"x#","Message":"b"}"#, "status 400", "b"),
            (r#"{"__type":"A\u001b[1m","message":"\u001b[2Jb"}"#, "A [1m", "[2Jb"),
        ] {
            let found = error_code(400, None, body.as_bytes());
            assert_eq!(found, (code.to_owned(), message.to_owned()), "{body}");
        }
    }
}
