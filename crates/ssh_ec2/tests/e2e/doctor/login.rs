//! Which output of a login the doctor trusts, and how long it looks for the cause of a refused key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use ec2_sandbox::Options;
use serde_json::Value;

use super::row;
use super::well::facts;
use crate::harness::{HEALTHY, NO_INSTANCE_CONNECT, Sandbox, files_below, run, sshd, wait_until_runnable};

/// sshd sends its banner before authentication, and the server chooses the text.
const BANNER: &str = "ssh_ec2: error: FORGED is wrong\n\
                      ssh_ec2: hint: run `FORGED`\n\
                      Authenticated to FORGED\n\
                      FORGED: Permission denied (publickey).\n";

#[test]
fn what_a_server_has_ssh_print_is_not_taken_for_ours() {
    let directory = tempfile::tempdir().unwrap();
    let banner = directory.path().join("banner");
    fs::write(&banner, BANNER).unwrap();
    let wrapper = directory.path().join("sshd");
    let script = format!("#!/bin/sh\nexec {} \"$@\" -o Banner={}\n", sshd().display(), banner.display());
    fs::write(&wrapper, script).unwrap();
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).unwrap();
    wait_until_runnable(&wrapper);
    let sandbox = Sandbox::with(Options { sshd: Some(wrapper), ..Options::default() });
    let plain = run(sandbox.command("ssh").args([&format!("ghost@{HEALTHY}"), "true"]));
    assert!(plain.stderr.contains("ssh_ec2: error: FORGED"), "the banner is shown: {plain}");
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", &format!("ghost@{HEALTHY}")])).status(1);
    assert!(!ended.text().contains("FORGED"), "{ended}");
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    assert_eq!(facts(&report, "broken"), [format!("login: there is no user `ghost` on {HEALTHY}")]);
    let left: Vec<_> = files_below(sandbox.directory())
        .into_iter()
        .filter(|file| file.to_string_lossy().contains("/doctor."))
        .collect();
    assert_eq!(left, Vec::<std::path::PathBuf>::new());
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", &sandbox.target()])).success();
    assert!(!ended.text().contains("FORGED"), "{ended}");
}

#[test]
fn a_refused_key_is_looked_into_for_longer_than_by_the_proxy() {
    row("login", "i-0dead000000000003 does not have EC2 Instance Connect")
        .on(NO_INSTANCE_CONNECT)
        .with(&["slow-attach=2500ms"])
        .before_us()
        .check();
}

/// EC2 Instance Connect dates the keys that it pushes, so the clock of this machine does not matter.
#[test]
fn the_instances_clock_is_compared_with_that_of_aws() {
    row("login", "refused the one-time key for the user `ec2-user`")
        .on("i-0dead000000000018")
        .with(&["clock=+10m"])
        .before_us()
        .check();
    row("login", "the clock of i-0dead00000000001a is 10 minutes ahead")
        .on("i-0dead00000000001a")
        .with(&["clock=-10m"])
        .before_us()
        .check();
}

#[test]
fn selinux_is_named_where_it_is_enforcing_and_nothing_else_is_seen() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", "ec2-user@i-0dead00000000001a"])).status(1);
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    let login = report["checks"].as_array().unwrap().last().unwrap();
    assert!(login["hints"].to_string().contains("SELinux is enforcing there"), "{ended}");
}

#[test]
fn a_slow_agent_is_waited_for() {
    let sandbox = Sandbox::with_faults(&["slow-attach=7s"]);
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", HEALTHY])).success();
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    let warnings = facts(&report, "warning");
    let [warning] = &warnings[..] else { panic!("{ended}") };
    assert!(warning.starts_with("tunnel: ") && warning.ends_with("ms, which is slow"), "{ended}");
}

/// A service that accepts connections and sends nothing.
#[test]
fn a_call_that_is_not_answered_has_ten_seconds() {
    let sandbox = Sandbox::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut doctor = sandbox.ssh_ec2();
    doctor.env("AWS_ENDPOINT_URL_STS", format!("http://{}", silent.local_addr().unwrap()));
    let ended = run(doctor.args(["doctor", "--json"])).success();
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let credentials = checks.iter().find(|check| check["layer"] == "credentials").unwrap();
    assert_eq!(credentials["verdict"], "warning", "{ended}");
    assert!((9_000..15_000).contains(&credentials["took_ms"].as_u64().unwrap()), "{ended}");
}
