//! Errors of the APIs, and how each protocol writes them.
//!
//! The JSON services write `__type` in three ways, all seen from AWS and all used here: bare, after the
//! service's own namespace, and after that of the framework (Coral) when the request never reached the
//! service. Clients must take what follows the `#`.

use http::StatusCode;
use serde_json::json;

use super::xml::Xml;
use crate::sigv4::SignatureError;

/// An error response of one of the services.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct ApiError {
    pub(crate) status: StatusCode,
    pub(super) code: &'static str,
    pub(super) message: String,
    origin: Origin,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Origin {
    Coral,
    Service,
}

impl ApiError {
    /// An error of the service itself.
    pub(super) fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into(), origin: Origin::Service }
    }

    /// An error of the framework in front of a JSON service.
    pub(super) fn coral(code: &'static str, message: impl Into<String>) -> Self {
        Self { origin: Origin::Coral, ..Self::new(code, message) }
    }

    /// An internal error of the service.
    pub(super) fn internal(code: &'static str) -> Self {
        let message = "An error occurred on the server side.";
        Self { status: StatusCode::INTERNAL_SERVER_ERROR, ..Self::new(code, message) }
    }

    /// The policies of `caller` do not allow `action` on `resource`.
    pub(super) fn access_denied(caller: &str, action: &str, resource: &str) -> Self {
        let message = format!(
            "User: {caller} is not authorized to perform: {action} on resource: {resource} because no \
             identity-based policy allows the {action} action"
        );
        Self::new("AccessDeniedException", message)
    }

    /// The same error with another HTTP status.
    pub(super) fn with_status(self, status: StatusCode) -> Self {
        Self { status, ..self }
    }

    /// The body of a JSON service.
    pub(super) fn json(&self, namespace: &str) -> String {
        let document = match self.origin {
            Origin::Coral => {
                json!({"__type": format!("com.amazon.coral.service#{}", self.code), "message": self.message})
            }
            Origin::Service => {
                json!({"__type": format!("{namespace}{}", self.code), "Message": self.message})
            }
        };
        document.to_string()
    }

    /// The body of Identity Center's portal.
    pub(super) fn portal_json(&self) -> String {
        let code = format!("com.amazonaws.switchboard.portal#{}", self.code);
        json!({"message": self.message, "__type": code}).to_string()
    }

    /// The body of OAuth, where `InvalidGrantException` is `invalid_grant`.
    pub(super) fn oauth_json(&self) -> String {
        let mut error = String::new();
        for character in self.code.trim_end_matches("Exception").chars() {
            if character.is_ascii_uppercase() && !error.is_empty() {
                error.push('_');
            }
            error.push(character.to_ascii_lowercase());
        }
        json!({"error": error, "error_description": self.message}).to_string()
    }

    /// The body of EC2.
    pub(super) fn ec2_xml(&self, request_id: &str) -> String {
        let mut xml = Xml::document();
        xml.element("Response", |xml| {
            xml.element("Errors", |xml| {
                xml.element("Error", |xml| {
                    xml.text("Code", self.code);
                    xml.text("Message", &self.message);
                });
            });
            xml.text("RequestID", request_id);
        });
        xml.finish()
    }

    /// The body of STS and IAM, each with its namespace.
    pub(super) fn query_xml(&self, namespace: &str, request_id: &str) -> String {
        let mut xml = Xml::document();
        xml.root("ErrorResponse", namespace, |xml| {
            xml.element("Error", |xml| {
                xml.text("Type", "Sender");
                xml.text("Code", self.code);
                xml.text("Message", &self.message);
            });
            xml.text("RequestId", request_id);
        });
        xml.finish()
    }
}

/// The error of the JSON services for a wrong signature.
pub(super) fn json_signature_error(refusal: &SignatureError) -> ApiError {
    let code = match refusal {
        SignatureError::Missing => "MissingAuthenticationTokenException",
        SignatureError::Incomplete(_) => "IncompleteSignatureException",
        SignatureError::UnknownCredentials => "UnrecognizedClientException",
        SignatureError::Expired => "ExpiredTokenException",
        SignatureError::Scope(_) | SignatureError::Skew(_) | SignatureError::Mismatch => {
            "InvalidSignatureException"
        }
    };
    ApiError::coral(code, refusal.to_string())
}

/// The error of EC2 for a wrong signature. It does not say what is wrong.
pub(super) fn ec2_signature_error(refusal: &SignatureError) -> ApiError {
    match refusal {
        SignatureError::Missing => {
            ApiError::new("MissingAuthenticationToken", "The request must contain valid credentials.")
                .with_status(StatusCode::UNAUTHORIZED)
        }
        SignatureError::Incomplete(_) => ApiError::new("IncompleteSignature", refusal.to_string()),
        SignatureError::Expired | SignatureError::Skew(_) => {
            ApiError::new("RequestExpired", "Request has expired.")
        }
        SignatureError::UnknownCredentials | SignatureError::Scope(_) | SignatureError::Mismatch => {
            ApiError::new("AuthFailure", "AWS was not able to validate the provided access credentials")
                .with_status(StatusCode::UNAUTHORIZED)
        }
    }
}

/// The error of STS and IAM for a wrong signature.
pub(super) fn sts_signature_error(refusal: &SignatureError) -> ApiError {
    let code = match refusal {
        SignatureError::Missing => "MissingAuthenticationToken",
        SignatureError::Incomplete(_) => "IncompleteSignature",
        SignatureError::UnknownCredentials => "InvalidClientTokenId",
        SignatureError::Expired => "ExpiredToken",
        SignatureError::Scope(_) | SignatureError::Skew(_) | SignatureError::Mismatch => {
            "SignatureDoesNotMatch"
        }
    };
    ApiError::new(code, refusal.to_string()).with_status(StatusCode::FORBIDDEN)
}
