//! The error response of a service: read from the JSON protocols, and turned into an [`AwsError`] by its
//! code. (Pure.)
//!
//! Error codes are matched here and in the calls that give one a meaning of its own, so that callers see
//! cases and not strings. Received text is made printable and bounded on the way in.

use serde_json::{Map, Value};
use thiserror::Error;

use crate::aws::client::request_id::RequestId;
use crate::aws::credentials::sign_in::SignIn;
use crate::aws::error::AwsError;
use crate::system::text::foreign_text;

/// The error response of a service. Its texts are printable.
#[derive(Clone, Debug, Error, Eq, PartialEq)]
#[error("{code}: {message}")]
pub(crate) struct ErrorResponse {
    /// The HTTP status.
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
    pub(crate) request_id: Option<RequestId>,
    /// `error` of OAuth 2, which distinguishes causes that share one exception. Other protocols have none.
    pub(crate) oauth_error: String,
}

/// The call that an error response is about, for the message.
pub(crate) struct FailedCall<'a> {
    pub(crate) action: String,
    /// The instance, session or role.
    pub(crate) subject: &'a str,
    pub(crate) region: &'a str,
    pub(crate) sign_in: &'a SignIn,
}

impl FailedCall<'_> {
    /// The error that the response's code stands for.
    pub(crate) fn error(self, response: ErrorResponse) -> AwsError {
        let Self { action, subject, region, sign_in } = self;
        let (instance, region, sign_in) = (subject.to_owned(), region.to_owned(), sign_in.clone());
        let ErrorResponse { status, code, message, request_id, .. } = response;
        // After a denial a host key may be accepted that nothing confirms. The error of a service that is
        // broken (5xx) must not count as a denial, whatever its code.
        let is_client_error = (400..500).contains(&status);
        match code.as_str() {
            // AuthException is EC2 Instance Connect's, UnauthorizedOperation is EC2's.
            "AccessDeniedException" | "AccessDenied" | "AuthException" | "UnauthorizedOperation"
                if is_client_error =>
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
                // The message continues with the request as AWS received it, and that has the session token
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
            "UnsupportedOperation" if is_client_error => AwsError::Unsupported { action, message },
            _ => AwsError::Service { action, code, message, request_id },
        }
    }
}

/// The caller's ARN, from IAM's "User: arn:… is not authorized to perform: …".
fn principal(message: &str) -> Option<String> {
    let (before, _) = message.split_once(" is not authorized")?;
    let (_, arn) = before.split_once("User: ")?;
    arn.starts_with("arn:").then(|| arn.to_owned())
}

/// Code and message of an error response in JSON. The code is in a header or in a field, with or without a
/// namespace before it and a URL behind it. The fields depend on what answers: the service, a gateway in
/// front of it, or an emulator. Some write one field in two spellings.
///
/// <https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html#operation-error-serialization>
pub(crate) fn error_code(status: u16, header: Option<&str>, body: &[u8]) -> (String, String) {
    let fields = fields(body);
    let code = [header].into_iter().chain(CODES.map(|name| text(&fields, name))).flatten();
    let code = code.map(bare_code).find(|code| !code.is_empty()).unwrap_or_default();
    clean(status, code, message(&fields))
}

/// The fields of an error response, without the envelope that some have.
pub(crate) fn fields(body: &[u8]) -> Map<String, Value> {
    let fields: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
    match ENVELOPES.iter().find_map(|envelope| fields.get(*envelope)?.as_object()) {
        Some(inner) => inner.clone(),
        None => fields,
    }
}

/// The message of an error response. None if it has none.
pub(crate) fn message(fields: &Map<String, Value>) -> Option<&str> {
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

/// Code and message in a form that can be shown, whatever the service wrote.
pub(crate) fn clean(status: u16, code: &str, message: Option<&str>) -> (String, String) {
    let code = if code.is_empty() { format!("status {status}") } else { foreign_text(code, 100) };
    let message = match message {
        Some(message) => foreign_text(message, SHOWN_MESSAGE),
        None => "it gave no reason".to_owned(),
    };
    (code, message)
}

/// IAM's longest message names two ARNs.
const SHOWN_MESSAGE: usize = 600;
const CODES: [&str; 5] = ["__type", "code", "Code", "errorCode", "ErrorCode"];
const MESSAGES: [&str; 4] = ["message", "Message", "errorMessage", "ErrorMessage"];
/// AWS's own servers use `Output` for an operation that they do not know.
const ENVELOPES: [&str; 3] = ["Error", "error", "Output"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::explain::Explain as _;

    fn error(code: &str, message: &str) -> AwsError {
        let sign_in = SignIn::Environment;
        let action = "ssm:StartSession".to_owned();
        let call = FailedCall { action, subject: "i-0a1b2c3d", region: "eu-west-1", sign_in: &sign_in };
        call.error(ErrorResponse {
            status: 400,
            code: code.into(),
            message: message.into(),
            request_id: None,
            oauth_error: String::new(),
        })
    }

    #[test]
    fn a_denial_names_action_instance_and_caller() {
        let message = "User: arn:aws:sts::123456789012:assumed-role/dev/me is not authorized to perform: x";
        let error = error("AccessDeniedException", message);
        assert_eq!(error.to_string(), format!("AWS refused ssm:StartSession on i-0a1b2c3d: {message}"));
        let AwsError::AccessDenied { principal, .. } = error else { panic!("{error:?}") };
        assert_eq!(principal.unwrap(), "arn:aws:sts::123456789012:assumed-role/dev/me");
    }

    #[test]
    fn codes_become_cases() {
        assert!(matches!(error("TargetNotConnected", ""), AwsError::TargetNotConnected { .. }));
        assert!(matches!(error("ThrottlingException", ""), AwsError::Throttled { .. }));
        assert!(matches!(error("EC2InstanceNotFoundException", ""), AwsError::InstanceNotFound { .. }));
        assert!(matches!(error("EC2InstanceStateInvalidException", ""), AwsError::InstanceNotRunning { .. }));
        assert!(matches!(error("InvalidSignatureException", ""), AwsError::InvalidSignature { .. }));
        let error = error("Weird", "why");
        assert_eq!(error.to_string(), "ssm:StartSession failed with Weird: why");
    }

    #[test]
    fn a_refused_signature_says_nothing_of_the_request() {
        let message = "It does not match. The Canonical String for this request should have been 'POST / \
                       x-amz-security-token:SECRET";
        let error = error("SignatureDoesNotMatch", message);
        assert_eq!(
            error.to_string(),
            "AWS did not accept the signature of ssm:StartSession: It does not match."
        );
    }

    #[test]
    fn messages_and_hints_follow_the_house_style() {
        let errors = ["AccessDenied", "ExpiredToken", "UnrecognizedClientException", "TargetNotConnected"]
            .map(|code| error(code, "no"));
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
