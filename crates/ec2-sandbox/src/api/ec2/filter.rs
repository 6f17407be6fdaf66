//! The filters of the Describe calls. Values of one filter are alternatives; `*`, `?` and `\` are special.

use super::{ARCHITECTURE, PLATFORM, PROFILE_ID, SUBNET, VPC};
use crate::{
    api::{Call, error::ApiError, query::Query},
    world::{ACCOUNT, Instance},
};

/// The filters of a call, by name, each with its values.
///
/// The limits are those of EC2's error `FilterLimitExceeded`. EC2 has been seen to take a filter without
/// values, and to find nothing with it (moto's pull request 8570, of DescribeSubnets). Such a filter is a
/// client's mistake, so it is refused here.
pub(super) fn read(query: &Query) -> Result<Vec<(&str, Vec<&str>)>, ApiError> {
    let filters = query.filters();
    let values: usize = filters.iter().map(|(_, values)| values.len()).sum();
    if filters.len() > MOST_FILTERS || values > MOST_VALUES {
        let message =
            format!("The maximum number of filter values specified on a single call is {MOST_VALUES}");
        return Err(ApiError::new("FilterLimitExceeded", message));
    }
    let check = |(name, values): (Option<&'_ str>, Vec<_>)| match name {
        Some(name) if values.is_empty() => {
            Err(ApiError::new("InvalidParameterValue", format!("The filter '{name}' has no value")))
        }
        Some(_) => Ok(()),
        None => Err(invalid("null")),
    };
    filters.iter().cloned().try_for_each(check)?;
    Ok(filters.into_iter().filter_map(|(name, values)| Some((name?, values))).collect())
}

/// Keeps those of `instances` that match the filter `name`.
pub(super) fn retain(
    call: &Call<'_>,
    instances: &mut Vec<&Instance>,
    name: &str,
    patterns: &[&str],
) -> Result<(), ApiError> {
    // Every instance has the fields of all filters.
    if call.world.instances().iter().all(|instance| fields(call, instance, name).is_none()) {
        return Err(invalid(name));
    }
    let accepts = |field: &String| accepts(patterns, field);
    instances
        .retain(|instance| fields(call, instance, name).is_some_and(|fields| fields.iter().any(accepts)));
    Ok(())
}

/// There is no filter of this name.
pub(super) fn invalid(name: &str) -> ApiError {
    ApiError::new("InvalidParameterValue", format!("The filter '{name}' is invalid"))
}

/// Whether one of `patterns` matches `text`.
pub(super) fn accepts(patterns: &[&str], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), text.as_bytes()))
}

/// The values that the filter compares, one of which must match; `None` if there is no such filter.
fn fields(call: &Call<'_>, instance: &Instance, name: &str) -> Option<Vec<String>> {
    let one = |text: &str| vec![text.to_owned()];
    let one_if_networked = |text: &str| if instance.has_network() { one(text) } else { Vec::new() };
    let one_if_profiled = |text: &str| if instance.has_profile() { one(text) } else { Vec::new() };
    Some(match name {
        "architecture" => one(ARCHITECTURE),
        "availability-zone" => one(&instance.availability_zone),
        "dns-name" => instance.public_dns_name().into_iter().collect(),
        // Security groups, key pairs and Windows: no instance of the region has any.
        "group-id" | "group-name" | "instance.group-id" | "instance.group-name" | "key-name" | "platform" => {
            Vec::new()
        }
        "iam-instance-profile.arn" => one_if_profiled(&super::profile_arn()),
        "iam-instance-profile.id" => one_if_profiled(PROFILE_ID),
        "image-id" => one(instance.platform.image()),
        "instance-id" => one(&instance.id),
        "instance-state-code" => one(&instance.state().code().to_string()),
        "instance-state-name" => one(&instance.state().to_string()),
        "instance-type" => one(instance.instance_type),
        "ip-address" => instance.public_address.iter().cloned().collect(),
        "ipv6-address"
        | "network-interface.ipv6-address"
        | "network-interface.ipv6-addresses.ipv6-address" => instance.ipv6_address.iter().cloned().collect(),
        "network-interface.addresses.private-ip-address" | "private-ip-address" => {
            one_if_networked(&instance.private_address)
        }
        "launch-time" => one(&super::launch_time(call, instance)),
        "network-interface.network-interface-id" => one_if_networked(&instance.id.replacen("i-", "eni-", 1)),
        "owner-id" => one(ACCOUNT),
        "platform-details" => one(PLATFORM),
        "private-dns-name" => one_if_networked(&instance.private_dns_name),
        "reservation-id" => one(&instance.reservation),
        "root-device-name" => one(instance.platform.root_device()),
        "root-device-type" => one("ebs"),
        "subnet-id" => one_if_networked(SUBNET),
        "tag-key" => instance.tags.iter().map(|(key, _)| (*key).to_owned()).collect(),
        "tenancy" => one("default"),
        "vpc-id" => one_if_networked(VPC),
        _ => {
            let tag = name.strip_prefix("tag:")?;
            let tags = instance.tags.iter().filter(|(key, _)| *key == tag);
            tags.map(|(_, value)| value.clone()).collect()
        }
    })
}

/// `*` matches any text, `?` any byte; `\` escapes the next character.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern, text) {
        ([], _) => text.is_empty(),
        ([b'*', rest @ ..], _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        ([b'\\', literal, rest @ ..], [first, tail @ ..]) => literal == first && matches(rest, tail),
        ([b'?', rest @ ..], [_, tail @ ..]) => matches(rest, tail),
        ([literal, rest @ ..], [first, tail @ ..]) => literal == first && matches(rest, tail),
        (_, []) => false,
    }
}

const MOST_FILTERS: usize = 50;
const MOST_VALUES: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_have_wildcards_and_escapes() {
        for (pattern, text, expected) in [
            ("web-1", "web-1", true),
            ("web-1", "web-12", false),
            ("web-*", "web-12", true),
            ("*-1*", "web-12", true),
            ("web-?", "web-12", false),
            ("web-??", "web-12", true),
            (r"web-\*", "web-1", false),
            (r"web-\*", "web-*", true),
            (r"a\\b", r"a\b", true),
            ("Web-1", "web-1", false),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), expected, "{pattern} {text}");
        }
    }
}
