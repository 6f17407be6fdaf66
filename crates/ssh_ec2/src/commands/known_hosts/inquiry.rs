//! The messages between `ssh_ec2 known-hosts` and the proxy of the same ssh.
//!
//! The proxy has AWS credentials and has resolved the instance. Only one process of a connection should call
//! AWS, because credentials may need a touch of a hardware key. Both are the same program, so the format,
//! JSON, is internal; a text that does not fit it is not an answer.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Request;
use super::sources::{Listing, Reason};
use crate::instances::resolve::Choice;
use crate::ssh::host_key::{Evidence, HostKey, Source};
use crate::system::private_socket::PATH_LIMIT;
use crate::target::{InstanceId, Target};

/// A request about one connection.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) struct Inquiry {
    connection: Connection,
    pub(in crate::commands) matter: Matter,
}

/// The connection of a process that ssh started, by its command line.
#[derive(Debug, Deserialize, Eq, PartialEq, Serialize)]
pub(in crate::commands) struct Connection {
    target: String,
    choice: String,
    profile: Option<String>,
    region: Option<String>,
}

/// The subject of a request.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) enum Matter {
    /// Which instance is it?
    Instance,
    /// What are its host keys?
    Keys,
    /// Which source lists this key?
    WhoLists(String),
}

/// The proxy's answer.
#[derive(Debug, Deserialize, Serialize)]
pub(in crate::commands) enum Reply {
    /// The request is about another connection.
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

    /// Whether the request is about this connection to `instance`. If `ssh_ec2` resolved the name, ssh's host
    /// is the instance's id.
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

impl From<Listing> for Reply {
    fn from(listing: Listing) -> Self {
        match listing {
            Listing::Keys(Evidence { keys, fingerprints }, source) => {
                let keys = keys.iter().map(ToString::to_string).collect();
                Self::Keys { source: source.word().to_owned(), keys, fingerprints }
            }
            Listing::Nothing => Self::Nothing,
            Listing::OutOfReach(why) => Self::OutOfReach { why },
            Listing::Unknown(Reason { why, hints }) => Self::Unknown { why, hints },
        }
    }
}

impl Reply {
    /// The listing of keys. None if this is another answer, or a key cannot be read.
    pub(super) fn listing(self) -> Option<Listing> {
        Some(match self {
            Self::Keys { source, keys, fingerprints } => {
                let keys = keys.iter().map(|key| HostKey::parse(key)).collect::<Option<_>>()?;
                let evidence = Evidence { keys, fingerprints };
                (!evidence.is_empty()).then(|| Listing::Keys(evidence, Source::of_word(&source)))?
            }
            Self::Nothing => Listing::Nothing,
            Self::OutOfReach { why } => Listing::OutOfReach(why),
            Self::Unknown { why, hints } => Listing::Unknown(Reason { why, hints }),
            Self::Elsewhere | Self::Ending | Self::Instance(_) | Self::ListedBy(_) => return None,
        })
    }
}

/// The socket of the proxy of the ssh with this process id. None if the path is too long for a socket.
pub(in crate::commands) fn socket(directory: &Path, ssh: u32) -> Option<PathBuf> {
    // Containers that share the directory may number their processes alike.
    let namespace = fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino());
    let path = directory.join(format!("{SOCKET}{namespace:x}.{ssh}"));
    (path.as_os_str().len() <= PATH_LIMIT).then_some(path)
}

/// The process id in the name of such a socket.
pub(in crate::commands) fn ssh_of(name: &str) -> Option<u32> {
    name.strip_prefix(SOCKET)?.rsplit('.').next()?.parse().ok()
}

/// Distinct from the names of key agents, which have no such prefix.
const SOCKET: &str = ".host-keys.";
/// The size limit for a message, which has a few host keys at most.
pub(in crate::commands) const FRAME_LIMIT: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";

    #[test]
    fn a_listing_arrives_unchanged() {
        let keys =
            Evidence { keys: vec![HostKey::parse(KEY).unwrap()], fingerprints: vec!["SHA256:x".into()] };
        let reason = Reason { why: "busy".into(), hints: vec!["wait".into()] };
        for listing in [
            Listing::Keys(keys, Source::Session),
            Listing::Nothing,
            Listing::OutOfReach("no route".into()),
            Listing::Unknown(reason),
        ] {
            let text = serde_json::to_vec(&Reply::from(listing.clone())).unwrap();
            let reply: Reply = serde_json::from_slice(&text).unwrap();
            assert_eq!(reply.listing(), Some(listing));
        }
    }

    #[test]
    fn an_answer_with_other_content_is_none() {
        for text in [
            r#"{"Keys": {"source": "console", "keys": ["ssh-ed25519 AAAA"], "fingerprints": []}}"#,
            r#"{"Keys": {"source": "console", "keys": [], "fingerprints": []}}"#,
            r#"{"Instance": "i-0a1b2c3d"}"#,
            r#""Elsewhere""#,
            r#""Ending""#,
        ] {
            assert_eq!(serde_json::from_str::<Reply>(text).unwrap().listing(), None, "{text}");
        }
        assert!(serde_json::from_str::<Reply>(r#""Anything""#).is_err());
    }

    #[test]
    fn a_request_about_another_connection_is_recognized() {
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
