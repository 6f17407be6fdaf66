//! `ssh_ec2` in front of ssh's own command line: it runs ssh, and leaves everything else to it.

use std::fs;

use crate::errors::fails;
use crate::harness::{HEALTHY, Sandbox, binary, run, run_with_input};

#[test]
fn a_command_runs_and_its_status_comes_back() {
    let sandbox = Sandbox::start();
    let ended =
        run(sandbox.ssh_ec2().args(["-oLogLevel=ERROR", &sandbox.target(), "echo in; exit 7"])).status(7);
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    sandbox.assert_tidy();
}

#[test]
fn options_stand_on_both_sides_of_the_target() {
    let sandbox = Sandbox::start();
    let words = [
        "-q",
        "--reason",
        "a test",
        "-o",
        "SendEnv=LC_ONE",
        HEALTHY,
        "-l",
        "ec2-user",
        "-T",
        "--region",
        "us-east-1",
    ];
    let mut command = sandbox.ssh_ec2();
    let ended = run(command.env("LC_ONE", "1").args(words).arg("echo $LC_ONE $USER")).success();
    assert_eq!(ended.text(), "1 ec2-user\n");
    assert_eq!(sandbox.session().reason.as_deref(), Some("a test"));
    let mut command = sandbox.ssh_ec2();
    let ended = run(command.args(["-q", &sandbox.target(), "--", "echo", "--region", "x", "-v"])).success();
    assert_eq!(ended.text(), "--region x -v\n", "what follows the command's first word is the command's");
}

#[test]
fn a_target_may_be_a_uri() {
    let sandbox = Sandbox::start();
    let uri = format!("ssh://{}:22", sandbox.target());
    assert_eq!(run(sandbox.ssh_ec2().args(["-q", &uri, "echo in"])).success().text(), "in\n");
}

#[test]
fn words_reach_the_remote_shell_as_ssh_passes_them() {
    let sandbox = Sandbox::start();
    let words = ["printf", "'<%s>'", "'a  b'", "\"$HOME\"", "*", "\\*", "a;echo", "$((1+1))"];
    let plain = run(sandbox.ssh(&sandbox.target()).args(words)).success();
    let ours = run(sandbox.ssh_ec2().args(["-q", &sandbox.target()]).args(words)).success();
    assert_eq!(ours.text(), plain.text());
    assert!(ours.text().starts_with("<a  b><"), "{}", ours.text());
}

#[test]
fn input_and_output_are_ssh_s() {
    let sandbox = Sandbox::start();
    let input: Vec<u8> = (0..=255).cycle().take(1 << 20).collect();
    let ended = run_with_input(sandbox.ssh_ec2().args(["-q", &sandbox.target(), "cat"]), &input).success();
    assert!(ended.stdout == input);
}

#[test]
fn a_dry_run_prints_a_line_that_works() {
    let sandbox = Sandbox::start();
    let words = ["-p", "22", "-q", "--dry-run", &sandbox.target(), "echo", "'a  b'"];
    let printed = run(sandbox.ssh_ec2().args(words)).success();
    let directory = sandbox.directory().display();
    assert_eq!(
        printed.text(),
        format!(
            "ssh -p 22 -q \
             -o 'ProxyCommand={} proxy --sockets {directory}/agent '\\''%r'\\'' '\\''%h'\\'' '\\''%p'\\''' -o ProxyUseFdpass=no \
             -o 'KnownHostsCommand={} known-hosts --file {directory}/known_hosts --port %p --host %H --presented %t:%K -- %h' -o UserKnownHostsFile=/dev/null \
             -o StrictHostKeyChecking=yes -o VerifyHostKeyDNS=no -o IdentityAgent={directory}/agent/%C \
             -o IdentityFile=none -o IdentitiesOnly=no ec2-user@{HEALTHY} echo ''\\''a  b'\\'''\n",
            binary().display(),
            binary().display()
        )
    );
    assert_eq!(printed.stderr, "");
    assert!(sandbox.region.sessions().is_empty());
    let ran = run(sandbox.command("sh").args(["-c", printed.text()])).success();
    assert_eq!((ran.text(), ran.stderr.as_str()), ("a  b\n", ""));
}

#[test]
fn verbosity_is_shared_with_ssh() {
    let sandbox = Sandbox::start();
    let quiet = run(sandbox.ssh_ec2().args(["-oLogLevel=ERROR", &sandbox.target(), "true"])).success();
    assert_eq!(quiet.stderr, "");
    let verbose = run(sandbox.ssh_ec2().args(["-v", &sandbox.target(), "true"])).success();
    for said in ["debug1: ", "INFO the region is us-east-1", "INFO channel open after "] {
        assert!(verbose.stderr.contains(said), "{said:?} is not in {verbose}");
    }
    assert!(!verbose.stderr.contains(" DEBUG "), "{verbose}");
    let more = run(sandbox.ssh_ec2().args(["-vv", &sandbox.target(), "true"])).success();
    assert!(more.stderr.contains("debug2: ") && more.stderr.contains(" DEBUG called AWS "), "{more}");
}

#[test]
fn logs_hold_no_secret() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh_ec2().args(["-vvv", &sandbox.target(), "true"])).success();
    let environment = sandbox.region.environment();
    for name in ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        let (_, secret) = environment.iter().find(|(candidate, _)| candidate == name).unwrap();
        assert!(!ended.stderr.contains(secret), "{name} is in the log");
    }
    assert!(!ended.stderr.contains("data-channel"), "a stream URL is in the log: {ended}");
}

#[test]
fn a_key_of_the_users_own_is_used_when_named() {
    let sandbox = Sandbox::start();
    let private = sandbox.key_pair(sandbox.file("my key"), "ed25519");
    for suffix in ["", ".pub"] {
        let mut command = sandbox.ssh_ec2();
        let key_file = format!("{}{suffix}", private.display());
        command.args(["-v", "--key-file", &key_file, &sandbox.target(), "echo in"]);
        let ended = run(&mut command).success();
        assert_eq!(ended.text(), "in\n");
        assert!(ended.stderr.contains(&format!("Offering public key: {}", private.display())), "{ended}");
    }
    fails(
        sandbox.ssh_ec2().args(["--key-file", "/dev/null", &sandbox.target()]),
        1,
        "/dev/null is empty",
        &["give the `.pub` file of a key pair, for example ~/.ssh/id_ed25519.pub"],
    );
}

#[test]
fn a_missing_ssh_is_reported() {
    let sandbox = Sandbox::start();
    let empty = sandbox.file("empty");
    fs::create_dir(&empty).unwrap();
    let mut command = sandbox.ssh_ec2();
    fails(
        command.env("PATH", &empty).arg(sandbox.target()),
        1,
        "cannot run ssh: No such file or directory (os error 2)",
        &["install OpenSSH's client (Debian: `apt install openssh-client`), or put it in PATH"],
    );
}

#[test]
fn a_missing_tool_is_reported_with_its_package() {
    let sandbox = Sandbox::start();
    let empty = sandbox.file("empty");
    fs::create_dir(&empty).unwrap();
    for (program, package) in [
        ("scp", "OpenSSH's client (Debian: `apt install openssh-client`)"),
        ("sftp", "OpenSSH's client (Debian: `apt install openssh-client`)"),
        ("rsync", "rsync (Debian: `apt install rsync`)"),
    ] {
        fails(
            sandbox.ssh_ec2().env("PATH", &empty).args([program, &format!("{}:f", sandbox.target()), "."]),
            1,
            &format!("cannot run {program}: No such file or directory (os error 2)"),
            &[&format!("install {package}, or put it in PATH")],
        );
    }
    fs::write(empty.join("rsync"), "").unwrap();
    fails(
        sandbox.ssh_ec2().env("PATH", &empty).args(["rsync", &format!("{}:f", sandbox.target()), "."]),
        1,
        "cannot run rsync: Permission denied (os error 13)",
        &["check that the rsync in PATH can be executed"],
    );
}

#[test]
fn a_way_round_the_tunnel_is_refused() {
    let sandbox = Sandbox::start();
    let (target, remote) = (sandbox.target(), format!("{}:f", sandbox.target()));
    for (words, option, program) in [
        (&["-J", "web-2", &target][..], "-J web-2", "ssh"),
        (&["-qJweb-2", &target], "-J web-2", "ssh"),
        (&["-J", "none", &target], "-J none", "ssh"),
        (&[&target, "-J", "web-2", "true"], "-J web-2", "ssh"),
        (&["-o", "ProxyJump=web-2", &target], "-o 'ProxyJump=web-2'", "ssh"),
        (&["-oproxyjump web-2", &target], "-o 'proxyjump web-2'", "ssh"),
        (&["-o", "ProxyCommand=none", &target], "-o 'ProxyCommand=none'", "ssh"),
        (&["-o", " ProxyCommand = nc %h %p", &target], "-o ' ProxyCommand = nc %h %p'", "ssh"),
        (&["scp", "-J", "web-2", "f", &remote], "-J web-2", "scp"),
        (&["scp", "-3", "-oProxyJump=web-2", &remote, &remote], "-o 'ProxyJump=web-2'", "scp"),
        (&["sftp", "-qJ", "web-2", &target], "-J web-2", "sftp"),
        (&["rsync", "-e", "ssh -J web-2", "f", &remote], "-J web-2", "rsync"),
        (&["rsync", "f", &remote, "--rsh=ssh -o 'ProxyJump web-2'"], "-o 'ProxyJump web-2'", "rsync"),
    ] {
        let error = format!("`{option}` would make {program} bypass Session Manager");
        let hint = format!(
            "to reach another host through an instance, run `ssh_ec2 config --install`, and then plain {program} with `-J USER@NAME.ec2`"
        );
        fails(sandbox.ssh_ec2().args(words), 2, &error, &["remove that option", &hint]);
    }
    // In a configuration file it comes after our ProxyCommand, which ssh took from its command line.
    let config = sandbox.file("config");
    fs::write(&config, "Host *\n    ProxyJump web-2\n").unwrap();
    run(sandbox.ssh_ec2().arg("-qF").arg(&config).args([&target, "true"])).success();
    assert_eq!(sandbox.region.sessions().len(), 1);
}

#[test]
fn help_and_version_go_to_standard_output() {
    let sandbox = Sandbox::start();
    let help = run(sandbox.ssh_ec2().arg("--help")).success();
    assert!(
        help.text().contains("Usage: ssh_ec2 [OPTIONS] [SSH OPTIONS] [USER@]TARGET [COMMAND …]"),
        "{help}"
    );
    assert_eq!(help.stderr, "");
    let version = run(sandbox.ssh_ec2().arg("--version")).success();
    assert_eq!(version.text(), format!("ssh_ec2 {}\n", env!("CARGO_PKG_VERSION")));
    let faults = run(sandbox.ssh_ec2().args(["sandbox", "--fault", "help"])).success();
    assert_eq!(faults.text(), ec2_sandbox::Faults::list());
}

#[test]
fn a_node_is_offered_the_users_own_keys() {
    let sandbox = Sandbox::start();
    let printed = run(sandbox.ssh_ec2().args(["--dry-run", "me@mi-0decaf00000000001"])).success();
    for word in ["IdentityFile", "IdentityAgent", "--sockets"] {
        assert!(!printed.text().contains(word), "{word:?} is in {printed}");
    }
}
