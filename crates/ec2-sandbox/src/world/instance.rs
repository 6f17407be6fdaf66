//! An instance. Some are healthy; each of the others has one reason for which a connection fails.
//!
//! An instance is plain data: its [`Condition`] names the fault, and the APIs, the SSM agent and the SSH
//! server each check it. The list of instances is in `catalogue`.

use std::{fmt, net::Ipv4Addr, time::Duration};

use super::aws_region::AwsRegion;

/// The fault of an instance, with which connections to it fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// It was launched a moment ago: it is pending, and Session Manager does not list it yet.
    Booting,
    /// Its clock is ten minutes ahead, so a pushed key has expired when it arrives.
    ClockAhead,
    /// The caller may not perform these IAM actions on it. The instance is healthy.
    Denied(&'static [&'static str]),
    /// It is in FIPS mode: sshd accepts no Ed25519 keys.
    Fips,
    /// Everything works.
    Healthy,
    /// Everything works, but its name contains terminal control sequences.
    HostileName,
    /// Its SSH server presents another host key than the one in its console output and files.
    Impostor,
    /// Keys can be pushed, but nothing on the instance reads them.
    InstanceConnectAbsent,
    /// Keys can be pushed and EC2 Instance Connect is installed, but sshd_config has no
    /// AuthorizedKeysCommand.
    KeysCommandAbsent,
    /// It has no instance profile, so its SSM agent cannot register with Session Manager.
    NoInstanceProfile,
    /// A web server listens on port 22.
    NotSsh,
    /// sshd accepts passwords and no public keys.
    PublicKeysOff,
    /// Session Manager reaches it, but nothing listens on port 22.
    PortClosed,
    /// SELinux prevents sshd from running the AuthorizedKeysCommand.
    SeLinux,
    /// It runs, but Session Manager has not heard from it for days.
    SsmAgentOffline,
    /// Its SSM agent is too old for sessions to ports.
    SsmAgentOld,
    /// Its SSM agent is online, but never joins a session.
    SsmAgentSilent,
    /// Session Manager has never heard from it, although it has an instance profile.
    SsmAgentUnregistered,
    /// It does not run.
    Stopped,
    /// It will not run again.
    Terminated,
    /// StartSession is throttled for the first `calls` calls, or always.
    Throttled {
        /// How many calls are refused; `None` for all.
        calls: Option<u32>,
    },
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Booting => formatter.write_str("is being launched"),
            Self::ClockAhead => formatter.write_str("ignores pushed keys: its clock is 10 minutes ahead"),
            Self::Denied(actions) => write!(formatter, "you may not call {}", actions.join(" nor ")),
            Self::Fips => formatter.write_str("takes no Ed25519 keys: it is in FIPS mode"),
            Self::Healthy => formatter.write_str("works"),
            Self::HostileName => formatter.write_str("its name contains terminal control sequences"),
            Self::Impostor => formatter.write_str("its host key differs from its console output"),
            Self::InstanceConnectAbsent => {
                formatter.write_str("ignores pushed keys: no EC2 Instance Connect")
            }
            Self::KeysCommandAbsent => {
                formatter.write_str("ignores pushed keys: sshd has no AuthorizedKeysCommand")
            }
            Self::NoInstanceProfile => {
                formatter.write_str("is unknown to Session Manager: no instance profile")
            }
            Self::NotSsh => formatter.write_str("a web server listens on port 22"),
            Self::PublicKeysOff => formatter.write_str("sshd has PubkeyAuthentication off"),
            Self::PortClosed => formatter.write_str("nothing listens on port 22"),
            Self::SeLinux => formatter.write_str("ignores pushed keys: SELinux stops sshd from reading them"),
            Self::SsmAgentOffline => formatter.write_str("its SSM agent last reported 3 days ago"),
            Self::SsmAgentOld => formatter.write_str("its SSM agent is too old for sessions to ports"),
            Self::SsmAgentSilent => formatter.write_str("its SSM agent never joins a session"),
            Self::SsmAgentUnregistered => formatter.write_str("is unknown to Session Manager"),
            Self::Stopped => formatter.write_str("is stopped"),
            Self::Terminated => formatter.write_str("is terminated"),
            Self::Throttled { calls: Some(calls) } => {
                write!(formatter, "the first {calls} calls of StartSession are throttled")
            }
            Self::Throttled { calls: None } => formatter.write_str("StartSession is always throttled"),
        }
    }
}

/// The state of an instance in EC2.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InstanceState {
    /// It is being launched.
    Pending,
    /// It runs.
    Running,
    /// It was stopped.
    Stopped,
    /// It was terminated, and is still listed for some time.
    Terminated,
}

impl InstanceState {
    /// The state's number in the EC2 API.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Pending => 0,
            Self::Running => 16,
            Self::Stopped => 80,
            Self::Terminated => 48,
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Terminated => "terminated",
        })
    }
}

/// The operating system of an instance.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Platform {
    AmazonLinux,
    Ubuntu,
}

impl Platform {
    /// Its name and version, as its SSM agent reports them.
    pub(crate) fn name_and_version(self) -> (&'static str, &'static str) {
        match self {
            Self::AmazonLinux => ("Amazon Linux", "2023"),
            Self::Ubuntu => ("Ubuntu", "22.04"),
        }
    }

    /// The id of its image.
    pub(crate) fn image(self) -> &'static str {
        match self {
            Self::AmazonLinux => "ami-0decaf00000000000",
            Self::Ubuntu => "ami-0decaf00000000001",
        }
    }

    /// The root device of that image.
    pub(crate) fn root_device(self) -> &'static str {
        match self {
            Self::AmazonLinux => "/dev/xvda",
            Self::Ubuntu => "/dev/sda1",
        }
    }
}

/// Which host keys are in the console output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Console {
    /// Only their fingerprints.
    Fingerprints,
    /// Fingerprints and keys.
    Keys,
    /// The same, but only in the latest output.
    KeysInLatest,
    /// None: the instance has booted again since.
    NoKeys,
}

/// The public description of an instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceSummary {
    /// The instance id, as in `i-0decaf00000000001`.
    pub id: String,
    /// Its `Name` tag, which may hold control characters.
    pub name: String,
    /// The AWS region's name, as in `us-east-1`.
    pub region: &'static str,
    /// Its state in EC2.
    pub state: InstanceState,
    /// Its fault, if any.
    pub condition: Condition,
}

/// An instance, with everything that the APIs report about it.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: String,
    /// The reservation id: the instances that one call launched share it.
    pub(crate) reservation: String,
    pub(crate) name: String,
    pub(crate) region: AwsRegion,
    pub(crate) condition: Condition,
    pub(crate) platform: Platform,
    pub(crate) console: Console,
    pub(crate) instance_type: &'static str,
    /// How long before the start of the region it was launched.
    pub(crate) age: Duration,
    pub(crate) availability_zone: String,
    pub(crate) private_address: String,
    pub(crate) public_address: Option<String>,
    pub(crate) ipv6_address: Option<String>,
    pub(crate) private_dns_name: String,
    pub(crate) ssm_agent_version: &'static str,
    /// Keys and values, `Name` included.
    pub(crate) tags: Vec<(&'static str, String)>,
}

impl Instance {
    /// A healthy instance without a public address.
    pub(crate) fn new(id: String, name: String, region: AwsRegion, private_address: Ipv4Addr) -> Self {
        let [a, b, c, d] = private_address.octets();
        Self {
            tags: vec![("Name", name.clone())],
            reservation: reservation(&id),
            id,
            name,
            region,
            condition: Condition::Healthy,
            platform: Platform::AmazonLinux,
            console: Console::Keys,
            instance_type: "t3.micro",
            age: 17 * DAY,
            availability_zone: format!("{region}a"),
            private_address: private_address.to_string(),
            public_address: None,
            ipv6_address: None,
            private_dns_name: format!("ip-{a}-{b}-{c}-{d}.{}", region.private_domain()),
            ssm_agent_version: "3.3.987.0",
        }
    }

    /// Adds a tag.
    pub(crate) fn tag(&mut self, key: &'static str, value: impl Into<String>) {
        self.tags.push((key, value.into()));
    }

    /// Makes its name this long.
    pub(crate) fn stretch_name(&mut self, bytes: usize) {
        self.name = self.name.bytes().map(char::from).chain(std::iter::repeat('x')).take(bytes).collect();
        for (_, value) in self.tags.iter_mut().filter(|(key, _)| *key == "Name") {
            self.name.clone_into(value);
        }
    }

    /// Its state in EC2.
    pub(crate) fn state(&self) -> InstanceState {
        match self.condition {
            Condition::Booting => InstanceState::Pending,
            Condition::Stopped => InstanceState::Stopped,
            Condition::Terminated => InstanceState::Terminated,
            _ => InstanceState::Running,
        }
    }

    /// How long ago its SSM agent last reported.
    pub(crate) fn silence(&self) -> Duration {
        match self.condition {
            Condition::SsmAgentOffline => 3 * DAY,
            Condition::Stopped => 9 * DAY,
            _ => Duration::from_secs(42),
        }
    }

    /// Whether Session Manager lists its SSM agent.
    pub(crate) fn is_registered(&self) -> bool {
        !matches!(
            self.condition,
            Condition::Booting
                | Condition::NoInstanceProfile
                | Condition::SsmAgentUnregistered
                | Condition::Terminated
        )
    }

    /// Whether Session Manager can start a session on it.
    pub(crate) fn is_managed(&self) -> bool {
        self.is_registered() && !matches!(self.condition, Condition::SsmAgentOffline | Condition::Stopped)
    }

    /// Whether it has an instance profile, which its SSM agent needs to register.
    pub(crate) fn has_profile(&self) -> bool {
        !matches!(self.condition, Condition::NoInstanceProfile | Condition::Terminated)
    }

    /// Whether it has addresses and a network; a terminated instance has none.
    pub(crate) fn has_network(&self) -> bool {
        self.condition != Condition::Terminated
    }

    /// Whether its sshd accepts pushed keys.
    pub(crate) fn accepts_pushed_keys(&self) -> bool {
        !matches!(
            self.condition,
            Condition::ClockAhead
                | Condition::InstanceConnectAbsent
                | Condition::KeysCommandAbsent
                | Condition::SeLinux
        )
    }

    /// Whether its sshd accepts keys of an algorithm.
    pub(crate) fn takes_keys_of(&self, algorithm: &str) -> bool {
        match self.condition {
            Condition::Fips => algorithm != "ssh-ed25519",
            Condition::PublicKeysOff => false,
            _ => true,
        }
    }

    /// Whether the caller may call `action`, such as `ssm:StartSession`, on it.
    pub(crate) fn permits(&self, action: &str) -> bool {
        !matches!(self.condition, Condition::Denied(actions) if actions.contains(&action))
    }

    /// The public DNS name, if it has a public address.
    pub(crate) fn public_dns_name(&self) -> Option<String> {
        let address = self.public_address.as_ref()?.replace('.', "-");
        Some(format!("ec2-{address}.{}", self.region.public_domain()))
    }

    /// Its own host name: the private DNS name up to the first dot.
    pub(crate) fn host_name(&self) -> &str {
        self.private_dns_name.split('.').next().unwrap_or_default()
    }

    /// Its name without control characters, and shortened.
    pub(crate) fn harmless_name(&self) -> String {
        self.name
            .chars()
            .take(SHOWN)
            .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
            .collect()
    }

    /// Its public description.
    pub(crate) fn summary(&self) -> InstanceSummary {
        InstanceSummary {
            id: self.id.clone(),
            name: self.name.clone(),
            region: self.region.name(),
            state: self.state(),
            condition: self.condition,
        }
    }
}

/// The reservation id of an instance that was launched first in its call, or alone.
pub(super) fn reservation(id: &str) -> String {
    id.replacen("i-", "r-", 1)
}

/// The longest host name on Linux.
const SHOWN: usize = 64;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);
