//! The instances of the region. Some are well; the others each show one way in which a connection fails.
//!
//! An instance is plain data: its [`Condition`] says what is wrong with it, and the APIs, the SSM agent and
//! the SSH server each look up the part that concerns them. Ids say which kind it is: `i-0decaf…` works,
//! `i-0dead…` does not.

use std::{fmt, time::Duration};

/// What an instance shows when one tries to connect to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Condition {
    /// The caller lacks these IAM actions on it; all else is well.
    Denied(&'static [&'static str]),
    /// Everything works.
    Healthy,
    /// Keys can be pushed, but nothing on the instance reads them.
    InstanceConnectAbsent,
    /// Session Manager reaches it, but nothing listens on port 22.
    PortClosed,
    /// It runs, but Session Manager has not heard from it for days.
    SsmAgentOffline,
    /// It does not run.
    Stopped,
    /// StartSession is throttled for the first `calls` calls, or for ever.
    Throttled {
        /// How many calls are refused; `None` for all of them.
        calls: Option<u32>,
    },
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(actions) => write!(formatter, "you may not call {}", actions.join(" nor ")),
            Self::Healthy => formatter.write_str("works"),
            Self::InstanceConnectAbsent => {
                formatter.write_str("ignores pushed keys: no EC2 Instance Connect")
            }
            Self::PortClosed => formatter.write_str("nothing listens on port 22"),
            Self::SsmAgentOffline => formatter.write_str("its SSM agent was last heard of 3 days ago"),
            Self::Stopped => formatter.write_str("is stopped"),
            Self::Throttled { calls: Some(calls) } => {
                write!(formatter, "the first {calls} calls of StartSession are throttled")
            }
            Self::Throttled { calls: None } => formatter.write_str("StartSession is throttled for ever"),
        }
    }
}

/// Whether an instance runs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum InstanceState {
    /// It runs.
    Running,
    /// It was stopped.
    Stopped,
}

impl InstanceState {
    /// The state's number in the EC2 API.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Running => 16,
            Self::Stopped => 80,
        }
    }
}

impl fmt::Display for InstanceState {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Running => "running",
            Self::Stopped => "stopped",
        })
    }
}

/// An instance, as a user of the region sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct InstanceSummary {
    /// Its id.
    pub id: &'static str,
    /// Its `Name` tag.
    pub name: &'static str,
    /// Whether it runs.
    pub state: InstanceState,
    /// What it shows.
    pub condition: Condition,
}

/// An instance, with all that the APIs report of it.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) condition: Condition,
    pub(crate) availability_zone: &'static str,
    pub(crate) private_address: String,
    pub(crate) public_address: Option<String>,
    pub(crate) private_dns_name: String,
    pub(crate) ssm_agent_version: &'static str,
}

impl Instance {
    /// Whether it runs.
    pub(crate) fn state(&self) -> InstanceState {
        match self.condition {
            Condition::Stopped => InstanceState::Stopped,
            _ => InstanceState::Running,
        }
    }

    /// How long ago its SSM agent was last heard of.
    pub(crate) fn silence(&self) -> Duration {
        match self.condition {
            Condition::SsmAgentOffline => 3 * DAY,
            Condition::Stopped => 9 * DAY,
            _ => Duration::from_secs(42),
        }
    }

    /// Whether Session Manager can start a session on it.
    pub(crate) fn is_managed(&self) -> bool {
        !matches!(self.condition, Condition::SsmAgentOffline | Condition::Stopped)
    }

    /// Whether something on it reads the keys pushed to it.
    pub(crate) fn reads_pushed_keys(&self) -> bool {
        self.condition != Condition::InstanceConnectAbsent
    }

    /// Whether the caller may call `action`, such as `ssm:StartSession`, on it.
    pub(crate) fn permits(&self, action: &str) -> bool {
        !matches!(self.condition, Condition::Denied(actions) if actions.contains(&action))
    }

    /// Its tags, as key and value.
    pub(crate) fn tags(&self) -> [(&'static str, &'static str); 2] {
        [("Name", self.name), ("Environment", "sandbox")]
    }

    /// What a user of the region sees of it.
    pub(crate) fn summary(&self) -> InstanceSummary {
        InstanceSummary { id: self.id, name: self.name, state: self.state(), condition: self.condition }
    }
}

/// Every instance of the region.
pub(crate) fn catalogue() -> Vec<Instance> {
    let rows = (1_u8..).zip(CATALOGUE);
    rows.map(|(number, &(id, name, condition))| Instance {
        id,
        name,
        condition,
        availability_zone: if number % 2 == 1 { "us-east-1a" } else { "us-east-1b" },
        private_address: format!("10.0.0.{}", number + 10),
        // Databases have no public address, and a stopped instance has lost its own.
        public_address: (!name.starts_with("db") && condition != Condition::Stopped)
            .then(|| format!("203.0.113.{}", number + 10)),
        private_dns_name: format!("ip-10-0-0-{}.ec2.internal", number + 10),
        ssm_agent_version: "3.3.987.0",
    })
    .collect()
}

const CATALOGUE: &[(&str, &str, Condition)] = &[
    ("i-0decaf00000000001", "web-1", Condition::Healthy),
    ("i-0decaf00000000002", "web-2", Condition::Healthy),
    ("i-0decaf00000000003", "db-1", Condition::Healthy),
    ("i-0dead000000000001", "stopped", Condition::Stopped),
    ("i-0dead000000000002", "agent-offline", Condition::SsmAgentOffline),
    ("i-0dead000000000003", "no-instance-connect", Condition::InstanceConnectAbsent),
    ("i-0dead000000000004", "port-closed", Condition::PortClosed),
    ("i-0dead000000000005", "push-denied", Condition::Denied(&["ec2-instance-connect:SendSSHPublicKey"])),
    ("i-0dead000000000006", "start-denied", Condition::Denied(&["ssm:StartSession"])),
    ("i-0dead000000000007", "end-denied", Condition::Denied(&["ssm:TerminateSession", "ssm:ResumeSession"])),
    ("i-0dead000000000008", "throttled", Condition::Throttled { calls: Some(2) }),
    ("i-0dead000000000009", "throttled-for-ever", Condition::Throttled { calls: None }),
];

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_names_and_addresses_are_unique() {
        let instances = catalogue();
        let keys: [fn(&Instance) -> &str; 3] = [|i| i.id, |i| i.name, |i| &i.private_address];
        for key in keys {
            assert_eq!(instances.iter().map(key).collect::<BTreeSet<_>>().len(), instances.len());
        }
    }

    #[test]
    fn an_id_tells_whether_its_instance_works() {
        for instance in catalogue() {
            assert_eq!(instance.id.starts_with("i-0decaf"), instance.condition == Condition::Healthy);
            assert_eq!(instance.id.len(), 19, "{}", instance.id);
        }
    }

    #[test]
    fn a_denied_action_is_denied_alone() {
        let instance = catalogue().into_iter().find(|instance| instance.name == "end-denied").unwrap();
        assert!(!instance.permits("ssm:TerminateSession"));
        assert!(!instance.permits("ssm:ResumeSession"));
        assert!(instance.permits("ssm:StartSession"));
    }
}
