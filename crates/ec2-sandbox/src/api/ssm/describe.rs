//! DescribeInstanceInformation and DescribeSessions.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{bounded, constraint};
use crate::{
    api::{Call, error::ApiError, page},
    calendar,
    world::{Condition, Instance, SessionRecord, SessionState},
};

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeInstanceInformation {
    filters: Option<Vec<Filter>>,
    #[serde(rename = "InstanceInformationFilterList")]
    legacy_filters: Option<Vec<LegacyFilter>>,
    max_results: Option<usize>,
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

/// The instances that Session Manager knows, with the state of their SSM agents.
pub(super) fn instances(call: &Call<'_>, input: &DescribeInstanceInformation) -> Result<Value, ApiError> {
    let size = bounded(input.max_results, "maxResults", 5, 50)?.unwrap_or(INSTANCES_PER_PAGE);
    let new = input.filters.iter().flatten().map(|filter| (&filter.key, &filter.values));
    let legacy = input.legacy_filters.iter().flatten().map(|filter| (&filter.key, &filter.value_set));
    if new.clone().count() > 0 && legacy.clone().count() > 0 {
        let message = "InstanceInformationFilterList and Filters cannot be used together.";
        return Err(ApiError::new("ValidationException", message));
    }
    let mut found: Vec<&Instance> = call.instances().filter(|instance| instance.is_registered()).collect();
    for (key, values) in new.chain(legacy) {
        // All instances: that the region has none makes no key wrong.
        if call.world.instances().iter().all(|instance| fields(instance, key).is_none()) {
            return Err(ApiError::new("InvalidFilterKey", "The specified key isn't valid."));
        }
        let accepts = |field: &String| values.contains(field);
        found.retain(|instance| fields(instance, key).is_some_and(|fields| fields.iter().any(accepts)));
    }
    let (found, next) = page::page(found, size, input.next_token.as_deref())?;
    let list: Vec<_> = found.iter().map(|instance| instance_information(call, instance)).collect();
    Ok(with_token(json!({"InstanceInformationList": list}), next))
}

/// What a filter compares, any one of which may match; `None` if there is no such filter.
fn fields(instance: &Instance, key: &str) -> Option<Vec<String>> {
    let text = match key {
        "AgentVersion" => instance.ssm_agent_version,
        "InstanceIds" => &instance.id,
        "PingStatus" => ping_status(instance),
        "PlatformTypes" => "Linux",
        "ResourceType" => "EC2Instance",
        "tag-key" => return Some(instance.tags.iter().map(|(key, _)| (*key).to_owned()).collect()),
        _ => {
            let tag = key.strip_prefix("tag:")?;
            let tags = instance.tags.iter().filter(|(key, _)| *key == tag);
            return Some(tags.map(|(_, value)| value.clone()).collect());
        }
    };
    Some(vec![text.to_owned()])
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
    max_results: Option<usize>,
    next_token: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SessionFilter {
    key: String,
    value: String,
}

/// The caller's sessions, newest first: those that live, or those that have ended.
pub(super) fn sessions(call: &Call<'_>, input: &DescribeSessions) -> Result<Value, ApiError> {
    let state = match input.state.as_deref() {
        Some("Active") => SessionState::Connected,
        Some("History") => SessionState::Terminated,
        _ => return Err(constraint("state", "Member must satisfy enum value set: [Active, History]")),
    };
    let size = bounded(input.max_results, "maxResults", 1, 200)?.unwrap_or(200);
    let mut found = call.world.sessions();
    found.reverse();
    found.retain(|session| session.opening.region == call.region && session.state() == state);
    for filter in input.filters.iter().flatten() {
        if !["AccessType", "Owner", "SessionId", "Status", "Target"].contains(&filter.key.as_str()) {
            return Err(ApiError::new("InvalidFilterKey", "The specified key isn't valid."));
        }
        found.retain(|session| session_field(session, &filter.key) == Some(&filter.value));
    }
    let (found, next) = page::page(found, size, input.next_token.as_deref())?;
    Ok(with_token(json!({"Sessions": found.iter().map(session).collect::<Vec<_>>()}), next))
}

/// What a filter compares; `None` if the region has no such filter. Those by date are left out.
fn session_field<'a>(session: &'a SessionRecord, key: &str) -> Option<&'a str> {
    Some(match key {
        "AccessType" => "Standard",
        "Owner" => &session.owner,
        "SessionId" => &session.id,
        "Status" => status(session),
        "Target" => &session.opening.target,
        _ => return None,
    })
}

fn status(session: &SessionRecord) -> &'static str {
    match session.state() {
        SessionState::Connected => "Connected",
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

/// Fewer than there are instances, so that a client that ignores `NextToken` is found out.
const INSTANCES_PER_PAGE: usize = 10;
