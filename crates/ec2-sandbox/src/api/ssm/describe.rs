//! DescribeInstanceInformation and DescribeSessions.

use std::time::SystemTime;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    api::{Call, constraint::Constraints, error::ApiError, page},
    calendar,
    world::{Condition, Instance, SessionRecord, SessionState},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeInstanceInformation {
    filters: Option<Vec<Filter>>,
    #[serde(rename = "InstanceInformationFilterList")]
    legacy_filters: Option<Vec<LegacyFilter>>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Filter {
    key: String,
    values: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct LegacyFilter {
    key: String,
    value_set: Vec<String>,
}

/// The instances that Session Manager lists, with the state of their SSM agents.
pub(super) fn instances(call: &Call<'_>, input: &DescribeInstanceInformation) -> Result<Value, ApiError> {
    let size = check_instances(input)?;
    let new = input.filters.iter().flatten().map(|filter| (&filter.key, &filter.values));
    let legacy = input.legacy_filters.iter().flatten().map(|filter| (&filter.key, &filter.value_set));
    if new.clone().count() > 0 && legacy.clone().count() > 0 {
        let message = "InstanceInformationFilterList and Filters cannot be used together.";
        return Err(ApiError::new("ValidationException", message));
    }
    let filters: Vec<_> = new.chain(legacy).collect();
    let mut found: Vec<&Instance> = call.instances().filter(|instance| instance.is_registered()).collect();
    for &(key, values) in &filters {
        // All instances, so that a key is also valid in a region without instances.
        if call.world.instances().iter().all(|instance| fields(instance, key).is_none()) {
            return Err(ApiError::new("InvalidFilterKey", "The specified key isn't valid."));
        }
        if !values.iter().all(|value| is_filter_value(key, value)) {
            let message = "The specified filter value isn't valid.";
            return Err(ApiError::new("InvalidInstanceInformationFilterValue", message));
        }
        let accepts = |field: &String| values.contains(field);
        found.retain(|instance| fields(instance, key).is_some_and(|fields| fields.iter().any(accepts)));
    }
    let reach = page::Reach::of(filters.len());
    let (found, next) = page::page(found, size, reach, input.next_token.as_deref())?;
    let list: Vec<_> = found.iter().map(|instance| instance_information(call, instance)).collect();
    Ok(with_token(json!({"InstanceInformationList": list}), next))
}

/// Checks the constraints of the service model. Returns the size of a page.
fn check_instances(input: &DescribeInstanceInformation) -> Result<usize, ApiError> {
    let mut constraints = Constraints::default();
    constraints.range("maxResults", input.max_results, 5, 50);
    for (number, filter) in (1..).zip(input.filters.iter().flatten()) {
        constraints.length(&format!("filters.{number}.member.key"), Some(&filter.key), 1, usize::MAX);
        check_values(&mut constraints, &format!("filters.{number}.member.values"), &filter.values);
    }
    for (number, filter) in (1..).zip(input.legacy_filters.iter().flatten()) {
        let member = format!("instanceInformationFilterList.{number}.member");
        constraints.one_of(&format!("{member}.key"), Some(&filter.key), &LEGACY_KEYS);
        check_values(&mut constraints, &format!("{member}.valueSet"), &filter.value_set);
    }
    constraints.finish()?;
    let size = input.max_results.and_then(|size| usize::try_from(size).ok());
    Ok(size.unwrap_or(INSTANCES_PER_PAGE))
}

fn check_values(constraints: &mut Constraints, member: &str, values: &[String]) {
    constraints.count(member, Some(values), 1, 100);
    for value in values {
        constraints.length(member, Some(value), 1, usize::MAX);
    }
}

/// The values that a filter compares, one of which must match; `None` if there is no such filter.
fn fields(instance: &Instance, key: &str) -> Option<Vec<String>> {
    let text = match key {
        // Filters for managed nodes outside EC2 and for associations; the region has neither.
        "ActivationIds" | "AssociationStatus" | "IamRole" => return Some(Vec::new()),
        "AgentVersion" => instance.ssm_agent_version,
        "InstanceIds" | "SourceIds" => &instance.id,
        "PingStatus" => ping_status(instance),
        "PlatformType" | "PlatformTypes" => "Linux",
        "ResourceType" => "EC2Instance",
        "SourceTypes" => "AWS::EC2::Instance",
        "tag-key" => return Some(instance.tags.iter().map(|(key, _)| (*key).to_owned()).collect()),
        _ => {
            let tag = key.strip_prefix("tag:")?;
            let tags = instance.tags.iter().filter(|(key, _)| *key == tag);
            return Some(tags.map(|(_, value)| value.clone()).collect());
        }
    };
    Some(vec![text.to_owned()])
}

/// Whether `value` is valid for a filter of `key`, by the values that the API reference lists.
///
/// No public source shows AWS's error; the model has `InvalidInstanceInformationFilterValue` for it.
fn is_filter_value(key: &str, value: &str) -> bool {
    let words: &[&str] = match key {
        "AssociationStatus" => &["Failed", "Pending", "Success"],
        "InstanceIds" => return is_node_id(value),
        "PingStatus" => &["ConnectionLost", "Inactive", "Online"],
        "PlatformType" | "PlatformTypes" => &["Linux", "MacOS", "Windows"],
        "ResourceType" => &["EC2Instance", "ManagedInstance"],
        "SourceTypes" => &["AWS::EC2::Instance", "AWS::IoT::Thing", "AWS::SSM::ManagedInstance"],
        _ => return true,
    };
    words.contains(&value)
}

/// `(^i-(\w{8}|\w{17})$)|(^mi-\w{17}$)`, as the service model has it.
fn is_node_id(id: &str) -> bool {
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match (id.strip_prefix("i-"), id.strip_prefix("mi-")) {
        (Some(rest), _) => matches!(rest.len(), 8 | 17) && is_word(rest),
        (_, Some(rest)) => rest.len() == 17 && is_word(rest),
        _ => false,
    }
}

fn ping_status(instance: &Instance) -> &'static str {
    if instance.is_managed() { "Online" } else { "ConnectionLost" }
}

fn instance_information(call: &Call<'_>, instance: &Instance) -> Value {
    let (platform, version) = instance.platform.name_and_version();
    json!({
        "InstanceId": instance.id,
        "PingStatus": ping_status(instance),
        "LastPingDateTime": calendar::unix_seconds(call.now - instance.silence()),
        "AgentVersion": instance.ssm_agent_version,
        "IsLatestVersion": instance.condition != Condition::SsmAgentOld,
        "PlatformType": "Linux",
        "PlatformName": platform,
        "PlatformVersion": version,
        "ResourceType": "EC2Instance",
        "IPAddress": instance.private_address,
        "ComputerName": instance.private_dns_name,
        "SourceId": instance.id,
        "SourceType": "AWS::EC2::Instance",
    })
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeSessions {
    state: Option<String>,
    filters: Option<Vec<SessionFilter>>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SessionFilter {
    key: String,
    value: String,
}

/// The caller's sessions, newest first: the connected ones, or the ended ones.
pub(super) fn sessions(call: &Call<'_>, input: &DescribeSessions) -> Result<Value, ApiError> {
    let size = check_sessions(input)?;
    let state = if input.state.as_deref() == Some("Active") {
        SessionState::Connected
    } else {
        SessionState::Terminated
    };
    let filters = input.filters.as_deref().unwrap_or_default();
    let mut found = call.world.sessions();
    found.reverse();
    found.retain(|session| session.opening.region == call.region && session.state() == state);
    found.retain(|session| filters.iter().all(|filter| passes(session, &filter.key, &filter.value)));
    let reach = page::Reach::of(filters.len());
    let (found, next) = page::page(found, size, reach, input.next_token.as_deref())?;
    Ok(with_token(json!({"Sessions": found.iter().map(session).collect::<Vec<_>>()}), next))
}

/// Checks the constraints of the service model and the API reference. Returns the size of a page.
fn check_sessions(input: &DescribeSessions) -> Result<usize, ApiError> {
    let mut constraints = Constraints::default();
    constraints.required("state", input.state.as_deref());
    constraints.one_of("state", input.state.as_deref(), &["Active", "History"]);
    constraints.range("maxResults", input.max_results, 1, 200);
    constraints.count("filters", input.filters.as_deref(), 1, 6);
    for (number, SessionFilter { key, value }) in (1..).zip(input.filters.iter().flatten()) {
        let member = format!("filters.{number}.member");
        constraints.one_of(&format!("{member}.key"), Some(key), &SESSION_KEYS);
        let member = format!("{member}.value");
        constraints.length(&member, Some(value), 1, 400);
        match key.as_str() {
            "InvokedAfter" | "InvokedBefore" => {
                let is_time = |text: &str| calendar::parse_extended(text).is_some();
                constraints.pattern(&member, Some(value), "YYYY-MM-DDThh:mm:ssZ", is_time);
            }
            "Status" => constraints.one_of(&member, Some(value), &SESSION_STATUSES),
            _ => {}
        }
    }
    constraints.finish()?;
    Ok(input.max_results.and_then(|size| usize::try_from(size).ok()).unwrap_or(200))
}

fn passes(session: &SessionRecord, key: &str, value: &str) -> bool {
    let time = || calendar::parse_extended(value).unwrap_or(SystemTime::UNIX_EPOCH);
    match key {
        "AccessType" => value == "Standard",
        "InvokedAfter" => session.started >= time(),
        "InvokedBefore" => session.started < time(),
        "Owner" => session.owner == value,
        "SessionId" => session.id == value,
        "Status" => status(session) == value,
        "Target" => session.opening.target == value,
        _ => false,
    }
}

/// AWS does not document when a session is `Connecting`; here it is until a client opens the data channel.
fn status(session: &SessionRecord) -> &'static str {
    match session.state() {
        SessionState::Connected if session.was_attached() => "Connected",
        SessionState::Connected => "Connecting",
        SessionState::Terminated => "Terminated",
    }
}

fn session(session: &SessionRecord) -> Value {
    let mut value = json!({
        "SessionId": session.id,
        "Target": session.opening.target,
        "Status": status(session),
        "StartDate": calendar::unix_seconds(session.started),
        "DocumentName": session.opening.document,
        "Owner": session.owner,
        "Details": "",
        "OutputUrl": {},
        "AccessType": "Standard",
    });
    if let Some(ended) = session.ended {
        value["EndDate"] = json!(calendar::unix_seconds(ended));
    }
    if let Some(reason) = &session.opening.reason {
        value["Reason"] = json!(reason);
    }
    value
}

fn with_token(mut output: Value, next: Option<String>) -> Value {
    if let Some(next) = next {
        output["NextToken"] = json!(next);
    }
    output
}

/// Fewer than there are instances, to detect a client that ignores `NextToken`.
const INSTANCES_PER_PAGE: usize = 10;
const LEGACY_KEYS: [&str; 8] = [
    "InstanceIds",
    "AgentVersion",
    "PingStatus",
    "PlatformTypes",
    "ActivationIds",
    "IamRole",
    "ResourceType",
    "AssociationStatus",
];
const SESSION_KEYS: [&str; 7] =
    ["InvokedAfter", "InvokedBefore", "Target", "Owner", "Status", "SessionId", "AccessType"];
const SESSION_STATUSES: [&str; 6] =
    ["Connected", "Connecting", "Disconnected", "Terminated", "Terminating", "Failed"];
