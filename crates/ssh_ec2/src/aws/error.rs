//! The errors of AWS calls: the cases, and their messages.
//!
//! A case of its own is one that a caller handles, or that has a hint of its own. Text that AWS sent was made
//! printable before it gets here (`error_response.rs`), so all of it can be shown.

mod explain;

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

pub(crate) use self::explain::start_hint;
use crate::aws::client::request_id::RequestId;
use crate::aws::credentials::configuration::ConfigurationError;
use crate::aws::credentials::process::ProcessError;
use crate::aws::credentials::sign_in::SignIn;
use crate::net::network::NetworkError;
use crate::net::websocket::ProxyError;
use crate::system::tty::AskError;

/// An AWS call failed, or could not be made.
#[derive(Debug, Error)]
pub(crate) enum AwsError {
    /// IAM, or the service itself, denies the caller the action (`AccessDenied` and its variants).
    #[error("AWS refused {action} on {subject}: {message}")]
    AccessDenied {
        /// The IAM action, like `ssm:StartSession`.
        action: String,
        /// The instance, session or role that the call was about.
        subject: String,
        /// The caller's ARN. None if the message does not name it.
        principal: Option<String>,
        /// AWS's message, printable.
        message: String,
        /// AWS's id of the request. None if the response had none.
        request_id: Option<RequestId>,
    },
    /// A configured endpoint is not a URL.
    #[error("the endpoint configured for {service} is not a URL")]
    BadEndpoint {
        /// The service id of the SDKs, like `EC2 Instance Connect`.
        service: &'static str,
    },
    /// The region's name cannot be part of a host name.
    #[error("{region:?} is not the name of a region")]
    BadRegion {
        /// The name, as it was set.
        region: String,
    },
    /// Environment, files and options do not name one identity.
    #[error(transparent)]
    Configuration(ConfigurationError),
    /// Credentials are configured, but their source gave none.
    #[error("cannot get the AWS credentials of {sign_in}")]
    Credentials {
        /// The source of the credentials.
        sign_in: SignIn,
        /// The error of the source.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The credentials have expired: their own time says so, or AWS does (`ExpiredToken`).
    #[error("the AWS credentials of {sign_in} have expired")]
    ExpiredToken {
        /// The source of the credentials.
        sign_in: SignIn,
    },
    /// There is no such instance (`InvalidInstanceID.NotFound`, `EC2InstanceNotFoundException`).
    #[error("instance {instance} does not exist in {region}")]
    InstanceNotFound {
        /// Its id.
        instance: String,
        /// The region of the call.
        region: String,
    },
    /// The instance exists, but it is not running (`EC2InstanceStateInvalidException`).
    #[error("instance {instance} is not running")]
    InstanceNotRunning {
        /// Its id.
        instance: String,
    },
    /// Session Manager has no such session document, or it is not for sessions (`InvalidDocument`).
    #[error("AWS does not accept the session document {document}")]
    InvalidDocument {
        /// Its name or ARN.
        document: String,
    },
    /// The signature does not match, or its time is too far off (`SignatureDoesNotMatch` and its variants).
    #[error("AWS did not accept the signature of {action}: {message}")]
    InvalidSignature {
        /// The IAM action.
        action: String,
        /// AWS's message, printable.
        message: String,
    },
    /// The response is not the documented one, and perhaps not from AWS.
    #[error("cannot understand the answer to {action}")]
    Malformed {
        /// The IAM action.
        action: String,
        /// What is wrong with it. Does not quote it: it may have a token.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A role needs an MFA code, and the user cannot be asked.
    #[error("the AWS credentials of {sign_in} need an MFA code of {serial}")]
    MfaNeeded {
        /// The serial number or ARN of the MFA device.
        serial: String,
        /// The source of the credentials.
        sign_in: SignIn,
        /// The reason why there is no code.
        source: AskError,
    },
    /// STS did not accept the MFA code.
    #[error("AWS did not accept the MFA code of {serial}: {message}")]
    MfaRefused {
        /// The serial number or ARN of the MFA device.
        serial: String,
        /// AWS's message, printable.
        message: String,
    },
    /// A role needs the code of an MFA device that shows none.
    #[error(
        "the AWS credentials of {sign_in} need an MFA code, and {serial} is a security key, which has none"
    )]
    MfaSecurityKey {
        /// The ARN of the MFA device.
        serial: String,
        /// The source of the credentials.
        sign_in: SignIn,
    },
    /// The typed text cannot be a code. It is not shown: it may be a password.
    #[error("the typed text is not an MFA code of {serial}: a code has six digits")]
    MfaTypo {
        /// The serial number or ARN of the MFA device.
        serial: String,
    },
    /// The network settings cannot be used.
    #[error("cannot make an encrypted connection to AWS")]
    Network(#[source] NetworkError),
    /// No source has credentials.
    #[error("there are no AWS credentials for {sign_in}")]
    NoCredentials {
        /// The source that was tried.
        sign_in: SignIn,
    },
    /// No TCP connection to the endpoint can be made: its name does not exist, or each address has no route,
    /// refuses or stays silent.
    #[error("cannot reach {host}")]
    NoConnection {
        /// The host of the endpoint.
        host: String,
        /// The error of the last attempt.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The user is signed in with IAM Identity Center, but is not assigned the role.
    #[error("you have no role {role} in account {account} of IAM Identity Center")]
    NoRole {
        /// `sso_role_name`.
        role: String,
        /// `sso_account_id`.
        account: String,
        /// The source of the credentials.
        sign_in: SignIn,
    },
    /// Neither option, environment, profile nor metadata service names a region.
    #[error("no AWS region is set")]
    NoRegion,
    /// The program of `credential_process` did not give credentials.
    #[error("cannot get the AWS credentials of {sign_in}")]
    Process {
        /// The source of the credentials.
        sign_in: SignIn,
        /// The failure of the program.
        source: ProcessError,
    },
    /// AWS does not know the access key (`UnrecognizedClientException`, `InvalidClientTokenId`,
    /// `AuthFailure`).
    #[error("AWS does not know the access key of {sign_in}")]
    RejectedCredentials {
        /// The source of the credentials.
        sign_in: SignIn,
    },
    /// Any other error response.
    #[error("{action} failed with {code}: {message}")]
    Service {
        /// The IAM action.
        action: String,
        /// The error code, or `status` and the HTTP status if there is none.
        code: String,
        /// AWS's message, printable.
        message: String,
        /// AWS's id of the request. None if the response had none.
        request_id: Option<RequestId>,
    },
    /// The signing library did not accept its input.
    #[error("cannot sign the websocket upgrade")]
    Signing {
        /// The library's error.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The instance's SSM agent is not connected to Session Manager (`TargetNotConnected`).
    #[error("instance {instance} is not connected to Session Manager in {region} (TargetNotConnected)")]
    TargetNotConnected {
        /// Its id.
        instance: String,
        /// The region of the call.
        region: String,
    },
    /// The user has to sign in with IAM Identity Center, or with `aws login`.
    #[error("the AWS sign-in of {sign_in} {why}")]
    SignedOut {
        /// The profile, or the environment, with the sign-in.
        sign_in: SignIn,
        /// What is wrong with the last sign-in, as the end of a sentence.
        why: String,
    },
    /// The sign-in with IAM Identity Center failed.
    #[error("cannot sign in with IAM Identity Center")]
    SsoLogin {
        /// The error of the source.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Too many calls (`ThrottlingException` and its variants), even after retries.
    #[error("AWS throttles {action}: there were too many calls; wait a minute and try again")]
    Throttled {
        /// The IAM action.
        action: String,
    },
    /// The service does not support this operation for this instance (`UnsupportedOperation`).
    #[error("{action} is not supported: {message}")]
    Unsupported {
        /// The IAM action.
        action: String,
        /// AWS's message, printable.
        message: String,
    },
    /// A configured endpoint would send credentials unencrypted to another machine.
    #[error("the endpoint configured for {service} is not encrypted, and {host} is not this machine")]
    UnencryptedEndpoint {
        /// The service id of the SDKs, like `EC2 Instance Connect`.
        service: &'static str,
        /// The host of the endpoint.
        host: String,
    },
    /// The endpoint did not answer, although a connection may be possible.
    #[error("cannot reach {host}")]
    Unreachable {
        /// The host of the endpoint.
        host: String,
        /// What failed: name, connection, TLS, or the time limit.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The file of the web identity token cannot be read, or is empty.
    #[error("cannot use the web identity token in {}", path.display())]
    WebIdentityToken {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// StartSession named a websocket that is not Session Manager's.
    #[error("the session's websocket is at {host}, which is not Session Manager")]
    UntrustedStreamUrl {
        /// The host of the websocket.
        host: String,
    },
}

impl From<ConfigurationError> for AwsError {
    fn from(error: ConfigurationError) -> Self {
        match error {
            ConfigurationError::BadRegion { region } => Self::BadRegion { region },
            error => Self::Configuration(error),
        }
    }
}

impl AwsError {
    /// True if the same call will not succeed later unless permissions, settings or the instance are changed.
    /// The credentials of a profile may be renewed at any moment, so their expiry is not permanent.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::ExpiredToken { sign_in } | Self::RejectedCredentials { sign_in } => sign_in.is_fixed(),
            Self::Credentials { .. }
            | Self::InvalidSignature { .. }
            | Self::Malformed { .. }
            | Self::MfaNeeded { .. }
            | Self::MfaRefused { .. }
            | Self::MfaTypo { .. }
            | Self::NoConnection { .. }
            | Self::Process { .. }
            | Self::Service { .. }
            | Self::SignedOut { .. }
            | Self::SsoLogin { .. }
            | Self::TargetNotConnected { .. }
            | Self::Throttled { .. }
            | Self::Unreachable { .. }
            | Self::WebIdentityToken { .. } => false,
            Self::AccessDenied { .. }
            | Self::BadEndpoint { .. }
            | Self::BadRegion { .. }
            | Self::Configuration(_)
            | Self::InstanceNotFound { .. }
            | Self::InstanceNotRunning { .. }
            | Self::InvalidDocument { .. }
            | Self::MfaSecurityKey { .. }
            | Self::Network(_)
            | Self::NoCredentials { .. }
            | Self::NoRegion
            | Self::NoRole { .. }
            | Self::Signing { .. }
            | Self::UnencryptedEndpoint { .. }
            | Self::Unsupported { .. }
            | Self::UntrustedStreamUrl { .. } => true,
        }
    }

    /// Whether the HTTP proxy is the cause.
    pub(crate) fn is_of_proxy(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => ProxyError::among(source.as_ref()).is_some(),
            Self::SsoLogin { source } => source.downcast_ref().is_some_and(Self::is_of_proxy),
            _ => false,
        }
    }
}
