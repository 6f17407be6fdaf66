//! What an examination found, as data, and how it is written down. (Pure.)

use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

/// What stands between a user and an instance, from here to there.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// The client program.
    Ssh,
    /// What plain ssh reads.
    SshConfig,
    /// Which region is meant.
    Region,
    /// Who calls.
    Credentials,
    /// This machine's, against AWS's.
    Clock,
    /// Names, TCP, TLS, proxies.
    Endpoints,
    /// What EC2 knows.
    Instance,
    /// What lets the SSM agent register.
    InstanceProfile,
    /// What Session Manager knows.
    SessionManager,
    /// What the caller may do.
    Permissions,
    /// EC2 Instance Connect.
    KeyPush,
    /// Session, websocket, SSM agent.
    Tunnel,
    /// Whatever has the port.
    Sshd,
    /// Whether it is the right one.
    HostKey,
    /// Whether it takes the key.
    Login,
}

impl Layer {
    /// As it is written in both forms.
    pub fn name(self) -> &'static str {
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

/// How a layer is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// No connection is possible.
    Broken,
    /// As it should be.
    Ok,
    /// Could not be looked at, or need not be.
    Skipped,
    /// Worth knowing; connections work nevertheless.
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

/// One look at one layer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// Where.
    pub layer: Layer,
    /// How it is.
    pub verdict: Verdict,
    /// What was seen, in one line; the cause, when it is broken.
    pub fact: String,
    /// What to do, an action a line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// What is to be pasted, or read at length.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
    /// How long the look took; in JSON in milliseconds.
    #[serde(rename = "took_ms", serialize_with = "milliseconds")]
    pub took: Duration,
}

/// All that was looked at, in order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// As it was typed.
    pub target: Option<String>,
    /// The instance that is meant.
    pub instance: Option<String>,
    /// Where it was looked for.
    pub region: Option<String>,
    /// Whose it is.
    pub account: Option<String>,
    /// Who would log in.
    pub user: Option<String>,
    /// Whether nothing is broken.
    pub healthy: bool,
    /// One or several for each layer.
    pub checks: Vec<Check>,
}

impl Report {
    /// The first layer that is broken.
    pub fn broken(&self) -> Option<&Check> {
        self.checks.iter().find(|check| check.verdict == Verdict::Broken)
    }

    /// JSON, for programs.
    pub fn json(&self) -> String {
        // Strings and numbers, none of which could fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// A line for each check, and its hints below.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for check in &self.checks {
            // A line break in it would begin what looks like another check.
            let fact = check.fact.replace(['\r', '\n'], " ");
            text.push_str(&format!("{:<8} {:<16} {fact}", check.verdict.name(), check.layer.name()));
            if check.took >= WORTH_TELLING {
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

/// What a program of ours failed with, for the one that started it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Told {
    /// The message and its causes.
    pub message: String,
    /// What to do, an action a line.
    pub hints: Vec<String>,
    /// The heading in the document on troubles, which tells one kind of failure from another.
    pub anchor: Option<String>,
}

impl Told {
    /// For the file.
    pub fn json(&self) -> String {
        // Strings, none of which could fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From the file; none if it was not written to its end.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Whether it is of this kind.
    pub fn is(&self, anchor: &str) -> bool {
        self.anchor.as_deref() == Some(anchor)
    }
}

fn milliseconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
}

/// Below the fact.
const INDENT: &str = "                          ";
/// What took less is not what anybody waits for.
const WORTH_TELLING: Duration = Duration::from_millis(1);

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
