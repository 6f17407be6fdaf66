//! Any number of healthy instances, to test clients with many.
//!
//! They are spread evenly over the regions. Each is derived from its number alone, so two fleets of one size
//! are equal.

use std::{net::Ipv4Addr, time::Duration};

use super::{
    aws_region::AwsRegion,
    instance::{Instance, reservation},
};

/// The instances `node-0001` and so on.
pub(super) fn fleet(size: usize) -> impl Iterator<Item = Instance> {
    let places = (0..).flat_map(|row: u32| AwsRegion::ALL.map(|region| (row, region)));
    (1..=size).zip(places).map(|(number, (row, region))| node(number, row, region))
}

/// The id of the node with this number. In decimal digits, which are valid hexadecimal ones.
fn id(number: usize) -> String {
    format!("i-0f1ee7{number:011}")
}

/// The name of the node with this number.
pub(crate) fn name(number: usize) -> String {
    format!("node-{number:04}")
}

/// The node with this number, after `row` other nodes of its region.
fn node(number: usize, row: u32, region: AwsRegion) -> Instance {
    let network = u32::from(Ipv4Addr::new(10, region.network(), 16, 0));
    let private_address = Ipv4Addr::from(network + row);
    let mut node = Instance::new(id(number), name(number), region, private_address);
    // Three rows of a region were launched by one call, and restarted since.
    node.reservation = reservation(&id(number - AwsRegion::ALL.len() * (row as usize % TOGETHER)));
    // 198.18.0.0/15 is reserved for measurements (RFC 2544).
    let public = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + u32::try_from(number).unwrap_or_default();
    node.public_address = Some(Ipv4Addr::from(public).to_string());
    node.availability_zone = format!("{region}{}", ["a", "b", "c"][row as usize % 3]);
    node.instance_type = "t3.small";
    node.age = LAUNCH_INTERVAL * (row % LAUNCHES + 1);
    node.tag("Team", if row.is_multiple_of(2) { "blue" } else { "green" });
    node
}

/// Odd, so that no two launches of a day share a minute.
const LAUNCH_INTERVAL: Duration = Duration::from_secs(37 * 60);
/// Half a year of launches; then they start over, or large fleets would be older than EC2.
const LAUNCHES: u32 = 7000;
/// How many nodes one call launched.
const TOGETHER: usize = 3;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_fleet_is_spread_evenly_and_has_no_double() {
        let nodes: Vec<_> = fleet(1001).collect();
        let counts = AwsRegion::ALL.map(|region| nodes.iter().filter(|node| node.region == region).count());
        assert_eq!(counts, [251, 250, 250, 250]);
        let keys: [fn(&Instance) -> &str; 4] =
            [|i| &i.id, |i| &i.name, |i| &i.private_address, |i| i.public_address.as_deref().unwrap()];
        for key in keys {
            assert_eq!(nodes.iter().map(key).collect::<BTreeSet<_>>().len(), nodes.len());
        }
        assert!(nodes.iter().all(|node| node.id.len() == 19));
    }

    #[test]
    fn a_node_is_told_by_its_number() {
        let nodes: Vec<_> = fleet(12).collect();
        let shown = |number: usize| {
            let node = &nodes[number - 1];
            (node.id.as_str(), node.name.as_str(), node.region.name(), node.tags[1].1.as_str())
        };
        assert_eq!(shown(1), ("i-0f1ee700000000001", "node-0001", "us-east-1", "blue"));
        assert_eq!(shown(5), ("i-0f1ee700000000005", "node-0005", "us-east-1", "green"));
        assert_eq!(shown(12), ("i-0f1ee700000000012", "node-0012", "ap-southeast-2", "blue"));
    }
}
