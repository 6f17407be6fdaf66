//! Who calls: one account, one role session with credentials made at start.
//!
//! The ARNs never change, so messages can be compared; the secrets always do, so that no test can pass with
//! credentials left over from another region.

use std::{fmt, io};

use base64::{Engine, engine::general_purpose::STANDARD};

/// The account number that AWS uses in its own examples.
pub(crate) const ACCOUNT: &str = "123456789012";

/// The caller's role session name, with which session ids begin.
pub(crate) const CALLER: &str = "you";

/// The caller, as GetCallerIdentity and refusals name them.
pub(crate) const CALLER_ARN: &str = "arn:aws:sts::123456789012:assumed-role/sandbox/you";

/// The caller's unique id: the role's, a colon, the session name.
pub(crate) const CALLER_USER_ID: &str = "AROA0SANDBOX0SANDBOX0:you";

/// Temporary credentials of the caller.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub(crate) access_key_id: String,
    pub(crate) secret_access_key: String,
    pub(crate) session_token: Option<String>,
}

impl Credentials {
    /// Makes credentials of the shape that STS gives out.
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
