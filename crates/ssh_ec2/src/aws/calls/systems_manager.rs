//! Systems Manager: whether the SSM agent of an instance is connected, and what system it runs on. Read-only.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::aws::client::service::SSM;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::target::InstanceId;

const DESCRIBE_INSTANCE_INFORMATION: Api = Api { service: &SSM, operation: "DescribeInstanceInformation" };
const GET_CONNECTION_STATUS: Api = Api { service: &SSM, operation: "GetConnectionStatus" };

/// An instance that has registered with Systems Manager (AWS: a managed node).
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Managed {
    /// Its id, `i-…`, or `mi-…` of a node outside of EC2.
    pub id: InstanceId,
    /// Whether AWS says `Online`. Its SSM agent reports every few minutes, so this may be out of date.
    pub online: bool,
    /// When its SSM agent last reported.
    pub last_ping: Option<SystemTime>,
    /// The operating system, for example `Ubuntu`. Empty if unknown.
    pub platform: String,
    /// The version of the SSM agent, for example `3.3.987.0`. Empty if unknown.
    pub agent_version: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Input<'a> {
    filters: Vec<InputFilter<'a>>,
    max_results: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct InputFilter<'a> {
    key: &'a str,
    values: Vec<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Output {
    #[serde(default)]
    instance_information_list: Vec<Information>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Information {
    instance_id: String,
    ping_status: Option<String>,
    last_ping_date_time: Option<f64>,
    platform_name: Option<String>,
    agent_version: Option<String>,
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
    /// One instance. None if it has never registered with Systems Manager. A page may be empty and not the
    /// last, so this reads on until the instance is found or there are no more pages.
    ///
    /// # Errors
    ///
    /// As [`describe_managed`](Self::describe_managed).
    pub(crate) async fn managed(&self, instance: &InstanceId) -> Result<Option<Managed>, AwsError> {
        let mut token = None;
        for _ in 0..PAGES {
            let (page, next) = self.managed_page(Some(instance), token.as_deref()).await?;
            if let Some(found) = page.into_iter().find(|managed| managed.id == *instance) {
                return Ok(Some(found));
            }
            token = next;
            if token.is_none() {
                break;
            }
        }
        Ok(None)
    }

    /// One page of all registered instances, and the token of the next page.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ssm:DescribeInstanceInformation`.
    pub(crate) async fn describe_managed(
        &self,
        token: Option<&str>,
    ) -> Result<(Vec<Managed>, Option<String>), AwsError> {
        self.managed_page(None, token).await
    }

    /// Whether Session Manager could start a session on an instance now.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ssm:GetConnectionStatus`.
    pub(crate) async fn is_connected(&self, instance: &InstanceId) -> Result<bool, AwsError> {
        let input = StatusInput { target: instance.as_str() };
        let (output, _): (StatusOutput, _) =
            self.call(&GET_CONNECTION_STATUS, instance.as_str(), &input).await?;
        Ok(output.status.as_deref() == Some("connected"))
    }

    async fn managed_page(
        &self,
        only: Option<&InstanceId>,
        token: Option<&str>,
    ) -> Result<(Vec<Managed>, Option<String>), AwsError> {
        let only = only.map(|id| InputFilter { key: "InstanceIds", values: vec![id.as_str()] });
        let subject = format!("the instances in {}", self.region());
        let input = Input { filters: only.into_iter().collect(), max_results: PAGE, next_token: token };
        let (output, _): (Output, _) = self.call(&DESCRIBE_INSTANCE_INFORMATION, &subject, &input).await?;
        let managed = output.instance_information_list.into_iter().filter_map(|found| {
            let seconds = found.last_ping_date_time.filter(|seconds| (0.0..1e12).contains(seconds));
            Some(Managed {
                id: found.instance_id.parse().ok()?,
                online: found.ping_status.as_deref() == Some("Online"),
                last_ping: seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs_f64(seconds)),
                platform: found.platform_name.unwrap_or_default(),
                agent_version: found.agent_version.unwrap_or_default(),
            })
        });
        Ok((managed.collect(), output.next_token.filter(|token| !token.is_empty())))
    }
}

/// The largest page of DescribeInstanceInformation.
const PAGE: u32 = 50;
/// One instance is on one page. This bounds the calls that a broken service can cause.
const PAGES: usize = 100;
