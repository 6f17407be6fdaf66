//! The cause for which an instance cannot be reached or refuses a key, from a few facts.
//!
//! The caller may be denied any of the calls; a fact that is not known is skipped, and only an observed cause
//! is reported. Nothing is changed on the instance. The caller sets the time limit.

mod kept_back;
mod refusal;
mod sshd_files;

use std::time::{Duration, SystemTime};

use ssm_channel::SsmAgentVersion;
use thiserror::Error;
use tokio::time::timeout;

pub(crate) use self::kept_back::{KeptBack, KeptBackList, Offered, kept_back};
pub(crate) use self::refusal::{Cleared, Refusal, RefusedKey, of_refusal};
use crate::aws::{Aws, Filter, Instance, InstanceState, Managed};
use crate::instances::resolve::{not_running_hint, region_of};
use crate::system::age::Age;
use crate::system::explain::{Anchor, Explain};
use crate::target::{InstanceId, OsUser};

/// A cause for which a connection to an instance fails.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum Diagnosis {
    /// sshd rejects keys of this algorithm.
    #[error("{instance} accepts no {} keys: {reason}", kind(.algorithm))]
    Algorithm {
        /// The instance that fails.
        instance: InstanceId,
        /// The key's algorithm.
        algorithm: String,
        /// The reason, as the end of a sentence.
        reason: String,
    },
    /// Pushed keys have an expiry time, which the instance compares with its own clock.
    #[error("the clock of {instance} is {} ahead: pushed keys count as expired there", span(*.off))]
    Clock {
        /// The instance that fails.
        instance: InstanceId,
        /// The difference to AWS's clock.
        off: Duration,
    },
    /// sshd has no AuthorizedKeysCommand that reads pushed keys.
    #[error("{instance} has EC2 Instance Connect, but its sshd does not ask it for keys")]
    KeysCommand {
        /// The instance that fails.
        instance: InstanceId,
    },
    /// The user as which sshd runs the program for pushed keys is missing.
    #[error("sshd on {instance} has AuthorizedKeysCommandUser {user}, and there is no such user")]
    KeysUser {
        /// The instance that fails.
        instance: InstanceId,
        /// The user of the package ec2-instance-connect.
        user: String,
    },
    /// ssh itself did not offer the key.
    #[error("{} ssh from offering {} to {instance}", KeptBackList(.options), if *.is_own { "the key of `--key-file`" } else { "the one-time key" })]
    KeptBack {
        /// The instance that fails.
        instance: InstanceId,
        /// The options that keep the key back.
        options: Vec<KeptBack>,
        /// Whether the key is the user's own, from `--key-file`.
        is_own: bool,
    },
    /// sshd's configuration excludes the user.
    #[error("sshd on {instance} does not let `{user}` log in: its configuration has {option}")]
    KeptOut {
        /// The instance that fails.
        instance: InstanceId,
        /// The login name.
        user: OsUser,
        /// The option, with its value if it has few.
        option: String,
    },
    /// A nologin file on the instance stops all logins but root's.
    #[error("{instance} lets only root log in: {file} exists there")]
    NoLogin {
        /// The instance that fails.
        instance: InstanceId,
        /// The file's path.
        file: String,
    },
    /// sshd does not accept public keys as the first method.
    #[error("sshd on {instance} accepts no public keys: its configuration has {option}")]
    NoPublicKey {
        /// The instance that fails.
        instance: InstanceId,
        /// The option and its value.
        option: String,
    },
    /// The caller sees no instance with the id.
    #[error("no instance of this account in {region} has the id {instance}{}", in_other(.elsewhere.as_deref()))]
    NotFound {
        /// The instance that fails.
        instance: InstanceId,
        /// The region that was searched.
        region: String,
        /// Another region that has the instance.
        elsewhere: Option<String>,
    },
    /// The package ec2-instance-connect is not installed on the instance.
    #[error("{instance} does not have EC2 Instance Connect: nothing there reads pushed keys")]
    NotInstalled {
        /// The instance that fails.
        instance: InstanceId,
    },
    /// The instance is stopped, terminated or still starting.
    #[error("{instance} is {state}")]
    NotRunning {
        /// The instance that fails.
        instance: InstanceId,
        /// The state's name in EC2.
        state: String,
    },
    /// The SSM agent was online before and is not now.
    #[error("{instance} {}Session Manager last heard from it {} ago", if *.runs { "is running, but " } else { "cannot be reached: " }, silence(*.silent))]
    Offline {
        /// The instance that fails.
        instance: InstanceId,
        /// Since the last ping; none if AWS does not say.
        silent: Option<Age>,
        /// Whether the instance runs, if EC2 says so.
        runs: bool,
        /// The instance's region.
        region: String,
    },
    /// The SSM agent is older than port sessions.
    #[error("the SSM agent of {instance} is {version}, but connections to ports need 2.3.672.0 or later")]
    OldAgent {
        /// The instance that fails.
        instance: InstanceId,
        /// The SSM agent's version.
        version: String,
    },
    /// sshd refuses users whose login shell does not exist.
    #[error("the login shell of `{user}` on {instance} does not exist: {shell}")]
    Shell {
        /// The instance that fails.
        instance: InstanceId,
        /// The login name.
        user: OsUser,
        /// The shell's path.
        shell: String,
    },
    /// The instance was started a moment ago, and its SSM agent may still register.
    #[error("{instance} started {} ago; its SSM agent registers within a few minutes", .since.in_words())]
    Starting {
        /// The instance that fails.
        instance: InstanceId,
        /// The time since EC2 started it.
        since: Age,
        /// Whether it has an instance profile.
        profile: bool,
    },
    /// The SSM agent has never registered. It can do so without an instance profile where the account has
    /// Default Host Management.
    #[error("{instance} is running, but Session Manager has never heard from it{}", if *.profile { "" } else { "; it has no instance profile" })]
    Unregistered {
        /// The instance that fails.
        instance: InstanceId,
        /// Whether it has an instance profile.
        profile: bool,
        /// The instance's region.
        region: String,
    },
    /// The user does not exist on the instance.
    #[error("there is no user `{user}` on {instance}")]
    User {
        /// The instance that fails.
        instance: InstanceId,
        /// The login name.
        user: OsUser,
    },
}

impl Explain for Diagnosis {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::KeptBack { options, .. } => return options.iter().map(KeptBack::hint).collect(),
            Self::Algorithm { algorithm, .. } if algorithm == "ssh-rsa" => {
                "use a key of another type: `--key-type ed25519`, or `--key-file`".into()
            }
            Self::Algorithm { .. } => "use a one-time RSA key: `--key-type rsa`".into(),
            Self::KeptOut { option, .. } => {
                format!("log in as another user, or change {option} in sshd's configuration there")
            }
            Self::KeysUser { .. } => "reinstall the package ec2-instance-connect there, which creates that user".into(),
            Self::NoLogin { file, .. } => {
                format!("wait until the instance has started; remove {file} if it is left over")
            }
            Self::NoPublicKey { option, .. } => {
                format!("change {option} in sshd's configuration there, and reload sshd: EC2 Instance Connect works with public keys only")
            }
            Self::Shell { user, .. } => {
                format!("give the user one that exists, in a Session Manager shell: `usermod --shell /bin/sh {user}`")
            }
            Self::Clock { .. } => "set its clock, for instance by `systemctl restart chronyd` in a Session Manager shell".into(),
            Self::KeysCommand { .. } => {
                "reinstall the package ec2-instance-connect there, which adds AuthorizedKeysCommand to sshd's configuration, and restart sshd".into()
            }
            Self::NotFound { elsewhere: Some(region), .. } => format!("add `--region {region}`"),
            Self::NotFound { .. } => "check the id, and the account of the credentials: `aws sts get-caller-identity`".into(),
            Self::NotInstalled { .. } => {
                "install the package ec2-instance-connect there, or use a key that is in the user's authorized_keys: `--key-file`".into()
            }
            Self::NotRunning { instance, state } => not_running_hint(instance, state),
            Self::Offline { region, .. } => format!(
                "restart its SSM agent, or reboot it: an agent that was denied credentials sleeps for up to 30 minutes; and check that it reaches ssm.{region} and ssmmessages.{region} on port 443"
            ),
            Self::OldAgent { .. } => UPDATE_HINT.into(),
            Self::Starting { profile: true, .. } => "wait a minute, and connect again".into(),
            Self::Starting { profile: false, .. } => {
                "wait a minute, and connect again; if that does not help, give it an instance profile with AmazonSSMManagedInstanceCore, and restart its SSM agent, which may sleep for up to 30 minutes".into()
            }
            Self::Unregistered { profile: false, region, .. } => format!(
                "give it an instance profile with AmazonSSMManagedInstanceCore, unless the account has Default Host Management; then restart its SSM agent, or reboot it: an agent that was denied credentials sleeps for up to 30 minutes; and check that it reaches ssm.{region} on port 443"
            ),
            Self::Unregistered { region, .. } => format!(
                "check that its profile has AmazonSSMManagedInstanceCore; if the profile was added after the start, restart the SSM agent, or reboot: an agent that was denied credentials sleeps for up to 30 minutes; check that it runs, and reaches ssm.{region} on port 443"
            ),
            Self::User { user, .. } => format!(
                "log in as a user that exists there; images have {}",
                refusal::other_users(user.as_str())
            ),
        };
        vec![hint]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(match self {
            Self::Algorithm { .. } => Anchor::KeyAlgorithm,
            Self::Clock { .. } => Anchor::InstanceClock,
            Self::KeptBack { .. } => Anchor::KeyKeptBack,
            Self::KeptOut { .. } | Self::NoLogin { .. } | Self::Shell { .. } => Anchor::LoginForbidden,
            Self::KeysCommand { .. } | Self::KeysUser { .. } | Self::NotInstalled { .. } => {
                Anchor::NoInstanceConnect
            }
            Self::NoPublicKey { .. } => Anchor::NoPublickey,
            Self::NotFound { .. } => Anchor::InstanceNotFound,
            Self::NotRunning { .. } => Anchor::InstanceNotRunning,
            Self::Offline { .. } => Anchor::AgentOffline,
            Self::OldAgent { .. } => Anchor::AgentOld,
            Self::Starting { .. } | Self::Unregistered { .. } => Anchor::AgentUnregistered,
            Self::User { .. } => Anchor::NoUser,
        })
    }
}

/// Why Session Manager cannot start a session, or the SSM agent does not answer. None if no cause can be
/// seen.
pub(crate) async fn of_reach(aws: &Aws, instance: &InstanceId) -> Option<Diagnosis> {
    if instance.is_managed_node() {
        let managed = managed(aws, instance).await?;
        return of_agent(None, managed.as_ref(), instance, aws.region(), aws.now());
    }
    let filter = Filter::new("instance-id", instance.as_str());
    let filters = [filter];
    let (described, managed) = tokio::join!(aws.describe_instances(&filters), managed(aws, instance));
    let described = described.ok();
    if described.as_ref().is_some_and(Vec::is_empty) {
        let elsewhere = timeout(ELSEWHERE_TIMEOUT, region_of(aws, instance)).await.ok().flatten();
        return Some(Diagnosis::NotFound {
            instance: instance.clone(),
            region: aws.region().to_owned(),
            elsewhere,
        });
    }
    let described = described.and_then(|found| found.into_iter().next());
    of_instance(described.as_ref())
        .or_else(|| of_agent(described.as_ref(), managed?.as_ref(), instance, aws.region(), aws.now()))
}

/// The cause in the instance's state.
pub(crate) fn of_instance(described: Option<&Instance>) -> Option<Diagnosis> {
    let instance = described?;
    match &instance.state {
        InstanceState::Running => None,
        InstanceState::Other(state) => {
            Some(Diagnosis::NotRunning { instance: instance.id.clone(), state: state.clone() })
        }
    }
}

/// The cause in the SSM agent's state.
pub(crate) fn of_agent(
    described: Option<&Instance>,
    managed: Option<&Managed>,
    instance: &InstanceId,
    region: &str,
    now: SystemTime,
) -> Option<Diagnosis> {
    let (instance, region) = (instance.clone(), region.to_owned());
    let runs = described.is_some_and(|described| described.state == InstanceState::Running);
    if let Some(described) = described.filter(|_| runs && !managed.is_some_and(|managed| managed.online)) {
        let profile = described.profile.is_some();
        let since = described.launched.and_then(|launched| now.duration_since(launched).ok());
        if let Some(since) = since.filter(|since| *since < REGISTRATION_TIME) {
            return Some(Diagnosis::Starting { instance, since: since.into(), profile });
        }
        if managed.is_none() {
            return Some(Diagnosis::Unregistered { instance, profile, region });
        }
    }
    let managed = managed?;
    if !managed.online {
        let silent = managed.last_ping.map(|ping| Age::between(ping, now));
        return Some(Diagnosis::Offline { instance, silent, runs, region });
    }
    let version = SsmAgentVersion::parse(&managed.agent_version)?;
    let version = (!version.knows_session_type("Port")).then(|| version.to_string())?;
    Some(Diagnosis::OldAgent { instance, version })
}

/// The SSM agent's state. The outer option is none when the call fails, the inner when there is no agent.
async fn managed(aws: &Aws, instance: &InstanceId) -> Option<Option<Managed>> {
    aws.managed(instance).await.ok()
}

/// The algorithm's name in ssh's messages.
fn kind(algorithm: &str) -> &str {
    match algorithm {
        "ssh-ed25519" => "Ed25519",
        "ssh-rsa" => "RSA",
        other => other,
    }
}

fn in_other(region: Option<&str>) -> String {
    region.map(|region| format!("; {region} has one")).unwrap_or_default()
}

fn silence(time: Option<Age>) -> String {
    time.map_or_else(|| "some time".into(), Age::in_words)
}

/// Rounded to minutes, because the answer arrives a little late.
fn span(time: Duration) -> String {
    let rounded = if time > Duration::from_secs(60) { time + Duration::from_secs(30) } else { time };
    Age::from(rounded).in_words()
}

/// The hint for an SSM agent that is too old, or lacks a feature.
pub(super) const UPDATE_HINT: &str =
    "update its SSM agent: `aws ssm send-command --document-name AWS-UpdateSSMAgent`";
/// An instance boots and its SSM agent registers in less time.
const REGISTRATION_TIME: Duration = Duration::from_secs(5 * 60);
/// The time limit for calls to all other regions, which come after the other calls.
const ELSEWHERE_TIMEOUT: Duration = Duration::from_millis(1200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_silence_of_an_agent_is_in_words() {
        let now = SystemTime::now();
        let instance: InstanceId = "i-0a1b2c3d".parse().unwrap();
        let managed = |online, version: &str| Managed {
            id: instance.clone(),
            online,
            last_ping: Some(now - Duration::from_secs(3 * 86_400)),
            platform: String::new(),
            agent_version: version.into(),
        };
        let cause = |managed: Option<&Managed>| {
            of_agent(None, managed, &instance, "eu-west-1", now).map(|found| found.to_string())
        };
        let offline = cause(Some(&managed(false, "3.3.987.0"))).unwrap();
        assert_eq!(offline, "i-0a1b2c3d cannot be reached: Session Manager last heard from it 3 days ago");
        assert_eq!(cause(Some(&managed(true, "3.3.987.0"))), None);
        assert!(cause(Some(&managed(true, "2.3.50.0"))).unwrap().contains("is 2.3.50.0, but"));
        assert_eq!(cause(Some(&managed(true, "?"))), None);
        assert_eq!(cause(None), None, "the state in EC2 is not known");
    }
}
