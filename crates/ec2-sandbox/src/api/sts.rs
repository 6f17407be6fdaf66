//! STS, as far as a caller asks who it is. No roles are assumed here.

use super::{Call, error::ApiError, xml::Xml};
use crate::world::{ACCOUNT, CALLER_ARN, CALLER_USER_ID};

/// Performs `action`; `None` if there is no such action.
pub(super) fn perform(call: &Call<'_>, action: &str) -> Option<Result<String, ApiError>> {
    (action == "GetCallerIdentity").then(|| Ok(caller_identity(call)))
}

fn caller_identity(call: &Call<'_>) -> String {
    let mut xml = Xml::document();
    xml.root("GetCallerIdentityResponse", NAMESPACE, |xml| {
        xml.element("GetCallerIdentityResult", |xml| {
            xml.text("Arn", CALLER_ARN);
            xml.text("UserId", CALLER_USER_ID);
            xml.text("Account", ACCOUNT);
        });
        xml.element("ResponseMetadata", |xml| xml.text("RequestId", call.request_id));
    });
    xml.finish()
}

/// The namespace of every answer.
pub(super) const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
