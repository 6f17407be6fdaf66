//! EC2: which instances there are, and the console of one. Read-only. A connection by instance id needs none
//! of it.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roxmltree::Node;

use crate::aws::client::query::{child, child_text, items};
use crate::aws::client::service::EC2;
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::target::InstanceId;

const DESCRIBE_INSTANCES: Api = Api { service: &EC2, operation: "DescribeInstances" };
const DESCRIBE_REGIONS: Api = Api { service: &EC2, operation: "DescribeRegions" };
const GET_CONSOLE_OUTPUT: Api = Api { service: &EC2, operation: "GetConsoleOutput" };

/// A filter of DescribeInstances. An instance passes if one of the values matches; `*`, `?` and `\` are
/// special.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Filter {
    /// The attribute to match, for example `tag:Name`.
    pub name: String,
    /// The accepted values, at most 200.
    pub values: Vec<String>,
}

impl Filter {
    /// A filter with one value.
    pub(crate) fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), values: vec![value.into()] }
    }
}

/// An instance: what is needed to find and to show it. Its texts are as AWS sent them, and must be made
/// printable before they are shown.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Instance {
    /// The id, `i-…`.
    pub id: InstanceId,
    /// Whether it runs, and its state if it does not.
    pub state: InstanceState,
    /// Key and value of each tag.
    pub tags: Vec<(String, String)>,
    /// The instance type, for example `t3.micro`. Empty if AWS did not send it, like the other texts here.
    pub instance_type: String,
    /// The availability zone, for example `eu-west-1a`.
    pub availability_zone: String,
    /// The primary private IPv4 address. None in a subnet of IPv6 alone.
    pub private_address: Option<String>,
    /// The public IPv4 address. None if it has none.
    pub public_address: Option<String>,
    /// When it was last started.
    pub launched: Option<SystemTime>,
    /// What is billed: `Linux/UNIX`, `Red Hat Enterprise Linux`, `Windows`, and so on.
    pub platform_details: String,
    /// The device name of the root volume in the image, for example `/dev/xvda`.
    pub root_device: String,
    /// The ARN of its instance profile. None if it has none, and so no role.
    pub profile: Option<String>,
}

impl Instance {
    /// The value of the tag `key`.
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The value of the Name tag. None as well if it is empty.
    pub(crate) fn name(&self) -> Option<&str> {
        self.tag("Name").filter(|name| !name.is_empty())
    }
}

/// Which console output to return.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Latest {
    /// What EC2 stored after the last start or stop.
    No,
    /// The present output (`Latest`). Only instances on the Nitro system support it.
    Yes,
}

/// The state of an instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum InstanceState {
    /// It runs.
    Running,
    /// Any other state, in AWS's word: `pending`, `stopped`, `terminated`, and so on.
    Other(String),
}

impl InstanceState {
    /// AWS's word for it.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Running => "running",
            Self::Other(state) => state,
        }
    }
}

impl Aws {
    /// The instances that pass all filters, from all pages.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ec2:DescribeInstances`.
    pub(crate) async fn describe_instances(&self, filters: &[Filter]) -> Result<Vec<Instance>, AwsError> {
        let mut found = Vec::new();
        let mut token = None;
        // Bounded, whatever the responses are, by more instances than an account can have.
        for _ in 0..PAGES {
            let (page, next) = self.describe_page(filters, token.as_deref()).await?;
            found.extend(page);
            token = next;
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// One page of the instances that pass all filters, and the token of the next page. A page may be empty
    /// and not the last.
    ///
    /// # Errors
    ///
    /// As [`describe_instances`](Self::describe_instances).
    pub(crate) async fn describe_page(
        &self,
        filters: &[Filter],
        token: Option<&str>,
    ) -> Result<(Vec<Instance>, Option<String>), AwsError> {
        let mut parameters = vec![("MaxResults".to_owned(), PAGE.to_string())];
        for (number, filter) in (1..).zip(filters) {
            parameters.push((format!("Filter.{number}.Name"), filter.name.clone()));
            for (index, value) in (1..).zip(&filter.values) {
                parameters.push((format!("Filter.{number}.Value.{index}"), value.clone()));
            }
        }
        parameters.extend(token.map(|token| ("NextToken".to_owned(), token.to_owned())));
        self.query(&DESCRIBE_INSTANCES, &self.all_instances(), &parameters, |response| {
            let reservations = items(response, "reservationSet").into_iter();
            let instances = reservations.flat_map(|reservation| items(reservation, "instancesSet"));
            let next = child_text(response, "nextToken").map(str::to_owned);
            (instances.filter_map(instance).collect(), next)
        })
        .await
    }

    /// The regions that are enabled in the account.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ec2:DescribeRegions`.
    pub(crate) async fn describe_regions(&self) -> Result<Vec<String>, AwsError> {
        self.query(&DESCRIBE_REGIONS, &self.all_instances(), &[], |response| {
            let names =
                items(response, "regionInfo").into_iter().filter_map(|item| child_text(item, "regionName"));
            names.map(str::to_owned).collect()
        })
        .await
    }

    /// The console output of an instance; empty if EC2 has none yet.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ec2:GetConsoleOutput`.
    pub(crate) async fn console_output(
        &self,
        instance: &InstanceId,
        latest: Latest,
    ) -> Result<String, AwsError> {
        let mut parameters = vec![("InstanceId".to_owned(), instance.to_string())];
        if latest == Latest::Yes {
            parameters.push(("Latest".to_owned(), "true".to_owned()));
        }
        let encoded = self
            .query(&GET_CONSOLE_OUTPUT, instance.as_str(), &parameters, |response| {
                if child_text(response, "instanceId").is_some_and(|id| id != instance.as_str()) {
                    return Err("it is about another instance");
                }
                let text = child_text(response, "output").unwrap_or_default();
                Ok(text.split_ascii_whitespace().collect::<String>())
            })
            .await?;
        let decoded = encoded.and_then(|text| STANDARD.decode(text).map_err(|_| "its output is not base64"));
        let bytes = decoded.map_err(|fault| GET_CONSOLE_OUTPUT.malformed(fault))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn all_instances(&self) -> String {
        format!("the instances in {}", self.region())
    }
}

/// Reads one instance. None if its id is not an instance id.
fn instance(item: Node<'_, '_>) -> Option<Instance> {
    let text = |name| child_text(item, name).unwrap_or_default().to_owned();
    let state = child(item, "instanceState").and_then(|state| child_text(state, "name"));
    let tags = items(item, "tagSet").into_iter().filter_map(|tag| {
        let value = child_text(tag, "value").unwrap_or_default();
        Some((child_text(tag, "key")?.to_owned(), value.to_owned()))
    });
    let launched = child_text(item, "launchTime")
        .and_then(|time| DateTime::from_str(time, Format::DateTime).ok())
        .and_then(|time| SystemTime::try_from(time).ok());
    Some(Instance {
        id: child_text(item, "instanceId")?.parse().ok()?,
        state: match state {
            Some("running") => InstanceState::Running,
            other => InstanceState::Other(other.unwrap_or("unknown").to_owned()),
        },
        tags: tags.collect(),
        instance_type: text("instanceType"),
        availability_zone: child(item, "placement")
            .and_then(|placement| child_text(placement, "availabilityZone"))
            .unwrap_or_default()
            .to_owned(),
        private_address: child_text(item, "privateIpAddress").map(str::to_owned),
        public_address: child_text(item, "ipAddress").map(str::to_owned),
        launched,
        platform_details: text("platformDetails"),
        root_device: text("rootDeviceName"),
        profile: child(item, "iamInstanceProfile")
            .and_then(|profile| child_text(profile, "arn"))
            .map(str::to_owned),
    })
}

/// The largest page of DescribeInstances.
const PAGE: usize = 1000;
const PAGES: usize = 1000;
