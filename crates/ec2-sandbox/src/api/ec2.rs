//! The EC2 actions that find an instance and its host keys: DescribeInstances, DescribeRegions and
//! GetConsoleOutput. All are read-only.

use std::collections::HashMap;

use http::StatusCode;

use super::{Call, error::ApiError, page, query::Query, xml::Xml};
use crate::{
    calendar,
    world::{ACCOUNT, Instance},
};

mod console;
mod filter;
mod regions;

/// Performs `action`; `None` if there is no such action. A dry run makes the same checks and returns
/// `DryRunOperation` in the place of the result.
pub(super) fn perform(call: &Call<'_>, action: &str, query: &Query) -> Option<Result<String, ApiError>> {
    let answer = answer(call, action, query)?;
    if query.value("DryRun") == Some("true") && answer.is_ok() {
        let message = "Request would have succeeded, but DryRun flag is set.";
        let refusal = ApiError::new("DryRunOperation", message).with_status(StatusCode::PRECONDITION_FAILED);
        return Some(Err(refusal));
    }
    Some(answer)
}

/// A dry run calls this too: all actions are read-only, so the result can be computed and dropped. An action
/// that changes something must not be added here without a check of `DryRun` before the change.
fn answer(call: &Call<'_>, action: &str, query: &Query) -> Option<Result<String, ApiError>> {
    match action {
        "DescribeInstances" => Some(describe_instances(call, query)),
        "DescribeRegions" => Some(regions::describe(call, query)),
        "GetConsoleOutput" => Some(console::output(call, query)),
        _ => None,
    }
}

fn describe_instances(call: &Call<'_>, query: &Query) -> Result<String, ApiError> {
    let ids = query.list("InstanceId");
    let size = max_results(query)?;
    if size.is_some() && !ids.is_empty() {
        let message = "The parameter instancesSet cannot be used with the parameter maxResults";
        return Err(ApiError::new("InvalidParameterCombination", message));
    }
    check_ids(call, &ids)?;
    let mut found: Vec<&Instance> = call.instances().collect();
    found.retain(|instance| ids.is_empty() || ids.contains(&instance.id.as_str()));
    let filters = filter::read(query)?;
    for (name, patterns) in &filters {
        filter::retain(call, &mut found, name, patterns)?;
    }
    let reach = if ids.is_empty() { page::Reach::of(filters.len()) } else { page::Reach::Whole };
    let (found, next) = page::page(found, size.unwrap_or(MOST_RESULTS), reach, query.value("NextToken"))
        .map_err(|_| ApiError::new("InvalidParameterValue", "Invalid value for nextToken"))?;

    let mut xml = Xml::document();
    xml.root("DescribeInstancesResponse", NAMESPACE, |xml| {
        xml.text("requestId", call.request_id);
        xml.list("reservationSet", reservations(&found), |xml, instances| reservation(xml, call, &instances));
        if let Some(next) = next {
            xml.text("nextToken", next);
        }
    });
    Ok(xml.finish())
}

fn max_results(query: &Query) -> Result<Option<usize>, ApiError> {
    let Some(value) = query.value("MaxResults") else { return Ok(None) };
    match value.parse() {
        Ok(size @ 5..=MOST_RESULTS) => Ok(Some(size)),
        _ => {
            let message = format!(
                "Value ( {value} ) for parameter maxResults is invalid. Expecting a value between 5 and {MOST_RESULTS}."
            );
            Err(ApiError::new("InvalidParameterValue", message))
        }
    }
}

fn check_ids(call: &Call<'_>, ids: &[&str]) -> Result<(), ApiError> {
    let malformed = |id: &&&str| {
        let digits = id.strip_prefix("i-").unwrap_or_default();
        !matches!(digits.len(), 8 | 17) || !digits.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if let Some(id) = ids.iter().find(malformed) {
        return Err(ApiError::new("InvalidInstanceID.Malformed", format!("Invalid id: \"{id}\"")));
    }
    let unknown: Vec<_> = ids.iter().copied().filter(|id| call.instance(id).is_none()).collect();
    match unknown.as_slice() {
        [] => Ok(()),
        [id] => {
            Err(ApiError::new("InvalidInstanceID.NotFound", format!("The instance ID '{id}' does not exist")))
        }
        ids => {
            let message = format!("The instance IDs '{}' do not exist", ids.join(", "));
            Err(ApiError::new("InvalidInstanceID.NotFound", message))
        }
    }
}

/// The instances grouped by the call that launched them, in the order of the first of each group.
fn reservations<'a>(instances: &[&'a Instance]) -> Vec<Vec<&'a Instance>> {
    let mut reservations: Vec<Vec<&Instance>> = Vec::new();
    let mut places = HashMap::new();
    for instance in instances {
        let place = *places.entry(&instance.reservation).or_insert(reservations.len());
        match reservations.get_mut(place) {
            Some(reservation) => reservation.push(instance),
            None => reservations.push(vec![instance]),
        }
    }
    reservations
}

fn reservation(xml: &mut Xml, call: &Call<'_>, instances: &[&Instance]) {
    xml.text("reservationId", instances.first().map_or("", |instance| &instance.reservation));
    xml.text("ownerId", ACCOUNT);
    xml.element("groupSet", |_| ());
    xml.list("instancesSet", instances, |xml, instance| item(xml, call, instance));
}

fn item(xml: &mut Xml, call: &Call<'_>, instance: &Instance) {
    xml.text("instanceId", &instance.id);
    xml.text("imageId", instance.platform.image());
    xml.element("instanceState", |xml| {
        xml.text("code", instance.state().code());
        xml.text("name", instance.state());
    });
    xml.text("privateDnsName", if instance.has_network() { &instance.private_dns_name } else { "" });
    xml.text("dnsName", instance.public_dns_name().unwrap_or_default());
    xml.text("amiLaunchIndex", 0);
    xml.element("productCodes", |_| ());
    xml.text("instanceType", instance.instance_type);
    // Before the start of the region.
    xml.text("launchTime", launch_time(call, instance));
    xml.element("placement", |xml| {
        xml.text("availabilityZone", &instance.availability_zone);
        xml.text("tenancy", "default");
    });
    xml.text("platformDetails", PLATFORM);
    xml.element("monitoring", |xml| xml.text("state", "disabled"));
    if instance.has_profile() {
        xml.element("iamInstanceProfile", |xml| {
            xml.text("arn", profile_arn());
            xml.text("id", PROFILE_ID);
        });
    }
    if instance.has_network() {
        xml.text("subnetId", SUBNET);
        xml.text("vpcId", VPC);
        xml.text("privateIpAddress", &instance.private_address);
    }
    if let Some(address) = &instance.public_address {
        xml.text("ipAddress", address);
    }
    if let Some(address) = &instance.ipv6_address {
        xml.text("ipv6Address", address);
    }
    xml.text("architecture", ARCHITECTURE);
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", instance.platform.root_device());
    xml.list("tagSet", &instance.tags, |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
    xml.list("networkInterfaceSet", instance.has_network().then_some(instance), network_interface);
}

fn launch_time(call: &Call<'_>, instance: &Instance) -> String {
    calendar::extended(call.world.started() - instance.age)
}

fn profile_arn() -> String {
    format!("arn:aws:iam::{ACCOUNT}:instance-profile/sandbox")
}

/// The only network interface of an instance.
fn network_interface(xml: &mut Xml, instance: &Instance) {
    xml.text("networkInterfaceId", instance.id.replacen("i-", "eni-", 1));
    xml.text("subnetId", SUBNET);
    xml.text("vpcId", VPC);
    xml.text("ownerId", ACCOUNT);
    xml.text("status", "in-use");
    xml.text("interfaceType", "interface");
    xml.text("privateIpAddress", &instance.private_address);
    xml.text("privateDnsName", &instance.private_dns_name);
    xml.list("privateIpAddressesSet", [instance], |xml, instance| {
        xml.text("privateIpAddress", &instance.private_address);
        xml.text("privateDnsName", &instance.private_dns_name);
        xml.text("primary", true);
    });
    xml.list("ipv6AddressesSet", &instance.ipv6_address, |xml, address| xml.text("ipv6Address", address));
}

const ARCHITECTURE: &str = "x86_64";
const MOST_RESULTS: usize = 1000;
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const PLATFORM: &str = "Linux/UNIX";
const PROFILE_ID: &str = "AIPA0SANDBOX0SANDBOX0";
const SUBNET: &str = "subnet-0decaf00000000000";
const VPC: &str = "vpc-0decaf00000000000";
