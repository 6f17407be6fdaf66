//! What a user can name: an instance, a user on it, a port.
//!
//! Parsed once, here, from what ssh or a shell handed us; inside the program an impossible value does not
//! exist. Because every value is limited to a harmless alphabet, it may stand in a path or a command line.
//! This file does no I/O.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A name did not have the form of the thing that it should name.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum TargetError {
    /// Not `i-…` or `mi-…` followed by lower-case hexadecimal digits.
    #[error("{0:?} is not an instance id")]
    InstanceId(String),
    /// Not 1 to 32 of the characters that EC2 Instance Connect takes.
    #[error("{0:?} is not a user name that EC2 Instance Connect accepts")]
    OsUser(String),
    /// Not 1 to 65535.
    #[error("{0:?} is not a port number")]
    Port(String),
}

impl TargetError {
    /// What to do about it, an action a line.
    pub fn hints(&self) -> Vec<String> {
        match self {
            Self::InstanceId(_) => {
                vec!["instance ids look like `i-0a1b2c3d4e5f60718` (8 or 17 hexadecimal digits) or `mi-…`".into()]
            }
            Self::OsUser(_) => vec![
                "use 1 to 32 letters, digits and `_ . @ - $`, not digits alone; for example `ec2-user` or `ubuntu`".into(),
            ],
            Self::Port(_) => vec!["ports are the numbers 1 to 65535; sshd listens on 22".into()],
        }
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

/// A login name on the instance, within the limits of `SendSSHPublicKey`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct OsUser(String);

impl OsUser {
    /// The name as typed.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for OsUser {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.@-$".contains(&byte);
        // A leading hyphen would be read as an option by whatever it is handed to.
        let valid = (1..=32).contains(&text.len())
            && text.bytes().all(allowed)
            && !text.bytes().all(|byte| byte.is_ascii_digit())
            && !text.starts_with('-')
            && !matches!(text, "." | "..");
        if valid { Ok(Self(text.to_owned())) } else { Err(TargetError::OsUser(text.to_owned())) }
    }
}

impl fmt::Display for OsUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A TCP port on the instance.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Port(u16);

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
    fn user_names_follow_the_limits_of_the_api() {
        for user in ["ec2-user", "ubuntu", "a.b@corp", "svc$", "0a"] {
            assert_eq!(user.parse::<OsUser>().unwrap().as_str(), user);
        }
        for user in ["", "123", "-oProxyCommand=x", "a b", "a/b", "..", "é", &"a".repeat(33)] {
            assert_eq!(user.parse::<OsUser>(), Err(TargetError::OsUser(user.into())), "{user:?}");
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
