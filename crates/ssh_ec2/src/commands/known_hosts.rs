//! Which host keys an instance has: the KnownHostsCommand of ssh, and a look at what is known for people.
//!
//! ssh asks twice. Before the key exchange it wants to know what to ask the server for; afterwards it shows the key
//! that the server presented. What our file says comes first, and is never overruled; else `sources` asks
//! AWS, from the proxy of the same ssh or from this process (`way`). If AWS answers that it lists no key, the
//! presented one is accepted once, and that is said. If no connection to EC2 can be made, as in networks with
//! a few interface endpoints, it is accepted for one connection, and nothing is written down. In all other
//! cases it is refused.

pub(in crate::commands) mod inquiry;
pub(in crate::commands) mod sources;
mod way;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::sources::{Reason, Told};
use self::way::Way;
use crate::aws::Settings;
use crate::aws::timestamp;
use crate::commands::tell_distrust;
use crate::error::{ChangedKey, ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::instances::resolve::Choice;
use crate::net::network::Network;
use crate::road::probe::Interrupt;
use crate::ssh::host_key::{HostKey, Source};
use crate::ssh::known_hosts::{Entry, Host, Store, StoreError};
use crate::target::{InstanceId, Port, Target};
use crate::ui;

/// What ssh, or somebody, wants to know.
#[derive(Debug)]
pub struct Request {
    /// The instance.
    pub target: Target,
    /// What to do when several match.
    pub choice: Choice,
    /// Profile and region.
    pub settings: Settings,
    /// sshd's port.
    pub port: Port,
    /// What ssh calls the host; people get the instance's id.
    pub host: Option<String>,
    /// The host as typed, if our blocks match it in plain ssh too.
    pub typed: Option<String>,
    /// The key that the server presented, as ssh's `%t:%K`, once there is one.
    pub presented: Option<String>,
}

/// With what an answer is found.
#[derive(Clone, Copy, Debug)]
pub struct Means<'a> {
    /// What is known.
    pub store: &'a Store,
    /// For all connections.
    pub network: &'a Network,
    /// For names.
    pub cache: &'a Cache,
    /// To give up what is under way.
    pub interrupt: &'a Interrupt,
    /// Where proxies listen.
    pub sockets: &'a Path,
}

/// Prints the keys as lines of known_hosts.
///
/// # Errors
/// When the server presented another key than is known, or the file cannot be used.
pub async fn run(request: &Request, means: Means<'_>) -> Result<ExitCode, Failure> {
    let (presented, is_certificate) = presented(request);
    let mut lookup = Lookup { request, store: means.store, way: Way::new(request, means) };
    let instance = lookup.way.instance().await?;
    if request.host.is_none() {
        // ssh's users have heard it from the proxy.
        tell_distrust(lookup.way.loaded(), means.cache);
    }
    let host = Host::new(&instance, request.port);
    let mut known = means.store.find(&host)?;
    if known.is_empty() {
        known = lookup.learn(&instance, &host, presented.as_ref()).await?;
    }
    // Of certificates ssh is the judge: it knows the authorities, and falls back to the plain key.
    if let Some(key) = presented.filter(|key| !is_certificate && !known.iter().any(|entry| entry.key == *key))
    {
        return Err(lookup.changed(&instance, &host, &known, &key).await);
    }
    if known.is_empty() && request.host.is_none() {
        return Err(Failure::HostKeyUnknown { instance });
    }
    let pattern = match (&request.host, &request.typed) {
        (Some(host), _) => pattern(host),
        // Other programs look up a key by the name that the user gave them.
        (None, Some(name)) if name != instance.as_str() && is_plain(name) => {
            format!("{},{}", host.as_str(), host.as_str().replace(instance.as_str(), name))
        }
        (None, _) => host.as_str().to_owned(),
    };
    let marked = means.store.marked()?.into_iter().map(|line| line + "\n");
    let plain = known.iter().map(|entry| format!("{pattern} {}\n", entry.key));
    ui::print(&marked.chain(plain).collect::<String>()).map_err(Failure::Output)?;
    Ok(ExitCode::Success)
}

/// The key that ssh shows, or the plain one of a certificate. Of a kind that is not known here, ssh is the judge.
fn presented(request: &Request) -> (Option<HostKey>, bool) {
    let Some(text) = request.presented.as_deref().filter(|text| *text != NOTHING_PRESENTED) else {
        return (None, false);
    };
    let text = text.replacen(':', " ", 1);
    match HostKey::parse(&text) {
        Some(key) => (Some(key), false),
        None => (HostKey::of_certificate(&text), true),
    }
}

/// Shows what is known.
///
/// # Errors
/// When the file cannot be read.
pub fn list(store: &Store) -> Result<ExitCode, Failure> {
    let row = |entry: Entry| {
        [
            &entry.host,
            entry.key.kind(),
            &entry.key.fingerprint(),
            &format!("told by {}", entry.source),
            &entry.since,
        ]
        .map(|cell: &str| ui::sanitise(cell))
        .to_vec()
    };
    let rows: Vec<_> = store.entries()?.into_iter().map(row).collect();
    ui::print(&ui::align(&rows)).map_err(Failure::Output)?;
    Ok(ExitCode::Success)
}

/// Takes the user's word for the key of a host, in the place of all that is known.
///
/// # Errors
/// When the text is no key, or the file cannot be written.
pub async fn trust(request: &Request, key: &str, means: Means<'_>) -> Result<ExitCode, Failure> {
    let key = HostKey::parse(key).ok_or_else(|| {
        Failure::Usage(format!(
            "{:?} is no host key; it looks like `ssh-ed25519 AAAA…`",
            ui::shorten(key, 40)
        ))
    })?;
    let instance = Way::new(request, means).instance().await?;
    let host = Host::new(&instance, request.port);
    means.store.replace(&host, &key, Source::User, &now()).await?;
    ui::note(&format!("the {} key of {} is {} from now on", key.kind(), host.as_str(), key.fingerprint()));
    Ok(ExitCode::Success)
}

/// Forgets the keys of an instance.
///
/// # Errors
/// When there are none, or the file cannot be written.
pub async fn forget(request: &Request, means: Means<'_>) -> Result<ExitCode, Failure> {
    let instance = Way::new(request, means).instance().await?;
    let forgotten = means.store.forget(&instance).await?;
    if forgotten.is_empty() {
        return Err(Failure::HostKeyUnknown { instance });
    }
    for entry in forgotten {
        ui::note(&format!(
            "forgot the {} key of {}, {}",
            entry.key.kind(),
            entry.host,
            entry.key.fingerprint()
        ));
    }
    Ok(ExitCode::Success)
}

struct Lookup<'a> {
    request: &'a Request,
    store: &'a Store,
    way: Way<'a>,
}

impl Lookup<'_> {
    /// Finds out the keys of a host of which none is known, and writes them down.
    async fn learn(
        &mut self,
        instance: &InstanceId,
        host: &Host,
        presented: Option<&HostKey>,
    ) -> Result<Vec<Entry>, Failure> {
        match (self.way.ask(instance).await?, presented) {
            (Told::Keys(evidence, source), _)
                if self.request.port == Port::SSH && !evidence.keys.is_empty() =>
            {
                tracing::info!("the host keys of {instance} are told by {source}");
                self.keep(host, &evidence.keys, source, presented.is_some()).await
            }
            (Told::Keys(evidence, source), Some(key)) if evidence.lists(key) => {
                self.keep(host, std::slice::from_ref(key), source, true).await
            }
            (Told::Keys(evidence, source), Some(key)) if self.request.port == Port::SSH => {
                let old = format!("a key with {}", evidence.all_fingerprints().join(" or "));
                Err(self.differs(instance, host, old, source, String::new(), key, false).await)
            }
            // Another sshd, of a container perhaps, may have keys of its own; those of the machine's come first.
            (Told::Keys(evidence, source), None) => Ok(unsaved(host, &evidence.keys, source)),
            (Told::Keys(..), Some(key)) => {
                let why = format!(
                    "what AWS tells of {instance} is of another sshd than that on port {}",
                    self.request.port
                );
                self.trust_first(host, key, &why).await
            }
            // ssh asks again, with a key, and the person reads of it once.
            (Told::Unknown(_), None) if self.request.host.is_some() => Ok(Vec::new()),
            (Told::Nothing | Told::OutOfReach(_), None) => Ok(Vec::new()),
            (Told::Nothing, Some(key)) => {
                self.trust_first(
                    host,
                    key,
                    &format!("nothing that you may ask tells the host key of {instance}"),
                )
                .await
            }
            (Told::Unknown(Reason { why, hints }), _) => {
                Err(Failure::HostKeyUnchecked { instance: instance.clone(), why, hints })
            }
            (Told::OutOfReach(why), Some(key)) => {
                ui::note(&format!(
                    "AWS cannot be asked for the host key of {instance} ({why}): its {} key {} is taken unchecked, for this connection only",
                    key.kind(),
                    key.fingerprint()
                ));
                Ok(unsaved(host, std::slice::from_ref(key), Source::FirstUse))
            }
        }
    }

    async fn trust_first(&self, host: &Host, key: &HostKey, why: &str) -> Result<Vec<Entry>, Failure> {
        let known = self.store.add(host, std::slice::from_ref(key), Source::FirstUse, &now()).await?;
        // A process that came first may have written down another one, which is told by the caller.
        if known.iter().any(|entry| entry.key == *key) {
            let (kind, print) = (key.kind(), key.fingerprint());
            ui::note(&format!("{why}: its {kind} key {print} is trusted from this first connection on"));
        }
        Ok(known)
    }

    /// What AWS tells can be told again, so that it is used also where it cannot be kept.
    async fn keep(
        &self,
        host: &Host,
        keys: &[HostKey],
        source: Source,
        is_last: bool,
    ) -> Result<Vec<Entry>, Failure> {
        match self.store.add(host, keys, source, &now()).await {
            Err(error @ (StoreError::Busy { .. } | StoreError::Write { .. })) => {
                if is_last || self.request.host.is_none() {
                    ui::note(&format!("the host keys of {} are not kept: {error}", host.as_str()));
                }
                Ok(unsaved(host, keys, source))
            }
            result => Ok(result?),
        }
    }

    /// The server presented a key that is not among the known ones.
    async fn changed(
        &mut self,
        instance: &InstanceId,
        host: &Host,
        known: &[Entry],
        key: &HostKey,
    ) -> Failure {
        let same_kind = known.iter().find(|entry| entry.key.algorithm() == key.algorithm());
        let Some(entry) = same_kind.or(known.first()) else {
            return Failure::HostKeyUnknown { instance: instance.clone() };
        };
        let old = format!("{} {}", entry.key.kind(), entry.key.fingerprint());
        let (source, since) = (entry.source, entry.since.clone());
        self.differs(instance, host, old, source, since, key, same_kind.is_none()).await
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of one error")]
    async fn differs(
        &mut self,
        instance: &InstanceId,
        host: &Host,
        old: String,
        told_by: Source,
        since: String,
        key: &HostKey,
        other_kind: bool,
    ) -> Failure {
        // Whether AWS tells it is worth the time now.
        let confirmed = self.way.who_tells(instance, key).await;
        Failure::HostKeyChanged(Box::new(ChangedKey {
            host: host.as_str().to_owned(),
            old,
            told_by,
            since,
            new: key.clone(),
            confirmed,
            other_kind,
        }))
    }
}

fn unsaved(host: &Host, keys: &[HostKey], source: Source) -> Vec<Entry> {
    let entry = |key: &HostKey| Entry {
        host: host.as_str().to_owned(),
        key: key.clone(),
        source,
        since: String::new(),
    };
    keys.iter().map(entry).collect()
}

/// To the second: people compare it with their own clocks.
fn now() -> String {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(UNIX_EPOCH + Duration::from_secs(age.as_secs()))
}

/// The host as a pattern of known_hosts. ssh reads these lines for this one host only, so that a name which would
/// mean something there can be replaced by what means every host.
fn pattern(host: &str) -> String {
    if is_plain(host) { host.to_owned() } else { "*".to_owned() }
}

fn is_plain(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]@%".contains(&byte);
    !host.is_empty() && host.bytes().all(plain)
}

/// What ssh says for a key while there is none.
const NOTHING_PRESENTED: &str = "NONE:NONE";
