//! The smallest IAM policy for what a user needs to do, as a value; `write` formats it. (Pure.)
//!
//! `docs/iam.md` has the purpose and the source of every line.

mod write;

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use thiserror::Error;

use crate::aws::Document;
use crate::instances::default_user::COMMON_USERS;
use crate::target::OsUser;

/// An action that needs permissions besides those to connect to an instance by its id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Feature {
    /// Run commands on an instance as root, without a key.
    Commands,
    /// Find out why a connection fails.
    Doctor,
    /// Forward ports without sshd.
    Forwarding,
    /// Read an instance's host keys from its console output.
    HostKeys,
    /// Connect to managed nodes (`mi-…`).
    ManagedNodes,
    /// Connect by name, list instances, choose from the list.
    Names,
}

/// The permissions that a policy is to give, and its restrictions.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Besides connecting by id, which is always allowed.
    pub features: BTreeSet<Feature>,
    /// Tags that an instance must have. Values of one key are alternatives.
    pub tags: Vec<Tag>,
    /// The users to log in as; the default users of common images if it is empty.
    pub users: Vec<OsUser>,
    /// The region to allow. None allows all regions.
    pub region: Option<Region>,
    /// Any account if it is None.
    pub account: Option<Account>,
}

/// A tag of an instance, as `KEY=VALUE`. The value may have the wildcards of IAM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Tag {
    key: String,
    value: String,
}

/// The name of a region, such as `eu-west-1`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Region(String);

/// The id of an AWS account: 12 digits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Account(String);

/// An option that restricts the policy is malformed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum PolicyError {
    /// Not 12 digits.
    #[error("{0:?} is no account; its number has 12 digits")]
    Account(String),
    /// Not like `eu-west-1`.
    #[error("{0:?} is not the name of a region")]
    Region(String),
    /// Not `KEY=VALUE`, or longer than AWS lets tags be.
    #[error("{0:?} is no tag; write KEY=VALUE")]
    Tag(String),
}

impl FromStr for Tag {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let bad = || PolicyError::Tag(text.to_owned());
        let (key, value) = text.split_once('=').ok_or_else(bad)?;
        let fits = (1..=MAX_TAG_KEY).contains(&key.chars().count()) && value.chars().count() <= MAX_TAG_VALUE;
        if !fits || text.chars().any(char::is_control) {
            return Err(bad());
        }
        Ok(Self { key: key.to_owned(), value: value.to_owned() })
    }
}

impl FromStr for Region {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = text.contains('-') && !text.starts_with('-') && text.bytes().all(allowed);
        if valid { Ok(Self(text.to_owned())) } else { Err(PolicyError::Region(text.to_owned())) }
    }
}

impl FromStr for Account {
    type Err = PolicyError;

    fn from_str(text: &str) -> Result<Self, PolicyError> {
        let valid = text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit());
        if valid { Ok(Self(text.to_owned())) } else { Err(PolicyError::Account(text.to_owned())) }
    }
}

/// A policy, of statements with the effect `Allow` alone.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Policy {
    statements: Vec<Statement>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Statement {
    sid: &'static str,
    actions: Vec<&'static str>,
    resources: Vec<String>,
    conditions: Conditions,
}

/// Values by operator and key.
type Conditions = BTreeMap<&'static str, BTreeMap<String, Vec<String>>>;

impl Policy {
    /// The least policy that allows what is wanted.
    pub(crate) fn least(wanted: &Wanted) -> Self {
        let statements = [
            Some(wanted.push_key()),
            Some(wanted.start_session()),
            Some(wanted.use_documents()),
            Some(wanted.open_channels()),
            Some(wanted.use_own_sessions()),
            Some(wanted.resume_own_sessions()),
            wanted.find(),
            wanted.wants(Feature::HostKeys).then(|| wanted.read_console()),
        ];
        Self { statements: statements.into_iter().flatten().collect() }
    }
}

impl Policy {
    /// The part of it that allows one action.
    pub(crate) fn granting(mut self, action: &str) -> Self {
        self.statements.retain(|statement| statement.actions.contains(&action));
        for statement in &mut self.statements {
            statement.actions.retain(|found| *found == action);
        }
        self
    }
}

impl Feature {
    /// All features.
    pub(crate) const ALL: [Self; 6] =
        [Self::Commands, Self::Doctor, Self::Forwarding, Self::HostKeys, Self::ManagedNodes, Self::Names];

    /// Whether it only adds actions that read.
    pub(crate) fn is_harmless(self) -> bool {
        matches!(self, Self::Doctor | Self::Names)
    }
}

impl Wanted {
    fn wants(&self, feature: Feature) -> bool {
        self.features.contains(&feature)
    }

    fn push_key(&self) -> Statement {
        let users = match self.users.as_slice() {
            [] => COMMON_USERS.map(str::to_owned).to_vec(),
            users => users.iter().map(ToString::to_string).collect(),
        };
        let mut conditions = self.tagged("aws:ResourceTag");
        conditions.entry("StringEquals").or_default().insert("ec2:osuser".into(), users);
        Statement {
            sid: "PushKey",
            actions: vec!["ec2-instance-connect:SendSSHPublicKey"],
            resources: vec![self.instances()],
            conditions,
        }
    }

    /// Without documents, which have no tags: this statement may require tags.
    fn start_session(&self) -> Statement {
        let mut resources = vec![self.instances()];
        if self.wants(Feature::ManagedNodes) {
            resources.push(self.arn("ssm", &self.account(), "managed-instance/*"));
        }
        let mut conditions = self.tagged("ssm:resourceTag");
        let check = BTreeMap::from([("ssm:SessionDocumentAccessCheck".to_owned(), vec!["true".to_owned()])]);
        conditions.insert("BoolIfExists", check);
        Statement { sid: "StartSession", actions: vec!["ssm:StartSession"], resources, conditions }
    }

    fn use_documents(&self) -> Statement {
        let documents = [
            (None, Document::Ssh),
            (Some(Feature::Commands), Document::NonInteractiveCommand),
            (Some(Feature::Forwarding), Document::PortForwarding),
            (Some(Feature::Forwarding), Document::RemotePortForwarding),
        ];
        let documents =
            documents.into_iter().filter(|(feature, _)| feature.is_none_or(|feature| self.wants(feature)));
        Statement {
            sid: "UseDocuments",
            actions: vec!["ssm:StartSession"],
            // AWS owns these documents; their ARNs have no account.
            resources: documents
                .map(|(_, document)| self.arn("ssm", "", &format!("document/{}", document.name())))
                .collect(),
            conditions: Conditions::new(),
        }
    }

    fn use_own_sessions(&self) -> Statement {
        let own = |variable| format!("arn:{}:ssm:*:*:session/${{{variable}}}-*", self.partition());
        Statement {
            sid: "UseOwnSessions",
            actions: vec!["ssm:ResumeSession", "ssm:TerminateSession"],
            resources: vec![own("aws:userid"), own("aws:username")],
            conditions: Conditions::new(),
        }
    }

    /// The action has no condition keys, and the ids of a role's sessions do not begin with its `aws:userid`.
    /// To open a data channel also takes the token of the session, which StartSession and ResumeSession
    /// return to their callers alone.
    fn open_channels(&self) -> Statement {
        Statement {
            sid: "OpenChannels",
            actions: vec!["ssmmessages:OpenDataChannel"],
            resources: vec![format!("arn:{}:ssm:*:*:session/*", self.partition())],
            conditions: Conditions::new(),
        }
    }

    fn resume_own_sessions(&self) -> Statement {
        let tag = "ssm:resourceTag/aws:ssmmessages:session-id".to_owned();
        let own = BTreeMap::from([(tag, vec!["${aws:userid}".to_owned()])]);
        Statement {
            sid: "ResumeOwnSessions",
            actions: vec!["ssm:ResumeSession", "ssm:TerminateSession"],
            resources: vec![format!("arn:{}:ssm:*:*:session/*", self.partition())],
            conditions: BTreeMap::from([("StringLike", own)]),
        }
    }

    /// These actions cannot be restricted to some instances.
    fn find(&self) -> Option<Statement> {
        let mut actions = BTreeSet::new();
        if self.wants(Feature::Names) {
            actions.extend([
                "ec2:DescribeInstances",
                "ec2:DescribeRegions",
                "ssm:DescribeInstanceInformation",
            ]);
        }
        if self.wants(Feature::Doctor) {
            actions.extend(["ec2:DescribeInstances", "ssm:DescribeInstanceInformation"]);
        }
        (!actions.is_empty()).then(|| Statement {
            sid: "FindInstances",
            actions: actions.into_iter().collect(),
            resources: vec!["*".into()],
            conditions: Conditions::new(),
        })
    }

    fn read_console(&self) -> Statement {
        Statement {
            sid: "ReadConsole",
            actions: vec!["ec2:GetConsoleOutput"],
            resources: vec![self.instances()],
            conditions: self.tagged("aws:ResourceTag"),
        }
    }

    /// Conditions for all tags, with the prefix of a service's condition keys.
    fn tagged(&self, service_key: &str) -> Conditions {
        let mut tags = BTreeMap::<_, Vec<_>>::new();
        for Tag { key, value } in &self.tags {
            tags.entry(format!("{service_key}/{key}")).or_default().push(value.clone());
        }
        let mut conditions = Conditions::new();
        for (key, values) in tags {
            let wildcards = values.iter().any(|value| value.contains(['*', '?']));
            let operator = if wildcards { "StringLike" } else { "StringEquals" };
            conditions.entry(operator).or_default().insert(key, values);
        }
        conditions
    }

    fn instances(&self) -> String {
        self.arn("ec2", &self.account(), "instance/*")
    }

    fn arn(&self, service: &str, account: &str, resource: &str) -> String {
        let region = self.region.as_ref().map_or("*", |Region(name)| name);
        format!("arn:{}:{service}:{region}:{account}:{resource}", self.partition())
    }

    fn account(&self) -> String {
        self.account.as_ref().map_or("*", |Account(number)| number).to_owned()
    }

    fn partition(&self) -> &'static str {
        let region = self.region.as_ref().map_or("", |Region(name)| name);
        let found = PARTITIONS.iter().find(|(prefix, _)| region.starts_with(prefix));
        found.map_or("aws", |(_, partition)| partition)
    }
}

/// The prefixes of region names outside the partition `aws`, as in botocore's `partitions.json`.
const PARTITIONS: [(&str, &str); 7] = [
    ("cn-", "aws-cn"),
    ("eu-isoe-", "aws-iso-e"),
    ("eusc-", "aws-eusc"),
    ("us-gov-", "aws-us-gov"),
    ("us-iso-", "aws-iso"),
    ("us-isob-", "aws-iso-b"),
    ("us-isof-", "aws-iso-f"),
];
const MAX_TAG_KEY: usize = 128;
const MAX_TAG_VALUE: usize = 256;

#[cfg(test)]
mod tests;
