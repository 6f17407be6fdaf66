//! The socket of the one-time key's agent as OpenSSH's tools see it, and the user's own agent beside it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::errors::fails;
use crate::harness::{
    Ended, HEALTHY, Running, Sandbox, eventually, files_below, is_root, run, wait_until_runnable,
};

/// A connection that stays open, and the path of its key agent.
pub(crate) fn connected(sandbox: &Sandbox) -> (Running, PathBuf) {
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("echo in; cat"));
    ssh.wait_for_output(|output| output == b"in\n");
    (ssh, sandbox.agent_socket(&sandbox.target()))
}

fn ssh_add(sandbox: &Sandbox, socket: &PathBuf, words: &[&str]) -> Ended {
    let mut command = sandbox.command("ssh-add");
    run(command.args(words).env("SSH_AUTH_SOCK", socket))
}

#[test]
fn the_socket_offers_one_key_and_takes_none() {
    let sandbox = Sandbox::start();
    let (_ssh, socket) = connected(&sandbox);
    let listed = ssh_add(&sandbox, &socket, &["-L"]).success();
    assert!(
        listed.text().starts_with("ssh-ed25519 AAAA") && listed.text().ends_with(" ssh_ec2\n"),
        "{listed}"
    );
    assert_eq!(listed.text().lines().count(), 1);
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    for words in [&[&*own][..], &["-d", &own], &["-D"], &["-X"]] {
        let refused = ssh_add(&sandbox, &socket, words);
        assert_ne!(refused.code, 0, "{refused}");
    }
    assert_eq!(ssh_add(&sandbox, &socket, &["-L"]).success().text(), listed.text());
}

/// The proxy holds the key. The caller has switched core dumps on, with the largest size possible.
#[test]
fn the_proxy_leaves_no_core_dump() {
    let sandbox = Sandbox::start();
    let proxy = sandbox.proxy(HEALTHY);
    let mut shell = sandbox.command("sh");
    shell.args(["-c", "ulimit -S -c \"$(ulimit -H -c)\"; exec \"$0\" \"$@\""]);
    let mut running = Running::start(shell.arg(proxy.get_program()).args(proxy.get_args()));
    running.wait_for_output(|output| output.ends_with(b"\n"));
    let of_proxy = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", running.id()));
    let limits = of_proxy("limits").unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().next(), Some("0"), "{limits}");
    if !is_root() {
        // The other protection (PR_SET_DUMPABLE) also makes this file unreadable.
        assert_eq!(of_proxy("environ").unwrap_err().kind(), ErrorKind::PermissionDenied);
    }
}

#[test]
fn a_directory_that_is_open_to_others_is_refused() {
    let sandbox = Sandbox::start();
    let directory = sandbox.sockets();
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o755)).unwrap();
    let name = directory.display();
    fails(
        &mut sandbox.proxy(HEALTHY),
        1,
        &format!(
            "the directory {name} of the key agent's socket belongs to another user or is accessible to other users"
        ),
        &[&format!("run `chmod 700 {name}`")],
    );
    assert_eq!(files_below(&directory), Vec::<PathBuf>::new());
    assert!(sandbox.region.sessions().is_empty());
}

#[test]
fn a_path_that_is_too_long_is_refused() {
    let sandbox = Sandbox::start();
    let path = sandbox.file(&"x".repeat(100)).display().to_string();
    let mut proxy = sandbox.ssh_ec2();
    proxy.args(["proxy", "--agent-socket", &path, "ec2-user", HEALTHY, "22"]);
    fails(
        &mut proxy,
        1,
        &format!("the path {path} is too long for a socket"),
        &["run `ssh_ec2 config --install`: the blocks that it writes use a shorter path"],
    );
}

/// `-A` forwards the user's own agent, not the one with the one-time key, which is useless elsewhere.
#[test]
fn the_users_own_agent_is_forwarded() {
    let sandbox = Sandbox::with_sshd();
    let socket = sandbox.file("agent");
    let _agent = Running::start(sandbox.command("ssh-agent").arg("-D").arg("-a").arg(&socket));
    eventually("the agent listens", || socket.exists().then_some(()));
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    ssh_add(&sandbox, &socket, &[&own]).success();
    let mut command = sandbox.ssh_ec2();
    command.env("SSH_AUTH_SOCK", &socket).args(["-q", "-A", &sandbox.target(), "ssh-add -l"]);
    let listed = run(&mut command).success();
    assert!(listed.text().ends_with(" own (ED25519)\n"), "{listed}");
    assert_eq!(listed.text().lines().count(), 1);
    let mut command = sandbox.ssh_ec2();
    command.env("SSH_AUTH_SOCK", &socket).args(["-q", &sandbox.target(), "echo \"$SSH_AUTH_SOCK\""]);
    assert_eq!(run(&mut command).success().text(), "\n", "nothing is forwarded unasked");
}

/// For any path of the user's agent, and from any setting that asks for forwarding.
#[test]
fn the_users_own_agent_is_forwarded_by_any_setting_and_from_any_path() {
    let sandbox = Sandbox::with_sshd();
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    let config = sandbox.home().join(".ssh/config");
    let listed = |socket: &str, words: &[&str]| {
        let mut command = sandbox.ssh_ec2();
        command.env("SSH_AUTH_SOCK", socket).args(["-q", "-F"]).arg(&config).args(words);
        run(command.args([&sandbox.target(), "ssh-add -l"]))
    };
    for name in ["a b", "50%h", "it's", "say \"a\"", "back\\slash", "$HOME", "#1", "yes"] {
        let socket = sandbox.file(name);
        let _agent = Running::start(sandbox.command("ssh-agent").arg("-D").arg("-a").arg(&socket));
        eventually("the agent listens", || socket.exists().then_some(()));
        ssh_add(&sandbox, &socket, &[&own]).success();
        let socket = socket.to_str().unwrap();
        fs::write(&config, "").unwrap();
        assert!(listed(socket, &["-A"]).success().text().ends_with(OWN), "{name:?}");
        assert!(listed(name, &["-A"]).success().text().ends_with(OWN), "{name:?} as a relative path");
        if name == "a b" {
            for words in [&["-o", "ForwardAgent=yes"][..], &["-o", "ForwardAgent $SSH_AUTH_SOCK"], &["-aA"]] {
                assert!(listed(socket, words).success().text().ends_with(OWN), "{words:?}");
            }
            fs::write(&config, "Host *\n    ForwardAgent yes\n").unwrap();
            assert!(listed(socket, &[]).success().text().ends_with(OWN), "in a file");
            listed(socket, &["-a"]).status(2);
            listed(socket, &["-o", "ForwardAgent=no"]).status(2);
            // Blocks for another directory, as a user of the sandbox may have them.
            let mut blocks = sandbox.ssh_ec2();
            blocks.arg("config").env("SSH_EC2_DIR", sandbox.file("other"));
            fs::write(&config, run(&mut blocks).success().text()).unwrap();
            assert!(listed(socket, &["-A"]).success().text().ends_with(OWN), "beside installed blocks");
        }
        // Another agent that ssh is configured with: plain ssh forwards that one.
        let named = name.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
        let named = sandbox.file(&named).display().to_string();
        fs::write(&config, format!("Host *\n    IdentityAgent \"{named}\"\n    ForwardAgent yes\n")).unwrap();
        assert!(listed("/none", &[]).success().text().ends_with(OWN), "{name:?} as IdentityAgent");
        fs::write(&config, format!("Host *\n    ForwardAgent \"{named}\"\n")).unwrap();
        assert!(listed("/none", &[]).success().text().ends_with(OWN), "{name:?} as it is named");
        fs::remove_file(socket).unwrap();
    }
    // ssh would expand the variable, and no quoting prevents it.
    let error = "ssh_ec2: error: the agent at \"/a/${HOME}\" cannot be forwarded: ssh would replace `${…}` in its path\n";
    fs::write(&config, "").unwrap();
    let refused = listed("/a/${HOME}", &["-A"]).status(2);
    assert!(refused.stderr.starts_with(error), "{refused}");
}

#[test]
fn without_an_agent_of_the_users_none_is_forwarded() {
    let sandbox = Sandbox::with_sshd();
    let config = sandbox.home().join(".ssh/config");
    for (text, words) in [
        ("", &["-A"][..]),
        ("", &["-o", "ForwardAgent=yes"]),
        ("ForwardAgent yes\n", &[]),
        ("ForwardAgent yes\nIdentityAgent none\n", &[]),
        ("ForwardAgent $SSH_AUTH_SOCK\n", &[]),
    ] {
        fs::write(&config, text).unwrap();
        let mut command = sandbox.ssh_ec2();
        command
            .args(["-q", "-F"])
            .arg(&config)
            .args(words)
            .args([&sandbox.target(), "echo \"$SSH_AUTH_SOCK\""]);
        assert_eq!(run(&mut command).success().text(), "\n", "{text:?} {words:?}");
    }
}

#[test]
fn copies_forward_the_users_own_agent_too() {
    let sandbox = Sandbox::with_sshd();
    let socket = sandbox.file("a b");
    let _agent = Running::start(sandbox.command("ssh-agent").arg("-D").arg("-a").arg(&socket));
    eventually("the agent listens", || socket.exists().then_some(()));
    let own = sandbox.key_pair(sandbox.file("own"), "ed25519").display().to_string();
    ssh_add(&sandbox, &socket, &[&own]).success();
    let (seen, script) = (sandbox.file("seen"), sandbox.file("rsync"));
    fs::write(&script, format!("#!/bin/sh\nssh-add -l > {}\nexec rsync \"$@\"\n", seen.display())).unwrap();
    fs::set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    wait_until_runnable(&script);
    fs::write(sandbox.file("f"), "x").unwrap();
    let remote = format!("{}:{}", sandbox.target(), sandbox.file("g").display());
    let path = format!("--rsync-path={}", script.display());
    for shell in [&["-e", "ssh -A"][..], &["-e", "ssh -o ForwardAgent=yes"]] {
        let mut command = sandbox.ssh_ec2();
        command.env("SSH_AUTH_SOCK", &socket).arg("rsync").args(shell).args([&path, "f", &remote]);
        run(&mut command).success();
        let seen = fs::read_to_string(&seen).unwrap();
        assert!(seen.ends_with(" own (ED25519)\n"), "{shell:?}: {seen}");
    }
}

/// How ssh-add ends the line of the user's own key.
const OWN: &str = " own (ED25519)\n";
