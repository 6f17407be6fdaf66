//! The cause of a failure is printed before the command returns: also into a file that is its standard error,
//! and not over the shell's next prompt.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use ec2_sandbox::Options;
use rustix::process::{Signal, kill_process};

use crate::harness::{
    ABSENT, HEALTHY, NO_INSTANCE_CONNECT, PUSH_DENIED, Running, SSM_AGENT_OFFLINE, START_DENIED, Sandbox,
    WITHOUT_QUOTA, eventually, files_below, is_child_of, pid,
};
use crate::job_control::ssh_below;

/// Runs a command until it exits, and no longer. Returns its standard error at that moment.
fn at_its_end(sandbox: &Sandbox, command: &mut Command) -> (ExitStatus, String) {
    let log = sandbox.file("log");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let status = command.status().unwrap();
    (status, fs::read_to_string(&log).unwrap())
}

/// A region that is slow enough for the explanation to come after ssh's end.
fn slow() -> Sandbox {
    Sandbox::with(Options { latency: Duration::from_millis(50), ..Options::default() })
}

#[test]
fn a_refused_key_is_explained_by_every_program() {
    let sandbox = slow();
    let (file, ghost) = (sandbox.file("f"), format!("ghost@{HEALTHY}"));
    fs::write(&file, "x").unwrap();
    let (file, remote) = (file.to_str().unwrap(), format!("{ghost}:{}", sandbox.file("g").display()));
    let commands: [&[&str]; 6] = [
        &[&ghost, "true"],
        &["-T", "-o", "LogLevel=ERROR", &ghost],
        &["scp", "-q", file, &remote],
        &["scp", "-O", "-q", file, &remote],
        &["sftp", "-q", "-b", "/dev/null", &ghost],
        &["rsync", "-a", file, &remote],
    ];
    for words in commands {
        let (status, said) = at_its_end(&sandbox, sandbox.ssh_ec2().args(words));
        assert!(!status.success(), "{words:?}");
        assert!(said.contains("ssh_ec2: error: there is no user `ghost` on"), "{words:?}: {said}");
        assert_eq!(said.matches("ssh_ec2: error: ").count(), 1, "{words:?}: {said}");
    }
    sandbox.assert_tidy();
}

/// The session that looks for the cause starts after ssh has ended, and an SSM agent may be busy.
#[test]
fn an_instance_that_is_slow_to_say_why_is_waited_for() {
    let sandbox = Sandbox::with_faults(&[WITHOUT_QUOTA, "slow-attach=2500ms"]);
    let (_, said) = at_its_end(&sandbox, sandbox.ssh_ec2().args([&format!("ghost@{HEALTHY}"), "true"]));
    assert!(said.contains("ssh_ec2: error: there is no user `ghost` on"), "{said}");
    sandbox.assert_tidy();
}

#[test]
fn every_other_failure_is_explained() {
    let sandbox = slow();
    for (target, cause) in [
        (NO_INSTANCE_CONNECT, "does not have EC2 Instance Connect"),
        (PUSH_DENIED, "SendSSHPublicKey"),
        (START_DENIED, "StartSession"),
        (SSM_AGENT_OFFLINE, "Session Manager last heard from it"),
        (ABSENT, "no instance of this account"),
        ("i-0dead00000000001d", "host key"),
    ] {
        let (status, said) = at_its_end(&sandbox, sandbox.ssh_ec2().args([&sandbox.at(target), "true"]));
        assert_eq!(status.code(), Some(255), "{target}: {said}");
        assert!(said.contains("ssh_ec2: error: ") && said.contains(cause), "{target}: {said}");
    }
    let mut command = sandbox.ssh_ec2();
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    let (_, said) = at_its_end(&sandbox, command.args([&sandbox.target(), "true"]));
    assert!(said.contains("ssh_ec2: error: there are no AWS credentials"), "{said}");
    sandbox.assert_tidy();
}

#[test]
fn a_remote_command_that_fails_like_ssh_is_not_waited_for() {
    // The proxy ends the session at AWS, which does not answer in the two seconds that it waits.
    let sandbox = Sandbox::with(Options { latency: Duration::from_secs(3), ..Options::default() });
    let mut command = sandbox.ssh_ec2();
    command.args(["-q", "-o", "ConnectTimeout=60", &sandbox.target(), "exit 255"]);
    let (status, said) = at_its_end(&sandbox, &mut command);
    assert_eq!((status.code(), said.as_str()), (Some(255), ""));
    assert!(!sandbox.proxies().is_empty(), "it waited until the proxy was gone");
    sandbox.assert_tidy();
}

/// A session whose proxy hangs, and whose ssh has just failed.
fn with_a_stuck_proxy(sandbox: &Sandbox) -> (Running, Vec<u32>) {
    let mut wrapper = Running::start(sandbox.ssh_ec2().args(["-T", &sandbox.target(), "echo begun; cat"]));
    wrapper.wait_for_output(|output| output == b"begun\n");
    let ssh = ssh_below(wrapper.id());
    let proxies: Vec<_> = sandbox.proxies().into_iter().filter(|id| is_child_of(*id, ssh)).collect();
    assert_eq!(proxies.len(), 1);
    for proxy in &proxies {
        kill_process(pid(*proxy), Signal::STOP).unwrap();
    }
    kill_process(pid(ssh), Signal::TERM).unwrap();
    eventually("ssh is gone", || (!Path::new(&format!("/proc/{ssh}")).exists()).then_some(()));
    (wrapper, proxies)
}

#[test]
fn the_wait_for_a_proxy_that_hangs_ends_by_itself_and_by_sigint() {
    let sandbox = Sandbox::start();
    let waited = |ending: &dyn Fn(&Running, &[u32])| {
        let (mut wrapper, proxies) = with_a_stuck_proxy(&sandbox);
        let since = Instant::now();
        ending(&wrapper, &proxies);
        eventually("the wrapper ends", || wrapper.has_ended().then_some(()));
        let waited = since.elapsed();
        for proxy in proxies {
            // One of them was killed.
            let _ = kill_process(pid(proxy), Signal::CONT);
        }
        assert_eq!(wrapper.finish().code, 255, "that of ssh");
        waited
    };
    let patience = waited(&|_, _| {});
    let interrupted = waited(&|wrapper, _| wrapper.signal(Signal::INT));
    let killed = waited(&|_, proxies| kill_process(pid(proxies[0]), Signal::KILL).unwrap());
    assert!(interrupted < patience, "{interrupted:?} with SIGINT, {patience:?} without");
    assert!(killed < patience, "{killed:?} when the proxy was killed, {patience:?} when not");
}

/// Options with which the first ssh leaves its connection to a process in the background.
fn persisting(sandbox: &Sandbox) -> [String; 3] {
    let path = format!("ControlPath={}", sandbox.file("c").display());
    ["ControlMaster=auto".into(), "ControlPersist=60".into(), path]
}

/// Runs a command whose connection goes on in the background until the command exits, and then ends the
/// connection. While the connection lasts, the proxy keeps its socket to the wrapper open, so that a wrapper
/// that waits for it would return only after its time limit.
fn assert_not_waited_for(sandbox: &Sandbox, words: &[&str], code: i32) {
    let since = Instant::now();
    let (status, said) = at_its_end(sandbox, sandbox.ssh_ec2().args(words));
    let took = since.elapsed();
    assert_eq!(status.code(), Some(code), "{words:?}: {said}");
    assert!(!said.contains("ssh_ec2: "), "{words:?}: {said}");
    let [proxy] = sandbox.proxies()[..] else { panic!("{words:?}: the connection is gone: {said}") };
    assert!(took < PATIENCE, "{words:?}: {took:?}");
    kill_process(pid(proxy), Signal::TERM).unwrap();
    sandbox.assert_tidy();
}

/// The longest time that `ssh_ec2` waits.
const PATIENCE: Duration = Duration::from_secs(5);

#[test]
fn a_connection_that_outlives_its_ssh_is_not_waited_for() {
    let sandbox = Sandbox::start();
    let config = sandbox.file("background");
    fs::write(&config, "ForkAfterAuthentication yes\nStdinNull yes\n").unwrap();
    let target = sandbox.target();
    assert_not_waited_for(&sandbox, &["-q", "-f", "-N", &target], 0);
    assert_not_waited_for(&sandbox, &["-q", "-F", config.to_str().unwrap(), "-N", &target], 0);
    let persisting = persisting(&sandbox).map(|option| format!("-o{option}"));
    let [master, persist, path] = persisting.each_ref().map(String::as_str);
    assert_not_waited_for(&sandbox, &["-q", master, persist, path, &target, "exit 255"], 255);
    // These fail because the file does not exist.
    let missing = format!("{target}:/missing");
    let ssh = persisting.join(" ");
    assert_not_waited_for(&sandbox, &["rsync", "-e", &format!("ssh {ssh}"), &missing, "."], 23);
    assert_not_waited_for(&sandbox, &["sftp", "-q", "-b", "/dev/null", master, persist, path, &missing], 1);
    // A second client starts no proxy.
    let (status, _) =
        at_its_end(&sandbox, sandbox.ssh_ec2().args(["-q", master, persist, path, &target, "true"]));
    assert!(status.success());
    assert_not_waited_for(&sandbox, &["-q", path, &target, "exit 255"], 255);
}

#[test]
fn a_login_that_would_have_gone_to_the_background_is_explained() {
    let sandbox = slow();
    let ghost = format!("ghost@{HEALTHY}");
    let persisting = persisting(&sandbox).map(|option| format!("-o{option}"));
    let [master, persist, path] = persisting.each_ref().map(String::as_str);
    for words in [&["-f", "-N", &ghost][..], &[master, persist, path, &ghost, "true"]] {
        let (status, said) = at_its_end(&sandbox, sandbox.ssh_ec2().args(words));
        assert_eq!(status.code(), Some(255), "{words:?}: {said}");
        assert!(said.contains("ssh_ec2: error: there is no user `ghost` on"), "{words:?}: {said}");
    }
    sandbox.assert_tidy();
}

#[test]
fn a_directory_without_room_for_the_socket_keeps_nobody_from_connecting() {
    let sandbox = Sandbox::start();
    // Our own directory stays usable, since the key agent needs it too; here the user's own key is used.
    let key = sandbox.key_pair(sandbox.file("k"), "ed25519");
    fs::create_dir_all(sandbox.sockets()).unwrap();
    fs::set_permissions(sandbox.sockets(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = sandbox.ssh_ec2();
    command.args(["-q", "--key-file", key.to_str().unwrap(), &sandbox.target(), "exit 7"]);
    let (status, said) = at_its_end(&sandbox, &mut command);
    assert_eq!(status.code(), Some(7), "{said}");
}

/// How many wrappers are waited for.
fn waiting(sandbox: &Sandbox) -> usize {
    let names = fs::read_dir(sandbox.sockets()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(".wait.")).count()
}

#[test]
fn a_wrapper_that_was_killed_leaves_no_socket() {
    let sandbox = Sandbox::start();
    let connect = || {
        let mut command = sandbox.ssh_ec2();
        command.args(["-q", "-T", &sandbox.target(), "echo begun; cat"]);
        let mut wrapper = Running::start(&mut command);
        wrapper.wait_for_output(|output| output == b"begun\n");
        wrapper
    };
    let wrapper = connect();
    assert_eq!(waiting(&sandbox), 1);
    wrapper.signal(Signal::KILL);
    sandbox.assert_tidy();
    assert_eq!(waiting(&sandbox), 0);
    // Killed together with its proxy, which cannot remove it then.
    let wrapper = connect();
    let ssh = ssh_below(wrapper.id());
    let proxy = sandbox.proxies().into_iter().find(|proxy| is_child_of(*proxy, ssh)).unwrap();
    // So that it sees nothing of the proxy's end.
    wrapper.signal(Signal::STOP);
    let stat = || fs::read_to_string(format!("/proc/{}/stat", wrapper.id())).unwrap();
    eventually("the wrapper is stopped", || stat().contains(") T ").then_some(()));
    kill_process(pid(proxy), Signal::KILL).unwrap();
    wrapper.signal(Signal::KILL);
    assert_eq!(wrapper.finish().code, 137);
    eventually("the proxy ends", || sandbox.proxies().is_empty().then_some(()));
    assert_eq!(waiting(&sandbox), 1);
    let next = connect();
    assert_eq!(waiting(&sandbox), 1, "its own");
    next.finish().success();
    eventually("the proxy ends", || sandbox.proxies().is_empty().then_some(()));
    assert_eq!(files_below(&sandbox.sockets()), Vec::<PathBuf>::new());
}
