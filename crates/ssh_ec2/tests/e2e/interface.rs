//! The command line of the script that the program replaces: `USER INSTANCE --send-key-only [--key-file FILE]`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::errors::fails;
use crate::harness::{
    ABSENT, END_DENIED, HEALTHY, PUSH_DENIED, STOPPED, Sandbox, binary, run, run_with_input,
};

/// Asserts that an instance lets the owner of a key in, without anybody pushing it now.
fn assert_let_in(sandbox: &Sandbox, private: &Path) {
    let other = sandbox.key_pair(sandbox.file("other"), "ed25519");
    let ended = run(ssh_with_own_key(sandbox, private, &bridge(&other)).arg("echo in")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    fs::remove_file(&other).unwrap();
    fs::remove_file(other.with_extension("pub")).unwrap();
}

/// A way to the instance that pushes no key but `other`.
fn bridge(other: &Path) -> String {
    format!("ssh_ec2 proxy --key-file {}.pub %r %h %p", other.display())
}

/// ssh without anything of ours but a ProxyCommand.
fn ssh_with_own_key(sandbox: &Sandbox, private: &Path, proxy_command: &str) -> Command {
    let mut ssh = sandbox.command("ssh");
    for option in [
        format!("ProxyCommand={proxy_command}"),
        format!("KnownHostsCommand={} known-hosts --host %H --presented %t:%K %h", binary().display()),
        "UserKnownHostsFile=/dev/null".to_owned(),
        "StrictHostKeyChecking=yes".to_owned(),
        "IdentitiesOnly=yes".to_owned(),
        "IdentityAgent=none".to_owned(),
        "LogLevel=ERROR".to_owned(),
    ] {
        ssh.args(["-o", &option]);
    }
    ssh.arg("-i").arg(private).arg(sandbox.target());
    ssh
}

fn send_key(sandbox: &Sandbox, options: &[&str]) {
    let mut command = sandbox.ssh_ec2();
    let ended = run(command.args([&sandbox.user(), HEALTHY, "--send-key-only"]).args(options)).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
    assert!(sandbox.region.sessions().is_empty(), "it connects to nothing");
}

#[test]
fn the_first_key_of_the_user_is_pushed() {
    let sandbox = Sandbox::start();
    let key_pair = |kind: &str| sandbox.key_pair(sandbox.home().join(format!(".ssh/id_{kind}")), kind);
    let (rsa, ed25519) = (key_pair("rsa"), key_pair("ed25519"));
    send_key(&sandbox, &[]);
    assert_let_in(&sandbox, &ed25519);
    let refused = run(ssh_with_own_key(&sandbox, &rsa, &bridge(&ed25519)).arg("true")).status(255);
    assert!(refused.stderr.contains("Permission denied"), "only one key is pushed: {refused}");
}

#[test]
fn without_an_ed25519_key_the_rsa_key_is_pushed() {
    let sandbox = Sandbox::start();
    let private = sandbox.key_pair(sandbox.home().join(".ssh/id_rsa"), "rsa");
    send_key(&sandbox, &[]);
    assert_let_in(&sandbox, &private);
}

#[test]
fn a_key_file_is_the_public_half_or_has_it_beside() {
    for suffix in ["", ".pub"] {
        let sandbox = Sandbox::start();
        let private = sandbox.key_pair(sandbox.file("my key"), "ed25519");
        send_key(&sandbox, &["--key-file", &format!("{}{suffix}", private.display())]);
        assert_let_in(&sandbox, &private);
    }
}

#[test]
fn options_may_stand_in_front() {
    let sandbox = Sandbox::start();
    let private = sandbox.key_pair(sandbox.file("key"), "ed25519");
    let key_file = format!("--key-file={}.pub", private.display());
    let words = [&key_file, "--send-key-only", "--region=us-east-1", "ec2-user", HEALTHY];
    let ended = run(sandbox.ssh_ec2().args(words)).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
    assert_let_in(&sandbox, &private);
}

/// The line that the script's users have in their ssh_config, with `… && BRIDGE` for how they reach the port.
#[test]
fn the_documented_proxy_command_works() {
    let sandbox = Sandbox::start();
    let private = sandbox.key_pair(sandbox.home().join(".ssh/id_ed25519"), "ed25519");
    let other = sandbox.key_pair(sandbox.file("other"), "ed25519");
    let line = format!("sh -c \"ssh_ec2 %r %h --send-key-only && exec {}\"", bridge(&other));
    let ended = run(ssh_with_own_key(&sandbox, &private, &line).arg("echo in")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    sandbox.assert_tidy();
}

#[test]
fn two_words_alone_connect() {
    let sandbox = Sandbox::start();
    let mut command = sandbox.ssh_ec2();
    // Without a terminal ssh runs the shell on its input.
    let ended = run_with_input(command.args(["ec2-user", HEALTHY]), b"echo in; exit 3\n").status(3);
    assert_eq!(ended.text(), "in\n");
    sandbox.assert_tidy();
}

#[test]
fn a_push_that_fails_says_why() {
    let sandbox = Sandbox::start();
    let private = sandbox.key_pair(sandbox.file("key"), "ed25519");
    let key_file = format!("{}.pub", private.display());
    let push = |instance: &str| {
        let mut command = sandbox.ssh_ec2();
        command.args(["ec2-user", instance, "--send-key-only", "--key-file", &key_file]);
        command
    };
    fails(
        &mut push(ABSENT),
        1,
        &format!("instance {ABSENT} does not exist in us-east-1"),
        &["check the id, the region (us-east-1) and the account of the credentials"],
    );
    fails(
        &mut push(STOPPED),
        1,
        &format!("instance {STOPPED} is not running"),
        &[&format!("start it: `aws ec2 start-instances --instance-ids {STOPPED}`")],
    );
    fails(
        &mut push("mi-0decaf00000000001"),
        1,
        "mi-0decaf00000000001 is not an EC2 instance: EC2 Instance Connect cannot push a key to it",
        &["install a key of your own on the node: ssh offers your own keys to `mi-…` targets"],
    );
    let denied = run(&mut push(PUSH_DENIED)).status(1);
    assert!(denied.stderr.contains("AWS refused ec2-instance-connect:SendSSHPublicKey on"), "{denied}");
    run(&mut push(END_DENIED)).success();
    assert!(sandbox.region.sessions().is_empty());
}

#[test]
fn a_key_that_cannot_be_pushed_is_named() {
    let sandbox = Sandbox::start();
    let send = |options: &[&str]| {
        let mut command = sandbox.ssh_ec2();
        command.args(["ec2-user", HEALTHY, "--send-key-only"]).args(options);
        command
    };
    let ssh = sandbox.home().join(".ssh");
    fails(
        &mut send(&[]),
        1,
        &format!("there is no public key in {}", ssh.display()),
        &["make one with `ssh-keygen -t ed25519`, or name one with `--key-file`"],
    );
    let missing = sandbox.file("missing.pub").display().to_string();
    fails(
        &mut send(&["--key-file", &missing]),
        1,
        &format!("cannot read {missing}: No such file or directory (os error 2)"),
        &[&format!("check the permissions of {missing}")],
    );
    let ecdsa = sandbox.key_pair(sandbox.file("ecdsa"), "ecdsa").with_extension("pub").display().to_string();
    let text = sandbox.file("text").display().to_string();
    fs::write(&text, "no key\n").unwrap();
    for path in [&ecdsa, &text] {
        fails(
            &mut send(&["--key-file", path]),
            1,
            &format!("{path} is not an OpenSSH public key"),
            &["give the `.pub` file of a key pair, for example ~/.ssh/id_ed25519.pub"],
        );
    }
}
