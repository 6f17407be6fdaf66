//! A profile whose role needs an MFA code: one prompt, and one session for ssh_ec2 and the aws CLI.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

use crate::errors::told;
use crate::harness::{Sandbox, Terminal, binary, eventually, files_below, run, wait_until_runnable};

pub(crate) const QUESTION: &str = "MFA code of arn:aws:iam::123456789012:mfa/you: ";

/// Writes the profiles `base`, with keys, and `mfa`, with the role.
fn profiles(sandbox: &Sandbox) -> PathBuf {
    let environment = sandbox.region.environment();
    let value = |name: &str| &environment.iter().find(|(found, _)| found == name).unwrap().1;
    let text = format!(
        "[profile base]\naws_access_key_id = {}\naws_secret_access_key = {}\naws_session_token = {}\n\
         [profile mfa]\nregion = us-east-1\nrole_arn = arn:aws:iam::123456789012:role/mfa\nsource_profile = base\n\
         mfa_serial = arn:aws:iam::123456789012:mfa/you\nduration_seconds = 3600\n",
        value("AWS_ACCESS_KEY_ID"),
        value("AWS_SECRET_ACCESS_KEY"),
        value("AWS_SESSION_TOKEN"),
    );
    let path = sandbox.file("profiles");
    fs::write(&path, text).unwrap();
    path
}

fn command(sandbox: &Sandbox, program: &str, words: &[&str]) -> Command {
    let mut command = sandbox.command(program);
    command.env("AWS_CONFIG_FILE", profiles(sandbox)).args(words);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

pub(crate) fn ssh_ec2(sandbox: &Sandbox, words: &[&str]) -> Command {
    command(sandbox, &binary().display().to_string(), words)
}

pub(crate) fn roles_assumed(sandbox: &Sandbox) -> usize {
    sandbox.region.calls().iter().filter(|call| call.action == "sts:AssumeRole").count()
}

pub(crate) const CONNECT: [&str; 6] = ["--profile", "mfa", "-q", "-n", "web-1", "echo in"];

#[test]
fn one_question_serves_both_tools() {
    let sandbox = Sandbox::start();
    let code = sandbox.region.mfa_code();
    let mut terminal = Terminal::start(ssh_ec2(&sandbox, &CONNECT), 24, 80);
    terminal.wait_for(QUESTION);
    terminal.type_in(&format!("{code}\r"));
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);
    assert!(!terminal.screen().contains(code), "the code is not shown");

    // The terminal is gone, and not needed any more.
    assert_eq!(run(&mut ssh_ec2(&sandbox, &CONNECT)).success().text(), "in\n");
    let caller = ["--profile", "mfa", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"];
    let caller = run(&mut command(&sandbox, "aws", &caller)).success();
    assert!(caller.text().starts_with("arn:aws:sts::123456789012:assumed-role/mfa/"), "{caller}");
    assert_eq!(roles_assumed(&sandbox), 1);

    let cache = sandbox.home().join(".aws/cli/cache");
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    for file in files_below(&cache) {
        assert_eq!(fs::metadata(cache.join(&file)).unwrap().permissions().mode() & 0o777, 0o600, "{file:?}");
    }
    sandbox.assert_tidy();
}

#[test]
fn what_the_aws_cli_has_cached_is_used() {
    let sandbox = Sandbox::start();
    let code = sandbox.region.mfa_code();
    let caller = ["--profile", "mfa", "sts", "get-caller-identity"];
    let mut terminal = Terminal::start(command(&sandbox, "aws", &caller), 24, 80);
    terminal.wait_for("Enter MFA code");
    terminal.type_in(&format!("{code}\r"));
    assert_eq!(terminal.status(), 0);
    assert_eq!(run(&mut ssh_ec2(&sandbox, &CONNECT)).success().text(), "in\n");
    assert_eq!(roles_assumed(&sandbox), 1);
}

fn wrong_code(sandbox: &Sandbox) -> &'static str {
    if sandbox.region.mfa_code() == "000000" { "111111" } else { "000000" }
}

#[test]
fn a_code_that_is_refused_is_asked_for_again() {
    let sandbox = Sandbox::start();
    let (wrong, code) = (wrong_code(&sandbox), sandbox.region.mfa_code());
    let mut terminal = Terminal::start(ssh_ec2(&sandbox, &CONNECT), 24, 200);
    terminal.wait_for(QUESTION);
    terminal.type_in(&format!("9\u{7f}{wrong}\r"));
    terminal.wait_for(&format!("AWS did not accept this code. {QUESTION}"));
    terminal.type_in(&format!("{code}\r"));
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);
    assert_eq!(roles_assumed(&sandbox), 2);
    assert!([wrong, code].iter().all(|code| !terminal.screen().contains(code)), "{}", terminal.screen());
}

#[test]
fn a_typo_is_seen_before_aws_is_asked() {
    let sandbox = Sandbox::start();
    let code = sandbox.region.mfa_code();
    let mut terminal = Terminal::start(ssh_ec2(&sandbox, &CONNECT), 24, 200);
    terminal.wait_for(QUESTION);
    terminal.type_in("31415\r");
    terminal.wait_for(&format!("A code has six digits. {QUESTION}"));
    assert_eq!(roles_assumed(&sandbox), 0);
    let (first, second) = code.split_at(3);
    terminal.type_in(&format!("{first} {second}\r"));
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);
    assert_eq!(roles_assumed(&sandbox), 1);
}

#[test]
fn after_three_attempts_the_last_failure_is_reported() {
    let sandbox = Sandbox::start();
    let wrong = wrong_code(&sandbox);
    // The text that a security key types, and a refused code.
    for (attempts, error) in [
        (["31415", "31415", "cccjgjgkhcbbirdrfdnl"], "the typed text is not an MFA code of"),
        (["31415", wrong, wrong], "AWS did not accept the MFA code of"),
    ] {
        let mut terminal = Terminal::start(ssh_ec2(&sandbox, &CONNECT), 24, 250);
        let questions = |screen: &str| {
            screen.lines().filter(|line| line.trim_end_matches('\r').ends_with(QUESTION)).count()
        };
        for (count, attempt) in attempts.into_iter().enumerate() {
            eventually("it is asked", || (questions(&terminal.screen()) > count).then_some(()));
            terminal.type_in(&format!("{attempt}\r"));
        }
        terminal.wait_for(&format!("error: {error} arn:aws:iam::123456789012:mfa/you: "));
        terminal.wait_for("hint: type the code that the device shows now");
        assert_eq!(terminal.status(), 1);
        let screen = terminal.screen();
        assert_eq!(questions(&screen), 3, "{screen}");
        assert!(attempts.iter().all(|attempt| !screen.contains(attempt)), "{screen}");
    }
    assert_eq!(roles_assumed(&sandbox), 2);
}

#[test]
fn a_security_key_is_not_asked_for_a_code() {
    let sandbox = Sandbox::start();
    let text = fs::read_to_string(profiles(&sandbox)).unwrap();
    let serial = "arn:aws:iam::123456789012:u2f/user/you/key-ABCDEFGH";
    let text = text.replace("arn:aws:iam::123456789012:mfa/you", serial);
    let command = ssh_ec2(&sandbox, &CONNECT);
    fs::write(sandbox.file("profiles"), text).unwrap();
    let mut terminal = Terminal::start(command, 24, 300);
    terminal.wait_for(&format!("need an MFA code, and {serial} is a security key, which has none"));
    terminal.wait_for("hint: security keys work with `aws login` and IAM Identity Center only");
    assert_eq!(terminal.status(), 1);
    assert!(!terminal.screen().contains("MFA code of"), "{}", terminal.screen());
    assert_eq!(roles_assumed(&sandbox), 0);
}

#[test]
fn a_question_can_be_declined() {
    let sandbox = Sandbox::start();
    let mut terminal = Terminal::start(ssh_ec2(&sandbox, &CONNECT), 24, 200);
    terminal.wait_for(QUESTION);
    terminal.type_in("\u{3}");
    terminal.wait_for("need an MFA code of arn:aws:iam::123456789012:mfa/you: no answer was given");
    assert_eq!(terminal.status(), 1);
    assert_eq!(roles_assumed(&sandbox), 0);
}

#[test]
fn without_a_terminal_the_way_out_is_named() {
    let sandbox = Sandbox::start();
    let command = ssh_ec2(&sandbox, &CONNECT);
    // A session of its own has no terminal, even if the test has one.
    let mut alone = sandbox.plain_command("setsid");
    alone.args(["--wait"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => alone.env(name, value),
            None => alone.env_remove(name),
        };
    }
    let ended = run(&mut alone).status(1);
    let hint = "run `aws sts get-caller-identity --profile mfa` on a terminal: ssh_ec2 uses the session that it caches";
    assert_eq!(
        ended.stderr,
        told(
            "the AWS credentials of profile mfa need an MFA code of arn:aws:iam::123456789012:mfa/you: there is no terminal to ask on",
            &[hint]
        )
    );
}

#[test]
fn in_batch_mode_nobody_is_asked() {
    let sandbox = Sandbox::start();
    let batch = [&["-oBatchMode=yes"], &CONNECT[..]].concat();
    let mut terminal = Terminal::start(ssh_ec2(&sandbox, &batch), 24, 200);
    terminal.wait_for("nothing may be asked now");
    assert_eq!(terminal.status(), 1);
    // Plain ssh does not report BatchMode to its ProxyCommand, but its command line shows it.
    let plain = ["-oBatchMode=yes", "ec2-user@web-1.ec2", "true"];
    let mut plain = command(&sandbox, "ssh", &plain);
    plain.env("AWS_PROFILE", "mfa");
    let mut terminal = Terminal::start(plain, 24, 200);
    terminal.wait_for("nothing may be asked now");
    assert_eq!(terminal.status(), 255);
    assert_eq!(roles_assumed(&sandbox), 0);
}

#[test]
fn ssh_askpass_is_asked_where_it_is_wanted() {
    let sandbox = Sandbox::start();
    let askpass = sandbox.file("askpass");
    let log = sandbox.file("asked");
    let script = format!("#!/bin/sh\necho \"$1\" >> {}\necho {}\n", log.display(), sandbox.region.mfa_code());
    fs::write(&askpass, script).unwrap();
    fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700)).unwrap();
    wait_until_runnable(&askpass);
    fs::remove_file(&log).unwrap();
    let mut command = ssh_ec2(&sandbox, &CONNECT);
    command.env("SSH_ASKPASS", &askpass).env("SSH_ASKPASS_REQUIRE", "force");
    assert_eq!(run(&mut command).success().text(), "in\n");
    assert_eq!(fs::read_to_string(&log).unwrap(), format!("{QUESTION}\n"));
}

#[test]
fn forks_that_start_together_ask_once() {
    let sandbox = Sandbox::start();
    let script = "for i in 1 2 3 4; do \"$0\" --profile mfa -q -n web-1 'echo in' & done; wait; echo all";
    let mut command = command(&sandbox, "sh", &["-c", script]);
    command.arg(binary());
    let mut terminal = Terminal::start(command, 24, 80);
    terminal.wait_for(QUESTION);
    terminal.type_in(&format!("{}\r", sandbox.region.mfa_code()));
    terminal.wait_for("all\r\n");
    let screen = terminal.screen();
    assert_eq!(screen.matches(QUESTION).count(), 1, "{screen}");
    assert_eq!(screen.matches("in\r\n").count(), 4, "{screen}");
    assert_eq!(roles_assumed(&sandbox), 1);
    sandbox.assert_tidy();
}
