//! EC2, as far as finding an instance needs it: DescribeInstances and DescribeRegions, read-only.

use super::{Call, error::ApiError, page, query::Query, xml::Xml};
use crate::{
    calendar,
    world::{ACCOUNT, Instance, REGION},
};

mod filter;

/// Performs `action`; `None` if there is no such action.
pub(super) fn perform(call: &Call<'_>, action: &str, query: &Query) -> Option<Result<String, ApiError>> {
    match action {
        "DescribeInstances" => Some(describe_instances(call, query)),
        "DescribeRegions" => Some(Ok(describe_regions(call))),
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
    let mut found: Vec<&Instance> = call.world.instances().iter().collect();
    found.retain(|instance| ids.is_empty() || ids.contains(&instance.id));
    for (name, patterns) in query.filters() {
        filter::retain(call.world.instances(), &mut found, name, &patterns)?;
    }
    let (found, next) = page::page(found, size.unwrap_or(MOST_RESULTS), query.value("NextToken"))
        .map_err(|_| ApiError::new("InvalidParameterValue", "Invalid value for nextToken"))?;

    let mut xml = Xml::document();
    xml.root("DescribeInstancesResponse", NAMESPACE, |xml| {
        xml.text("requestId", call.request_id);
        xml.list("reservationSet", found, |xml, instance| reservation(xml, call, instance));
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
    let unknown: Vec<_> = ids.iter().copied().filter(|id| call.world.instance(id).is_none()).collect();
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

fn reservation(xml: &mut Xml, call: &Call<'_>, instance: &Instance) {
    xml.text("reservationId", instance.id.replacen("i-", "r-", 1));
    xml.text("ownerId", ACCOUNT);
    xml.element("groupSet", |_| ());
    xml.list("instancesSet", [instance], |xml, instance| item(xml, call, instance));
}

fn item(xml: &mut Xml, call: &Call<'_>, instance: &Instance) {
    xml.text("instanceId", instance.id);
    xml.text("imageId", "ami-0decaf00000000000");
    xml.element("instanceState", |xml| {
        xml.text("code", instance.state().code());
        xml.text("name", instance.state());
    });
    xml.text("privateDnsName", &instance.private_dns_name);
    xml.text("dnsName", filter::public_dns_name(instance).unwrap_or_default());
    xml.text("amiLaunchIndex", 0);
    xml.element("productCodes", |_| ());
    xml.text("instanceType", "t3.micro");
    // Launched longer ago than the region runs, as instances are.
    xml.text("launchTime", calendar::extended(call.world.started() - UPTIME));
    xml.element("placement", |xml| {
        xml.text("availabilityZone", instance.availability_zone);
        xml.text("tenancy", "default");
    });
    xml.text("platformDetails", "Linux/UNIX");
    xml.element("monitoring", |xml| xml.text("state", "disabled"));
    xml.text("subnetId", SUBNET);
    xml.text("vpcId", VPC);
    xml.text("privateIpAddress", &instance.private_address);
    if let Some(address) = &instance.public_address {
        xml.text("ipAddress", address);
    }
    xml.text("architecture", "x86_64");
    xml.text("rootDeviceType", "ebs");
    xml.text("rootDeviceName", "/dev/xvda");
    xml.list("tagSet", instance.tags(), |xml, (key, value)| {
        xml.text("key", key);
        xml.text("value", value);
    });
}

fn describe_regions(call: &Call<'_>) -> String {
    let mut xml = Xml::document();
    xml.root("DescribeRegionsResponse", NAMESPACE, |xml| {
        xml.text("requestId", call.request_id);
        xml.list("regionInfo", [REGION], |xml, region| {
            xml.text("regionName", region);
            xml.text("regionEndpoint", format!("ec2.{region}.amazonaws.com"));
            xml.text("optInStatus", "opt-in-not-required");
        });
    });
    xml.finish()
}

const MOST_RESULTS: usize = 1000;
const NAMESPACE: &str = "http://ec2.amazonaws.com/doc/2016-11-15/";
const SUBNET: &str = "subnet-0decaf00000000000";
const UPTIME: std::time::Duration = std::time::Duration::from_secs(17 * 24 * 60 * 60);
const VPC: &str = "vpc-0decaf00000000000";
