//! What `ssh_ec2 known-hosts` asks the proxy of the same ssh, and what it gets for an answer.
//!
//! The proxy has an AWS client with credentials, and has found the instance. One process for each connection
//! that talks to AWS is enough: credentials may take a touch of a hardware key. Both are the same program, so
//! that the form, JSON, is nobody else's business; a text that does not fit it is no answer.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Request;
use super::sources::{Reason, Told};
use crate::instances::resolve::Choice;
use crate::ssh::host_key::{Evidence, HostKey, Source};
use crate::system::private_socket::PATH_LIMIT;
use crate::target::{InstanceId, Target};

/// A question about one connection.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) struct Inquiry {
    connection: Connection,
    pub(in crate::commands) matter: Matter,
}

/// The connection that a process of ssh's is for, by its own command line.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::commands) struct Connection {
    target: String,
    choice: String,
    profile: Option<String>,
    region: Option<String>,
}

/// What is asked.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) enum Matter {
    /// Which instance is it?
    Instance,
    /// What are its host keys?
    Keys,
    /// Which source lists this key?
    WhoLists(String),
}

/// The answer.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) enum Reply {
    /// The question was about another connection.
    Elsewhere,
    /// The proxy is ending.
    Ending,
    Instance(String),
    Keys {
        source: String,
        keys: Vec<String>,
        fingerprints: Vec<String>,
    },
    ListedBy(Option<String>),
    Nothing,
    OutOfReach {
        why: String,
    },
    Unknown {
        why: String,
        hints: Vec<String>,
    },
}

impl Inquiry {
    pub(super) fn new(request: &Request, matter: Matter) -> Self {
        let Request { target, choice, settings, .. } = request;
        let connection =
            Connection::new(target, *choice, settings.profile.as_deref(), settings.region.as_deref());
        Self { connection, matter }
    }

    /// Whether it is about a connection to `instance`. ssh has an id in the place of a name where the wrapper
    /// found it.
    pub(in crate::commands) fn is_about(&self, own: &Connection, instance: &InstanceId) -> bool {
        let asked = &self.connection;
        let is_same = asked.target == own.target && asked.choice == own.choice;
        let is_there = asked.profile == own.profile && asked.region == own.region;
        is_there && (is_same || asked.target == instance.as_str())
    }
}

impl Connection {
    pub(in crate::commands) fn new(
        target: &Target,
        choice: Choice,
        profile: Option<&str>,
        region: Option<&str>,
    ) -> Self {
        let choice = match choice {
            Choice::Any => "any",
            Choice::Newest => "newest",
            Choice::Unique => "unique",
        };
        Self {
            target: target.to_string(),
            choice: choice.to_owned(),
            profile: profile.map(str::to_owned),
            region: region.map(str::to_owned),
        }
    }
}

impl From<Told> for Reply {
    fn from(told: Told) -> Self {
        match told {
            Told::Keys(Evidence { keys, fingerprints }, source) => {
                let keys = keys.iter().map(ToString::to_string).collect();
                Self::Keys { source: source.word().to_owned(), keys, fingerprints }
            }
            Told::Nothing => Self::Nothing,
            Told::OutOfReach(why) => Self::OutOfReach { why },
            Told::Unknown(Reason { why, hints }) => Self::Unknown { why, hints },
        }
    }
}

impl Reply {
    /// What it says of keys. None if that is not what it is about, or a key is none.
    pub(super) fn told(self) -> Option<Told> {
        Some(match self {
            Self::Keys { source, keys, fingerprints } => {
                let keys = keys.iter().map(|key| HostKey::parse(key)).collect::<Option<_>>()?;
                let evidence = Evidence { keys, fingerprints };
                (!evidence.is_empty()).then(|| Told::Keys(evidence, Source::of_word(&source)))?
            }
            Self::Nothing => Told::Nothing,
            Self::OutOfReach { why } => Told::OutOfReach(why),
            Self::Unknown { why, hints } => Told::Unknown(Reason { why, hints }),
            Self::Elsewhere | Self::Ending | Self::Instance(_) | Self::ListedBy(_) => return None,
        })
    }
}

/// Where the proxy of the ssh with this process number listens. None where the path would be too long.
pub(in crate::commands) fn socket(directory: &Path, ssh: u32) -> Option<PathBuf> {
    // Containers that share the directory may number their processes alike.
    let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino());
    let path = directory.join(format!("{SOCKET}{namespace:x}.{ssh}"));
    (path.as_os_str().len() <= PATH_LIMIT).then_some(path)
}

/// The process number in such a name.
pub(in crate::commands) fn ssh_of(name: &str) -> Option<u32> {
    name.strip_prefix(SOCKET)?.rsplit('.').next()?.parse().ok()
}

/// A connection's key agent has a user and a host in its name, so no two names meet.
const SOCKET: &str = ".host-keys.";
/// For questions and answers: a few host keys at most.
pub(in crate::commands) const FRAME_LIMIT: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";

    #[test]
    fn what_was_found_out_arrives_as_it_was() {
        let keys =
            Evidence { keys: vec![HostKey::parse(KEY).unwrap()], fingerprints: vec!["SHA256:x".into()] };
        let reason = Reason { why: "busy".into(), hints: vec!["wait".into()] };
        for told in [
            Told::Keys(keys, Source::Session),
            Told::Nothing,
            Told::OutOfReach("no route".into()),
            Told::Unknown(reason),
        ] {
            let text = serde_json::to_vec(&Reply::from(told.clone())).unwrap();
            let reply: Reply = serde_json::from_slice(&text).unwrap();
            assert_eq!(reply.told(), Some(told));
        }
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_none() {
        for text in [
            r#"{"Keys": {"source": "console", "keys": ["ssh-ed25519 AAAA"], "fingerprints": []}}"#,
            r#"{"Keys": {"source": "console", "keys": [], "fingerprints": []}}"#,
            r#"{"Instance": "i-0a1b2c3d"}"#,
            r#""Elsewhere""#,
            r#""Ending""#,
        ] {
            assert_eq!(serde_json::from_str::<Reply>(text).unwrap().told(), None, "{text}");
        }
        assert!(serde_json::from_str::<Reply>(r#""Anything""#).is_err());
    }

    #[test]
    fn a_question_about_another_connection_is_noticed() {
        let instance: InstanceId = "i-0a1b2c3d".parse().unwrap();
        let name = || "web-1".parse().unwrap();
        let own = Connection::new(&name(), Choice::Unique, Some("prod"), None);
        let ask = |target: &str, choice, profile, region| {
            let connection = Connection::new(&target.parse().unwrap(), choice, profile, region);
            Inquiry { connection, matter: Matter::Keys }.is_about(&own, &instance)
        };
        assert!(ask("web-1", Choice::Unique, Some("prod"), None));
        assert!(ask("i-0a1b2c3d", Choice::Unique, Some("prod"), None));
        assert!(!ask("web-2", Choice::Unique, Some("prod"), None));
        assert!(!ask("i-0a1b2c3e", Choice::Unique, Some("prod"), None));
        assert!(!ask("web-1", Choice::Newest, Some("prod"), None));
        assert!(!ask("web-1", Choice::Unique, None, None));
        assert!(!ask("web-1", Choice::Unique, Some("prod"), Some("eu-west-1")));
    }
}
