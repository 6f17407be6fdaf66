//! Systems Manager's list of machines: whether the SSM agent of each is heard, and what system it runs on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use crate::aws::client::endpoint::SSM;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::target::InstanceId;

const DESCRIBE: Api = Api { service: &SSM, operation: "DescribeInstanceInformation" };

/// A machine, as Systems Manager sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Managed {
    /// The instance.
    pub id: InstanceId,
    /// Whether its SSM agent is connected.
    pub online: bool,
    /// When it was last heard.
    pub last_ping: Option<SystemTime>,
    /// For example `Ubuntu`.
    pub platform: String,
    /// For example `3.3.987.0`.
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

impl Aws {
    /// What Systems Manager knows of one machine; `None` if it does not know it. A page may be empty and not
    /// the last, so this reads on until the machine is found or there are no more pages.
    ///
    /// # Errors
    ///
    /// As [`describe_managed`](Self::describe_managed).
    pub async fn managed(&self, instance: &InstanceId) -> Result<Option<Managed>, AwsError> {
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

    /// One page of the machines that Systems Manager knows, and the token of the next page.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ssm:DescribeInstanceInformation`.
    pub async fn describe_managed(
        &self,
        token: Option<&str>,
    ) -> Result<(Vec<Managed>, Option<String>), AwsError> {
        self.managed_page(None, token).await
    }

    async fn managed_page(
        &self,
        only: Option<&InstanceId>,
        token: Option<&str>,
    ) -> Result<(Vec<Managed>, Option<String>), AwsError> {
        let only = only.map(|id| InputFilter { key: "InstanceIds", values: vec![id.as_str()] });
        let subject = format!("the instances in {}", self.region());
        let input = Input { filters: only.into_iter().collect(), max_results: PAGE, next_token: token };
        let (output, _): (Output, _) = self.call(&DESCRIBE, &subject, &input).await?;
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

/// The most that DescribeInstanceInformation gives at once.
const PAGE: u32 = 50;
/// One machine is on one page. This bounds what a broken peer can make us ask.
const PAGES: usize = 100;
