//! The cause of a refused login, as plain ssh and `ssh_ec2` show it: each option of ssh that keeps the key
//! back, and each cause on the instance. Other failures are not explained as a refused key.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use ec2_sandbox::Options;

use crate::errors::told;
use crate::harness::{
    HEALTHY, NO_INSTANCE_CONNECT, Running, Sandbox, Terminal, WITHOUT_QUOTA, run, sshd, wait_until_runnable,
};

const FIPS: &str = "i-0dead00000000001f";
const PASSWORDS: &str = "i-0dead000000000020";

macro_rules! with_each_server {
    ($($name:ident),* $(,)?) => {
        mod builtin {
            $(#[test] fn $name() { super::$name(&super::unlimited(None)); })*
        }
        mod openssh {
            $(#[test] fn $name() { super::$name(&super::unlimited(Some(crate::harness::sshd()))); })*
        }
    };
}
with_each_server![
    each_cause_on_the_instance_is_named,
    each_option_that_keeps_the_key_back_is_named,
    an_rsa_key_is_made_where_ssh_takes_no_ed25519,
    harmless_options_are_no_cause,
    what_ends_otherwise_is_not_explained_as_a_refused_key,
];

fn unlimited(sshd: Option<PathBuf>) -> Sandbox {
    let mut options = Options { sshd, ..Options::default() };
    options.faults.add(WITHOUT_QUOTA).unwrap();
    Sandbox::with(options)
}

/// sshd with these options in front of all others.
fn sshd_with(directory: &tempfile::TempDir, options: &str) -> PathBuf {
    let path = directory.path().join("sshd");
    fs::write(&path, format!("#!/bin/sh\nexec {} {options} \"$@\"\n", sshd().display())).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    wait_until_runnable(&path);
    path
}

/// The same command by plain ssh and by `ssh_ec2`.
fn both(sandbox: &Sandbox, options: &[&str], target: &str) -> [Command; 2] {
    [sandbox.command("ssh"), sandbox.ssh_ec2()].map(|mut command| {
        command.args(["-o", "LogLevel=ERROR"]).args(options).args([target, "true"]);
        command
    })
}

/// The lines of ssh_ec2 about a failed login.
#[track_caller]
fn explained(command: &mut Command) -> String {
    let ended = run(command).status(255);
    let ours: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("ssh_ec2: ")).collect();
    ours.join("\n") + "\n"
}

#[track_caller]
fn refused(sandbox: &Sandbox, options: &[&str], target: &str, error: &str, hint: &str) {
    for mut command in both(sandbox, options, target) {
        assert_eq!(explained(&mut command), told(error, &[hint]), "{command:?}");
    }
}

fn each_option_that_keeps_the_key_back_is_named(sandbox: &Sandbox) {
    let target = sandbox.target();
    for (option, said) in [
        ("IdentitiesOnly=yes", "IdentitiesOnly yes"),
        ("identityagent=none", "IdentityAgent none"),
        ("IdentityAgent=SSH_AUTH_SOCK", "IdentityAgent SSH_AUTH_SOCK"),
        ("IdentityAgent=/nonexistent/agent", "IdentityAgent /nonexistent/agent"),
        ("PubkeyAuthentication=no", "PubkeyAuthentication no"),
        ("PreferredAuthentications=password", "PreferredAuthentications password"),
    ] {
        let error =
            format!("`{said}` on ssh's command line keeps ssh from offering the one-time key to {HEALTHY}");
        let hint = format!("leave out `-o {}`", said.replace(' ', "="));
        refused(sandbox, &["-o", option], &target, &error, &hint);
    }
    let error = format!(
        "`PubkeyAcceptedAlgorithms ecdsa-sha2-nistp256` on ssh's command line keeps ssh from offering the one-time key to {HEALTHY}"
    );
    let hint = "leave out `-o PubkeyAcceptedAlgorithms=…`, or add `ssh-ed25519` to PubkeyAcceptedAlgorithms";
    for option in ["PubkeyAcceptedAlgorithms", "PubkeyAcceptedKeyTypes"] {
        let option = format!("{option}=ecdsa-sha2-nistp256");
        refused(sandbox, &["-o", &option], &target, &error, hint);
    }
    // Both options have to be removed.
    let error = format!(
        "`IdentityAgent none` on ssh's command line and `IdentitiesOnly yes` on ssh's command line keep ssh from offering the one-time key to {HEALTHY}"
    );
    let hint = "leave out `-o IdentityAgent=none`; leave out `-o IdentitiesOnly=yes`";
    refused(sandbox, &["-oIdentitiesOnly=yes", "-oIdentityAgent=none"], &target, &error, hint);
    sandbox.assert_tidy();
}

fn each_cause_on_the_instance_is_named(sandbox: &Sandbox) {
    let user = sandbox.user();
    for (target, said) in [
        (format!("ghost@{HEALTHY}"), "there is no user `ghost` on i-0decaf00000000001"),
        (format!("{user}@{NO_INSTANCE_CONNECT}"), "does not have EC2 Instance Connect"),
        (format!("{user}@i-0dead000000000018"), "is 10 minutes ahead"),
        (format!("{user}@i-0dead000000000019"), "its sshd does not ask it for keys"),
        (format!("{user}@i-0dead00000000001a"), "SELinux is enforcing there"),
        (format!("{user}@{FIPS}"), "accepts no Ed25519 keys: it is in FIPS mode"),
        (
            format!("{user}@{PASSWORDS}"),
            "accepts no public keys: its configuration has PubkeyAuthentication no",
        ),
    ] {
        for mut command in both(sandbox, &["-oBatchMode=yes"], &target) {
            let explained = explained(&mut command);
            assert!(explained.contains(said) && explained.lines().count() == 2, "{command:?}: {explained}");
        }
    }
    sandbox.assert_tidy();
}

fn harmless_options_are_no_cause(sandbox: &Sandbox) {
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    // ssh takes the first value, and those of the included block come before these.
    let file = sandbox.file("config");
    let include = sandbox.directory().join("ssh_config");
    let rest = "Host *\n  IdentitiesOnly yes\n  IdentityAgent none\n  RequiredRSASize 4096\n";
    fs::write(&file, format!("Include {}\n{rest}", include.display())).unwrap();
    let file = file.display().to_string();
    for options in [
        &["-oIdentitiesOnly=no", "-oPubkeyAuthentication=unbound"][..],
        &["-oPreferredAuthentications=publickey,password", "-oBatchMode=yes"],
        &["-i", &own],
        &["-F", &file],
    ] {
        for mut command in both(sandbox, options, &format!("ghost@{HEALTHY}")) {
            let explained = explained(&mut command);
            assert!(explained.contains("there is no user `ghost`"), "{command:?}: {explained}");
        }
    }
}

fn what_ends_otherwise_is_not_explained_as_a_refused_key(sandbox: &Sandbox) {
    // Logs in with the user's own key, which has been pushed as well.
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    let mut push = sandbox.ssh_ec2();
    push.args([&sandbox.user(), HEALTHY, "--send-key-only", "--key-file", &format!("{own}.pub")]);
    run(&mut push).success();
    for mut command in both(sandbox, &["-oIdentitiesOnly=yes", "-i", &own], &sandbox.target()) {
        let ended = run(&mut command).success();
        assert_eq!(ended.stderr, "", "{ended}");
    }
    // The login succeeds; the port to listen on is taken.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let forward = format!("{}:localhost:1", taken.local_addr().unwrap());
    for options in [&[][..], &["-oIdentitiesOnly=yes", "-i", &own]] {
        let mut ssh = sandbox.command("ssh");
        ssh.args(["-N", "-oExitOnForwardFailure=yes", "-L", &forward]).args(options).arg(sandbox.target());
        let ended = run(&mut ssh).status(255);
        assert!(!ended.stderr.contains("ssh_ec2: "), "{ended}");
    }
    // The login succeeds; the forwarded channel cannot be opened.
    let mut ssh = sandbox.command("ssh");
    let ended = run(ssh.args(["-W", "localhost:1", &sandbox.target()])).status(255);
    assert!(!ended.stderr.contains("ssh_ec2: "), "{ended}");
    // ssh refuses the host key before authentication.
    let mut impostor = sandbox.command("ssh");
    let ended = run(impostor.args(["-oIdentitiesOnly=yes", &sandbox.at("i-0dead00000000001d"), "true"]));
    assert!(!ended.status(255).stderr.contains("offering"));
    sandbox.assert_tidy();
}

/// A user who presses Ctrl-C wants no explanation.
#[test]
fn a_password_prompt_that_is_left_is_not_explained() {
    let sandbox = Sandbox::start();
    for program in ["ssh", "ssh_ec2"] {
        let mut command = sandbox.command(program);
        command.args(["-oLogLevel=ERROR", &sandbox.at(PASSWORDS)]);
        // A shell in front: a program that a signal kills has no exit status of its own.
        let mut shell = sandbox.command("sh");
        shell.args(["-c", "trap : INT; \"$@\"; echo status $?; cat", "sh"]);
        shell.arg(command.get_program()).args(command.get_args());
        let mut terminal = Terminal::start(shell, 24, 200);
        terminal.wait_for("password:");
        terminal.type_in("\u{3}");
        terminal.wait_for("status ");
        sandbox.assert_tidy();
        assert!(!terminal.screen().contains("ssh_ec2: "), "{}", terminal.screen());
    }
}

/// A banner may have any length.
#[test]
fn a_login_behind_a_long_banner_is_explained() {
    let directory = tempfile::tempdir().unwrap();
    let banner = directory.path().join("banner");
    fs::write(&banner, "All that you do here is recorded.\n".repeat(300)).unwrap();
    let sandbox = unlimited(Some(sshd_with(&directory, &format!("-o Banner={}", banner.display()))));
    let target = format!("ghost@{HEALTHY}");
    for mut command in both(&sandbox, &[], &target) {
        assert!(explained(&mut command).contains("there is no user `ghost`"), "{command:?}");
    }
    for mut command in both(&sandbox, &["-oIdentitiesOnly=yes"], &target) {
        assert!(explained(&mut command).contains("`IdentitiesOnly yes`"), "{command:?}");
    }
}

/// An option on sshd's command line is in none of the files that the diagnosis reads.
#[test]
fn a_cause_that_cannot_be_seen_is_named_as_a_possibility() {
    let directory = tempfile::tempdir().unwrap();
    for option in ["PubkeyAcceptedAlgorithms=rsa-sha2-256,rsa-sha2-512", "PermitRootLogin=no", "DenyUsers=*"]
    {
        let sandbox = unlimited(Some(sshd_with(&directory, &format!("-o '{option}'"))));
        if option.starts_with("Permit") && sandbox.user() != "root" {
            continue;
        }
        for mut command in both(&sandbox, &[], &sandbox.target()) {
            let said = explained(&mut command);
            let user = sandbox.user();
            assert!(
                said.contains(&format!("{HEALTHY} refused the one-time key for the user `{user}`\n")),
                "{said}"
            );
            assert!(said.contains("--key-type rsa"), "{said}");
            assert!(
                !said.contains("admin") && !said.contains("check that the user"),
                "all is well there: {said}"
            );
        }
    }
}

/// As in FIPS mode, or under the crypto policy of a distribution.
fn an_rsa_key_is_made_where_ssh_takes_no_ed25519(sandbox: &Sandbox) {
    let file = sandbox.file("config");
    let block = sandbox.directory().join("ssh_config");
    for (algorithms, key) in [
        ("rsa-sha2-512", "RSA"),
        ("rsa-sha2-256", "RSA"),
        ("-*ed25519*", "RSA"),
        ("ssh-ed25519,rsa-sha2-512", "ED25519"),
    ] {
        fs::write(
            &file,
            format!("Include {}\nHost *\n  PubkeyAcceptedAlgorithms {algorithms}\n", block.display()),
        )
        .unwrap();
        let option = format!("PubkeyAcceptedKeyTypes={algorithms}");
        let mut by_file = sandbox.plain_command("ssh");
        by_file.env("SSH_EC2_DIR", sandbox.directory()).arg("-F").arg(&file);
        let mut by_option = sandbox.command("ssh");
        by_option.args(["-o", &option]);
        let mut wrapper = sandbox.ssh_ec2();
        wrapper.args(["-o", &option]);
        for mut command in [by_file, by_option, wrapper] {
            let ended = run(command.args(["-v", &sandbox.target(), "echo in"])).success();
            assert_eq!(ended.text(), "in\n", "{command:?}");
            assert!(ended.stderr.contains(&format!("Server accepts key: ssh_ec2 {key} ")), "{ended}");
        }
    }
    sandbox.assert_tidy();
}

#[test]
fn an_sshd_without_ed25519_takes_the_rsa_key_that_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let options = "-o PubkeyAcceptedAlgorithms=rsa-sha2-256,rsa-sha2-512";
    let sandbox = unlimited(Some(sshd_with(&directory, options)));
    let block = sandbox.file("config");
    let printed = run(sandbox.ssh_ec2().args(["--key-type", "rsa", "config"])).success();
    assert_eq!(printed.text().matches(" proxy --key-type rsa ").count(), 2, "{printed}");
    fs::write(&block, printed.text()).unwrap();
    let mut plain = sandbox.plain_command("ssh");
    plain.env("SSH_EC2_DIR", sandbox.directory()).arg("-F").arg(&block);
    let mut wrapper = sandbox.ssh_ec2();
    wrapper.arg("--key-type=rsa");
    for mut command in [plain, wrapper] {
        let ended = run(command.args(["-oLogLevel=ERROR", &sandbox.target(), "echo in"])).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    }
    fs::write(sandbox.file("sent"), "x").unwrap();
    let remote = format!("{}:{}", sandbox.target(), sandbox.file("got").display());
    run(sandbox.ssh_ec2().args(["--key-type", "rsa", "scp", "-q", "sent", &remote])).success();
    assert_eq!(fs::read_to_string(sandbox.file("got")).unwrap(), "x");
    sandbox.assert_tidy();
}

/// `--key-type` is obeyed, and the refusal is explained.
#[test]
fn a_key_that_was_asked_for_may_be_kept_back() {
    let sandbox = unlimited(Some(sshd()));
    for (key_type, option, said, hint) in [
        (
            "ed25519",
            "PubkeyAcceptedAlgorithms=rsa-sha2-512",
            "PubkeyAcceptedAlgorithms rsa-sha2-512",
            "`--key-type rsa`",
        ),
        (
            "rsa",
            "PubkeyAcceptedAlgorithms=ssh-ed25519",
            "PubkeyAcceptedAlgorithms ssh-ed25519",
            "add `rsa-sha2-512`",
        ),
        ("rsa", "PubkeyAcceptedAlgorithms=ssh-rsa", "PubkeyAcceptedAlgorithms ssh-rsa", "add `rsa-sha2-512`"),
        ("rsa", "RequiredRSASize=4096", "RequiredRSASize 4096", "the 3072 bits of the key"),
    ] {
        let mut command = sandbox.ssh_ec2();
        command.args(["--key-type", key_type, "-oLogLevel=ERROR", "-o", option, &sandbox.target(), "true"]);
        let explained = explained(&mut command);
        assert!(explained.contains(&format!("`{said}` on ssh's command line keeps")), "{explained}");
        assert!(explained.contains(hint), "{explained}");
    }
    sandbox.assert_tidy();
}

/// A pushed key of the user's own can be refused or kept back, too.
#[test]
fn a_refused_key_file_is_explained_as_well() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    for (options, target, said) in [
        (&[][..], format!("ghost@{HEALTHY}"), "there is no user `ghost`"),
        (
            &["-oPubkeyAuthentication=no"],
            sandbox.target(),
            "`PubkeyAuthentication no` on ssh's command line keeps ssh from offering the key of `--key-file`",
        ),
    ] {
        let mut command = sandbox.ssh_ec2();
        command.args(["--key-file", &own, "-oLogLevel=ERROR"]).args(options).args([&target, "true"]);
        assert!(explained(&mut command).contains(said), "{command:?}");
    }
    let mut command = sandbox.ssh_ec2();
    command.args(["--key-file", &own, "-oLogLevel=ERROR", &sandbox.target(), "echo in"]);
    let ended = run(&mut command).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
}

/// The user's configuration files, with conditions, aliases and included files.
#[test]
fn options_in_files_are_found() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let block = sandbox.directory().join("ssh_config");
    let block = block.display();
    let included = sandbox.file("included");
    fs::write(&included, "IdentityAgent /home/me/.1password/agent.sock\n").unwrap();
    let included = included.display();
    let agent = "IdentityAgent /home/me/.1password/agent.sock";
    let place = "in your ssh configuration";
    for (text, host, said) in [
        // ssh applies the settings below `Match final` last.
        (
            format!(
                "Host web\n  HostName web-1.ec2\nHost *\n  IdentitiesOnly yes\nMatch final all\nInclude {block}\n"
            ),
            "web",
            format!("`IdentitiesOnly yes` {place} keeps"),
        ),
        (
            format!("Host i-*\n  Include {included}\nHost *\nInclude {block}\n"),
            HEALTHY,
            format!("`{agent}` {place} keeps"),
        ),
        (
            format!(
                "Match exec \"test -n '%h'\"\n  PreferredAuthentications password\nHost *\nInclude {block}\n"
            ),
            HEALTHY,
            format!("`PreferredAuthentications password` {place} keeps"),
        ),
        (
            format!("Include {block}\nHost *\n  PubkeyAcceptedAlgorithms -ssh-ed25519,rsa-*\n"),
            HEALTHY,
            format!(
                "`PubkeyAcceptedAlgorithms ssh-ed25519-cert-v01@openssh.com,ecdsa-sha2-nistp256-cert-v0…` {place} keeps"
            ),
        ),
    ] {
        let file = sandbox.file("config");
        fs::write(&file, &text).unwrap();
        let mut ssh = sandbox.plain_command("ssh");
        ssh.env("SSH_EC2_DIR", sandbox.directory()).arg("-F").arg(&file);
        ssh.args(["-oLogLevel=ERROR", &format!("ec2-user@{host}"), "true"]);
        let explained = explained(&mut ssh);
        assert!(explained.contains(&said), "{text}\n{explained}");
    }
}

#[test]
fn each_of_several_parallel_connections_prints_its_explanation_once() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let target = format!("ghost@{HEALTHY}");
    let mut started: Vec<_> = (0..6)
        .map(|_| {
            let mut ssh = sandbox.command("ssh");
            ssh.args(["-oLogLevel=ERROR", &target, "true"]);
            Running::start(&mut ssh)
        })
        .collect();
    for ssh in &mut started {
        let ended = ssh.wait().status(255);
        assert_eq!(ended.stderr.matches("there is no user `ghost`").count(), 1, "{ended}");
    }
    sandbox.assert_tidy();
}
