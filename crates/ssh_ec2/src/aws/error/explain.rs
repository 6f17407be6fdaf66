//! What to do about an error of an AWS call.

use std::error::Error as StdError;

use tokio_rustls::rustls;

use super::AwsError;
use crate::aws::credentials::sign_in::SignIn;
use crate::net::network::causes;
use crate::net::websocket::ProxyError;
use crate::system::explain::{Anchor, Explain};

impl Explain for AwsError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::AccessDenied { action, .. } => return access_hints(action),
            Self::BadEndpoint { .. } => {
                "correct AWS_ENDPOINT_URL or `endpoint_url`; it looks like `https://host`".into()
            }
            Self::BadRegion { .. } | Self::NoRegion => {
                "name the region with `--region`, AWS_REGION, or `region` in the profile".into()
            }
            Self::Configuration(error) => return error.hints(),
            Self::Credentials { sign_in, .. }
            | Self::ExpiredToken { sign_in }
            | Self::NoCredentials { sign_in }
            | Self::RejectedCredentials { sign_in }
            | Self::SignedOut { sign_in, .. } => return sign_in.hints(),
            Self::InstanceNotFound { region, .. } => {
                format!("check the id, the region ({region}) and the account of the credentials")
            }
            Self::InstanceNotRunning { instance } => start_hint(instance),
            Self::InvalidDocument { document } => {
                format!("check that {document} exists in this region and account, and is of type Session")
            }
            Self::InvalidSignature { .. } => {
                "check this machine's clock, and that the secret key belongs to the access key".into()
            }
            Self::Malformed { .. } | Self::UntrustedStreamUrl { .. } => {
                "check AWS_ENDPOINT_URL and the proxy: the answer may not be from AWS".into()
            }
            Self::MfaNeeded { sign_in, .. } => mfa_needed_hint(sign_in),
            Self::MfaRefused { .. } | Self::MfaTypo { .. } => {
                "type the code that the device shows now; each is valid once, for half a minute".into()
            }
            Self::MfaSecurityKey { .. } => MFA_SECURITY_KEY_HINT.into(),
            Self::Network(error) => return error.hints(),
            Self::NoConnection { source, .. } | Self::Unreachable { source, .. } => {
                return reach_hints(source.as_ref());
            }
            Self::NoRole { sign_in, .. } => no_role_hint(sign_in),
            Self::Process { source, .. } => return source.hints(),
            Self::Service { .. }
            | Self::Signing { .. }
            | Self::Throttled { .. }
            | Self::Unsupported { .. } => return Vec::new(),
            Self::SsoLogin { source } => return sso_login_hints(source.as_ref()),
            Self::TargetNotConnected { instance, region } => return not_connected_hints(instance, region),
            Self::UnencryptedEndpoint { .. } => "use an `https` endpoint".into(),
            Self::WebIdentityToken { path, .. } => format!(
                "see why {} has no token, or correct `web_identity_token_file` or AWS_WEB_IDENTITY_TOKEN_FILE, \
                 which names it",
                path.display()
            ),
        };
        vec![hint]
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
            Self::NoConnection { .. } | Self::Unreachable { .. } => Anchor::Unreachable,
            Self::NoRole { .. } => Anchor::NoRole,
            Self::Process { source, .. } => return source.anchor(),
            Self::RejectedCredentials { .. } => Anchor::CredentialsRejected,
            Self::Service { .. } | Self::Signing { .. } | Self::Unsupported { .. } => Anchor::AwsError,
            Self::SignedOut { .. } | Self::SsoLogin { .. } => Anchor::SignIn,
            Self::TargetNotConnected { .. } => Anchor::NotConnected,
            Self::Throttled { .. } => Anchor::Throttled,
            Self::WebIdentityToken { .. } => Anchor::WebIdentityToken,
        };
        Some(anchor)
    }
}

/// The command that starts a stopped instance.
pub(crate) fn start_hint(instance: &str) -> String {
    format!("start it: `aws ec2 start-instances --instance-ids {instance}`")
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
            "the instance id (`i-…`) works without it".into(),
        ],
        _ => vec![format!("the caller needs {action}")],
    }
}

fn mfa_needed_hint(sign_in: &SignIn) -> String {
    let option = match sign_in {
        SignIn::Profile { name: Some(name), .. } => format!(" --profile {name}"),
        _ => String::new(),
    };
    format!(
        "run `aws sts get-caller-identity{option}` on a terminal: ssh_ec2 uses the session that it caches"
    )
}

fn no_role_hint(sign_in: &SignIn) -> String {
    format!(
        "correct `sso_role_name` and `sso_account_id` of {sign_in}, or ask for the role; signing in again does not help"
    )
}

fn not_connected_hints(instance: &str, region: &str) -> Vec<String> {
    vec![
        format!(
            "start {instance} if it is stopped; its region must be {region}, its account that of the credentials"
        ),
        format!(
            "give its instance profile AmazonSSMManagedInstanceCore, and check that its SSM agent runs and reaches ssmmessages.{region} on port 443"
        ),
    ]
}

fn reach_hints(error: &(dyn StdError + 'static)) -> Vec<String> {
    if let Some(error) = ProxyError::among(error) {
        return error.hints();
    }
    let is_distrust = |error: &(dyn StdError + 'static)| {
        matches!(error.downcast_ref(), Some(rustls::Error::InvalidCertificate(_)))
    };
    let hint = if causes(error).any(is_distrust) {
        "if a proxy inspects TLS here, set AWS_CA_BUNDLE to a file with its CA certificate"
    } else {
        "check the region and the network; set HTTPS_PROXY if this network has a proxy"
    };
    vec![hint.into()]
}

fn sso_login_hints(error: &(dyn StdError + 'static)) -> Vec<String> {
    match error.downcast_ref().map(AwsError::hints) {
        Some(hints) if !hints.is_empty() => hints,
        _ => vec!["try `aws sso login`".into()],
    }
}

const MFA_SECURITY_KEY_HINT: &str = "security keys work with `aws login` and IAM Identity Center only; for a role, \
                                     name another device in `mfa_serial`";
