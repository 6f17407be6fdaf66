//! The program as process 1 of a container. Process 1 gets no signal that it does not catch, adopts every
//! process whose parent has ended, and its end kills all others.

use std::fs;
use std::path::Path;
use std::process::Command;

use ec2_sandbox::SessionState;
use rustix::process::{Signal, kill_process};

use crate::credential_process::{program, with_process};
use crate::harness::{HEALTHY, Running, Sandbox, Terminal, eventually, find_processes, pid, run};
use crate::stdout::is_exchanged;

/// Makes a command process 1. Without root this takes user namespaces.
const CONTAINER: [&str; 6] = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];

/// The same command as process 1, without the terminal of the test.
fn contained(sandbox: &Sandbox, command: &Command) -> Command {
    let words: Vec<_> = CONTAINER.into_iter().chain(["setsid"]).collect();
    sandbox.behind(&words, command)
}

/// The process id of process 1 outside of its namespace.
fn first_process(proxy: &Running) -> u32 {
    let children = format!("/proc/{0}/task/{0}/children", proxy.id());
    eventually("there is a process 1", || fs::read_to_string(&children).ok()?.trim().parse().ok())
}

fn greeted(sandbox: &Sandbox, command: &Command) -> Running {
    let mut proxy = Running::start(&mut contained(sandbox, command));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    proxy
}

#[test]
fn signals_end_the_session() {
    let sandbox = Sandbox::start();
    for signal in [Signal::ALARM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        let mut proxy = greeted(&sandbox, &sandbox.proxy(HEALTHY));
        kill_process(pid(first_process(&proxy)), signal).unwrap();
        let ended = proxy.wait().status(130);
        assert_eq!(ended.stderr, "");
        let all_ended = sandbox.region.sessions().iter().all(|it| it.state == SessionState::Terminated);
        assert!(all_ended, "{signal:?} ends the session before the process");
    }
}

#[test]
fn the_end_of_input_ends_the_session() {
    let sandbox = Sandbox::start();
    let mut proxy = greeted(&sandbox, &sandbox.proxy(HEALTHY));
    proxy.write(b"SSH-2.0-test\r\n");
    let ended = proxy.finish().success();
    assert!(is_exchanged(&ended.stdout), "{ended}");
    sandbox.assert_tidy();
}

#[test]
fn orphans_are_reaped() {
    let sandbox = Sandbox::start();
    let duration = format!("86397.{}", std::process::id());
    // A background job of a shell that ends first.
    let process = program(&sandbox, &format!("(sleep {duration} >/dev/null 2>&1 &)")).display().to_string();
    let proxy = greeted(&sandbox, &with_process(&sandbox, sandbox.proxy(HEALTHY), &process));
    let [orphan] = find_processes(|words| words.contains(&duration))[..] else {
        panic!("there is no orphan")
    };
    kill_process(pid(orphan), Signal::KILL).unwrap();
    eventually("the orphan is reaped", || (!Path::new(&format!("/proc/{orphan}")).exists()).then_some(()));
    proxy.finish().success();
}

/// `ssh_ec2` without `KnownHostsCommand`: ssh sets the groups of the user for that, which a namespace with
/// one user does not allow.
fn wrapper(sandbox: &Sandbox, remote: &str) -> Command {
    let mut wrapper = sandbox.ssh_ec2();
    wrapper.args(["-q", "-o", "KnownHostsCommand=none", "-o", "StrictHostKeyChecking=no", "-t"]);
    wrapper.args([&sandbox.at(HEALTHY), remote]);
    wrapper
}

#[test]
fn a_terminal_works() {
    let sandbox = Sandbox::start();
    let shell = wrapper(&sandbox, "trap 'exit 4' INT; echo ready; read line; echo \"[$line]\"; cat");
    let mut terminal = Terminal::start(sandbox.behind(&CONTAINER, &shell), 24, 80);
    terminal.wait_for("ready");
    terminal.type_in("hallo\r");
    terminal.wait_for("[hallo]");
    terminal.type_in("\u{3}");
    assert_eq!(terminal.status(), 4);
    sandbox.assert_tidy();
}

/// ssh ends without waiting for its proxy, which still has to end its session.
#[test]
fn the_proxy_of_an_ssh_that_is_done_ends_its_session() {
    let sandbox = Sandbox::start();
    let ended = run(&mut contained(&sandbox, &wrapper(&sandbox, "echo in; exit 3"))).status(3);
    assert_eq!(ended.text(), "in\n");
    assert_eq!(sandbox.session().state, SessionState::Terminated, "ended at AWS before process 1");
    sandbox.assert_tidy();
}
