//! The one-time key's socket, as OpenSSH's own tools see it, and the user's own agent beside it.

use std::fs::{self, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use crate::errors::fails;
use crate::harness::{Ended, HEALTHY, Running, Sandbox, eventually, files_below, is_root, run};

/// A connection that lasts, and the path of its key agent.
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

/// The process that has the key, as the system sees it; whoever starts it would have dumps as large as can be.
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
        // Without the second of the two ways it would be ours to read.
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
            "the directory {name} of the key agent's socket belongs to somebody else or is open to others"
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
        &["run `ssh_ec2 config --install`: the blocks that it writes name a shorter socket"],
    );
}

/// `-A` forwards the agent that the user has, not ours, whose one key is of no use elsewhere.
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
