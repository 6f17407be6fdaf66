//! The sandbox from outside: AWS's own client, with the credentials that the sandbox gives out.

use crate::harness::{Ended, HEALTHY, Running, STOPPED, Sandbox, run};

fn aws(sandbox: &Sandbox, words: &[&str]) -> Ended {
    let mut aws = sandbox.command("aws");
    run(aws.args(["--output", "text"]).args(words))
}

#[test]
fn the_aws_cli_finds_the_region() {
    let sandbox = Sandbox::start();
    let caller = aws(&sandbox, &["sts", "get-caller-identity", "--query", "Arn"]).success();
    assert_eq!(caller.text(), "arn:aws:sts::123456789012:assumed-role/sandbox/you\n");

    let query = "Reservations[].Instances[].[InstanceId, State.Name]";
    let instances = aws(&sandbox, &["ec2", "describe-instances", "--query", query]).success();
    let listed: Vec<_> = instances.text().lines().map(str::to_owned).collect();
    let expected: Vec<_> = sandbox
        .region
        .instances()
        .iter()
        .filter(|instance| instance.region == "us-east-1")
        .map(|instance| format!("{}\t{}", instance.id, instance.state))
        .collect();
    assert_eq!(listed, expected);

    let query = [
        "ssm",
        "describe-instance-information",
        "--query",
        "InstanceInformationList[].[InstanceId, PingStatus]",
    ];
    let managed = aws(&sandbox, &query).success();
    assert!(managed.text().contains(&format!("{HEALTHY}\tOnline\n")), "{managed}");
    assert!(!managed.text().contains(&format!("{STOPPED}\tOnline\n")), "{managed}");
}

#[test]
fn the_aws_cli_pushes_a_key() {
    let sandbox = Sandbox::start();
    let key = sandbox.key_pair(sandbox.file("key"), "ed25519");
    let key = format!("file://{}.pub", key.display());
    let words = [
        "ec2-instance-connect",
        "send-ssh-public-key",
        "--instance-os-user",
        "ec2-user",
        "--query",
        "Success",
    ];
    let words = [&words[..], &["--instance-id", HEALTHY, "--ssh-public-key", &key]].concat();
    assert_eq!(aws(&sandbox, &words).success().text(), "True\n");
}

#[test]
fn a_wrong_secret_is_refused() {
    let sandbox = Sandbox::start();
    let key = sandbox.key_pair(sandbox.file("key"), "ed25519");
    let key = format!("file://{}.pub", key.display());
    for (words, code) in [
        (&["sts", "get-caller-identity"][..], "SignatureDoesNotMatch"),
        (&["ec2", "describe-instances"], "AuthFailure"),
        (&["ssm", "describe-instance-information"], "InvalidSignatureException"),
        (
            &[
                "ec2-instance-connect",
                "send-ssh-public-key",
                "--instance-os-user",
                "ec2-user",
                "--instance-id",
                HEALTHY,
                "--ssh-public-key",
                &key,
            ],
            "InvalidSignatureException",
        ),
    ] {
        let mut aws = sandbox.command("aws");
        let ended = run(aws.args(words).env("AWS_SECRET_ACCESS_KEY", "wrong"));
        assert_ne!(ended.code, 0, "{ended}");
        assert!(ended.stderr.contains(&format!("({code})")), "{ended}");
    }
}

/// As an administrator ends a session from the console.
#[test]
fn a_session_ended_by_somebody_else_ends_ssh() {
    let sandbox = Sandbox::start();
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    ssh.write(b"x");
    ssh.wait_for_output(|output| output == b"x");
    let session = sandbox.session().id;
    let listed =
        aws(&sandbox, &["ssm", "describe-sessions", "--state", "Active", "--query", "Sessions[].SessionId"]);
    assert_eq!(listed.success().text(), format!("{session}\n"));
    aws(&sandbox, &["ssm", "terminate-session", "--session-id", &session]).success();
    ssh.wait().status(255);
    sandbox.assert_tidy();
}
