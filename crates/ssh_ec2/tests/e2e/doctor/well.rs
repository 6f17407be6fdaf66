//! Reports without a broken layer, steps that are skipped, and what a report has besides the first broken
//! layer.

use std::fs;

use ec2_sandbox::ApiCall;
use serde_json::Value;

use super::first;
use crate::harness::{Ended, HEALTHY, PUSH_DENIED, Sandbox, binary, run};

pub(super) fn report(ended: &Ended) -> Value {
    serde_json::from_str(ended.text()).unwrap()
}

pub(super) fn facts(report: &Value, verdict: &str) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let found = checks.filter(|check| check["verdict"] == verdict);
    found
        .map(|check| format!("{}: {}", check["layer"].as_str().unwrap(), check["fact"].as_str().unwrap()))
        .collect()
}

/// The quota of sessions is that of the whole account, so it can be exhausted for a moment.
#[test]
fn sessions_that_cannot_be_started_at_once_are_waited_for() {
    let sandbox = Sandbox::with_faults(&["throttle=StartSession:0.5/1"]);
    for _ in 0..2 {
        let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", &sandbox.target()])).success();
        assert_eq!(report(&ended)["healthy"], true, "{ended}");
    }
    let refused = |call: &ApiCall| call.action == "ssm:StartSession" && !call.ok;
    assert!(sandbox.region.calls().iter().any(refused), "the quota was met");
}

#[test]
fn a_healthy_instance_is_healthy_by_every_name() {
    let sandbox = Sandbox::start();
    for target in [HEALTHY, "web-1", "ec2-user@web-1.ec2", "10.0.0.11"] {
        let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", target])).success();
        let report = report(&ended);
        assert_eq!((&report["healthy"], &report["instance"]), (&true.into(), &HEALTHY.into()), "{ended}");
        assert_eq!((&report["account"], &report["user"]), (&"123456789012".into(), &"ec2-user".into()));
        let layers: Vec<_> = report["checks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|check| check["layer"].as_str().unwrap())
            .collect();
        for layer in [
            "ssh",
            "region",
            "credentials",
            "endpoints",
            "instance",
            "instance-profile",
            "session-manager",
            "key-push",
            "tunnel",
            "sshd",
            "host-key",
            "login",
        ] {
            assert!(layers.contains(&layer), "{layer} is not in {ended}");
        }
        sandbox.assert_tidy();
    }
    let text = run(sandbox.ssh_ec2().args(["doctor", "web-1"])).success();
    assert!(text.text().ends_with("\nweb-1.ec2: all is well\n"), "{text}");
    assert!(text.text().starts_with("ok       ssh              OpenSSH "), "{text}");
    assert_eq!(text.stderr, "");
    let alone = run(sandbox.ssh_ec2().arg("doctor")).success();
    assert!(alone.text().ends_with("\nall is well\n"), "{alone}");
}

#[test]
fn all_goes_on_behind_what_is_broken() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--all", "--json", PUSH_DENIED])).status(1);
    let broken = facts(&report(&ended), "broken");
    assert_eq!(broken.len(), 2, "{ended}");
    assert!(broken[0].starts_with("permissions: ") && broken[1].starts_with("login: "), "{ended}");
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--all", "--json", "stopped"])).status(1);
    let broken = facts(&report(&ended), "broken");
    assert!(broken[0].starts_with("instance: ") && broken.len() > 1, "{ended}");
    assert!(!ended.text().contains("is running"), "what is stopped does not run: {ended}");
    sandbox.assert_tidy();
}

#[test]
fn the_missing_statement_is_ready_to_paste() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", &format!("sam@{PUSH_DENIED}")])).status(1);
    let report = report(&ended);
    let check = report["checks"].as_array().unwrap().last().unwrap().clone();
    let lines: Vec<_> =
        check["details"].as_array().unwrap().iter().map(|line| line.as_str().unwrap()).collect();
    let policy: Value = serde_json::from_str(&lines.join("\n")).unwrap();
    let [statement] = &policy["Statement"].as_array().unwrap()[..] else { panic!("{policy}") };
    assert_eq!(statement["Action"], "ec2-instance-connect:SendSSHPublicKey");
    assert_eq!(statement["Condition"]["StringEquals"]["ec2:osuser"], "sam");
    assert_eq!(statement["Resource"], "arn:aws:ec2:us-east-1:123456789012:instance/*");
}

#[test]
fn what_is_missing_but_spared_is_a_warning() {
    let sandbox = Sandbox::with_faults(&[
        "deny=ssm:ResumeSession",
        "deny=ssm:TerminateSession",
        "deny=ec2:DescribeInstances",
        "deny=ec2:GetConsoleOutput",
        "deny=ssm:DescribeInstanceInformation",
        "deny=ssm:GetConnectionStatus",
    ]);
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", HEALTHY])).success();
    let warnings = facts(&report(&ended), "warning");
    for said in [
        "permissions: a lost websocket cannot be replaced: AWS refused ssm:ResumeSession",
        "permissions: sessions are ended on the instance, but not at AWS: AWS refused ssm:TerminateSession",
        "instance: cannot get the state of the instance: AWS refused ec2:DescribeInstances",
        "host-key: none known yet, and the console output cannot be read: AWS refused ec2:GetConsoleOutput",
        "session-manager: cannot get the state of the SSM agent: AWS refused ssm:DescribeInstanceInformation",
    ] {
        assert!(warnings.iter().any(|warning| warning.starts_with(said)), "{said:?} is not in {ended}");
    }
    assert_eq!(warnings.len(), 5, "{ended}");
}

#[test]
fn a_clock_that_is_off_is_a_warning() {
    for (fault, said) in [("clock=+10m", "behind"), ("clock=-10m", "ahead of")] {
        let sandbox = Sandbox::with_faults(&[fault]);
        let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", HEALTHY]));
        let warnings = facts(&report(&ended), "warning");
        assert!(
            warnings
                .contains(&format!("clock: this machine is 10 minutes {said} AWS, which ssh_ec2 corrects")),
            "{ended}"
        );
    }
}

const NODE: &str = "mi-0decaf00000000001";

#[test]
fn a_node_is_asked_only_what_nodes_can_answer() {
    let sandbox = Sandbox::with_faults(&[
        "deny=ssm:DescribeInstanceInformation",
        "deny=ssm:GetConnectionStatus",
        "deny=ssm:StartSession",
    ]);
    let target = format!("me@{NODE}");
    let ended = run(sandbox.ssh_ec2().args(["doctor", "--all", "--json", &target])).status(1);
    let report = report(&ended);
    assert!(facts(&report, "ok").iter().any(|fact| fact.starts_with("ssh-config: ")), "{ended}");
    let checks = report["checks"].as_array().unwrap();
    let denied = checks.iter().find(|check| check["layer"] == "permissions").unwrap();
    assert!(denied["details"].to_string().contains(":managed-instance/*"), "{ended}");
    let calls = sandbox.region.calls();
    assert!(calls.iter().all(|call| call.action != "ec2:GetConsoleOutput"), "{calls:?}");
}

#[test]
fn what_breaks_only_plain_ssh_is_a_warning() {
    let gone = |sandbox: &Sandbox| {
        let path = sandbox.directory().join("ssh_config");
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(&binary().display().to_string(), "/gone/ssh_ec2")).unwrap();
    };
    type Break<'a> = &'a dyn Fn(&Sandbox);
    let rows: [(Break<'_>, &str); 4] = [
        (&|sandbox| first(sandbox, "ProxyCommand nc %h %p"), "another ProxyCommand comes first"),
        (&|sandbox| first(sandbox, "IdentitiesOnly yes"), "IdentitiesOnly keeps ssh from offering"),
        (&|sandbox| first(sandbox, "IdentityAgent SSH_AUTH_SOCK"), "another IdentityAgent comes first"),
        (&gone, "ProxyCommand runs /gone/ssh_ec2, which does not exist"),
    ];
    for (breaks, said) in rows {
        let sandbox = Sandbox::start();
        breaks(&sandbox);
        let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", HEALTHY])).success();
        let warnings = facts(&report(&ended), "warning");
        assert!(warnings[0].starts_with(&format!("ssh-config: plain ssh: {said}")), "{ended}");
        let ended = run(sandbox.ssh_ec2().args(["-q", HEALTHY, "echo", "in"])).success();
        assert_eq!(ended.text(), "in\n");
    }
}

/// A service that accepts connections and sends nothing.
#[test]
fn each_endpoint_took_its_own_time() {
    let sandbox = Sandbox::start();
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut doctor = sandbox.ssh_ec2();
    doctor.env("AWS_ENDPOINT_URL_EC2", format!("https://{}", silent.local_addr().unwrap()));
    let ended = run(doctor.args(["doctor", "--json"])).success();
    let report = report(&ended);
    for check in report["checks"].as_array().unwrap().iter().filter(|check| check["layer"] == "endpoints") {
        let is_silent = check["fact"].as_str().unwrap().starts_with("ec2: ");
        assert_eq!(check["took_ms"].as_u64().unwrap() >= 4_000, is_silent, "{ended}");
    }
}
