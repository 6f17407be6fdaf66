//! The report of `ssh_ec2 doctor` as data, as text and as JSON. (Pure.)

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use crate::system::explain::Anchor;

/// The layers between the user and an instance, in the order of the checks.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Layer {
    /// The ssh in PATH.
    Ssh,
    /// ssh_config, as it applies to the host.
    SshConfig,
    /// The AWS region.
    Region,
    /// The AWS credentials and the caller's identity.
    Credentials,
    /// This machine's clock compared with AWS's.
    Clock,
    /// DNS, TCP, TLS and HTTP proxies to each service.
    Endpoints,
    /// The target, and the instance's state in EC2.
    Instance,
    /// The role that lets the SSM agent register.
    InstanceProfile,
    /// The SSM agent's state in Session Manager.
    SessionManager,
    /// The caller's IAM policies.
    Permissions,
    /// EC2 Instance Connect.
    KeyPush,
    /// The session, its websocket, and the SSM agent's answer.
    Tunnel,
    /// The server on the port.
    Sshd,
    /// The known host key.
    HostKey,
    /// The login with the real ssh.
    Login,
}

impl Layer {
    /// The name in the text and in JSON.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ssh => "ssh",
            Self::SshConfig => "ssh-config",
            Self::Region => "region",
            Self::Credentials => "credentials",
            Self::Clock => "clock",
            Self::Endpoints => "endpoints",
            Self::Instance => "instance",
            Self::InstanceProfile => "instance-profile",
            Self::SessionManager => "session-manager",
            Self::Permissions => "permissions",
            Self::KeyPush => "key-push",
            Self::Tunnel => "tunnel",
            Self::Sshd => "sshd",
            Self::HostKey => "host-key",
            Self::Login => "login",
        }
    }
}

/// The state of a layer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Verdict {
    /// Connections fail here.
    Broken,
    /// Nothing is wrong.
    Ok,
    /// Cannot be checked, or need not be.
    Skipped,
    /// Connections work, but something deserves attention.
    Warning,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Ok => "ok",
            Self::Skipped => "skipped",
            Self::Warning => "warning",
        }
    }
}

/// One check of one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Check {
    /// The checked layer.
    pub layer: Layer,
    /// Its state.
    pub verdict: Verdict,
    /// The observed fact, in one line. For a broken layer, its cause.
    pub fact: String,
    /// What to do, an action a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Lines to paste or to read at length: a policy statement, a list of instances.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// The duration of the check; in JSON in milliseconds.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
}

/// All checks, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Report {
    /// The target as the user typed it.
    pub target: Option<String>,
    /// The instance's id, once the target is resolved.
    pub instance: Option<String>,
    /// The AWS region.
    pub region: Option<String>,
    /// The AWS account id.
    pub account: Option<String>,
    /// The login name.
    pub user: Option<String>,
    /// Whether no layer is broken.
    pub healthy: bool,
    /// One or more for each checked layer.
    pub checks: Vec<Check>,
}

impl Report {
    /// The first layer that is broken.
    pub(crate) fn broken(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Broken)
    }

    /// The report for programs.
    pub(crate) fn json(&self) -> String {
        // Strings and numbers: serialization cannot fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// A line for each check, and its hints below.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            // A line break would start what looks like another check.
            let fact = check.fact.replace(['\r', '\n'], " ");
            text.push_str(&format!("{:<8} {:<16} {fact}", check.verdict.name(), check.layer.name()));
            if check.took >= SHOWN_TIME {
                text.push_str(&format!(" ({} ms)", check.took.as_millis()));
            }
            text.push('\n');
            for hint in &check.hints {
                text.push_str(&format!("{INDENT}hint: {hint}\n"));
            }
            for detail in &check.details {
                text.push_str(&format!("{INDENT}{detail}\n"));
            }
        }
        text + &self.conclusion()
    }

    fn conclusion(&self) -> String {
        let target = self.target.as_deref().map(|target| format!("{target}: ")).unwrap_or_default();
        match self.broken() {
            Some(check) => format!("\n{target}broken at {}\n", check.layer.name()),
            None => format!("\n{target}all is well\n"),
        }
    }
}

/// An error of `ssh_ec2 proxy` or `known-hosts`, in the file that `--report` names.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(crate) struct Reported {
    /// The error's message, with its causes.
    pub message: String,
    /// What to do, an action a line.
    pub hints: Vec<String>,
    /// The heading in docs/troubleshooting.md, which identifies the kind of error.
    pub anchor: Option<String>,
}

impl Reported {
    /// The file's content.
    pub(crate) fn json(&self) -> String {
        // Strings: serialization cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads the file's content. None if it is incomplete.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Whether the error has this heading.
    pub(crate) fn is(&self, anchor: Anchor) -> bool {
        self.anchor.as_deref() == Some(anchor.heading())
    }
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Aligns hints with the fact above.
const INDENT: &str = "                          ";
/// Shorter times are not shown.
const SHOWN_TIME: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        let check = |layer, verdict, fact: &str, hints: &[&str]| Check {
            layer,
            verdict,
            fact: fact.into(),
            hints: hints.iter().map(|hint| (*hint).to_owned()).collect(),
            details: Vec::new(),
            took: Duration::from_millis(12),
        };
        Report {
            target: Some("web-1".into()),
            instance: Some("i-0a1b2c3d".into()),
            checks: vec![
                check(Layer::Ssh, Verdict::Ok, "OpenSSH 9.2", &[]),
                check(Layer::Instance, Verdict::Broken, "i-0a1b2c3d is stopped", &["start it"]),
            ],
            ..Report::default()
        }
    }

    #[test]
    fn the_text_has_a_line_for_each_check_and_ends_with_the_cause() {
        assert_eq!(
            report().text(),
            "ok       ssh              OpenSSH 9.2 (12 ms)\n\
             broken   instance         i-0a1b2c3d is stopped (12 ms)\n\
             \u{20}                         hint: start it\n\
             \n\
             web-1: broken at instance\n"
        );
    }

    #[test]
    fn the_json_has_the_same_words() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["healthy"], false);
        assert_eq!(json["checks"][1]["layer"], "instance");
        assert_eq!(json["checks"][1]["verdict"], "broken");
        assert_eq!(json["checks"][1]["took_ms"], 12);
        assert_eq!(serde_json::to_value(Layer::SshConfig).unwrap(), Layer::SshConfig.name());
    }
}
