//! The end of the proxy and of the session when one of the two sides ends.

use std::io::{Read, pipe};
use std::process::Stdio;
use std::time::Duration;

use ec2_sandbox::SessionState;
use rustix::process::{Signal, kill_process};

use crate::errors::told;
use crate::harness::{HEALTHY, Running, Sandbox, eventually, pid};

/// The longest time that a proxy takes to end on a busy machine: bytes under way have five seconds to arrive.
const BOUND: Duration = Duration::from_secs(20);

/// A proxy that has passed on the server's banner.
pub(crate) fn connected(sandbox: &Sandbox) -> Running {
    let mut proxy = Running::start(&mut sandbox.proxy(HEALTHY));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    proxy
}

pub(crate) fn assert_ends(sandbox: &Sandbox, proxy: &mut Running, code: i32) {
    let ended = proxy.wait().status(code);
    assert_eq!(ended.stderr, "");
    assert!(ended.took < BOUND, "{ended}");
    assert_eq!(sandbox.session().state, SessionState::Terminated, "ended at AWS before the proxy is gone");
    sandbox.assert_tidy();
}

#[test]
fn the_end_of_input_lets_what_is_under_way_arrive() {
    let sandbox = Sandbox::with_faults(&["delay=300ms"]);
    let mut proxy = connected(&sandbox);
    proxy.write(b"SSH-2.0-test\r\n");
    proxy.close_input();
    let ended = proxy.wait().success();
    let banner = ended.stdout.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    assert!(ended.stdout.len() > banner, "the answer to the last line came after the end of input");
    assert!(ended.took < BOUND, "{ended}");
    assert_eq!(ended.stderr, "");
    sandbox.assert_tidy();
}

#[test]
fn a_proxy_whose_output_nobody_reads_ends() {
    let sandbox = Sandbox::start();
    let (mut reader, writer) = pipe().unwrap();
    let mut proxy = Running::start_with_output(&mut sandbox.proxy(HEALTHY), Stdio::from(writer));
    let mut first = [0; 1];
    reader.read_exact(&mut first).unwrap();
    drop(reader);
    assert_ends(&sandbox, &mut proxy, 130);
}

#[test]
fn a_killed_ssh_takes_its_proxy_along() {
    let sandbox = Sandbox::start();
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    ssh.write(b"x");
    ssh.wait_for_output(|output| output == b"x");
    ssh.signal(Signal::KILL);
    let ended = ssh.wait().status(128 + 9);
    assert!(ended.took < BOUND, "{ended}");
    sandbox.assert_tidy();
}

#[test]
fn a_killed_instance_side_shell_ends_ssh_and_session() {
    let sandbox = Sandbox::start();
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("echo $$; exec cat"));
    let shell = ssh.wait_for_output(|output| output.ends_with(b"\n"));
    let shell = String::from_utf8(shell).unwrap().trim_end().parse().unwrap();
    kill_process(pid(shell), Signal::KILL).unwrap();
    ssh.wait().status(255);
    sandbox.assert_tidy();
}

#[test]
fn a_session_that_the_service_ends_says_why() {
    let sandbox = Sandbox::start();
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    ssh.write(b"x");
    ssh.wait_for_output(|output| output == b"x");
    sandbox.region.end_sessions("idle for\x1b[2J 20 minutes");
    let ended = ssh.wait().status(255);
    let ours = told(
        &format!("the session on {HEALTHY} was ended: idle for\u{fffd}[2J 20 minutes"),
        &["connect again"],
    );
    assert!(ended.stderr.contains(&ours), "{ended}");
    sandbox.assert_tidy();
}

#[test]
fn a_proxy_that_has_lost_aws_goes_on_trying_until_a_signal() {
    let mut sandbox = Sandbox::start();
    let mut proxy = Running::start(sandbox.proxy(HEALTHY).arg("-v"));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    sandbox.lose_region();
    eventually("the proxy tries again", || proxy.said().contains("not resumed yet").then_some(()));
    proxy.signal(Signal::HUP);
    let ended = proxy.wait().status(130);
    assert!(ended.took < BOUND, "{ended}");
    eventually("the proxies end", || sandbox.proxies().is_empty().then_some(()));
}
