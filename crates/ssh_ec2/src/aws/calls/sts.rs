//! Calls for `doctor` and `diagnosis`. None changes anything.

use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::aws::client::endpoint::{EC2, INSTANCE_CONNECT, SSM, SSM_MESSAGES, STS, Service};
use crate::aws::client::query::{child, child_text};
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws, SignIn};
use crate::net::websocket::StreamUrl;
use crate::target::InstanceId;

const GET_CALLER_IDENTITY: Api = Api { service: &STS, operation: "GetCallerIdentity" };
const GET_CONNECTION_STATUS: Api = Api { service: &SSM, operation: "GetConnectionStatus" };

/// Who the credentials stand for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Caller {
    /// Twelve digits.
    pub account: String,
    /// Of a user, or of a role's session.
    pub arn: String,
}

/// A host that calls go to.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// As in `ssm.eu-west-1.amazonaws.com`.
    pub service: &'static str,
    /// Its root, as far as connecting goes.
    pub url: StreamUrl,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StatusInput<'a> {
    target: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StatusOutput {
    status: Option<String>,
}

impl Aws {
    /// Who calls. Needs no permission, but the service STS.
    ///
    /// # Errors
    ///
    /// [`AwsError`].
    pub async fn caller(&self) -> Result<Caller, AwsError> {
        self.query(&GET_CALLER_IDENTITY, "the caller", &[], |answer| {
            let result = child(answer, "GetCallerIdentityResult")?;
            let text = |name| child_text(result, name).map(str::to_owned);
            Some(Caller { account: text("Account")?, arn: text("Arn")? })
        })
        .await?
        .ok_or_else(|| AwsError::Malformed {
            action: GET_CALLER_IDENTITY.action(),
            source: "it names no caller".into(),
        })
    }

    /// Whether credentials that were rejected here are good elsewhere: then the account has not enabled this region.
    /// False where an endpoint is configured, which says nothing of regions.
    pub async fn has_region_off(&self) -> bool {
        self.configured_endpoint(&STS).is_none() && self.is_known_elsewhere().await
    }

    pub(in crate::aws) async fn is_known_elsewhere(&self) -> bool {
        let usual = self.place.usual_region();
        if usual == self.region() {
            return false;
        }
        let Ok(there) = self.in_region(usual) else { return false };
        there.caller().await.is_ok()
    }

    /// Whether Session Manager could start a session on an instance now.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ssm:GetConnectionStatus`.
    pub async fn is_connected(&self, instance: &InstanceId) -> Result<bool, AwsError> {
        let input = StatusInput { target: instance.as_str() };
        let (output, _): (StatusOutput, _) =
            self.call(&GET_CONNECTION_STATUS, instance.as_str(), &input).await?;
        Ok(output.status.as_deref() == Some("connected"))
    }

    /// When the credentials end, if they do.
    ///
    /// # Errors
    ///
    /// Those of credentials.
    pub async fn credentials_end(&self) -> Result<Option<SystemTime>, AwsError> {
        Ok(self.credentials.resolve().await?.expiry())
    }

    /// Where the credentials come from.
    pub fn credentials_source(&self) -> &SignIn {
        self.credentials.sign_in()
    }

    /// How far this machine's clock is off, by the last answer of AWS, and whether it is behind.
    pub fn clock_skew(&self) -> (Duration, bool) {
        self.client.skew()
    }

    /// The time as AWS has it, as far as its last answer told.
    pub fn now(&self) -> SystemTime {
        let now = SystemTime::now();
        match self.clock_skew() {
            // Answers are dated to the second, and take a moment.
            (skew, _) if skew < Duration::from_secs(2) => now,
            (skew, true) => now + skew,
            (skew, false) => now - skew,
        }
    }

    /// The hosts that a connection needs.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadEndpoint`], [`AwsError::UnencryptedEndpoint`].
    pub fn endpoints(&self) -> Result<Vec<Endpoint>, AwsError> {
        let services: [&'static Service; 4] = [&SSM, &SSM_MESSAGES, &INSTANCE_CONNECT, &EC2];
        let endpoint = |service: &'static Service| {
            let url = match self.configured_endpoint(service) {
                // Where the websockets are, the service tells when it is not AWS's own.
                None if service.id == SSM_MESSAGES.id => match self.message_gateway() {
                    Some(url) => url,
                    None => return Ok(None),
                },
                _ => {
                    let text = self.endpoint(service)?;
                    let websocket = text.replacen("http", "ws", 1);
                    StreamUrl::new(&websocket).map_err(|_| AwsError::BadEndpoint { service: service.id })?
                }
            };
            Ok(Some(Endpoint { service: service.prefix, url }))
        };
        services.into_iter().filter_map(|service| endpoint(service).transpose()).collect()
    }
}
