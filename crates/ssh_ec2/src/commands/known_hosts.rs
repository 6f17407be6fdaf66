//! Which host keys an instance has: the KnownHostsCommand of ssh, and a look at what is known for people.
//!
//! ssh asks twice. Before the key exchange it wants to know what to ask the server for; afterwards it shows the key
//! that the server presented. What our file says comes first, and is never overruled. Else AWS is asked: for the
//! console, then, if the caller may, for the files of sshd through a session. A key that nobody tells is taken at its
//! word, once, and said.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::aws::{Aws, Latest, Settings, timestamp};
use crate::cache::{Cache, Entry as Cached, Key};
use crate::commands::tell_distrust;
use crate::error::{ChangedKey, ExitCode, Failure};
use crate::host_key::{Evidence, HostKey, Source};
use crate::known_hosts::{Entry, Host, Store};
use crate::network::Network;
use crate::probe::{self, Question};
use crate::resolve::{Choice, Resolver, scope};
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
    /// The key that the server presented, as ssh's `%t:%K`, once there is one.
    pub presented: Option<String>,
}

/// Prints the keys as lines of known_hosts.
///
/// # Errors
/// When the server presented another key than is known, or the file cannot be used.
pub async fn run(
    request: &Request,
    store: &Store,
    network: &Network,
    cache: &Cache,
) -> Result<ExitCode, Failure> {
    let presented = request.presented.as_deref().filter(|text| *text != NOTHING_PRESENTED);
    let presented = presented.map(|text| HostKey::parse(&text.replacen(':', " ", 1)).ok_or(text));
    let presented = match presented {
        None => None,
        Some(Ok(key)) => Some(key),
        // A certificate, which needs an authority that ssh knows from its own files.
        Some(Err(_)) => return Ok(ExitCode::Success),
    };
    let mut lookup = Lookup { request, store, network, cache, aws: None };
    let instance = lookup.instance().await?;
    if request.host.is_none() {
        // ssh's users have heard it from the proxy.
        tell_distrust(lookup.aws.as_ref(), cache);
    }
    let host = Host::new(&instance, request.port);
    let mut known = store.find(&host)?;
    if known.is_empty() {
        known = lookup.learn(&instance, &host, presented.as_ref()).await?;
    }
    if let Some(key) = presented.filter(|key| !known.iter().any(|entry| entry.key == *key)) {
        let same_kind = known.iter().find(|entry| entry.key.algorithm() == key.algorithm());
        let Some(Entry { key: old, source, since, .. }) = same_kind.or(known.first()).cloned() else {
            return Err(Failure::HostKeyUnknown { instance });
        };
        let old = format!("{} {}", old.kind(), old.fingerprint());
        return Err(lookup.changed(&instance, &host, old, source, since, &key).await);
    }
    if known.is_empty() && request.host.is_none() {
        return Err(Failure::HostKeyUnknown { instance });
    }
    let pattern = request.host.as_deref().map_or_else(|| host.as_str().to_owned(), pattern);
    let lines: String = known.iter().map(|entry| format!("{pattern} {}\n", entry.key)).collect();
    ui::print(&lines).map_err(Failure::Stdio)?;
    Ok(ExitCode::Success)
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
    ui::print(&ui::align(&rows)).map_err(Failure::Stdio)?;
    Ok(ExitCode::Success)
}

/// Takes the user's word for the key of a host, in the place of all that is known.
///
/// # Errors
/// When the text is no key, or the file cannot be written.
pub async fn trust(
    request: &Request,
    key: &str,
    store: &Store,
    network: &Network,
    cache: &Cache,
) -> Result<ExitCode, Failure> {
    let key = HostKey::parse(key).ok_or_else(|| {
        Failure::Usage(format!(
            "{:?} is no host key; it looks like `ssh-ed25519 AAAA…`",
            ui::shorten(key, 40)
        ))
    })?;
    let instance = Lookup { request, store, network, cache, aws: None }.instance().await?;
    let host = Host::new(&instance, request.port);
    store.replace(&host, &key, Source::User, &now()).await?;
    ui::note(&format!("the {} key of {} is {} from now on", key.kind(), host.as_str(), key.fingerprint()));
    Ok(ExitCode::Success)
}

/// Forgets the keys of an instance.
///
/// # Errors
/// When there are none, or the file cannot be written.
pub async fn forget(
    request: &Request,
    store: &Store,
    network: &Network,
    cache: &Cache,
) -> Result<ExitCode, Failure> {
    let instance = Lookup { request, store, network, cache, aws: None }.instance().await?;
    let forgotten = store.forget(&instance).await?;
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
    network: &'a Network,
    cache: &'a Cache,
    aws: Option<Aws>,
}

impl Lookup<'_> {
    /// Only a name needs AWS, and the proxy has just found out what it means.
    async fn instance(&mut self) -> Result<InstanceId, Failure> {
        if let Target::Id(id) = &self.request.target {
            return Ok(id.clone());
        }
        let (cache, target, choice) = (self.cache, &self.request.target, self.request.choice);
        let aws = self.aws().await?;
        Ok(Resolver::new(aws, cache).instance(target, choice).await?.id)
    }

    async fn aws(&mut self) -> Result<&Aws, Failure> {
        let aws = match self.aws.take() {
            Some(aws) => aws,
            None => {
                let settings = Settings { batch: true, ..self.request.settings.clone() };
                Aws::load(&settings, self.network).await?.impatient()
            }
        };
        Ok(self.aws.insert(aws))
    }

    /// Finds out the keys of a host of which none is known, and writes them down.
    async fn learn(
        &mut self,
        instance: &InstanceId,
        host: &Host,
        presented: Option<&HostKey>,
    ) -> Result<Vec<Entry>, Failure> {
        let told = match self.was_silent(instance).await? {
            true => None,
            false => self.ask(instance).await?,
        };
        let since = now();
        let Some((evidence, source)) = told else {
            let Some(key) = presented else {
                self.remember_silence(instance).await?;
                return Ok(Vec::new());
            };
            let known = self.store.add(host, std::slice::from_ref(key), Source::FirstUse, &since).await?;
            // A process that came first may have written down another one, which is told by the caller.
            if known.iter().any(|entry| entry.key == *key) {
                ui::note(&format!(
                    "nothing in AWS tells the host key of {instance}: its {} key {} is trusted from this first connection on",
                    key.kind(),
                    key.fingerprint()
                ));
            }
            return Ok(known);
        };
        let keys = match presented {
            _ if !evidence.keys.is_empty() => evidence.keys,
            Some(key) if evidence.tells(key) => vec![key.clone()],
            Some(key) => {
                let old = format!("a key with {}", evidence.all_fingerprints().join(" or "));
                return Err(self.changed(instance, host, old, source, String::new(), key).await);
            }
            None => return Ok(Vec::new()),
        };
        tracing::info!("the host keys of {instance} are told by {source}");
        Ok(self.store.add(host, &keys, source, &since).await?)
    }

    /// What the first source tells that tells anything.
    async fn ask(&mut self, instance: &InstanceId) -> Result<Option<(Evidence, Source)>, Failure> {
        let console = self.console(instance).await?;
        if !console.is_empty() {
            return Ok(Some((console, Source::Console)));
        }
        let files = self.files(instance).await?;
        Ok((!files.is_empty()).then_some((files, Source::Session)))
    }

    /// What cloud-init printed when the instance started for the first time.
    async fn console(&mut self, instance: &InstanceId) -> Result<Evidence, Failure> {
        let aws = self.aws().await?;
        if instance.is_managed_node() {
            return Ok(Evidence::default());
        }
        for latest in [Latest::No, Latest::Yes] {
            match aws.console_output(instance, latest).await.map(|text| Evidence::of_console(&text)) {
                Ok(evidence) if evidence.is_empty() => {}
                Ok(evidence) => return Ok(evidence),
                Err(error) => {
                    tracing::info!("the console tells no host keys: {error}");
                    break;
                }
            }
        }
        Ok(Evidence::default())
    }

    /// What sshd's files say, if the caller may start sessions that run a command.
    async fn files(&mut self, instance: &InstanceId) -> Result<Evidence, Failure> {
        let network = self.network;
        let aws = self.aws().await?;
        let question = Question::Command(READ_KEYS);
        match probe::ask(aws, network, instance, question, REASON, READ_TIMEOUT).await {
            Ok(answer) => Ok(Evidence::of_files(&String::from_utf8_lossy(&answer.output))),
            Err(error) => {
                tracing::info!("the host keys cannot be read through Session Manager: {error}");
                Ok(Evidence::default())
            }
        }
    }

    /// ssh asks twice within a second, and AWS need not be.
    async fn was_silent(&mut self, instance: &InstanceId) -> Result<bool, Failure> {
        let cache = self.cache;
        let scope = scope(self.aws().await?);
        Ok(cache.find(&scope, &silence(instance), SystemTime::now()).is_some())
    }

    async fn remember_silence(&mut self, instance: &InstanceId) -> Result<(), Failure> {
        let cache = self.cache;
        let scope = scope(self.aws().await?);
        let entry = Cached { id: instance.clone(), user: None };
        cache.keep(&scope, &[(silence(instance), entry)], SystemTime::now());
        Ok(())
    }

    /// The server presented a key that is not the known one. Whether AWS tells it is worth the time now.
    async fn changed(
        &mut self,
        instance: &InstanceId,
        host: &Host,
        old: String,
        source: Source,
        since: String,
        key: &HostKey,
    ) -> Failure {
        let console = self.console(instance).await.is_ok_and(|told| told.tells(key));
        let confirmed = match console {
            true => Some(Source::Console),
            false => {
                let files = self.files(instance).await.is_ok_and(|told| told.tells(key));
                files.then_some(Source::Session)
            }
        };
        Failure::HostKeyChanged(Box::new(ChangedKey {
            host: host.as_str().to_owned(),
            old,
            told_by: source,
            since,
            new: key.clone(),
            confirmed,
        }))
    }
}

/// To the second: people compare it with their own clocks.
fn now() -> String {
    let age = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    timestamp(UNIX_EPOCH + Duration::from_secs(age.as_secs()))
}

fn silence(instance: &InstanceId) -> Key {
    Key::of(&["no source of host keys", instance.as_str()])
}

/// The host as a pattern of known_hosts. ssh reads these lines for this one host only, so that a name which would
/// mean something there can be replaced by what means every host.
fn pattern(host: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]@%".contains(&byte);
    if !host.is_empty() && host.bytes().all(plain) { host.to_owned() } else { "*".to_owned() }
}

/// What ssh says for a key while there is none.
const NOTHING_PRESENTED: &str = "NONE:NONE";
const READ_KEYS: &str = "cat /etc/ssh/ssh_host_*_key.pub";
/// For Session Manager's records.
const REASON: &str = "ssh_ec2 reads the public host keys";
/// The SSM agent waits a second for acknowledgements at the end.
const READ_TIMEOUT: Duration = Duration::from_secs(8);
