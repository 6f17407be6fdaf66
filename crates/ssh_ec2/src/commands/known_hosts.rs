//! `ssh_ec2 known-hosts`: ssh's KnownHostsCommand, and the commands that list, trust and forget host keys.
//!
//! ssh runs it twice. Before the key exchange ssh needs the algorithms to ask the server for; afterwards it
//! passes the key that the server presented. A stored key comes first and is never overruled. Without one,
//! `sources` asks AWS, in the proxy of the same ssh or in this process (`way`). If AWS answers that it lists
//! no key, the presented key is accepted on first use and stored, with a note. If no connection to EC2 can be
//! made, as in networks with few interface endpoints, the key is accepted for this connection and not stored.
//! In all other cases it is refused.

pub(in crate::commands) mod inquiry;
pub(in crate::commands) mod sources;
mod way;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::sources::{Listing, Reason};
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

/// The options of one run.
#[derive(Debug)]
pub(crate) struct Request {
    /// The instance as typed, or as ssh's host name has it.
    pub target: Target,
    /// The choice among several matching instances.
    pub choice: Choice,
    /// The profile and the region.
    pub settings: Settings,
    /// The port of sshd.
    pub port: Port,
    /// ssh's name of the host. None in a run by the user, whose lines have the instance's id.
    pub host: Option<String>,
    /// The host as typed, if the installed blocks match it in plain ssh.
    pub typed: Option<String>,
    /// The key that the server presented, as ssh's `%t:%K`. None before the key exchange.
    pub presented: Option<String>,
}

/// The files and connections that a run uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Means<'a> {
    /// The stored host keys.
    pub store: &'a Store,
    /// Certificates and proxies of all connections.
    pub network: &'a Network,
    /// The instances that names were resolved to.
    pub cache: &'a Cache,
    /// Cancels a session that is open.
    pub interrupt: &'a Interrupt,
    /// The directory of the proxies' sockets.
    pub sockets: &'a Path,
}

/// Prints the keys as lines of known_hosts.
///
/// # Errors
///
/// When the server presented another key than the known one, or the file cannot be used.
pub(crate) async fn run(request: &Request, means: Means<'_>) -> Result<ExitCode, Failure> {
    let (presented, is_certificate) = presented(request);
    let mut lookup = Lookup { request, store: means.store, way: Way::new(request, means) };
    let instance = lookup.way.instance().await?;
    if request.host.is_none() {
        // If ssh runs this, its proxy has printed the note already.
        tell_distrust(lookup.way.loaded(), means.cache);
    }
    let host = Host::new(&instance, request.port);
    let mut known = means.store.find(&host)?;
    if known.is_empty() {
        known = lookup.learn(&instance, &host, presented.as_ref()).await?;
    }
    // ssh itself checks certificates: it has the authorities, and falls back to the plain key.
    if let Some(key) = presented.filter(|key| !is_certificate && !known.iter().any(|entry| entry.key == *key))
    {
        return Err(lookup.changed(&instance, &host, &known, &key).await);
    }
    if known.is_empty() && request.host.is_none() {
        return Err(Failure::HostKeyUnknown { instance });
    }
    let pattern = match (&request.host, &request.typed) {
        (Some(host), _) => pattern(host),
        // Other programs look up a key by the name that the user typed.
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

/// The presented key, or the plain key of a certificate, and whether it is one. ssh itself checks types that
/// are not known here.
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

/// Lists the stored keys.
///
/// # Errors
///
/// When the file cannot be read.
pub(crate) fn list(store: &Store) -> Result<ExitCode, Failure> {
    let row = |entry: Entry| {
        [
            &entry.host,
            entry.key.kind(),
            &entry.key.fingerprint(),
            &format!("from {}", entry.source),
            &entry.since,
        ]
        .map(|cell: &str| ui::sanitise(cell))
        .to_vec()
    };
    let rows: Vec<_> = store.entries()?.into_iter().map(row).collect();
    ui::print(&ui::align(&rows)).map_err(Failure::Output)?;
    Ok(ExitCode::Success)
}

/// Replaces all stored keys of the host by the key that the user gives.
///
/// # Errors
///
/// When the text is not a key, or the file cannot be written.
pub(crate) async fn trust(request: &Request, key: &str, means: Means<'_>) -> Result<ExitCode, Failure> {
    let key = HostKey::parse(key).ok_or_else(|| {
        Failure::Usage(format!(
            "{:?} is not a host key; it looks like `ssh-ed25519 AAAA…`",
            ui::shorten(key, 40)
        ))
    })?;
    let instance = Way::new(request, means).instance().await?;
    let host = Host::new(&instance, request.port);
    means.store.replace(&host, &key, Source::User, &now()).await?;
    ui::note(&format!("the {} key of {} is {} from now on", key.kind(), host.as_str(), key.fingerprint()));
    Ok(ExitCode::Success)
}

/// Removes the stored keys of an instance.
///
/// # Errors
///
/// When there are none, or the file cannot be written.
pub(crate) async fn forget(request: &Request, means: Means<'_>) -> Result<ExitCode, Failure> {
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
    /// Asks for the keys of a host without stored keys, and stores them.
    async fn learn(
        &mut self,
        instance: &InstanceId,
        host: &Host,
        presented: Option<&HostKey>,
    ) -> Result<Vec<Entry>, Failure> {
        match (self.way.ask(instance).await?, presented) {
            (Listing::Keys(evidence, source), _)
                if self.request.port == Port::SSH && !evidence.keys.is_empty() =>
            {
                tracing::info!("{source} lists the host keys of {instance}");
                self.keep(host, &evidence.keys, source, presented.is_some()).await
            }
            (Listing::Keys(evidence, source), Some(key)) if evidence.lists(key) => {
                self.keep(host, std::slice::from_ref(key), source, true).await
            }
            (Listing::Keys(evidence, source), Some(key)) if self.request.port == Port::SSH => {
                let old = evidence.all_fingerprints().join(" or ");
                Err(self.differs(instance, host, old, source, String::new(), key, false).await)
            }
            // Another sshd, in a container for example, may have keys of its own; the machine's come first.
            (Listing::Keys(evidence, source), None) => Ok(unsaved(host, &evidence.keys, source)),
            (Listing::Keys(..), Some(key)) => {
                let why = format!(
                    "AWS lists the host keys of the sshd on port 22 of {instance}, not of the one on port {}",
                    self.request.port
                );
                self.trust_first(host, key, &why).await
            }
            // ssh runs this again with a key, and the error is printed then.
            (Listing::Unknown(_), None) if self.request.host.is_some() => Ok(Vec::new()),
            (Listing::Nothing | Listing::OutOfReach(_), None) => Ok(Vec::new()),
            (Listing::Nothing, Some(key)) => {
                self.trust_first(
                    host,
                    key,
                    &format!("AWS lists no host key of {instance} that you have permission to read"),
                )
                .await
            }
            (Listing::Unknown(Reason { why, hints }), _) => {
                Err(Failure::HostKeyUnchecked { instance: instance.clone(), why, hints })
            }
            (Listing::OutOfReach(why), Some(key)) => {
                ui::note(&format!(
                    "AWS cannot be asked for the host key of {instance} ({why}): its {} key {} is accepted unchecked, for this connection only",
                    key.kind(),
                    key.fingerprint()
                ));
                Ok(unsaved(host, std::slice::from_ref(key), Source::FirstUse))
            }
        }
    }

    async fn trust_first(&self, host: &Host, key: &HostKey, why: &str) -> Result<Vec<Entry>, Failure> {
        let known = self.store.add(host, std::slice::from_ref(key), Source::FirstUse, &now()).await?;
        // Another process may have stored a different key first; the caller then reports that.
        if known.iter().any(|entry| entry.key == *key) {
            let (kind, print) = (key.kind(), key.fingerprint());
            ui::note(&format!("{why}: its {kind} key {print} is trusted from this first connection on"));
        }
        Ok(known)
    }

    /// Stores keys that AWS lists. AWS can be asked again, so they are used even if they cannot be stored.
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
                    ui::note(&format!("the host keys of {} cannot be stored: {error}", host.as_str()));
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
        learned_from: Source,
        since: String,
        key: &HostKey,
        other_kind: bool,
    ) -> Failure {
        // For this error it is worth the time to ask AWS about the presented key.
        let confirmed = self.way.source_of(instance, key).await;
        Failure::HostKeyChanged(Box::new(ChangedKey {
            host: host.as_str().to_owned(),
            old,
            learned_from,
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

/// To the second, which is enough to compare with a clock.
fn now() -> String {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(UNIX_EPOCH + Duration::from_secs(age.as_secs()))
}

/// The host as a pattern of known_hosts. ssh reads these lines for this host only, so a name with characters
/// that are special there can be replaced by `*`.
fn pattern(host: &str) -> String {
    if is_plain(host) { host.to_owned() } else { "*".to_owned() }
}

fn is_plain(host: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]@%".contains(&byte);
    !host.is_empty() && host.bytes().all(plain)
}

/// ssh's text before the server has presented a key.
const NOTHING_PRESENTED: &str = "NONE:NONE";
