//! EC2: which instances there are. Read-only, and only needed for names; an instance id does without.

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use roxmltree::{Document, Node};

use crate::aws::client::endpoint::{EC2, Protocol};
use crate::aws::client::query::{child, child_text, form, items};
use crate::aws::error::AwsError;
use crate::aws::{Api, Aws};
use crate::target::InstanceId;

const DESCRIBE_INSTANCES: Api = Api { service: &EC2, operation: "DescribeInstances" };
const DESCRIBE_REGIONS: Api = Api { service: &EC2, operation: "DescribeRegions" };
const GET_CONSOLE_OUTPUT: Api = Api { service: &EC2, operation: "GetConsoleOutput" };

/// A filter of DescribeInstances: the values are alternatives, in which `*`, `?` and `\` are special.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    /// For example `tag:Name`.
    pub name: String,
    /// At most 200.
    pub values: Vec<String>,
}

impl Filter {
    /// One value.
    pub fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), values: vec![value.into()] }
    }
}

/// An instance, as far as finding and showing it goes. Its texts are as AWS sent them: make them harmless before a
/// terminal sees them.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Instance {
    /// The id.
    pub id: InstanceId,
    /// Whether it runs.
    pub state: InstanceState,
    /// Key and value.
    pub tags: Vec<(String, String)>,
    /// For example `t3.micro`.
    pub instance_type: String,
    /// For example `eu-west-1a`.
    pub availability_zone: String,
    /// The primary private IPv4 address.
    pub private_address: Option<String>,
    /// The public IPv4 address.
    pub public_address: Option<String>,
    /// The last start.
    pub launched: Option<SystemTime>,
    /// What is billed: `Linux/UNIX`, `Red Hat Enterprise Linux`, `Windows`, and so on.
    pub platform_details: String,
    /// What the image calls its root volume, for example `/dev/xvda`.
    pub root_device: String,
    /// The ARN of its instance profile.
    pub profile: Option<String>,
}

impl Instance {
    /// The value of a tag.
    pub fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_str())
    }

    /// The Name tag, if it says anything.
    pub fn name(&self) -> Option<&str> {
        self.tag("Name").filter(|name| !name.is_empty())
    }
}

/// Whether the console is to be read now. Only instances on the Nitro system can do that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Latest {
    /// What was kept is enough.
    No,
    /// Now.
    Yes,
}

/// What an instance is doing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum InstanceState {
    /// It can be connected to.
    Running,
    /// It cannot, at the moment or any more: `stopped`, `terminated`, and so on.
    Other(String),
}

impl InstanceState {
    /// AWS's word.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Running => "running",
            Self::Other(state) => state,
        }
    }
}

impl Aws {
    /// The instances that pass all filters, from as many pages as there are.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ec2:DescribeInstances`.
    pub async fn describe_instances(&self, filters: &[Filter]) -> Result<Vec<Instance>, AwsError> {
        let mut found = Vec::new();
        let mut token = None;
        // Bounded, whatever comes back: more than AWS lets an account have.
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

    /// One page, and the token of the next. A page may be empty and not the last.
    ///
    /// # Errors
    ///
    /// As [`describe_instances`](Self::describe_instances).
    pub async fn describe_page(
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
        self.query(&DESCRIBE_INSTANCES, &self.all_instances(), &parameters, |answer| {
            let reservations = items(answer, "reservationSet").into_iter();
            let instances = reservations.flat_map(|reservation| items(reservation, "instancesSet"));
            let next = child_text(answer, "nextToken").map(str::to_owned);
            (instances.filter_map(instance).collect(), next)
        })
        .await
    }

    /// The regions that the account can use.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ec2:DescribeRegions`.
    pub async fn describe_regions(&self) -> Result<Vec<String>, AwsError> {
        self.query(&DESCRIBE_REGIONS, &self.all_instances(), &[], |answer| {
            let names =
                items(answer, "regionInfo").into_iter().filter_map(|item| child_text(item, "regionName"));
            names.map(str::to_owned).collect()
        })
        .await
    }

    /// What EC2 kept of an instance's console, as text; empty when it has nothing yet. Without [`Latest`] it is what
    /// was kept after the last start or stop.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; [`AwsError::AccessDenied`] without `ec2:GetConsoleOutput`.
    pub async fn console_output(&self, instance: &InstanceId, latest: Latest) -> Result<String, AwsError> {
        let mut parameters = vec![("InstanceId".to_owned(), instance.to_string())];
        if latest == Latest::Yes {
            parameters.push(("Latest".to_owned(), "true".to_owned()));
        }
        let encoded = self
            .query(&GET_CONSOLE_OUTPUT, instance.as_str(), &parameters, |answer| {
                if child_text(answer, "instanceId").is_some_and(|id| id != instance.as_str()) {
                    return Err("it is about another instance");
                }
                let text = child_text(answer, "output").unwrap_or_default();
                Ok(text.split_ascii_whitespace().collect::<String>())
            })
            .await?;
        let decoded = encoded.and_then(|text| STANDARD.decode(text).map_err(|_| "its output is not base64"));
        let malformed =
            |fault: &str| AwsError::Malformed { action: GET_CONSOLE_OUTPUT.action(), source: fault.into() };
        let bytes = decoded.map_err(malformed)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn all_instances(&self) -> String {
        format!("the instances in {}", self.region())
    }

    /// Makes a call of the Query protocol, and reads its answer's root element.
    pub(in crate::aws) async fn query<T>(
        &self,
        api: &Api,
        subject: &str,
        parameters: &[(String, String)],
        read: impl FnOnce(Node<'_, '_>) -> T,
    ) -> Result<T, AwsError> {
        let Protocol::Query { version } = api.service.protocol else {
            unreachable!("{} has another protocol", api.service.id)
        };
        let answer = self.invoke(api, subject, form(api.operation, version, parameters)).await?;
        let malformed = || AwsError::Malformed {
            action: api.action(),
            source: "it is not the XML that was expected".into(),
        };
        let text = std::str::from_utf8(&answer.body).map_err(|_| malformed())?;
        let document = Document::parse(text).map_err(|_| malformed())?;
        let root = document.root_element();
        // A proxy's page of XHTML is no answer without instances.
        if root.tag_name().name() != format!("{}Response", api.operation) {
            return Err(malformed());
        }
        Ok(read(root))
    }
}

/// An instance; none if its id is not one that could be connected to.
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

/// The most that DescribeInstances gives at once.
const PAGE: usize = 1000;
const PAGES: usize = 1000;
