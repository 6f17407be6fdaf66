//! Signals that end a session, and those that were ignored when the program was started.

use std::time::Duration;

use ec2_sandbox::Options;
use rustix::process::Signal;

use crate::credential_process::{program, with_process};
use crate::ends::{assert_ends, connected};
use crate::harness::{HEALTHY, Running, Sandbox, run};
use crate::stdout::is_exchanged;

/// The signals that end a process by default and that users send.
const ENDING: [Signal; 7] =
    [Signal::ALARM, Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM, Signal::USR1, Signal::USR2];

#[test]
fn signals_end_the_proxy_and_the_session() {
    let sandbox = Sandbox::start();
    for signal in ENDING {
        let mut proxy = connected(&sandbox);
        proxy.signal(signal);
        let ended = proxy.wait().status(130);
        assert_eq!(ended.stderr, "");
        sandbox.assert_tidy();
    }
}

/// AWS has started the session when the signal comes, but its answer has not reached the proxy.
#[test]
fn a_session_that_starts_too_late_is_ended_all_the_same() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let latency = Duration::from_secs(2);
        let sandbox = Sandbox::with(Options { latency, ..Options::default() });
        let mut proxy = Running::start(&mut sandbox.proxy(HEALTHY));
        sandbox.wait_for_sessions(1);
        proxy.signal(signal);
        assert_ends(&sandbox, &mut proxy, 130);
    }
}

/// A proxy that a shell started with these signals ignored.
fn with_ignored(sandbox: &Sandbox, signals: &str) -> Running {
    let script = format!("trap '' {signals}; exec \"$@\"");
    Running::start(&mut sandbox.behind(&["sh", "-c", &script, "sh"], &sandbox.proxy(HEALTHY)))
}

/// Asserts that the proxy still carries bytes, and ends with its input.
fn assert_serves(sandbox: &Sandbox, mut proxy: Running) {
    proxy.write(b"SSH-2.0-test\r\n");
    proxy.wait_for_output(is_exchanged);
    proxy.finish().success();
    sandbox.assert_tidy();
}

#[test]
fn ignored_signals_stay_ignored() {
    let sandbox = Sandbox::start();
    let mut proxy = with_ignored(&sandbox, "ALRM HUP INT QUIT USR1 USR2");
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    for signal in ENDING.into_iter().filter(|signal| *signal != Signal::TERM) {
        proxy.signal(signal);
    }
    assert_serves(&sandbox, proxy);
}

#[test]
fn nohup_keeps_the_proxy_from_a_closed_terminal() {
    let sandbox = Sandbox::start();
    let mut proxy = Running::start(&mut sandbox.behind(&["nohup"], &sandbox.proxy(HEALTHY)));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    proxy.signal(Signal::HUP);
    assert_serves(&sandbox, proxy);
}

/// Runs a script that starts ssh with `cat` as the remote command, signals the whole process group, and uses
/// the connection once more.
fn assert_outlives(script: &str, signals: &[Signal]) {
    let sandbox = Sandbox::start();
    let mut ssh = sandbox.ssh(&sandbox.target());
    let mut running = Running::start(&mut sandbox.behind(&["sh", "-c", script, "sh"], ssh.arg("cat")));
    running.write(b"one ");
    running.wait_for_output(|output| output == b"one ");
    for signal in signals {
        running.signal_group(*signal);
    }
    running.write(b"two");
    running.wait_for_output(|output| output == b"one two");
    running.finish().success();
    sandbox.assert_tidy();
}

#[test]
fn ssh_in_the_background_of_a_script_outlives_ctrl_c() {
    // The programs that the shell starts ignore both signals; the shell itself handles them, so that it
    // survives.
    let script = "exec 3<&0; \"$@\" <&3 & trap : INT QUIT; until wait $!; do :; done";
    assert_outlives(script, &[Signal::INT, Signal::QUIT]);
}

#[test]
fn ssh_under_nohup_outlives_its_terminal() {
    assert_outlives("trap : HUP; nohup \"$@\"", &[Signal::HUP]);
}

#[test]
fn a_command_in_the_sandbox_inherits_what_is_ignored() {
    let sandbox = Sandbox::start();
    let mut command = sandbox.ssh_ec2();
    command.args(["sandbox", "sed", "-n", "s/^SigIgn:\t//p", "/proc/self/status"]);
    let script = "trap '' HUP INT QUIT TERM; exec \"$@\"";
    let ended = run(&mut sandbox.behind(&["sh", "-c", script, "sh"], &command)).success();
    let mask = u64::from_str_radix(ended.text().trim(), 16).unwrap();
    for signal in [Signal::HUP, Signal::INT, Signal::QUIT, Signal::TERM] {
        assert_eq!(mask >> (signal.as_raw() - 1) & 1, 1, "{signal:?}");
    }
}

/// If SIGCHLD is ignored, the kernel keeps no exit status of children.
#[test]
fn a_caller_that_ignores_sigchld_changes_nothing() {
    let sandbox = Sandbox::start();
    let process = program(&sandbox, "").display().to_string();
    let command = with_process(&sandbox, sandbox.proxy(HEALTHY), &process);
    let ignoring = ["perl", "-e", "$SIG{CHLD} = 'IGNORE'; exec @ARGV"];
    let mut proxy = Running::start(&mut sandbox.behind(&ignoring, &command));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    proxy.finish().success();
    sandbox.assert_tidy();
}
