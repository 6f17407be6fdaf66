//! Why a target does not lead to one running instance.

use std::fmt;
use std::time::SystemTime;

use thiserror::Error;

use super::has_wildcards;
use crate::aws::{AwsError, start_hint};
use crate::system::age::Age;
use crate::system::explain::{Anchor, Explain};
use crate::target::{InstanceId, Target};

/// One of several matching instances.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Candidate {
    /// The instance's id.
    pub id: InstanceId,
    /// The `Name` tag; empty if there is none.
    pub name: String,
    /// The availability zone.
    pub availability_zone: String,
    /// The time of the last start, if EC2 reports it.
    pub launched: Option<SystemTime>,
}

/// The target is not exactly one running instance.
#[derive(Debug, Error)]
pub(crate) enum ResolveError {
    /// A call to AWS failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// No instance matches.
    #[error("no instance in {region} is {}", Meaning(.target))]
    NotFound {
        /// The target as typed.
        target: Target,
        /// The region that was searched.
        region: String,
        /// Other regions that have a matching instance, with its id.
        elsewhere: Vec<(String, InstanceId)>,
    },
    /// The matching instance does not run.
    #[error("{instance}, {}, is {state}", Meaning(.target))]
    NotRunning {
        /// The target as typed.
        target: Target,
        /// The matching instance.
        instance: InstanceId,
        /// Its state in EC2.
        state: String,
    },
    /// More than one running instance matches.
    #[error("{} running instances are {}", .candidates.len(), Meaning(.target))]
    Several {
        /// The target as typed.
        target: Target,
        /// All matching instances, the latest start first.
        candidates: Vec<Candidate>,
    },
}

impl Explain for ResolveError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Aws(error) => error.hints(),
            Self::NotFound { target, elsewhere, .. } if elsewhere.is_empty() => {
                let mut hints = vec![
                    "`ssh_ec2 list` lists the instances; `--region` and `--profile` search elsewhere".into(),
                ];
                if let Some((name, region)) = target.name_and_region() {
                    hints.push(format!("with a region, the name ends in `.ec2`: `{name}.{region}.ec2`"));
                } else if let Target::Name(name) = target
                    && !has_wildcards(name)
                {
                    hints.push(format!(
                        "names must match exactly, upper and lower case too; `'{name}*'` matches a prefix"
                    ));
                }
                hints
            }
            Self::NotFound { elsewhere, .. } => elsewhere
                .iter()
                .map(|(region, id)| format!("{id} in {region} is: add `--region {region}`"))
                .collect(),
            Self::NotRunning { instance, state, .. } => vec![not_running_hint(instance, state)],
            Self::Several { .. } => {
                vec!["give an id, or choose with `--newest` (the latest start) or `--any`".into()]
            }
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        match self {
            Self::Aws(error) => error.anchor(),
            Self::NotFound { .. } => Some(Anchor::InstanceNotFound),
            Self::NotRunning { .. } => Some(Anchor::InstanceNotRunning),
            Self::Several { .. } => Some(Anchor::SeveralInstances),
        }
    }

    fn details(&self, now: SystemTime) -> Vec<String> {
        let Self::Several { candidates, .. } = self else { return Vec::new() };
        let width = |text: fn(&Candidate) -> &str| {
            candidates.iter().map(|candidate| text(candidate).chars().count()).max().unwrap_or(0)
        };
        let (names, zones) = (width(|found| &found.name), width(|found| &found.availability_zone));
        let line = |found: &Candidate| {
            let age =
                found.launched.map(|launched| Age::between(launched, now).to_string()).unwrap_or_default();
            format!(
                "  {:<19}  {:names$}  {:zones$}  up {age}",
                found.id.as_str(),
                found.name,
                found.availability_zone
            )
        };
        candidates.iter().map(line).collect()
    }
}

/// What to do about an instance in this state of EC2.
pub(crate) fn not_running_hint(instance: &InstanceId, state: &str) -> String {
    match state {
        "stopped" => start_hint(instance.as_str()),
        "pending" => "wait until it has started".into(),
        _ => "choose another instance: `ssh_ec2 list`".into(),
    }
}

/// The target as the end of a sentence: "named web-1".
struct Meaning<'a>(&'a Target);

impl fmt::Display for Meaning<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Target::Id(id) => write!(f, "{id}"),
            Target::Name(name) => write!(f, "named `{name}`"),
            Target::Tag { key, value } => write!(f, "tagged `{key}={value}`"),
            Target::Address(address) => write!(f, "at {address}"),
            Target::DnsName(name) => write!(f, "at {name}"),
            Target::AutoScalingGroup(group) => write!(f, "in the Auto Scaling group `{group}`"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn several_matches_are_listed() {
        let candidate = |id: &str, name: &str, hours: u64, now: SystemTime| Candidate {
            id: id.parse().unwrap(),
            name: name.into(),
            availability_zone: "eu-west-1a".into(),
            launched: Some(now - Duration::from_secs(hours * 3600)),
        };
        let now = SystemTime::now();
        let candidates = vec![
            candidate("i-0a1b2c3d4e5f60718", "worker", 5, now),
            candidate("i-0a1b2c3d", "worker-2", 50, now),
        ];
        let error = ResolveError::Several { target: "worker*".parse().unwrap(), candidates };
        assert_eq!(error.to_string(), "2 running instances are named `worker*`");
        assert_eq!(
            error.details(now),
            [
                "  i-0a1b2c3d4e5f60718  worker    eu-west-1a  up 5h",
                "  i-0a1b2c3d           worker-2  eu-west-1a  up 2d"
            ]
        );
    }
}
