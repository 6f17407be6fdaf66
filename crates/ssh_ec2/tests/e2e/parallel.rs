//! Many connections at once to one instance and user: they share the path of the key agent's socket.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use ec2_sandbox::{ApiCall, SessionState};
use rustix::process::{Signal, kill_process};

use crate::harness::{
    DEADLINE, HEALTHY, Running, Sandbox, WITHOUT_QUOTA, eventually, files_below, is_child_of, pid, run,
    wait_until_runnable,
};

/// A connection that lasts until its input ends, and prints its number then.
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
    // Every other connection ends, among them the first and the last; the others go on.
    for number in [19, 0, 2, 4, 6, 8, 10, 12, 14, 16] {
        end(running[number].take().unwrap(), number);
    }
    // The link still leads to a key agent.
    assert_eq!(sandbox.remote("echo more"), "more\n");
    for (number, ssh) in running.into_iter().enumerate().filter_map(|(number, ssh)| Some((number, ssh?))) {
        end(ssh, number);
    }
    sandbox.assert_tidy();
    assert_eq!(sandbox.region.sessions().len(), 21);
}

/// Asks a key agent for its keys. Returns their number.
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
fn an_ssh_that_uses_the_key_of_another_connection_is_served_to_its_end() {
    let sandbox = Sandbox::start();
    let mut ssh = connect(&sandbox, 1);
    wait_until_connected(&mut ssh);
    // As another ssh for the same user, host and port would.
    let link = sandbox.agent_socket(&sandbox.target());
    let mut guest = UnixStream::connect(link).unwrap();
    assert_eq!(list(&mut guest), 1);
    end(ssh, 1);
    assert_eq!(list(&mut guest), 1, "the other connection has ended, and its key is served on");
    assert_eq!(of_key_agents(&sandbox), Vec::<PathBuf>::new(), "to nobody new");
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
        (0..75).map(|_| Running::start(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"]))).collect();
    for mut running in running {
        assert_eq!(running.wait().success().text(), "in\n");
    }
    sandbox.assert_tidy();
    assert_eq!(sandbox.region.sessions().len(), 75);
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
    // The link leads to the newest connection.
    kill_process(pid(leader(&sandbox).unwrap()), Signal::KILL).unwrap();
    let killed = running.pop().unwrap().finish().status(255);
    assert_eq!(killed.text(), "begin\n");
    // The next connection finds a link that leads to no process.
    assert_eq!(sandbox.remote("echo next"), "next\n");
    for (number, ssh) in running.into_iter().enumerate() {
        end(ssh, number);
    }
    assert_eq!(files_below(&sandbox.sockets()), Vec::<PathBuf>::new());
    // The killed proxy could not end its session; AWS ends it when it has been idle for long.
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

/// Sandboxes that refuse each push after these. ssh gets no byte before its own push has succeeded, so that a
/// failed push takes no key from the others.
#[test]
fn as_many_connections_succeed_as_keys_could_be_pushed() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA, "throttle=SendSSHPublicKey:0/3"]);
    let running: Vec<_> =
        (0..6).map(|_| Running::start(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"]))).collect();
    let ended: Vec<_> = running.into_iter().map(Running::finish).collect();
    let (let_in, refused): (Vec<_>, Vec<_>) = ended.iter().partition(|ended| ended.code == 0);
    assert_eq!(let_in.len(), 3, "{ended:?}");
    assert!(let_in.iter().all(|ended| ended.text() == "in\n"));
    for ended in refused {
        assert!(ended.stderr.contains("SendSSHPublicKey"), "{ended}");
        assert!(!ended.stderr.contains("Permission denied"), "ssh was not let so far: {ended}");
    }
    sandbox.assert_tidy();
}

#[test]
fn a_hundred_connections_at_once_succeed() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let running: Vec<_> =
        (0..100).map(|_| Running::start(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"]))).collect();
    for mut running in running {
        assert_eq!(running.wait().success().text(), "in\n");
    }
    sandbox.assert_tidy();
}

/// It is hit after the server's part of the other one's key exchange has come, and before that one's ssh
/// asks.
#[test]
fn a_proxy_that_is_killed_or_stopped_with_the_link_harms_no_ssh_that_is_about_to_ask() {
    for signal in [Signal::KILL, Signal::STOP] {
        let sandbox = Sandbox::start();
        let (asked, go, script) = (sandbox.file("asked"), sandbox.file("go"), sandbox.file("script"));
        let wait = format!("touch {}; until [ -e {} ]; do :; done", asked.display(), go.display());
        fs::write(&script, format!("#!/bin/sh\n[ $1 = HOSTNAME ] && {{ {wait}; }}\nexit 0\n")).unwrap();
        fs::set_permissions(&script, Permissions::from_mode(0o700)).unwrap();
        wait_until_runnable(&script);
        let mut ssh = sandbox.ssh(&sandbox.target());
        ssh.arg("-o").arg(format!("KnownHostsCommand={} %I", script.display()));
        let mut ssh = Running::start(ssh.args(["-o", "StrictHostKeyChecking=no", "-n", "echo in"]));
        eventually("ssh looks for the host key", || asked.exists().then_some(()));
        let mut other = connect(&sandbox, 0);
        wait_until_connected(&mut other);
        kill_process(pid(leader(&sandbox).unwrap()), signal).unwrap();
        fs::write(&go, "").unwrap();
        assert_eq!(ssh.wait().success().text(), "in\n", "{signal:?}");
    }
}

/// They are hit as soon as the link leads to them: in their turns.
#[test]
fn a_proxy_that_is_killed_or_stopped_in_its_turn_harms_no_other_connection() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let link = sandbox.agent_socket(&sandbox.target());
    let (mut running, mut hit, mut stopped) = (Vec::new(), Vec::new(), Vec::new());
    for signal in [Signal::STOP, Signal::KILL, Signal::STOP] {
        running.extend((0..5).map(|number| connect(&sandbox, number)));
        let begun = Instant::now();
        let leader = loop {
            match leader_by(&link).filter(|leader| !hit.contains(leader)) {
                Some(leader) => break leader,
                None => assert!(begun.elapsed() < DEADLINE, "nobody new has the link: {hit:?}"),
            }
        };
        let its_ssh = running.iter().position(|ssh| is_child_of(leader, ssh.id())).unwrap();
        kill_process(pid(leader), signal).unwrap();
        hit.push(leader);
        stopped.push(running.remove(its_ssh));
    }
    running.iter_mut().for_each(wait_until_connected);
    for ssh in running {
        assert!(ssh.finish().success().text().starts_with("begin\nend "));
    }
    drop(stopped);
    // What is left of those that were killed goes with the next connection.
    assert_eq!(sandbox.remote("echo next"), "next\n");
    eventually("the proxies end", || sandbox.proxies().is_empty().then_some(()));
    assert_eq!(of_key_agents(&sandbox), Vec::<PathBuf>::new());
}

/// The process that the link leads to.
fn leader(sandbox: &Sandbox) -> Option<u32> {
    leader_by(&sandbox.agent_socket(&sandbox.target()))
}

fn leader_by(link: &Path) -> Option<u32> {
    let name = fs::read_link(link).ok()?.into_os_string().into_string().unwrap();
    Some(name.rsplit_once('.').unwrap().1.parse().unwrap())
}

/// The files of key agents. The sockets for known-hosts stay for as long as their processes do.
fn of_key_agents(sandbox: &Sandbox) -> Vec<PathBuf> {
    let files = files_below(&sandbox.sockets()).into_iter();
    files.filter(|path| !path.to_string_lossy().contains("/.host-keys.")).collect()
}

/// A connection, and the process of its proxy.
fn connect_alone(sandbox: &Sandbox, number: usize) -> (Running, u32) {
    let before = sandbox.proxies();
    let mut ssh = connect(sandbox, number);
    wait_until_connected(&mut ssh);
    let new: Vec<_> = sandbox.proxies().into_iter().filter(|proxy| !before.contains(proxy)).collect();
    (ssh, new[0])
}

#[test]
fn no_connection_waits_for_a_stopped_proxy() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA]);
    let (stopped, its_proxy) = connect_alone(&sandbox, 0);
    let (heir, proxy_of_heir) = connect_alone(&sandbox, 1);
    let (last, proxy_of_last) = connect_alone(&sandbox, 2);
    assert_eq!(leader(&sandbox), Some(proxy_of_last));
    kill_process(pid(its_proxy), Signal::STOP).unwrap();
    end(last, 2);
    assert_eq!(leader(&sandbox), Some(proxy_of_heir), "the other one runs");
    end(heir, 1);
    assert_eq!(leader(&sandbox), None, "the system would accept connections for it, and nobody would answer");
    assert_eq!(sandbox.remote("echo next"), "next\n");
    kill_process(pid(its_proxy), Signal::CONT).unwrap();
    end(stopped, 0);
    sandbox.assert_tidy();
}

/// An ssh whose forwarded agent has gone continues.
#[test]
fn a_connection_outlives_the_credentials_that_a_second_push_would_need() {
    let sandbox = Sandbox::with_sshd();
    let mut ssh = sandbox.ssh(&sandbox.target());
    let remote = "echo begin; read -r line; ssh-add -l; echo status $?; cat";
    let mut ssh = Running::start(ssh.args(["-A", remote]));
    ssh.wait_for_output(|output| output == b"begin\n");
    let begun = Instant::now();
    sandbox.region.expire_credentials();
    // EC2 Instance Connect keeps a key for a minute, and a test cannot shorten that.
    eventually("the push is old", || (begun.elapsed() > ssh_ec2::key::push::MAX_AGE).then_some(()));
    ssh.write(b"list\n");
    ssh.wait_for_output(|output| output.ends_with(b"status 2\n") || output.ends_with(b"status 1\n"));
    ssh.write(b"still here\n");
    let ended = ssh.finish().success();
    assert!(ended.text().ends_with("still here\n"), "{ended}");
    assert_eq!(files_below(&sandbox.sockets()), Vec::<PathBuf>::new());
}

/// Locks that another process holds: a stopped one, or one that waits for an NFS server.
#[test]
fn a_lock_that_is_never_released_holds_up_no_connection() {
    let sandbox = Sandbox::start();
    let remote = || {
        let mut ssh = sandbox.ssh_ec2();
        ssh.args(["-q", "ec2-user@web-1", "echo in"]);
        ssh
    };
    assert_eq!(run(&mut remote()).success().text(), "in\n");
    let cache = files_below(&sandbox.directory().join("cache"));
    let kinds = ["lock", "pace", "turn"];
    let of_locks =
        cache.iter().filter(|file| kinds.iter().any(|kind| file.extension() == Some(kind.as_ref())));
    // That of the link to the key agents, while a connection lasts.
    let mut lasting = connect(&sandbox, 0);
    wait_until_connected(&mut lasting);
    let of_link =
        files_below(&sandbox.sockets()).into_iter().find(|file| file.extension() == Some("turn".as_ref()));
    let of_locks: Vec<_> = of_locks.cloned().chain(of_link).collect();
    assert_eq!(of_locks.len(), 4, "{cache:?}");
    let held = of_locks.iter().map(|path| fs::File::open(path).unwrap()).collect::<Vec<_>>();
    held.iter().for_each(|file| file.lock().unwrap());
    assert_eq!(sandbox.remote("echo in"), "in\n");
    assert_eq!(run(&mut remote()).success().text(), "in\n");
    // A name that is not in the cache has to be looked up and written to the cache.
    for file in cache.iter().filter(|file| file.extension() == Some("json".as_ref())) {
        fs::remove_file(file).unwrap();
    }
    assert_eq!(run(&mut remote()).success().text(), "in\n");
    let mut proxy = Running::start(&mut sandbox.proxy(HEALTHY));
    eventually("the proxy catches signals", || catches(proxy.id(), Signal::TERM).then_some(()));
    proxy.signal(Signal::TERM);
    assert!(proxy.wait().status(130).stdout.is_empty());
    drop(held);
    end(lasting, 0);
    sandbox.assert_tidy();
}

/// Whether a process has a handler for a signal.
fn catches(process: u32, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let caught =
        status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0").trim().to_owned();
    u64::from_str_radix(&caught, 16).unwrap() >> (signal.as_raw() - 1) & 1 == 1
}
