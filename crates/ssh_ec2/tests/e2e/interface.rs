//! The command line of the script that ssh_ec2 replaces: `USER INSTANCE --send-key-only [--key-file FILE]`.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::errors::fails;
use crate::harness::{
    ABSENT, END_DENIED, HEALTHY, PUSH_DENIED, STOPPED, Sandbox, binary, run, run_with_input,
};

/// Asserts that an instance accepts a key that has been pushed before.
fn assert_let_in(sandbox: &Sandbox, private: &Path) {
    let other = sandbox.key_pair(sandbox.file("other"), "ed25519");
    let ended = run(ssh_with_own_key(sandbox, private, &bridge(&other)).arg("echo in")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    fs::remove_file(&other).unwrap();
    fs::remove_file(other.with_extension("pub")).unwrap();
}

/// A ProxyCommand that pushes only the key `other`.
fn bridge(other: &Path) -> String {
    format!("ssh_ec2 proxy --key-file {}.pub %r %h %p", other.display())
}

/// ssh without any setting of ssh_ec2 but a ProxyCommand.
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

/// The documented line for ssh_config, with `… && BRIDGE` for the program that reaches the port.
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
    let own = "use an Ed25519 key, which `ssh-keygen -t ed25519` makes, or leave out `--key-file` for a one-time key";
    let make = |path: &str| format!("make the public half: `ssh-keygen -y -f {path} > {path}.pub`");
    let keygen = |name: &str, options: &[&str]| {
        let path = sandbox.file(name).display().to_string();
        let mut keygen = sandbox.command("ssh-keygen");
        run(keygen.args(["-q", "-N", "", "-f", &path]).args(options)).success();
        path
    };
    let written = |name: &str, text: &str| {
        fs::write(sandbox.file(name), text).unwrap();
        sandbox.file(name).display().to_string()
    };
    let ecdsa = keygen("ecdsa", &["-t", "ecdsa"]);
    let short = keygen("short", &["-t", "rsa", "-b", "1024"]);
    let pem = keygen("my.pem", &["-t", "rsa", "-m", "PEM"]);
    let openssh = keygen("openssh", &["-t", "ed25519"]);
    let line = fs::read_to_string(format!("{openssh}.pub")).unwrap();
    for private in [&pem, &openssh] {
        fs::remove_file(format!("{private}.pub")).unwrap();
    }
    let missing = sandbox.file("missing.pub").display().to_string();
    let sk = written("sk.pub", "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29t me\n");
    let dsa = written("dsa.pub", "ssh-dss AAAAB3NzaC1kc3MAAACBAM me\n");
    let several = written("several.pub", &format!("{line}{line}"));
    let text = written("text", "no key\n");
    let directory = sandbox.home().display().to_string();
    let check = "check the path; `ls ~/.ssh/*.pub` lists the keys that you have";
    let refuses = |holds: &str| format!("holds {holds}, which EC2 Instance Connect does not accept");
    for (path, said, hint) in [
        (&missing, "does not exist".to_owned(), check.to_owned()),
        (&directory, "is a directory, and not a key".into(), "name the `.pub` file in it".into()),
        (
            &"~/k".to_owned(),
            "does not exist".into(),
            "the shell replaces `~` only at the beginning of a word: `--key-file ~/k`".into(),
        ),
        (&format!("{ecdsa}.pub"), refuses("an ECDSA key"), own.into()),
        (&sk, refuses("a key of a security key (FIDO)"), own.into()),
        (&dsa, refuses("a DSA key"), own.into()),
        (
            &format!("{short}.pub"),
            "holds an RSA key of 1024 bits, and EC2 Instance Connect accepts none below 2048".into(),
            own.into(),
        ),
        (&pem, "holds a private key, and its public half is not beside it".into(), make(&pem)),
        (&openssh, "holds a private key, and its public half is not beside it".into(), make(&openssh)),
        (
            &several,
            "holds 2 keys, and only one can be pushed".into(),
            "put the one to push in a file of its own".into(),
        ),
        (
            &text,
            "is not an OpenSSH public key".into(),
            "give the `.pub` file of a key pair, for example ~/.ssh/id_ed25519.pub".into(),
        ),
    ] {
        let error = format!("{path} {said}");
        fails(&mut send(&[&format!("--key-file={path}")]), 1, &error, &[&hint]);
        let mut connect = sandbox.ssh_ec2();
        connect.args([&format!("--key-file={path}"), &sandbox.target(), "true"]);
        fails(&mut connect, 1, &error, &[&hint]);
    }
    fails(
        sandbox.ssh_ec2().args(["proxy", "--key-file", &format!("{ecdsa}.pub"), "ec2-user", HEALTHY, "22"]),
        1,
        &format!("{ecdsa}.pub {}", refuses("an ECDSA key")),
        &[own],
    );
    assert!(sandbox.region.sessions().is_empty());
    // As the hint proposes, and as editors on Windows write it.
    let public = run(sandbox.command("ssh-keygen").args(["-y", "-f", &pem])).success();
    written("my.pem.pub", &public.text().replace('\n', "\r\n"));
    send_key(&sandbox, &["--key-file", &pem]);
    assert_let_in(&sandbox, Path::new(&pem));
}
