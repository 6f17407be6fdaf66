//! The filters of the Describe calls. Values of one filter are alternatives; `*`, `?` and `\` are special.

use super::{SUBNET, VPC};
use crate::{api::error::ApiError, world::Instance};

/// Of `instances`, keeps those that the filter `name` lets through. `all` tells which filters there are.
pub(super) fn retain(
    all: &[Instance],
    instances: &mut Vec<&Instance>,
    name: &str,
    patterns: &[&str],
) -> Result<(), ApiError> {
    if all.iter().all(|instance| fields(instance, name).is_none()) {
        return Err(ApiError::new("InvalidParameterValue", format!("The filter '{name}' is invalid")));
    }
    let accepts = |field: &String| accepts(patterns, field);
    instances.retain(|instance| fields(instance, name).is_some_and(|fields| fields.iter().any(accepts)));
    Ok(())
}

/// Whether one of `patterns` stands for `text`.
pub(super) fn accepts(patterns: &[&str], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern.as_bytes(), text.as_bytes()))
}

/// What the filter compares, any one of which may match; `None` if there is no such filter.
fn fields(instance: &Instance, name: &str) -> Option<Vec<String>> {
    let one = |text: &str| vec![text.to_owned()];
    let one_if_networked = |text: &str| if instance.has_network() { one(text) } else { Vec::new() };
    Some(match name {
        "availability-zone" => one(&instance.availability_zone),
        "dns-name" => instance.public_dns_name().into_iter().collect(),
        "instance-id" => one(&instance.id),
        "instance-state-code" => one(&instance.state().code().to_string()),
        "instance-state-name" => one(&instance.state().to_string()),
        "ip-address" => instance.public_address.iter().cloned().collect(),
        "instance-type" => one(instance.instance_type),
        "ipv6-address"
        | "network-interface.ipv6-address"
        | "network-interface.ipv6-addresses.ipv6-address" => instance.ipv6_address.iter().cloned().collect(),
        "network-interface.addresses.private-ip-address" | "private-ip-address" => {
            one_if_networked(&instance.private_address)
        }
        "private-dns-name" => one_if_networked(&instance.private_dns_name),
        "subnet-id" => one_if_networked(SUBNET),
        "tag-key" => instance.tags.iter().map(|(key, _)| (*key).to_owned()).collect(),
        "vpc-id" => one_if_networked(VPC),
        _ => {
            let tag = name.strip_prefix("tag:")?;
            let tags = instance.tags.iter().filter(|(key, _)| *key == tag);
            tags.map(|(_, value)| value.clone()).collect()
        }
    })
}

/// `*` stands for any text, `?` for any byte, `\` takes away what is special of the next.
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
