//! What a user can name: an instance, in several ways, a user on it, a port.
//!
//! Parsed once, here, from what ssh or a shell handed us; inside the program an impossible value does not
//! exist. Because every value is limited to a harmless alphabet, it may stand in a path or a command line.
//! This file does no I/O.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::system::explain::{Anchor, Explain};
use thiserror::Error;

/// What a user names an instance by.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Target {
    /// `i-…`, `mi-…`
    Id(InstanceId),
    /// The Name tag; `*` and `?` are wildcards.
    Name(String),
    /// `tag:Key=Value`; the value may have wildcards.
    Tag {
        /// As AWS has it, which tells upper from lower case.
        key: String,
        /// The same.
        value: String,
    },
    /// A private or public address.
    Address(IpAddr),
    /// A private or public DNS name that EC2 gave.
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
    pub fn name_and_region(&self) -> Option<(&str, &str)> {
        let Self::Name(name) = self else { return None };
        name.rsplit_once('.').filter(|(name, region)| !name.is_empty() && is_region(region))
    }
}

/// A target as ssh's host: `NAME.SUFFIX` or `NAME.REGION.SUFFIX`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// What is named.
    pub target: Target,
    /// The region, if it stands between.
    pub region: Option<String>,
}

impl Host {
    /// Takes `host` apart if it ends in `suffix`.
    ///
    /// # Errors
    /// When what stands in front of the suffix names nothing.
    pub fn below(host: &str, suffix: &str) -> Option<Result<Self, TargetError>> {
        let (name, region) = Self::split(host, suffix)?;
        Some(name.parse().map(|target| Self { target, region: region.map(str::to_owned) }))
    }

    /// The same, as text.
    pub fn split<'a>(host: &'a str, suffix: &str) -> Option<(&'a str, Option<&'a str>)> {
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

/// A name did not have the form of the thing that it should name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum TargetError {
    /// Not `i-…` or `mi-…` followed by lower-case hexadecimal digits.
    #[error("{0:?} is not an instance id")]
    InstanceId(String),
    /// Not 1 to 32 of the characters that EC2 Instance Connect takes.
    #[error("{0:?} is not a user name that EC2 Instance Connect accepts")]
    OsUser(String),
    /// Not a login name of a managed node.
    #[error("{0:?} is not a login name")]
    NodeUser(String),
    /// Nothing that an instance could be named by.
    #[error("{0:?} names no instance")]
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
                "name it by id, Name tag, `tag:KEY=VALUE`, address, DNS name or `asg:GROUP`".into(),
            ],
            Self::Port(_) => vec!["ports are the numbers 1 to 65535; sshd listens on 22".into()],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        None
    }
}

/// An EC2 instance (`i-…`) or a managed node (`mi-…`), as Session Manager takes it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct InstanceId(String);

impl InstanceId {
    /// The id as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True of a machine outside EC2, which EC2 Instance Connect cannot reach.
    pub fn is_managed_node(&self) -> bool {
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

/// A login name on the instance, within the limits of `SendSSHPublicKey` where a key is pushed for it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct OsUser(String);

impl OsUser {
    /// The name of a user on `target`. No key is pushed to a managed node, so the API's rule does not apply
    /// there: users of a directory service have longer names (`alice@corp.example`, `CORP\alice`).
    ///
    /// # Errors
    ///
    /// [`TargetError::OsUser`], or [`TargetError::NodeUser`] on a managed node.
    pub fn on(target: &Target, text: &str) -> Result<Self, TargetError> {
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
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OsUser {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if is_os_user(text) { Ok(Self(text.to_owned())) } else { Err(TargetError::OsUser(text.to_owned())) }
    }
}

/// Whether `SendSSHPublicKey` takes a name: its service model has 1 to 32 characters and two patterns.
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
pub struct Port(u16);

impl Port {
    /// Where sshd listens unless told otherwise.
    pub const SSH: Self = Self(22);
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
mod tests {
    use super::*;

    #[test]
    fn instance_ids_of_both_lengths_are_accepted() {
        for id in ["i-0a1b2c3d", "i-0a1b2c3d4e5f60718", "mi-0a1b2c3d4e5f60718"] {
            assert_eq!(id.parse::<InstanceId>().unwrap().as_str(), id);
        }
    }

    #[test]
    fn anything_else_is_not_an_instance_id() {
        for id in [
            "",
            "i-",
            "web-1",
            "i-0A1B2C3D",
            "i-0a1b2c3",
            "i-0a1b2c3d4",
            "i-0a1b2c3d;id",
            "i-0a1b2c3d\n",
            "x-0a1b2c3d",
        ] {
            assert_eq!(id.parse::<InstanceId>(), Err(TargetError::InstanceId(id.into())), "{id:?}");
        }
    }

    #[test]
    fn every_form_of_a_target_is_told_apart() {
        let name = |name: &str| Target::Name(name.into());
        for (text, expected) in [
            ("web-1", name("web-1")),
            ("web-*", name("web-*")),
            ("i-robot", name("i-robot")),
            ("web.example.com", name("web.example.com")),
            ("tag:Team=web=1", Target::Tag { key: "Team".into(), value: "web=1".into() }),
            ("tag:Team=", Target::Tag { key: "Team".into(), value: String::new() }),
            ("asg:web", Target::AutoScalingGroup("web".into())),
            ("10.0.0.1", Target::Address("10.0.0.1".parse().unwrap())),
            ("2001:db8::1", Target::Address("2001:db8::1".parse().unwrap())),
            ("[2001:db8::1]", Target::Address("2001:db8::1".parse().unwrap())),
            ("IP-10-0-0-1.ec2.internal", Target::DnsName("ip-10-0-0-1.ec2.internal".into())),
            // Resource names, too, which begin as ids do.
            ("i-0a1b2c3d4e5f60718.ec2.internal", Target::DnsName("i-0a1b2c3d4e5f60718.ec2.internal".into())),
            // A dot at the end makes a name absolute, and is no part of it.
            ("ip-10-0-0-1.ec2.internal.", Target::DnsName("ip-10-0-0-1.ec2.internal".into())),
            ("web-1.amazonaws.com", name("web-1.amazonaws.com")),
            ("i-0a1b2c3d", Target::Id("i-0a1b2c3d".parse().unwrap())),
        ] {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in ["", "-x", "tag:x", "tag:=x", "asg:", "a\u{1b}b", "a\nb", &"a".repeat(513)] {
            assert_eq!(text.parse::<Target>(), Err(TargetError::Target(text.into())), "{text:?}");
        }
        for text in ["i-0A1B2C3D", "i-0a1b2c3d4", "mi-0a1b2c"] {
            assert_eq!(text.parse::<Target>(), Err(TargetError::InstanceId(text.into())), "{text}");
        }
    }

    #[test]
    fn dns_names_of_every_partition_are_targets() {
        for name in [
            "ip-10-0-0-1.ec2.internal",
            "ip-10-0-0-1.eu-west-1.compute.internal",
            "ip-10-0-0-1.cn-north-1.compute.internal",
            "i-0a1b2c3d4e5f60718.eusc-de-east-1.compute.internal",
            "ec2-203-0-113-9.compute-1.amazonaws.com",
            "ec2-203-0-113-9.eu-west-1.compute.amazonaws.com",
            "ec2-203-0-113-9.us-gov-west-1.compute.amazonaws.com",
            "ec2-203-0-113-9.cn-north-1.compute.amazonaws.com.cn",
            "ec2-203-0-113-9.eusc-de-east-1.compute.amazonaws.eu",
            "ec2-203-0-113-9.us-iso-east-1.compute.c2s.ic.gov",
            "ec2-203-0-113-9.us-isob-east-1.compute.sc2s.sgov.gov",
            "ec2-203-0-113-9.eu-isoe-west-1.compute.cloud.adc-e.uk",
            "ec2-203-0-113-9.us-isof-south-1.compute.csp.hci.ic.gov",
        ] {
            assert_eq!(name.parse(), Ok(Target::DnsName(name.into())), "{name}");
            assert_eq!(name.to_uppercase().parse(), Ok(Target::DnsName(name.into())), "{name}");
        }
    }

    #[test]
    fn hosts_end_in_their_suffix_and_may_name_a_region() {
        let host = |text, suffix| {
            Host::below(text, suffix)
                .map(|host| host.unwrap())
                .map(|host| (host.target.to_string(), host.region))
        };
        let found = |name: &str, region: Option<&str>| Some((name.to_owned(), region.map(str::to_owned)));
        assert_eq!(host("web-1.ec2", "ec2"), found("web-1", None));
        assert_eq!(host("Web-1.EC2", "ec2"), found("Web-1", None));
        assert_eq!(host("web-1.eu-west-1.ec2", "ec2"), found("web-1", Some("eu-west-1")));
        assert_eq!(host("web-1.us-gov-west-1.prod.ec2", "prod.ec2"), found("web-1", Some("us-gov-west-1")));
        assert_eq!(host("web.prod.ec2", "ec2"), found("web.prod", None));
        assert_eq!(host("db.my-web-1.ec2", "ec2"), found("db.my-web-1", None));
        assert_eq!(host("eu-west-1.ec2", "ec2"), found("eu-west-1", None));
        assert_eq!(host("10.0.0.1.ec2", "ec2"), found("10.0.0.1", None));
        for text in ["web-1", "ec2", "webec2", ""] {
            assert_eq!(host(text, "ec2"), None, "{text}");
        }
        assert!(Host::below(".ec2", "ec2").unwrap().is_err());
    }

    #[test]
    fn user_names_follow_the_limits_of_the_api() {
        let long = ["a".repeat(32), "a".repeat(31) + "$", "a".repeat(30) + ".", "0".repeat(31) + "@"];
        let short =
            ["ec2-user", "ubuntu", "a.b@corp", "svc$", "0a", "_", "a.", "a@", "a-", "0.", "0-", "0.$"];
        for user in short.into_iter().chain(long.iter().map(String::as_str)) {
            assert_eq!(user.parse::<OsUser>().unwrap().as_str(), user);
        }
        let long = ["a".repeat(33), "a".repeat(31) + ".", "a".repeat(31) + "@", "0".repeat(32) + "a"];
        let short = [
            "",
            "123",
            "-oProxyCommand=x",
            "a b",
            "a/b",
            ".",
            "..",
            ".a",
            "@a",
            "$",
            "$x",
            "a$b",
            "0$",
            "a$$",
            "é",
            "a\n",
        ];
        for user in short.into_iter().chain(long.iter().map(String::as_str)) {
            assert_eq!(user.parse::<OsUser>(), Err(TargetError::OsUser(user.into())), "{user:?}");
        }
    }

    /// How many of all texts of these lengths Python's `re` finds with the pattern of the service model.
    #[test]
    fn as_many_short_names_are_users_as_the_pattern_of_the_api_accepts() {
        let mut names = vec![String::new()];
        for accepted in [2, 19, 124, 754, 4534] {
            let longer =
                names.iter().flat_map(|name| "a0_.@-$".chars().map(move |last| format!("{name}{last}")));
            names = longer.collect();
            assert_eq!(names.iter().filter(|name| name.parse::<OsUser>().is_ok()).count(), accepted);
        }
    }

    #[test]
    fn a_managed_node_has_users_that_the_api_would_not_take() {
        let target = |text: &str| text.parse::<Target>().unwrap();
        let (node, instance) = (target("mi-0a1b2c3d4e5f60718"), target("i-0a1b2c3d4e5f60718"));
        let long = "firstname.lastname@corp.example.com";
        for user in [long, "CORP\\alice", "alice+ssh", "1000", "alice", &"a".repeat(255)] {
            assert_eq!(OsUser::on(&node, user).unwrap().as_str(), user);
        }
        for user in [long, "CORP\\alice", "alice+ssh", "1000"] {
            assert_eq!(OsUser::on(&instance, user), Err(TargetError::OsUser(user.into())), "{user:?}");
        }
        for user in
            ["", "-oProxyCommand=x", "a b", "a;b", "a'b", "a\"b", "a\\", "a`b", "a\nb", &"a".repeat(256)]
        {
            assert_eq!(OsUser::on(&node, user), Err(TargetError::NodeUser(user.into())), "{user:?}");
        }
    }

    #[test]
    fn ports_are_one_to_65535() {
        assert_eq!("22".parse::<Port>().unwrap().to_string(), "22");
        for port in ["0", "65536", "-1", "+22", "ssh", ""] {
            assert_eq!(port.parse::<Port>(), Err(TargetError::Port(port.into())), "{port:?}");
        }
    }
}
