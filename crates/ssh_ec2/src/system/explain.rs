//! What an error says besides its message: what to do next, and which heading of the documentation explains
//! it.

use std::error::Error;
use std::time::SystemTime;

/// An error that explains itself: the type that defines an error has all of its texts.
pub(crate) trait Explain: Error {
    /// What to do about it: one action for each line.
    fn hints(&self) -> Vec<String>;

    /// The heading in `docs/troubleshooting.md`. None for a mistake that the message explains in full.
    fn anchor(&self) -> Option<Anchor>;

    /// The lines between the message and the hints, such as a list of instances.
    fn details(&self, _now: SystemTime) -> Vec<String> {
        Vec::new()
    }
}

macro_rules! anchors {
    ($($variant:ident $heading:literal)*) => {
        /// A heading of `docs/troubleshooting.md`.
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub(crate) enum Anchor {
            $($variant,)*
        }

        impl Anchor {
            /// The heading as it stands in the document and in links to it.
            pub(crate) fn heading(self) -> &'static str {
                match self {
                    $(Self::$variant => $heading,)*
                }
            }

            #[cfg(test)]
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];
        }
    };
}

anchors! {
    AgentOffline "agent-offline"
    AgentOld "agent-old"
    AgentSilent "agent-silent"
    AgentUnregistered "agent-unregistered"
    AwsConfiguration "aws-configuration"
    AwsError "aws-error"
    Certificates "certificates"
    ConnectionLost "connection-lost"
    CredentialProcess "credential-process"
    CredentialsExpired "credentials-expired"
    CredentialsRejected "credentials-rejected"
    Endpoint "endpoint"
    Files "files"
    HostKeyChanged "host-key-changed"
    HostKeyUnchecked "host-key-unchecked"
    HostKeyUnknown "host-key-unknown"
    HttpProxy "http-proxy"
    InstanceClock "instance-clock"
    InstanceNotFound "instance-not-found"
    InstanceNotRunning "instance-not-running"
    KeyAgentSocket "key-agent-socket"
    KeyAlgorithm "key-algorithm"
    KeyKeptBack "key-kept-back"
    KeyRefused "key-refused"
    KnownHostsFile "known-hosts-file"
    LoginForbidden "login-forbidden"
    ManagedNode "managed-node"
    Mfa "mfa"
    NameMoved "name-moved"
    NoCredentials "no-credentials"
    NoInstanceConnect "no-instance-connect"
    NoPublickey "no-publickey"
    NoRandomness "no-randomness"
    NoRole "no-role"
    NoUser "no-user"
    NotAws "not-aws"
    NotConnected "not-connected"
    OwnKey "own-key"
    PermissionDenied "permission-denied"
    Region "region"
    Sandbox "sandbox"
    SessionEnded "session-ended"
    SessionRefused "session-refused"
    SeveralInstances "several-instances"
    SignIn "sign-in"
    Signature "signature"
    SshClient "ssh-client"
    SshdBusy "sshd-busy"
    SshdNotThere "sshd-not-there"
    StandardStreams "standard-streams"
    SystemLimits "system-limits"
    Throttled "throttled"
    Unreachable "unreachable"
    WebIdentityToken "web-identity-token"
    WebsocketRefused "websocket-refused"
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const DOCUMENT: &str = include_str!("../../../../docs/troubleshooting.md");

    #[test]
    fn every_anchor_is_a_heading_and_every_heading_an_anchor() {
        let anchors: BTreeSet<_> = Anchor::ALL.iter().map(|anchor| anchor.heading()).collect();
        let headings: BTreeSet<_> = DOCUMENT.lines().filter_map(|line| line.strip_prefix("## ")).collect();
        assert_eq!(anchors, headings);
    }
}
