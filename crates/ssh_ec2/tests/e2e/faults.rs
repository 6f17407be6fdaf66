//! Lost, doubled and late messages, and cut websockets. Every byte must arrive, once and in order, or the
//! program must report in time why not.

use std::time::Duration;

use ec2_sandbox::SessionSummary;

use crate::harness::{HEALTHY, Running, Sandbox, eventually, run};
use crate::transfer::Trip;

/// Copies a file each way by scp, limited to `rate` megabytes a second. Returns the two sessions.
fn scp_each_way(faults: &[&str], mebibytes: usize, rate: Option<usize>) -> [SessionSummary; 2] {
    let sandbox = Sandbox::with_faults(faults);
    let trip = Trip::new(&sandbox, mebibytes);
    let there = format!("{}:{}", sandbox.target(), trip.there.display());
    let scp = || {
        let mut scp = sandbox.command("scp");
        scp.arg("-q");
        if let Some(rate) = rate {
            // scp takes kilobits.
            scp.args(["-l", &(rate * 8000).to_string()]);
        }
        scp
    };
    run(scp().arg(&trip.here).arg(&there)).success();
    trip.check_there();
    run(scp().arg(&there).arg(&trip.back)).success();
    trip.check_back();
    sandbox.assert_tidy();
    sandbox.region.sessions().try_into().unwrap()
}

/// The pace of real SSM agents.
const PACE: &str = "pace=1ms";

fn assert_cut(sessions: &[SessionSummary; 2]) {
    for session in sessions {
        assert!(session.resumes >= 2, "the transfer was to be cut more often: {session:#?}");
    }
}

fn assert_met(sessions: &[SessionSummary; 2], faults: u32) {
    for session in sessions {
        assert!(session.faults >= faults, "more was to go wrong: {session:#?}");
    }
}

// An SSM agent repeats ten messages a second, whatever its pace. Above its own pace each lost websocket would
// cost more messages than it repeats until the next one.

#[test]
fn closed_websockets_lose_no_byte() {
    assert_cut(&scp_each_way(&["close=2s", "delay=5ms", PACE], 6, Some(1)));
}

#[test]
fn reset_connections_lose_no_byte() {
    assert_cut(&scp_each_way(&["reset=2s", "delay=5ms", PACE], 6, Some(1)));
}

#[test]
fn websockets_cut_with_a_tail_lose_no_byte() {
    let sessions = scp_each_way(&["reset=4s", "lose-tail=10", "delay=5ms", PACE], 10, Some(1));
    assert_cut(&sessions);
    assert_met(&sessions, 20);
}

#[test]
fn cuts_on_the_side_of_the_ssm_agent_lose_no_byte() {
    assert_met(&scp_each_way(&["cut-agent=2500ms", "delay=5ms", PACE], 6, Some(1)), 2);
}

#[test]
fn doubled_messages_arrive_once() {
    assert_met(&scp_each_way(&["duplicate=20%"], 16, None), 20);
}

#[test]
fn overtaken_messages_arrive_in_order() {
    assert_met(&scp_each_way(&["reorder=10%"], 16, None), 20);
}

#[test]
fn lost_acknowledgements_cost_no_byte() {
    assert_met(&scp_each_way(&["lose-acks=5%"], 16, None), 10);
}

#[test]
fn paused_publication_costs_no_byte() {
    assert_met(&scp_each_way(&["pause=1500ms"], 16, Some(4)), 2);
}

#[test]
fn everything_at_once_costs_no_byte() {
    let all = [
        "close=7s",
        "reset=9s",
        "cut-agent=8s",
        "lose-tail=5",
        "pause=5s",
        "duplicate=1%",
        "reorder=1%",
        "lose-acks=1%",
        "delay=5ms",
        PACE,
    ];
    let sessions = scp_each_way(&all, 10, Some(1));
    assert_met(&sessions, 20);
}

#[test]
fn a_gateway_that_takes_no_large_messages_costs_no_byte() {
    // A size is tried twice before it is abandoned; both times the websocket is closed.
    let [up, _] = scp_each_way(&["size-limit=10000"], 32, None);
    assert_eq!(up.resumes, 2, "{up:#?}");
}

#[test]
fn messages_as_small_as_those_of_the_real_ssm_agent_carry_everything() {
    scp_each_way(&["agent-payload=1024"], 16, None);
}

#[test]
fn messages_of_one_byte_carry_everything() {
    let sandbox = Sandbox::with_faults(&["agent-payload=1"]);
    assert_eq!(sandbox.remote("seq 200"), (1..=200).map(|n| format!("{n}\n")).collect::<String>());
    sandbox.assert_tidy();
}

#[test]
fn old_ssm_agents_carry_everything() {
    for version in ["3.1.1188.0", "2.3.722.0"] {
        scp_each_way(&[&format!("agent-version={version}")], 8, None);
    }
}

#[test]
fn a_late_ssm_agent_is_waited_for() {
    let sandbox = Sandbox::with_faults(&["slow-attach=2s"]);
    assert_eq!(sandbox.remote("echo late"), "late\n");
    sandbox.assert_tidy();
}

#[test]
fn an_ssm_agent_that_never_comes_times_out_after_a_minute() {
    let sandbox = Sandbox::with_faults(&["never-attach"]);
    let mut proxy = Running::start(&mut sandbox.proxy(HEALTHY));
    let ended = proxy.wait().status(1);
    assert_eq!(
        ended.stderr,
        "ssh_ec2: nothing comes from the SSM agent of i-0decaf00000000001; the worker process of this session may have died, or cannot reach ssmmessages on port 443 (waiting, Ctrl-C ends)\n\
         ssh_ec2: error: the session on i-0decaf00000000001 is open, but its SSM agent did not complete the handshake within a minute\n\
         ssh_ec2: hint: restart the SSM agent on i-0decaf00000000001, or reboot it, and check that it can reach ssmmessages on port 443\n"
    );
    assert_eq!(ended.text(), "");
    assert!((55..75).contains(&ended.took.as_secs()), "{ended}");
    assert!(sandbox.sessions_end_within(Duration::ZERO));
    sandbox.assert_tidy();
}

/// The SSM agent reports it after a minute; until then nothing comes.
#[test]
fn a_session_worker_that_dies_is_noted_while_it_is_waited_for() {
    let sandbox = Sandbox::with_faults(&["crash=3s", "port-refusal=1m"]);
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    let note = format!(
        "ssh_ec2: nothing comes from {HEALTHY} any more; the network may be down, or the SSM agent's worker process of this \
         session may have died (waiting, Ctrl-C ends)\n"
    );
    eventually("the silence is noted", || {
        ssh.write(b"x\n");
        ssh.said().contains(&note).then_some(())
    });
    assert_eq!(ssh.said(), note);
}

#[test]
fn a_session_worker_that_dies_before_it_begins_is_noted() {
    let sandbox = Sandbox::with_faults(&["crash=0s", "port-refusal=1m"]);
    let proxy = Running::start(&mut sandbox.proxy(HEALTHY));
    let note = format!(
        "ssh_ec2: nothing comes from the SSM agent of {HEALTHY}; the worker process of this session may have died, or \
         cannot reach ssmmessages on port 443 (waiting, Ctrl-C ends)\n"
    );
    eventually("the silence is noted", || (proxy.said() == note).then_some(()));
}

#[test]
fn a_session_whose_worker_died_ends_when_the_ssm_agent_reports_it() {
    let sandbox = Sandbox::with_faults(&["crash=3s", "port-refusal=500ms"]);
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    let ended = ssh.wait().status(255);
    let error = format!("error: the session on {HEALTHY} was ended: document process failed unexpectedly: ");
    assert!(ended.stderr.contains(&error), "{ended}");
    sandbox.assert_tidy();
}
