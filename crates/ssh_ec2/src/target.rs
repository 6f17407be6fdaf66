//! What a user can name: an instance, in several ways, a user on it, a port.
//!
//! Text from ssh or a shell is parsed here, once; inside the program an impossible value does not exist.
//! Because every value is limited to a harmless alphabet, it may stand in a path or a command line. This file
//! does no I/O.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::system::explain::{Anchor, Explain};
use thiserror::Error;

/// What a user names an instance by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Target {
    /// `i-…`, `mi-…`
    Id(InstanceId),
    /// The Name tag; `*` and `?` are wildcards.
    Name(String),
    /// `tag:Key=Value`; the value may have wildcards.
    Tag {
        /// Case-sensitive, as in AWS.
        key: String,
        /// Case-sensitive, too.
        value: String,
    },
    /// A private or public address.
    Address(IpAddr),
    /// A private or public DNS name that EC2 assigned, in lower case and without a dot at its end.
    DnsName(String),
    /// `asg:NAME`, an Auto Scaling group.
    AutoScalingGroup(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        let digits = text.strip_prefix("i-").or_else(|| text.strip_prefix("mi-"));
        if digits
            .is_some_and(|digits| digits.len() >= 6 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            return Err(TargetError::InstanceId(text.to_owned()));
        }
        let bad = || TargetError::Target(text.to_owned());
        if text.is_empty()
            || text.len() > MAX_TARGET
            || text.starts_with('-')
            || text.chars().any(char::is_control)
        {
            return Err(bad());
        }
        if let Some(tag) = text.strip_prefix("tag:") {
            let (key, value) = tag.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(bad)?;
            return Ok(Self::Tag { key: key.to_owned(), value: value.to_owned() });
        }
        if let Some(group) = text.strip_prefix("asg:") {
            return if group.is_empty() { Err(bad()) } else { Ok(Self::AutoScalingGroup(group.to_owned())) };
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            return Ok(Self::Address(address));
        }
        let lower = text.to_ascii_lowercase();
        let dns_name = lower.strip_suffix('.').unwrap_or(&lower);
        let is_dns_name = DNS_SUFFIXES.iter().any(|suffix| dns_name.ends_with(suffix));
        Ok(if is_dns_name { Self::DnsName(dns_name.to_owned()) } else { Self::Name(text.to_owned()) })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Name(name) | Self::DnsName(name) => f.write_str(name),
            Self::Tag { key, value } => write!(f, "tag:{key}={value}"),
            Self::Address(address) => address.fmt(f),
            Self::AutoScalingGroup(group) => write!(f, "asg:{group}"),
        }
    }
}

impl Target {
    /// Name and region of a name that ends in a region, as hosts of plain ssh do in front of their suffix.
    pub(crate) fn name_and_region(&self) -> Option<(&str, &str)> {
        let Self::Name(name) = self else { return None };
        name.rsplit_once('.').filter(|(name, region)| !name.is_empty() && is_region(region))
    }
}

/// A target as ssh's host: `NAME.SUFFIX` or `NAME.REGION.SUFFIX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Host {
    /// `NAME`, parsed.
    pub target: Target,
    /// `REGION`. None where the host has none.
    pub region: Option<String>,
}

impl Host {
    /// Takes `host` apart if it ends in `suffix`.
    ///
    /// # Errors
    ///
    /// [`TargetError`] if the part in front of the suffix names nothing.
    pub(crate) fn below(host: &str, suffix: &str) -> Option<Result<Self, TargetError>> {
        let (name, region) = Self::split(host, suffix)?;
        Some(name.parse().map(|target| Self { target, region: region.map(str::to_owned) }))
    }

    /// As [`below`](Self::below), but does not parse the name.
    pub(crate) fn split<'a>(host: &'a str, suffix: &str) -> Option<(&'a str, Option<&'a str>)> {
        let at = host.len().checked_sub(suffix.len() + 1)?;
        let (name, rest) = host.split_at_checked(at)?;
        if !rest.strip_prefix('.')?.eq_ignore_ascii_case(suffix) {
            return None;
        }
        Some(match name.rsplit_once('.') {
            Some((name, region)) if is_region(region) && !name.is_empty() => (name, Some(region)),
            _ => (name, None),
        })
    }
}

/// Whether a label is a region's name, and not the end of an instance's: `eu-west-1`, `us-gov-east-1`.
fn is_region(label: &str) -> bool {
    let parts: Vec<_> = label.split('-').collect();
    let [area, middle @ .., number] = parts.as_slice() else { return false };
    let Some((direction, between)) = middle.split_last() else { return false };
    REGION_AREAS.contains(area)
        && between.len() <= 1
        && between.iter().all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase()))
        && REGION_DIRECTIONS.contains(direction)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

/// A text does not have the form of a target, a user or a port.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub(crate) enum TargetError {
    /// Not `i-…` or `mi-…` followed by lower-case hexadecimal digits.
    #[error("{0:?} is not an instance id")]
    InstanceId(String),
    /// Not 1 to 32 of the characters that EC2 Instance Connect accepts.
    #[error("{0:?} is not a user name that EC2 Instance Connect accepts")]
    OsUser(String),
    /// Not a login name of a managed node.
    #[error("{0:?} is not a login name")]
    NodeUser(String),
    /// Empty, too long, or of a form that names no instance.
    #[error("{0:?} is not a valid target")]
    Target(String),
    /// Not 1 to 65535.
    #[error("{0:?} is not a port number")]
    Port(String),
}

impl Explain for TargetError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::InstanceId(_) => {
                vec!["instance ids look like `i-0a1b2c3d4e5f60718` (8 or 17 hexadecimal digits) or `mi-…`".into()]
            }
            Self::OsUser(_) => vec![
                "use 1 to 32 letters, digits and `_ . @ - $`, a letter, digit or `_` first, not digits alone; for \
                 example `ec2-user` or `ubuntu`"
                    .into(),
            ],
            Self::NodeUser(_) => vec![
                "use 1 to 255 letters, digits and `_ . @ - $ + \\`, with no `-` first and no `\\` last; for example \
                 `alice` or `alice@corp.example`"
                    .into(),
            ],
            Self::Target(_) => vec![
                "use an instance id, a Name tag, `tag:KEY=VALUE`, an address, a DNS name or `asg:GROUP`".into(),
            ],
            Self::Port(_) => vec!["ports are the numbers 1 to 65535; sshd listens on 22".into()],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        None
    }
}

/// An EC2 instance (`i-…`) or a managed node (`mi-…`), as Session Manager accepts it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct InstanceId(String);

impl InstanceId {
    /// The id as AWS writes it.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// True of a machine outside EC2, which EC2 Instance Connect cannot reach.
    pub(crate) fn is_managed_node(&self) -> bool {
        self.0.starts_with("mi-")
    }
}

impl FromStr for InstanceId {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        // EC2: 8 digits until 2018, 17 since. Systems Manager documents the same two lengths for `mi-`.
        let digits = text.strip_prefix("i-").or_else(|| text.strip_prefix("mi-"));
        match digits {
            Some(digits) if matches!(digits.len(), 8 | 17) && digits.bytes().all(is_lower_hex) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(TargetError::InstanceId(text.to_owned())),
        }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The computer at the other end of a session: the `Target` of `StartSession`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) enum SessionTarget {
    /// `i-…` or `mi-…`, as it is.
    Instance(InstanceId),
}

impl From<InstanceId> for SessionTarget {
    fn from(id: InstanceId) -> Self {
        Self::Instance(id)
    }
}

impl fmt::Display for SessionTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) => id.fmt(f),
        }
    }
}

/// A login name on the instance, within the limits of `SendSSHPublicKey` where a key is pushed for it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(crate) struct OsUser(String);

impl OsUser {
    /// The name of a user on `target`. No key is pushed to a managed node, so the API's rule does not apply
    /// there: users of a directory service have longer names (`alice@corp.example`, `CORP\alice`).
    ///
    /// # Errors
    ///
    /// [`TargetError::OsUser`], or [`TargetError::NodeUser`] on a managed node.
    pub(crate) fn on(target: &Target, text: &str) -> Result<Self, TargetError> {
        match target {
            Target::Id(id) if id.is_managed_node() => {
                if is_node_user(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(TargetError::NodeUser(text.into()))
                }
            }
            _ => text.parse(),
        }
    }

    /// The name as typed.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OsUser {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if is_os_user(text) { Ok(Self(text.to_owned())) } else { Err(TargetError::OsUser(text.to_owned())) }
    }
}

/// Whether `SendSSHPublicKey` accepts a name: its service model has 1 to 32 characters and two patterns.
///
/// ```text
/// ^[A-Za-z_][A-Za-z0-9\@\._-]{0,30}[A-Za-z0-9\$_-]?$
/// ^(?=.{2,32}$)[0-9]{1,32}[A-Za-z\@\._-][A-Za-z0-9\@\._-]*[A-Za-z0-9\$_-]?$
/// ```
///
/// A name that passes can be handed to programs: no hyphen begins it, and no dollar sign could begin a
/// variable.
fn is_os_user(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-".contains(&byte);
    // A dollar sign ends a name; it is no name alone, nor behind nothing but digits.
    let name = text.strip_suffix('$').unwrap_or(text);
    let Some(first) = name.bytes().next() else { return false };
    let begins_with_digit = first.is_ascii_digit();
    text.len() <= 32
        && name.bytes().all(allowed)
        && (begins_with_digit || first.is_ascii_alphabetic() || first == b'_')
        && !name.bytes().all(|byte| byte.is_ascii_digit())
        // The first pattern has no place for these as the last of 32.
        && (begins_with_digit || text.len() < 32 || !text.ends_with(['.', '@']))
}

/// Whether a name is safe on a command line, quoted or not: ssh puts it into the ProxyCommand.
fn is_node_user(text: &str) -> bool {
    (1..=255).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.@-$+\\".contains(&byte))
        && !text.starts_with('-')
        && !text.ends_with('\\')
}

impl fmt::Display for OsUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TCP port on the instance.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) struct Port(u16);

impl Port {
    /// sshd's default.
    pub(crate) const SSH: Self = Self(22);
}

impl FromStr for Port {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        match text.parse::<u16>() {
            Ok(number) if number > 0 && text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Self(number)),
            _ => Err(TargetError::Port(text.to_owned())),
        }
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A tag's key has 128 characters, its value 256.
const MAX_TARGET: usize = 512;
/// The ends of EC2's own DNS names: private ones, then public ones with the DNS suffix of each partition
/// (botocore, `partitions.json`).
const DNS_SUFFIXES: [&str; 10] = [
    ".ec2.internal",
    ".compute.internal",
    ".compute-1.amazonaws.com",
    ".compute.amazonaws.com",
    ".compute.amazonaws.com.cn",
    ".compute.amazonaws.eu",
    ".compute.c2s.ic.gov",
    ".compute.sc2s.sgov.gov",
    ".compute.cloud.adc-e.uk",
    ".compute.csp.hci.ic.gov",
];
const REGION_AREAS: [&str; 11] = ["af", "ap", "ca", "cn", "eu", "eusc", "il", "me", "mx", "sa", "us"];
const REGION_DIRECTIONS: [&str; 9] =
    ["central", "east", "north", "northeast", "northwest", "south", "southeast", "southwest", "west"];

fn is_lower_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

#[cfg(test)]
mod tests;
