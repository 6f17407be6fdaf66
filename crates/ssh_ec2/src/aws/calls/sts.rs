//! STS: whose credentials sign the calls. Read-only; for `doctor`.

use crate::aws::client::query::{child, child_text};
use crate::aws::client::service::STS;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};

const GET_CALLER_IDENTITY: Api = Api { service: &STS, operation: "GetCallerIdentity" };

/// The user or role that the calls are signed as.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Caller {
    /// Twelve digits.
    pub account: String,
    /// The ARN of a user, or of a role's session.
    pub arn: String,
}

impl Aws {
    /// The caller. Needs no permission, but a network that reaches STS.
    ///
    /// # Errors
    ///
    /// [`AwsError`].
    pub(crate) async fn caller(&self) -> Result<Caller, AwsError> {
        self.query(&GET_CALLER_IDENTITY, "the caller", &[], |response| {
            let result = child(response, "GetCallerIdentityResult")?;
            let text = |name| child_text(result, name).map(str::to_owned);
            Some(Caller { account: text("Account")?, arn: text("Arn")? })
        })
        .await?
        .ok_or_else(|| GET_CALLER_IDENTITY.malformed("it names no caller"))
    }

    /// Whether credentials that this region rejected are good in another one: then the account has not
    /// enabled this region. False where an endpoint is configured, which need not be in any region.
    pub(crate) async fn has_region_off(&self) -> bool {
        self.configured_endpoint(&STS).is_none() && self.is_known_elsewhere().await
    }

    pub(crate) async fn is_known_elsewhere(&self) -> bool {
        let usual = self.endpoints.usual_region();
        if usual == self.region() {
            return false;
        }
        let Ok(there) = self.in_region(usual) else { return false };
        there.caller().await.is_ok()
    }
}
