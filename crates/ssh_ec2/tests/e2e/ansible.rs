//! Ansible over plain ssh: many forks at once, each with a name of its own.

use std::collections::BTreeMap;
use std::fs;

use ec2_sandbox::{Faults, Options};

use crate::harness::{HEALTHY, Sandbox, WITHOUT_QUOTA, binary, run};

#[test]
fn twenty_forks_reach_twenty_hosts() {
    // Every fourth instance of the fleet is in the tested region.
    let mut faults = Faults::default();
    faults.add(WITHOUT_QUOTA).unwrap();
    let sandbox = Sandbox::with(Options { faults, fleet: 80, ..Options::default() });
    let hosts: Vec<_> = (1..=80).step_by(4).map(|number| format!("node-{number:04}.ec2")).collect();
    let python = "ansible_user=ec2-user ansible_python_interpreter=/usr/bin/python3";
    let inventory: String = hosts.iter().map(|host| format!("{host} {python}\n")).collect();
    fs::write(sandbox.file("hosts"), inventory).unwrap();
    let ping = || {
        let mut command = sandbox.command("ansible");
        command.args(["all", "-i", "hosts", "-f", "20", "-o", "-m", "ping"]);
        // Without ControlMaster each task makes a connection of its own; otherwise the second run would show
        // nothing.
        command.env("ANSIBLE_SSH_ARGS", "-o ControlMaster=no").env("ANSIBLE_PIPELINING", "1");
        let ended = run(&mut command).success();
        let pongs = ended.text().lines().filter(|line| line.contains("| SUCCESS => ")).count();
        assert_eq!(pongs, hosts.len(), "{ended}");
        sandbox.assert_tidy();
    };
    let calls_since = |before: usize| {
        let mut counts = BTreeMap::new();
        for call in sandbox.region.calls().split_off(before) {
            // The SSM agent may have ended the session before TerminateSession.
            assert!(call.ok || call.action == "ssm:TerminateSession", "{call:?}");
            *counts.entry(call.action).or_insert(0) += 1;
        }
        counts
    };
    ping();
    let cold = calls_since(0);
    // The region's first page is empty, as AWS's may be.
    assert_eq!(cold["ec2:DescribeInstances"], 2 * hosts.len(), "one look-up for each name: {cold:?}");
    let before = sandbox.region.calls().len();
    ping();
    let warm = calls_since(before);
    assert_eq!(warm.get("ec2:DescribeInstances"), None, "{warm:?}");
    let connections = warm["ssm:StartSession"];
    assert_eq!(warm["ec2-instance-connect:SendSSHPublicKey"], connections, "{warm:?}");
    assert_eq!(warm["ssm:TerminateSession"], connections, "{warm:?}");
    assert_eq!(warm.len(), 3, "{warm:?}");
    // Three calls for each connection.
    assert_eq!(connections, hosts.len(), "{warm:?}");
}

/// Ansible reads what its ssh prints until that ends, and lets connections persist.
#[test]
fn its_output_shows_why_a_login_failed() {
    let sandbox = Sandbox::start();
    let mut command = sandbox.command("ansible");
    command.args(["all", "-i", &format!("{HEALTHY},"), "-u", "ghost", "-m", "raw", "-a", "true"]);
    let ended = run(command.env("ANSIBLE_SSH_EXECUTABLE", binary())).status(4);
    assert!(ended.text().contains("there is no user `ghost` on"), "{ended}");
    sandbox.assert_tidy();
}
