//! The list of instances, and the region of each.
//!
//! Tests and documents name them by id and address, so rows are added at the end and never changed. Instances
//! with ids `i-0decaf…` work, those with `i-0dead…` do not. The nodes of a fleet have ids of their own,
//! see `fleet`.

use std::time::Duration;

use super::{
    aws_region::AwsRegion,
    instance::{Condition, Console, Instance, Platform, reservation},
};

/// Every instance, those of the home region first.
pub(super) fn catalogue() -> Vec<Instance> {
    let rows = (11_u8..).zip(CATALOGUE);
    let mut instances: Vec<_> = rows.map(|(host, row)| row.instance(host)).collect();
    for instance in &mut instances {
        adorn(instance);
    }
    // The sort is stable: within a region the rows keep their order.
    instances.sort_by_key(|instance| instance.region);
    instances
}

/// Properties of single instances that are not in their rows.
fn adorn(instance: &mut Instance) {
    match instance.id.as_str() {
        "i-0decaf00000000002" => instance.reservation = reservation("i-0decaf00000000001"),
        "i-0decaf00000000004" => {
            instance.platform = Platform::Ubuntu;
            instance.age = 3 * DAY;
        }
        "i-0decaf00000000005" => {
            instance.tag("ssh_ec2:user", "deploy");
            instance.instance_type = "m7i.large";
            instance.age = 41 * DAY;
        }
        "i-0decaf00000000006" => {
            instance.tag(GROUP_TAG, "workers");
            instance.instance_type = "c7i.large";
            instance.age = 26 * HOUR;
        }
        "i-0decaf00000000007" => {
            instance.tag(GROUP_TAG, "workers");
            instance.instance_type = "c7i.large";
            instance.reservation = reservation("i-0decaf00000000006");
            instance.age = 2 * HOUR;
            instance.ipv6_address = Some("2001:db8::17".to_owned());
        }
        "i-0decaf00000000008" => instance.console = Console::NoKeys,
        "i-0decaf00000000009" => instance.console = Console::Fingerprints,
        "i-0decaf0000000000b" => instance.console = Console::KeysInLatest,
        "i-0dead000000000015" => instance.ssm_agent_version = "2.3.50.0",
        "i-0dead00000000001b" => instance.age = Duration::from_secs(20),
        "i-0dead00000000001e" => instance.age = Duration::from_secs(40),
        "i-0dead000000000010" => instance.age = 200 * DAY,
        _ => {}
    }
}

struct Row(&'static str, &'static str, AwsRegion, Condition);

impl Row {
    fn instance(&self, host: u8) -> Instance {
        let Self(id, name, region, condition) = *self;
        let private_address = [10, region.network(), 0, host].into();
        let mut instance = Instance::new(id.to_owned(), name.to_owned(), region, private_address);
        instance.condition = condition;
        let without_address = matches!(condition, Condition::Stopped | Condition::Terminated);
        // Databases have no public address, and a stopped instance has lost its own.
        instance.public_address =
            (!name.starts_with("db") && !without_address).then(|| format!("203.0.113.{host}"));
        instance.availability_zone = format!("{region}{}", if host % 2 == 1 { "a" } else { "b" });
        instance.tag("Environment", "sandbox");
        instance
    }
}

use AwsRegion::{EuWest1, UsEast1};

const CATALOGUE: &[Row] = &[
    Row("i-0decaf00000000001", "web-1", UsEast1, Condition::Healthy),
    Row("i-0decaf00000000002", "web-2", UsEast1, Condition::Healthy),
    Row("i-0decaf00000000003", "db-1", UsEast1, Condition::Healthy),
    Row("i-0dead000000000001", "stopped", UsEast1, Condition::Stopped),
    Row("i-0dead000000000002", "agent-offline", UsEast1, Condition::SsmAgentOffline),
    Row("i-0dead000000000003", "no-instance-connect", UsEast1, Condition::InstanceConnectAbsent),
    Row("i-0dead000000000004", "port-closed", UsEast1, Condition::PortClosed),
    Row("i-0dead000000000005", "push-denied", UsEast1, Condition::Denied(PUSH)),
    Row("i-0dead000000000006", "start-denied", UsEast1, Condition::Denied(&["ssm:StartSession"])),
    Row("i-0dead000000000007", "end-denied", UsEast1, Condition::Denied(END)),
    Row("i-0dead000000000008", "throttled", UsEast1, Condition::Throttled { calls: Some(2) }),
    Row("i-0dead000000000009", "throttled-for-ever", UsEast1, Condition::Throttled { calls: None }),
    Row("i-0decaf00000000004", "web-3", UsEast1, Condition::Healthy),
    Row("i-0decaf00000000005", "api", UsEast1, Condition::Healthy),
    Row("i-0decaf00000000006", "worker", UsEast1, Condition::Healthy),
    Row("i-0decaf00000000007", "worker", UsEast1, Condition::Healthy),
    Row("i-0dead000000000010", "sleeper", UsEast1, Condition::Stopped),
    Row("i-0dead000000000011", HOSTILE_NAME, UsEast1, Condition::HostileName),
    Row("i-0decaf0000000000a", "eu-web", EuWest1, Condition::Healthy),
    Row("i-0decaf00000000008", "no-console", UsEast1, Condition::Healthy),
    Row("i-0decaf00000000009", "fingerprints", UsEast1, Condition::Healthy),
    Row("i-0decaf0000000000b", "rebooted", UsEast1, Condition::Healthy),
    Row("i-0dead00000000001d", "impostor", UsEast1, Condition::Impostor),
    Row("i-0dead000000000012", "terminated", UsEast1, Condition::Terminated),
    Row("i-0dead000000000013", "no-profile", UsEast1, Condition::NoInstanceProfile),
    Row("i-0dead000000000014", "unregistered", UsEast1, Condition::SsmAgentUnregistered),
    Row("i-0dead000000000015", "old-agent", UsEast1, Condition::SsmAgentOld),
    Row("i-0dead000000000016", "silent-agent", UsEast1, Condition::SsmAgentSilent),
    Row("i-0dead000000000017", "not-ssh", UsEast1, Condition::NotSsh),
    Row("i-0dead000000000018", "wrong-clock", UsEast1, Condition::ClockAhead),
    Row("i-0dead000000000019", "no-keys-command", UsEast1, Condition::KeysCommandAbsent),
    Row("i-0dead00000000001a", "selinux", UsEast1, Condition::SeLinux),
    Row("i-0dead00000000001b", "booting", UsEast1, Condition::Booting),
    Row("i-0dead00000000001e", "fresh", UsEast1, Condition::SsmAgentUnregistered),
    Row("i-0dead00000000001f", "without-ed25519", UsEast1, Condition::Fips),
    Row("i-0dead000000000020", "without-keys", UsEast1, Condition::PublicKeysOff),
];

const PUSH: &[&str] = &["ec2-instance-connect:SendSSHPublicKey"];
const END: &[&str] = &["ssm:TerminateSession", "ssm:ResumeSession"];
const GROUP_TAG: &str = "aws:autoscaling:groupName";

/// Clears a terminal and sets its title. XML cannot carry ESC and BEL, so EC2 never shows those; it can carry
/// U+009B, which begins a control sequence like ESC `[` and hides text after the name.
const HOSTILE_NAME: &str = "evil\x1b[2J\x1b]0;owned\x07\u{9b}";

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_and_addresses_are_unique() {
        let instances = catalogue();
        let keys: [fn(&Instance) -> &str; 3] = [|i| &i.id, |i| &i.private_address, |i| &i.private_dns_name];
        for key in keys {
            assert_eq!(instances.iter().map(key).collect::<BTreeSet<_>>().len(), instances.len());
        }
    }

    #[test]
    fn an_id_tells_whether_its_instance_works() {
        for instance in catalogue() {
            assert_eq!(instance.id.starts_with("i-0decaf"), instance.condition == Condition::Healthy);
            assert_eq!(instance.id.len(), 19, "{}", instance.id);
        }
    }

    #[test]
    fn the_home_region_comes_first_and_its_first_instances_are_numbered() {
        let instances = catalogue();
        assert!(instances.is_sorted_by_key(|instance| instance.region));
        assert_eq!(instances[0].private_address, "10.0.0.11");
        assert_eq!(instances[11].private_dns_name, "ip-10-0-0-22.ec2.internal");
    }

    #[test]
    fn a_denied_action_is_denied_alone() {
        let instance = catalogue().into_iter().find(|instance| instance.name == "end-denied").unwrap();
        assert!(!instance.permits("ssm:TerminateSession"));
        assert!(!instance.permits("ssm:ResumeSession"));
        assert!(instance.permits("ssm:StartSession"));
    }
}
