//! What can go wrong between us and AWS, in words that say what to do.
//!
//! The cases are those that a caller or a user can do something about. Text that AWS sent was cleaned before
//! it got here (`refusal.rs`), so all of it can be shown as it is.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use thiserror::Error;
use tokio_rustls::rustls;

use crate::aws::client::request_id::RequestId;
use crate::aws::credentials::configuration::ConfigurationError;
use crate::aws::credentials::process::ProcessError;
use crate::aws::credentials::sign_in::SignIn;
use crate::net::network::{NetworkError, causes};
use crate::net::websocket::ProxyError;
use crate::system::explain::{Anchor, Explain};
use crate::system::tty::AskError;

/// An AWS call failed, or could not be made.
#[derive(Debug, Error)]
pub enum AwsError {
    /// IAM, or the service itself, said no.
    #[error("AWS refused {action} on {subject}: {message}")]
    AccessDenied {
        /// The IAM action, like `ssm:StartSession`.
        action: String,
        /// The instance or session it was for.
        subject: String,
        /// The caller's ARN, if the message names it.
        principal: Option<String>,
        /// What AWS said.
        message: String,
        /// What AWS calls the request.
        request_id: Option<RequestId>,
    },
    /// A configured endpoint is not a URL.
    #[error("the endpoint configured for {service} is not a URL")]
    BadEndpoint {
        /// The service id.
        service: &'static str,
    },
    /// The region's name cannot be part of a host name.
    #[error("{region:?} is not the name of a region")]
    BadRegion {
        /// The region.
        region: String,
    },
    /// Environment, files and options do not name one identity.
    #[error(transparent)]
    Configuration(ConfigurationError),
    /// Credentials are configured but could not be had.
    #[error("cannot get the AWS credentials of {sign_in}")]
    Credentials {
        /// Whose, and how they are renewed.
        sign_in: SignIn,
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The credentials' time is over.
    #[error("the AWS credentials of {sign_in} have expired")]
    ExpiredToken {
        /// Whose, and how they are renewed.
        sign_in: SignIn,
    },
    /// EC2 has no such instance.
    #[error("instance {instance} does not exist in {region}")]
    InstanceNotFound {
        /// The instance.
        instance: String,
        /// Where it was looked for.
        region: String,
    },
    /// EC2 has the instance, but it is not running.
    #[error("instance {instance} is not running")]
    InstanceNotRunning {
        /// The instance.
        instance: String,
    },
    /// Session Manager has no such session document, or it is not for sessions.
    #[error("AWS does not accept the session document {document}")]
    InvalidDocument {
        /// The document.
        document: String,
    },
    /// The signature did not match, or its time was too far off.
    #[error("AWS did not accept the signature of {action}: {message}")]
    InvalidSignature {
        /// The IAM action.
        action: String,
        /// What AWS said.
        message: String,
    },
    /// A service answered with something other than its documented answer.
    #[error("cannot understand the answer to {action}")]
    Malformed {
        /// The IAM action.
        action: String,
        /// What was wrong with it.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A role wants an MFA code, and there is none.
    #[error("the AWS credentials of {sign_in} need an MFA code of {serial}")]
    MfaNeeded {
        /// The device's serial number or ARN.
        serial: String,
        /// Whose credentials.
        sign_in: SignIn,
        /// Why there is no code.
        source: AskError,
    },
    /// A code was wrong.
    #[error("AWS did not accept the MFA code of {serial}: {message}")]
    MfaRefused {
        /// The device's serial number or ARN.
        serial: String,
        /// What AWS said.
        message: String,
    },
    /// A role wants the code of a device that shows none.
    #[error(
        "the AWS credentials of {sign_in} need an MFA code, and {serial} is a security key, which has none"
    )]
    MfaSecurityKey {
        /// The device's ARN.
        serial: String,
        /// Whose credentials.
        sign_in: SignIn,
    },
    /// What was typed cannot be a code. It is not shown: it may be a password.
    #[error("what was typed is no MFA code of {serial}: a code is six digits")]
    MfaTypo {
        /// The device's serial number or ARN.
        serial: String,
    },
    /// The network settings cannot be used.
    #[error("cannot make an encrypted connection to AWS")]
    Network(#[source] NetworkError),
    /// The credential chain found nothing.
    #[error("there are no AWS credentials for {sign_in}")]
    NoCredentials {
        /// Where they were looked for.
        sign_in: SignIn,
    },
    /// No TCP connection to the endpoint can be made: it has no such name, no route, refuses, or stays
    /// silent.
    #[error("cannot reach {host}")]
    NoConnection {
        /// The host of the endpoint.
        host: String,
        /// What the last attempt met.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// IAM Identity Center knows the person, and does not give the role.
    #[error("you have no role {role} in account {account} of IAM Identity Center")]
    NoRole {
        /// `sso_role_name`.
        role: String,
        /// `sso_account_id`.
        account: String,
        /// Whose credentials.
        sign_in: SignIn,
    },
    /// Neither option, environment nor profile names a region.
    #[error("no AWS region is set")]
    NoRegion,
    /// The program of `credential_process` gave no credentials.
    #[error("cannot get the AWS credentials of {sign_in}")]
    Process {
        /// Whose.
        sign_in: SignIn,
        /// Why.
        source: ProcessError,
    },
    /// AWS does not know the access key.
    #[error("AWS does not know the access key of {sign_in}")]
    RejectedCredentials {
        /// Whose, and how they are renewed.
        sign_in: SignIn,
    },
    /// Any other refusal.
    #[error("{action} failed with {code}: {message}")]
    Service {
        /// The IAM action.
        action: String,
        /// The error code, or the HTTP status if there was none.
        code: String,
        /// What AWS said.
        message: String,
        /// What AWS calls the request.
        request_id: Option<RequestId>,
    },
    /// The signing library refused its input.
    #[error("cannot sign the websocket upgrade")]
    Signing {
        /// What it said.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Session Manager does not hear from the instance's SSM agent.
    #[error("instance {instance} is not connected to Session Manager in {region}")]
    TargetNotConnected {
        /// The instance.
        instance: String,
        /// Where it was looked for.
        region: String,
    },
    /// Somebody has to sign in: with IAM Identity Center, or with `aws login`.
    #[error("the AWS sign-in of {sign_in} {why}")]
    SignedOut {
        /// Whose, and how it is done.
        sign_in: SignIn,
        /// What is wrong with the one that there was.
        why: String,
    },
    /// Signing in with IAM Identity Center failed.
    #[error("cannot sign in with IAM Identity Center")]
    SignOn {
        /// Why.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// Too many calls, even after retries.
    #[error("AWS throttles {action}: there were too many calls; wait a minute and try again")]
    Throttled {
        /// The IAM action.
        action: String,
    },
    /// The service does not do this with this instance.
    #[error("{action} is not supported: {message}")]
    Unsupported {
        /// The IAM action.
        action: String,
        /// What AWS said.
        message: String,
    },
    /// A configured endpoint would send credentials unencrypted to another machine.
    #[error("the endpoint configured for {service} is not encrypted, and {host} is not this machine")]
    UnencryptedEndpoint {
        /// The service id.
        service: &'static str,
        /// The host of the endpoint.
        host: String,
    },
    /// The endpoint did not answer, after retries, although it may be there.
    #[error("cannot reach {host}")]
    Unreachable {
        /// The host of the endpoint.
        host: String,
        /// The failure: name, connection, TLS or time.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// The file with a web identity token has none.
    #[error("cannot use the web identity token in {}", path.display())]
    WebIdentityToken {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The service sent us to a websocket that is not Session Manager's.
    #[error("the session's websocket is at {host}, which is not Session Manager")]
    UntrustedStreamUrl {
        /// The host.
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

impl Explain for AwsError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::AccessDenied { action, .. } => access_hints(action),
            Self::BadEndpoint { .. } => {
                vec!["correct AWS_ENDPOINT_URL or `endpoint_url`; it looks like `https://host`".into()]
            }
            Self::BadRegion { .. } | Self::NoRegion => {
                vec!["name the region with `--region`, AWS_REGION, or `region` in the profile".into()]
            }
            Self::Configuration(error) => error.hints(),
            Self::Credentials { sign_in, .. }
            | Self::ExpiredToken { sign_in }
            | Self::NoCredentials { sign_in }
            | Self::RejectedCredentials { sign_in }
            | Self::SignedOut { sign_in, .. } => sign_in.hints(),
            Self::InstanceNotFound { region, .. } => {
                vec![format!("check the id, the region ({region}) and the account of the credentials")]
            }
            Self::InstanceNotRunning { instance } => {
                vec![format!("start it: `aws ec2 start-instances --instance-ids {instance}`")]
            }
            Self::InvalidDocument { document } => vec![format!(
                "check that {document} exists in this region and account, and is of type Session"
            )],
            Self::InvalidSignature { .. } => {
                vec!["check this machine's clock, and that the secret key belongs to the access key".into()]
            }
            Self::Malformed { .. } | Self::UntrustedStreamUrl { .. } => {
                vec!["check AWS_ENDPOINT_URL and the proxy: the answer may not be from AWS".into()]
            }
            Self::MfaNeeded { sign_in: SignIn::Profile { name: Some(name), .. }, .. } => vec![format!(
                "run `aws sts get-caller-identity --profile {name}` on a terminal: its session is used here as well"
            )],
            Self::MfaNeeded { .. } => vec![
                "run `aws sts get-caller-identity` on a terminal: its session is used here as well".into(),
            ],
            Self::MfaSecurityKey { .. } => vec![
                "security keys work with `aws login` and IAM Identity Center only; for a role, name another device \
                 in `mfa_serial`"
                    .into(),
            ],
            Self::MfaRefused { .. } | Self::MfaTypo { .. } => {
                vec!["type the code that the device shows now; each is good once, for half a minute".into()]
            }
            Self::Network(error) => error.hints(),
            Self::Process { source, .. } => source.hints(),
            Self::NoRole { sign_in, .. } => vec![format!(
                "correct `sso_role_name` and `sso_account_id` of {sign_in}, or ask for the role; signing in again \
                 does not help"
            )],
            Self::SignOn { source } => match source.downcast_ref::<Self>().map(Self::hints) {
                Some(hints) if !hints.is_empty() => hints,
                _ => vec!["try `aws sso login`".into()],
            },
            Self::WebIdentityToken { path, .. } => vec![format!(
                "see why {} has no token, or correct `web_identity_token_file` or AWS_WEB_IDENTITY_TOKEN_FILE, \
                 which names it",
                path.display()
            )],
            Self::Service { .. }
            | Self::Signing { .. }
            | Self::Throttled { .. }
            | Self::Unsupported { .. } => Vec::new(),
            Self::TargetNotConnected { instance, region } => vec![
                format!(
                    "start {instance} if it is stopped; its region must be {region}, its account that of the credentials"
                ),
                format!(
                    "give its instance profile AmazonSSMManagedInstanceCore, and see that its SSM agent runs and reaches ssmmessages.{region} on port 443"
                ),
            ],
            Self::UnencryptedEndpoint { .. } => vec!["use an `https` endpoint".into()],
            Self::NoConnection { source, .. } | Self::Unreachable { source, .. } => {
                match ProxyError::among(source.as_ref()) {
                    Some(fault) => fault.hints(),
                    None => vec![reach_hint(source.as_ref()).into()],
                }
            }
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        let anchor = match self {
            error if error.is_of_proxy() => Anchor::HttpProxy,
            Self::AccessDenied { .. } => Anchor::PermissionDenied,
            Self::BadEndpoint { .. } | Self::UnencryptedEndpoint { .. } => Anchor::Endpoint,
            Self::BadRegion { .. } | Self::NoRegion => Anchor::Region,
            Self::Configuration(error) => return error.anchor(),
            Self::Credentials { .. } | Self::NoCredentials { .. } => Anchor::NoCredentials,
            Self::ExpiredToken { .. } => Anchor::CredentialsExpired,
            Self::InstanceNotFound { .. } => Anchor::InstanceNotFound,
            Self::InstanceNotRunning { .. } => Anchor::InstanceNotRunning,
            Self::InvalidDocument { .. } => Anchor::SessionRefused,
            Self::InvalidSignature { .. } => Anchor::Signature,
            Self::Malformed { .. } | Self::UntrustedStreamUrl { .. } => Anchor::NotAws,
            Self::MfaNeeded { .. }
            | Self::MfaRefused { .. }
            | Self::MfaSecurityKey { .. }
            | Self::MfaTypo { .. } => Anchor::Mfa,
            Self::Network(error) => return error.anchor(),
            Self::Process { source, .. } => return source.anchor(),
            Self::RejectedCredentials { .. } => Anchor::CredentialsRejected,
            Self::Service { .. } | Self::Signing { .. } | Self::Unsupported { .. } => Anchor::AwsError,
            Self::NoRole { .. } => Anchor::NoRole,
            Self::SignedOut { .. } | Self::SignOn { .. } => Anchor::SignIn,
            Self::TargetNotConnected { .. } => Anchor::NotConnected,
            Self::Throttled { .. } => Anchor::Throttled,
            Self::NoConnection { .. } | Self::Unreachable { .. } => Anchor::Unreachable,
            Self::WebIdentityToken { .. } => Anchor::WebIdentityToken,
        };
        Some(anchor)
    }
}

impl AwsError {
    /// True if the same call will not succeed later without someone changing permissions, settings or the
    /// instance. A profile's credentials that expired may be renewed at any moment, so they are not of this
    /// kind.
    pub fn is_permanent(&self) -> bool {
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
            | Self::SignOn { .. }
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

    /// Whether the HTTP proxy kept the call from being made.
    pub fn is_of_proxy(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } => ProxyError::among(source.as_ref()).is_some(),
            Self::SignOn { source } => source.downcast_ref().is_some_and(Self::is_of_proxy),
            _ => false,
        }
    }

    /// What AWS calls the failed request, to find it in CloudTrail.
    pub fn request_id(&self) -> Option<&RequestId> {
        match self {
            Self::AccessDenied { request_id, .. } | Self::Service { request_id, .. } => request_id.as_ref(),
            _ => None,
        }
    }
}

fn access_hints(action: &str) -> Vec<String> {
    match action {
        "ssm:StartSession" => {
            vec!["the caller needs ssm:StartSession on the instance and on the session document".into()]
        }
        "ec2-instance-connect:SendSSHPublicKey" => vec![
            format!("the caller needs {action} on the instance"),
            "policies often restrict this action by `ec2:osuser`; try another user".into(),
        ],
        "ec2:DescribeInstances" => vec![
            format!("to connect by name, the caller needs {action} (on `*`: it cannot be restricted)"),
            "the instance id (`i-…`) works without".into(),
        ],
        _ => vec![format!("the caller needs {action}")],
    }
}

fn reach_hint(error: &(dyn StdError + 'static)) -> &'static str {
    let distrusted =
        causes(error).any(|error| matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_))));
    if distrusted {
        "if a proxy inspects TLS here, set AWS_CA_BUNDLE to a file with its CA certificate"
    } else {
        "check the region and the network; set HTTPS_PROXY if this network has a proxy"
    }
}
