//! Where `docs/troubleshooting.md` says more about an error: a heading there for each name here.

use super::Failure;
use crate::aws::AwsError;
use crate::doctor::diagnosis::Diagnosis;
use crate::instances::resolve::ResolveError;
use crate::net::network::NetworkError;
use crate::net::websocket::DialError;

/// The heading. None for a mistake in the command line, which its message explains.
pub(super) fn of(failure: &Failure) -> Option<&'static str> {
    let anchor = match failure {
        Failure::Interrupted
        | Failure::Invocation(_)
        | Failure::OtherWay { .. }
        | Failure::Target(_)
        | Failure::Usage(_) => return None,
        Failure::Aws(error) | Failure::Resolve(ResolveError::Aws(error)) => of_aws(error),
        Failure::Dial(error) => of_dial(error),
        Failure::Diagnosed(cause) => of_diagnosis(cause),
        Failure::Network(error) => of_network(error),
        Failure::PlainSsh(failure) => return of(&failure.error),
        Failure::Lost { source, .. } => return of(source).or(Some("connection-lost")),
        Failure::Resolve(ResolveError::NotFound { .. }) => "instance-not-found",
        Failure::Resolve(ResolveError::NotRunning { .. }) => "instance-not-running",
        Failure::Resolve(ResolveError::Several { .. }) => "several-instances",
        Failure::AgentSocket(_) => "key-agent-socket",
        Failure::ChannelRefused { .. } => "session-refused",
        Failure::Command { .. } | Failure::Sandbox(_) => "sandbox",
        Failure::File { .. } | Failure::NoHome | Failure::UserConfig { .. } => "files",
        Failure::HandshakeTimeout { .. } => "agent-silent",
        Failure::HostKeyChanged(_) => "host-key-changed",
        Failure::HostKeyUnknown { .. } => "host-key-unknown",
        Failure::HostKeyUnchecked { .. } | Failure::ProxySilent { .. } => "host-key-unchecked",
        Failure::KnownHosts(_) => "known-hosts-file",
        Failure::Key(_) => "no-randomness",
        Failure::KeyFile(_) | Failure::NoKey { .. } => "own-key",
        Failure::KeyRefused(_) => "key-refused",
        Failure::ManagedNode { .. } => "managed-node",
        Failure::Moved { .. } => "name-moved",
        Failure::NoProgress { .. } => "connection-lost",
        Failure::SshdBusy { .. } => "sshd-busy",
        Failure::NotSsh { .. } | Failure::NothingAnswered { .. } => "sshd-not-there",
        Failure::OldSsh { .. } | Failure::Ssh { .. } => "ssh-client",
        Failure::SessionEnded { .. } | Failure::SessionExpired { .. } => "session-ended",
        Failure::Output(_) | Failure::Stdio(_) => "standard-streams",
        Failure::System { .. } => "system-limits",
    };
    Some(anchor)
}

fn of_aws(error: &AwsError) -> &'static str {
    match error {
        error if error.is_of_proxy() => "http-proxy",
        AwsError::AccessDenied { .. } => "permission-denied",
        AwsError::BadEndpoint { .. } | AwsError::UnencryptedEndpoint { .. } => "endpoint",
        AwsError::BadRegion { .. } | AwsError::NoRegion => "region",
        AwsError::Configuration(_) => "aws-configuration",
        AwsError::Credentials { .. } | AwsError::NoCredentials { .. } => "no-credentials",
        AwsError::ExpiredToken { .. } => "credentials-expired",
        AwsError::InstanceNotFound { .. } => "instance-not-found",
        AwsError::InstanceNotRunning { .. } => "instance-not-running",
        AwsError::InvalidDocument { .. } => "session-refused",
        AwsError::InvalidSignature { .. } => "signature",
        AwsError::Malformed { .. } | AwsError::UntrustedStreamUrl { .. } => "not-aws",
        AwsError::MfaNeeded { .. }
        | AwsError::MfaRefused { .. }
        | AwsError::MfaSecurityKey { .. }
        | AwsError::MfaTypo { .. } => "mfa",
        AwsError::Network(error) => of_network(error),
        AwsError::Process { .. } => "credential-process",
        AwsError::RejectedCredentials { .. } => "credentials-rejected",
        AwsError::Service { .. } | AwsError::Signing { .. } | AwsError::Unsupported { .. } => "aws-error",
        AwsError::NoRole { .. } => "no-role",
        AwsError::SignedOut { .. } | AwsError::SignOn { .. } => "sign-in",
        AwsError::TargetNotConnected { .. } => "not-connected",
        AwsError::Throttled { .. } => "throttled",
        AwsError::NoConnection { .. } | AwsError::Unreachable { .. } => "unreachable",
        AwsError::WebIdentityToken { .. } => "web-identity-token",
    }
}

fn of_dial(error: &DialError) -> &'static str {
    match error {
        DialError::Denied { .. } => "permission-denied",
        DialError::Network(error) => of_network(error),
        DialError::Misanswered { .. } => "not-aws",
        DialError::Refused { .. } => "websocket-refused",
        DialError::Proxy(_) => "http-proxy",
        DialError::Tls { .. } => "certificates",
        DialError::Connect { .. }
        | DialError::Lost { .. }
        | DialError::Resolve { .. }
        | DialError::Timeout { .. } => "unreachable",
    }
}

fn of_network(error: &NetworkError) -> &'static str {
    match error {
        NetworkError::Proxy => "http-proxy",
        _ => "certificates",
    }
}

fn of_diagnosis(cause: &Diagnosis) -> &'static str {
    match cause {
        Diagnosis::Algorithm { .. } => "key-algorithm",
        Diagnosis::Clock { .. } => "instance-clock",
        Diagnosis::KeptBack { .. } => "key-kept-back",
        Diagnosis::KeptOut { .. } | Diagnosis::NoLogin { .. } | Diagnosis::Shell { .. } => "login-forbidden",
        Diagnosis::KeysCommand { .. } | Diagnosis::KeysUser { .. } | Diagnosis::NotInstalled { .. } => {
            "no-instance-connect"
        }
        Diagnosis::NoPublicKey { .. } => "no-publickey",
        Diagnosis::NotFound { .. } => "instance-not-found",
        Diagnosis::NotRunning { .. } => "instance-not-running",
        Diagnosis::Offline { .. } => "agent-offline",
        Diagnosis::OldAgent { .. } => "agent-old",
        Diagnosis::Starting { .. } | Diagnosis::Unregistered { .. } => "agent-unregistered",
        Diagnosis::User { .. } => "no-user",
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    const DOCUMENT: &str = include_str!("../../../../docs/troubleshooting.md");

    #[test]
    fn every_anchor_is_a_heading_and_every_heading_an_anchor() {
        let source = include_str!("anchor.rs").split("#[cfg(test)]").next().unwrap();
        // The only quoted words of lower case and hyphens here.
        let is_anchor = |word: &&str| {
            !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-')
        };
        let anchors: BTreeSet<_> = source.split('"').skip(1).step_by(2).filter(is_anchor).collect();
        let headings: BTreeSet<_> = DOCUMENT.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert!(anchors.len() > 30, "{anchors:?}");
        assert_eq!(anchors, headings);
    }
}
