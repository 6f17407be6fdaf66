//! The error of a changed host key.

use thiserror::Error;

use crate::ssh::host_key::{HostKey, Source};
use crate::system::explain::{Anchor, Explain};

/// sshd presented a host key that is not the known one.
#[derive(Debug, Error)]
#[error("{host} presents the host key {} {}, but the known key is {old}, from {learned_from}{}; {}", .new.kind(), .new.fingerprint(), at(.since), listed(*.confirmed))]
pub(crate) struct ChangedKey {
    /// The host as in known_hosts.
    pub host: String,
    /// The known key: its type and fingerprint, or only fingerprints.
    pub old: String,
    /// The source of the known key.
    pub learned_from: Source,
    /// The time when the known key was stored; empty if it was not.
    pub since: String,
    /// The presented key.
    pub new: HostKey,
    /// The source in AWS that lists the presented key.
    pub confirmed: Option<Source>,
    /// Whether no key of the same algorithm is known.
    pub other_kind: bool,
}

impl Explain for ChangedKey {
    fn hints(&self) -> Vec<String> {
        let instance = self.host.trim_start_matches('[').split(']').next().unwrap_or_default();
        let port = self.host.split_once("]:").map(|(_, port)| format!(" --port {port}")).unwrap_or_default();
        let trust = format!("`ssh_ec2 known-hosts --trust '{}'{port} {instance}`", self.new);
        let hint = match self.confirmed {
            None if self.other_kind => format!(
                "if HostKeyAlgorithms in your ssh configuration asks for such keys, remove it; only if you know that the instance has this key: {trust}"
            ),
            Some(_) => format!("the instance has made new host keys since; accept this one: {trust}"),
            None => format!(
                "another machine may be intercepting the connection; only if you know that the instance has made new host keys: {trust}"
            ),
        };
        vec![hint]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::HostKeyChanged)
    }
}

fn at(since: &str) -> String {
    if since.is_empty() { String::new() } else { format!(" on {since}") }
}

fn listed(confirmed: Option<Source>) -> String {
    match confirmed {
        Some(source) => format!("{source} lists the presented key"),
        None => "AWS does not list the presented key".into(),
    }
}
