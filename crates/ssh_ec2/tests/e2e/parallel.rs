//! Many connections at once to one instance and user: they share the path of the key agent's socket.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use ec2_sandbox::{ApiCall, SessionState};
use rustix::process::{Signal, kill_process};

use crate::harness::{Running, Sandbox, WITHOUT_QUOTA, files_below, pid};

/// A connection that stays until its input ends, and then says so.
fn connect(sandbox: &Sandbox, number: usize) -> Running {
    Running::start(sandbox.ssh(&sandbox.target()).arg(format!("echo begin; cat; echo end {number}")))
}

fn wait_until_connected(ssh: &mut Running) {
    ssh.wait_for_output(|output| output == b"begin\n");
}

fn end(ssh: Running, number: usize) {
    let ended = ssh.finish().success();
    assert_eq!((ended.text(), ended.stderr.as_str()), (&*format!("begin\nend {number}\n"), ""));
}

#[test]
fn twenty_connections_leave_nothing_behind() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let mut running: Vec<_> = (0..20).map(|number| Some(connect(&sandbox, number))).collect();
    running.iter_mut().flatten().for_each(wait_until_connected);
    assert_eq!(sandbox.proxies().len(), 20);
    // Every other one ends, among them those that came first and last, and the rest goes on.
    for number in [19, 0, 2, 4, 6, 8, 10, 12, 14, 16] {
        end(running[number].take().unwrap(), number);
    }
    // The key agent's path still leads somewhere.
    assert_eq!(sandbox.remote("echo more"), "more\n");
    for (number, ssh) in running.into_iter().enumerate().filter_map(|(number, ssh)| Some((number, ssh?))) {
        end(ssh, number);
    }
    sandbox.assert_tidy();
    assert_eq!(sandbox.region.sessions().len(), 21);
}

/// Asks a key agent for its keys; how many there are.
fn list(agent: &mut UnixStream) -> u32 {
    agent.write_all(&[0, 0, 0, 1, 11]).unwrap();
    let mut length = [0; 4];
    agent.read_exact(&mut length).unwrap();
    let mut answer = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
    agent.read_exact(&mut answer).unwrap();
    assert_eq!(answer[0], 12, "keys");
    u32::from_be_bytes(answer[1..5].try_into().unwrap())
}

#[test]
fn who_authenticates_with_the_key_of_another_connection_is_not_left_alone() {
    let sandbox = Sandbox::start();
    let mut ssh = connect(&sandbox, 1);
    wait_until_connected(&mut ssh);
    // As another ssh for the same user, host and port would.
    let link = sandbox.agent_socket(&sandbox.target());
    let mut guest = UnixStream::connect(link).unwrap();
    assert_eq!(list(&mut guest), 1);
    end(ssh, 1);
    assert_eq!(list(&mut guest), 1, "the other connection has ended, and its key is served on");
    // The socket for known-hosts stays for as long as the process does; its ssh alone may use it.
    let of_key_agents = |path: &PathBuf| !path.to_string_lossy().contains("/.host-keys.");
    let left: Vec<_> = files_below(&sandbox.sockets()).into_iter().filter(of_key_agents).collect();
    assert_eq!(left, Vec::<PathBuf>::new(), "to nobody new");
    drop(guest);
    sandbox.assert_tidy();
}

#[test]
fn a_service_that_throttles_is_given_time() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA, "throttle=SendSSHPublicKey:5/10"]);
    let running: Vec<_> =
        (0..40).map(|_| Running::start(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"]))).collect();
    for mut running in running {
        assert_eq!(running.wait().success().text(), "in\n");
    }
    sandbox.assert_tidy();
}

/// AWS lets an account start three sessions a second in a region, and so does the region here.
#[test]
fn connections_beyond_the_quota_of_sessions_wait_for_their_turn() {
    let sandbox = Sandbox::start();
    let running: Vec<_> =
        (0..15).map(|_| Running::start(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"]))).collect();
    for mut running in running {
        assert_eq!(running.wait().success().text(), "in\n");
    }
    sandbox.assert_tidy();
    assert_eq!(sandbox.region.sessions().len(), 15);
    let refused = |call: &ApiCall| call.action == "ssm:StartSession" && !call.ok;
    assert!(sandbox.region.calls().iter().any(refused), "the quota was met");
}

#[test]
fn no_private_key_is_ever_in_a_file() {
    let sandbox = Sandbox::start();
    let mut running: Vec<_> = (0..3).map(|number| connect(&sandbox, number)).collect();
    running.iter_mut().for_each(wait_until_connected);
    let look = || {
        let files = files_below(sandbox.directory());
        for file in files.iter().filter(|file| file.is_file() && !file.is_symlink()) {
            assert!(!holds_private_key(file), "{} holds a private key", file.display());
        }
    };
    look();
    for (number, ssh) in running.into_iter().enumerate() {
        end(ssh, number);
    }
    sandbox.assert_tidy();
    look();
    assert!(holds_private_key(&sandbox.key_pair(sandbox.file("control"), "ed25519")));
}

fn holds_private_key(file: &Path) -> bool {
    let bytes = fs::read(file).unwrap();
    [&b"PRIVATE KEY"[..], b"openssh-key-v1"]
        .iter()
        .any(|mark| bytes.windows(mark.len()).any(|window| window == *mark))
}

#[test]
fn a_killed_proxy_harms_no_other_connection() {
    let sandbox = Sandbox::start();
    let mut running = Vec::new();
    for number in 0..3 {
        running.push(connect(&sandbox, number));
        wait_until_connected(running.last_mut().unwrap());
    }
    // The path leads to the one that came last.
    let link = files_below(&sandbox.sockets()).into_iter().find(|file| file.is_symlink()).unwrap();
    let holder = fs::read_link(&link).unwrap();
    let holder: u32 = holder.to_str().unwrap().rsplit_once('.').unwrap().1.parse().unwrap();
    kill_process(pid(holder), Signal::KILL).unwrap();
    let killed = running.pop().unwrap().finish().status(255);
    assert_eq!(killed.text(), "begin\n");
    // The next connection finds a path that leads to nobody.
    assert_eq!(sandbox.remote("echo next"), "next\n");
    for (number, ssh) in running.into_iter().enumerate() {
        end(ssh, number);
    }
    assert_eq!(files_below(&sandbox.sockets()), Vec::<PathBuf>::new());
    // Nobody is left to end the killed one's session; AWS ends it when it has been idle for long.
    let connected = |session: &ec2_sandbox::SessionSummary| session.state == SessionState::Connected;
    assert_eq!(sandbox.region.sessions().iter().filter(|session| connected(session)).count(), 1);
}

#[test]
fn a_connection_begun_while_another_ends_finds_a_key_agent() {
    let sandbox = Sandbox::start();
    for round in 0..5 {
        let ending = connect(&sandbox, round);
        let mut ending = ending;
        wait_until_connected(&mut ending);
        let beginning = connect(&sandbox, 100);
        end(ending, round);
        end(beginning, 100);
    }
    sandbox.assert_tidy();
}
