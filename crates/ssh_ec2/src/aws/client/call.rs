//! Makes the calls of [`Aws`]: endpoint, credentials, retries of what AWS throttles, and the error in words.

use std::error::Error as StdError;
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use roxmltree::{Document, Node};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::time::{sleep, timeout};

use crate::aws::Aws;
use crate::aws::client::endpoint;
use crate::aws::client::error_response::FailedCall;
use crate::aws::client::operation::{Call, Response};
use crate::aws::client::query::form;
use crate::aws::client::request_id::RequestId;
use crate::aws::client::runtime::CallError;
use crate::aws::client::service::{Protocol, Service};
use crate::aws::error::AwsError;
use crate::system::jitter;

/// An operation of a service.
pub(crate) struct Api {
    pub(crate) service: &'static Service,
    pub(crate) operation: &'static str,
}

impl Api {
    /// The action that IAM policies name, like `ssm:StartSession`.
    pub(crate) fn action(&self) -> String {
        format!("{}:{}", self.service.prefix, self.operation)
    }

    /// The error for a successful response that is not the documented one.
    pub(crate) fn malformed(&self, fault: impl Into<Box<dyn StdError + Send + Sync>>) -> AwsError {
        AwsError::Malformed { action: self.action(), source: fault.into() }
    }
}

impl Aws {
    /// Makes a call of a JSON service. `subject` names the instance or session in messages.
    pub(crate) async fn call<I: Serialize, O: DeserializeOwned>(
        &self,
        api: &Api,
        subject: &str,
        input: &I,
    ) -> Result<(O, RequestId), AwsError> {
        let body = serde_json::to_string(input).map_err(|error| api.malformed(error))?;
        let response = self.invoke(api, subject, body).await?;
        match serde_json::from_slice(&response.body) {
            Ok(output) => Ok((output, response.request_id.unwrap_or_else(RequestId::absent))),
            // The parser's error may quote the response, and with it a token.
            Err(_) => Err(api.malformed("it is not the JSON that was expected")),
        }
    }

    /// Makes a call of a Query service, and passes the root element of the response to `read`.
    pub(crate) async fn query<T>(
        &self,
        api: &Api,
        subject: &str,
        parameters: &[(String, String)],
        read: impl FnOnce(Node<'_, '_>) -> T,
    ) -> Result<T, AwsError> {
        let Protocol::Query { version } = api.service.protocol else {
            unreachable!("{} has another protocol", api.service.id)
        };
        let response = self.invoke(api, subject, form(api.operation, version, parameters)).await?;
        let malformed = || api.malformed("it is not the XML that was expected");
        let text = std::str::from_utf8(&response.body).map_err(|_| malformed())?;
        let document = Document::parse(text).map_err(|_| malformed())?;
        let root = document.root_element();
        // A proxy's page of XHTML must not be read as a response without instances.
        if root.tag_name().name() != format!("{}Response", api.operation) {
            return Err(malformed());
        }
        Ok(read(root))
    }

    /// Makes a call, and repeats it for a while if AWS throttles it: of many calls that start together, the
    /// last ones have to wait longer than the SDK does. No time limit runs while credentials are fetched.
    async fn invoke(&self, api: &Api, subject: &str, body: String) -> Result<Response, AwsError> {
        let mut spent = Duration::ZERO;
        let mut delay = THROTTLED_DELAY;
        let mut is_throttled = false;
        loop {
            let credentials = self.credentials.resolve().await?;
            let started = Instant::now();
            let attempt = self.invoke_once(api, subject, body.clone(), credentials);
            let result = match self.limit {
                Some(limit) => match timeout(limit.saturating_sub(spent), attempt).await {
                    Ok(result) => result,
                    // AWS has answered, and too little time was left for the next attempt.
                    Err(_) if is_throttled => Err(AwsError::Throttled { action: api.action() }),
                    Err(_) => Err(self.unreachable(&self.endpoint(api.service)?, LimitReached(limit).into())),
                },
                None => attempt.await,
            };
            spent += started.elapsed();
            match result {
                Err(AwsError::Throttled { action }) if spent + delay < self.patience => {
                    tracing::info!("AWS throttles {action}; trying again");
                    is_throttled = true;
                    sleep(jitter::up_to(delay)).await;
                    spent += delay;
                    delay = (delay * 2).min(THROTTLED_MAX_DELAY);
                }
                result => return result,
            }
        }
    }

    async fn invoke_once(
        &self,
        api: &Api,
        subject: &str,
        body: String,
        credentials: Credentials,
    ) -> Result<Response, AwsError> {
        let action = api.action();
        let endpoint = self.endpoint(api.service)?;
        let call = Call {
            service: api.service,
            operation: api.operation,
            endpoint: &endpoint,
            credentials: Some(credentials),
            body,
        };
        let response = match self.client.invoke(call).await {
            Ok(response) => return Ok(response),
            Err(CallError::Unreachable(source)) => return Err(self.unreachable(&endpoint, source)),
            Err(error) => error.into_response(&action, &endpoint)?,
        };
        let sign_in = self.credentials.sign_in();
        let error = FailedCall { action, subject, region: self.region(), sign_in }.error(response);
        if matches!(error, AwsError::ExpiredToken { .. } | AwsError::RejectedCredentials { .. }) {
            // The user may renew them while this process runs.
            self.credentials.forget().await;
        }
        Err(error)
    }

    /// The error for an endpoint that did not answer: no connection can be made, or one was made and stayed
    /// silent.
    fn unreachable(&self, endpoint: &str, source: Box<dyn StdError + Send + Sync>) -> AwsError {
        let host = endpoint::host_of(endpoint).unwrap_or_else(|| endpoint.to_owned());
        match self.connections.are_impossible(endpoint) {
            true => AwsError::NoConnection { host, source },
            false => AwsError::Unreachable { host, source },
        }
    }
}

/// A call took longer than its limit.
#[derive(Debug, Error)]
#[error("no answer within {} seconds", .0.as_secs())]
struct LimitReached(Duration);

/// For how long a throttled call is repeated: fifty StartSession at its quota of three a second take less.
pub(crate) const THROTTLED_PATIENCE: Duration = Duration::from_secs(20);
const THROTTLED_DELAY: Duration = Duration::from_secs(1);
const THROTTLED_MAX_DELAY: Duration = Duration::from_secs(4);
