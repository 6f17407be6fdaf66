//! A profile of IAM Identity Center whose sign-in has expired.

use std::fs;
use std::process::Command;

use crate::harness::{Sandbox, Terminal, binary, run};

const CONNECT: [&str; 6] = ["--profile", "sso", "-q", "-n", "web-1", "echo in"];

fn command(sandbox: &Sandbox, program: &str, words: &[&str]) -> Command {
    let profiles = sandbox.file("profiles");
    let text = "[sso-session s]\nsso_start_url = https://sandbox.awsapps.com/start\nsso_region = us-east-1\n\
                sso_registration_scopes = sso:account:access\n\
                [profile sso]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = sandbox\n\
                region = us-east-1\n";
    fs::write(&profiles, text).unwrap();
    let mut command = sandbox.command(program);
    // The region takes a visit of its page for a person's consent.
    command.env("AWS_CONFIG_FILE", &profiles).env("BROWSER", "curl").args(words);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn ssh_ec2(sandbox: &Sandbox) -> Command {
    command(sandbox, &binary().display().to_string(), &CONNECT)
}

#[test]
fn signing_in_is_offered_once_and_serves_both_tools() {
    let sandbox = Sandbox::start();
    let mut terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
    terminal.wait_for("The AWS sign-in of profile sso has expired. Press Enter to sign in");
    terminal.type_in("\r");
    terminal.wait_for("Confirm the code ");
    terminal.wait_for("/device?user_code=");
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);

    let terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
    terminal.wait_for("in\r\n");
    assert!(!terminal.screen().contains("sign-in"), "{}", terminal.screen());
    let caller = ["--profile", "sso", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"];
    let caller = run(&mut command(&sandbox, "aws", &caller)).success();
    assert!(caller.text().contains("assumed-role/AWSReservedSSO_sandbox_"), "{caller}");
    let calls = sandbox.region.calls();
    assert_eq!(calls.iter().filter(|call| call.action == "sso-oidc:RegisterClient").count(), 1);
    sandbox.assert_tidy();
}

#[test]
fn declined_or_without_a_terminal_the_command_is_named() {
    let sandbox = Sandbox::start();
    let hint = "hint: sign in again: `aws sso login --profile sso`";
    let mut terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
    terminal.wait_for("Press Enter to sign in");
    terminal.type_in("\u{3}");
    terminal.wait_for(hint);
    assert_eq!(terminal.status(), 1);

    let there = ssh_ec2(&sandbox);
    let mut alone = sandbox.plain_command("setsid");
    alone.arg("--wait").arg(there.get_program()).args(there.get_args());
    for (name, value) in there.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    let ended = run(&mut alone).status(1);
    assert!(ended.stderr.contains(hint), "{ended}");
    assert!(!sandbox.region.calls().iter().any(|call| call.action.starts_with("sso-oidc:")));
}
