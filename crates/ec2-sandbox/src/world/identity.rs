//! The callers: one account, one role session with credentials made at start, and the roles that it may
//! assume.
//!
//! The ARNs are fixed, so that messages can be compared. The secrets are new in each region, so that no test
//! can pass with credentials of an earlier one.

use std::{fmt, io, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};

/// The account number that AWS uses in its own examples.
pub(crate) const ACCOUNT: &str = "123456789012";

/// The MFA device of the caller that the region starts with.
pub(crate) const MFA_SERIAL: &str = "arn:aws:iam::123456789012:mfa/you";

/// The role session name of the caller that the region starts with.
pub(crate) const YOU: &str = "you";

/// Where a caller's credentials come from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Origin {
    /// The start of the region.
    Start,
    /// AssumeRole.
    Role,
    /// GetSessionToken, which does not change the caller.
    Session,
}

/// The identity behind credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Caller {
    pub(crate) origin: Origin,
    /// The ARN in GetCallerIdentity and in access errors.
    pub(crate) arn: String,
    /// The role's unique id, a colon, the session name.
    pub(crate) user_id: String,
    /// The role session name, with which session ids begin.
    pub(crate) name: String,
    /// Whether the credentials were got with MFA.
    pub(crate) mfa: bool,
}

impl Caller {
    /// The caller that the region starts with.
    pub(crate) fn you() -> Self {
        Self { origin: Origin::Start, ..Role::Sandbox.session(YOU) }
    }
}

/// The roles of the account.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Role {
    /// Every caller in the account may assume it.
    Admin,
    /// Only callers with MFA may assume it.
    Mfa,
    /// The role of the credentials that the region starts with. It cannot be assumed.
    Sandbox,
    /// The role that Identity Center makes for its permission set `sandbox`.
    SingleSignOn,
}

impl Role {
    /// Every role.
    pub(super) const ALL: [Self; 4] = [Self::Admin, Self::Mfa, Self::Sandbox, Self::SingleSignOn];

    /// The role with this ARN, of those that can be assumed.
    pub(crate) fn parse(arn: &str) -> Option<Self> {
        [Self::Admin, Self::Mfa].into_iter().find(|role| role.arn() == arn)
    }

    pub(super) fn arn(self) -> String {
        format!("arn:aws:iam::{ACCOUNT}:role/{}", self.name())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Mfa => "mfa",
            Self::Sandbox => "sandbox",
            Self::SingleSignOn => "AWSReservedSSO_sandbox_0decaf0000000000",
        }
    }

    fn id(self) -> &'static str {
        match self {
            Self::Admin => "AROA0SANDBOX000ADMIN0",
            Self::Mfa => "AROA0SANDBOX00000MFA0",
            Self::Sandbox => "AROA0SANDBOX0SANDBOX0",
            Self::SingleSignOn => "AROA0SANDBOX00000SSO0",
        }
    }

    /// The caller that has assumed the role with this session name.
    pub(crate) fn session(self, name: &str) -> Caller {
        Caller {
            origin: Origin::Role,
            arn: format!("arn:aws:sts::{ACCOUNT}:assumed-role/{}/{name}", self.name()),
            user_id: format!("{}:{name}", self.id()),
            name: name.to_owned(),
            mfa: false,
        }
    }
}

/// Credentials with their caller and expiry.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) credentials: Credentials,
    pub(crate) caller: Caller,
    /// `None` for the credentials that the region starts with.
    pub(crate) expires: Option<SystemTime>,
}

impl Grant {
    /// Whether they are no longer accepted.
    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// Makes the six digits of an MFA device.
pub(super) fn mfa_code() -> io::Result<String> {
    let mut bytes = [0; 4];
    super::random(&mut bytes)?;
    Ok(format!("{:06}", u32::from_be_bytes(bytes) % 1_000_000))
}

/// Temporary credentials.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

impl Credentials {
    /// Makes credentials in the form of STS's.
    pub(crate) fn generate() -> io::Result<Self> {
        let mut id = [0; 16];
        let mut secret = [0; 30];
        let mut token = [0; 140];
        for bytes in [&mut id[..], &mut secret, &mut token] {
            super::random(bytes)?;
        }
        let id = id.iter().map(|byte| char::from(BASE32[usize::from(byte % 32)]));
        Ok(Self {
            access_key_id: "ASIA".chars().chain(id).collect(),
            secret_access_key: STANDARD.encode(secret),
            session_token: Some(format!("IQoJb3JpZ2luX2Vj+/{}", STANDARD.encode(token))),
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Credentials")
            .field("access_key_id", &self.access_key_id)
            .finish_non_exhaustive()
    }
}

const BASE32: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_region_has_its_own_credentials() {
        let (one, two) = (Credentials::generate().unwrap(), Credentials::generate().unwrap());
        assert_ne!(one.access_key_id, two.access_key_id);
        assert_ne!(one.secret_access_key, two.secret_access_key);
        assert_eq!((one.access_key_id.len(), one.secret_access_key.len()), (20, 40));
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let credentials = Credentials::generate().unwrap();
        let text = format!("{credentials:?}");
        assert!(!text.contains(&credentials.secret_access_key));
        assert!(!text.contains(credentials.session_token.as_deref().unwrap()));
    }
}
