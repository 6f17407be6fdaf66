//! What the proxy writes to standard output: the server's bytes, and not one of its own.

use std::fs::File;
use std::process::Stdio;

use rustix::process::Signal;

use crate::errors::told;
use crate::harness::{
    ABSENT, Ended, HEALTHY, PORT_CLOSED, PUSH_DENIED, Running, START_DENIED, STOPPED, Sandbox,
    THROTTLED_FOR_EVER, eventually, run,
};

const DISCONNECT: u8 = 1;
const KEXINIT: u8 = 20;

/// Parses the whole output as what an SSH server sends before keys are exchanged. Returns the numbers of its
/// messages.
fn messages(output: &[u8]) -> Vec<u8> {
    assert!(output.starts_with(b"SSH-2.0-"), "{:?}", String::from_utf8_lossy(output));
    let end = output.iter().position(|byte| *byte == b'\n').unwrap();
    let mut rest = &output[end + 1..];
    let mut numbers = Vec::new();
    while let Some((length, packet)) = rest.split_first_chunk::<4>() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap();
        assert!(packet.len() >= length, "a packet of {length} bytes has {}", packet.len());
        numbers.push(packet[1]);
        rest = &packet[length..];
    }
    assert!(rest.is_empty(), "{rest:?}");
    numbers
}

/// Talks to the server until it has sent its half of the key exchange.
fn exchange(sandbox: &Sandbox, options: &[&str]) -> Running {
    let mut command = sandbox.proxy(HEALTHY);
    command.args(options).env("RUST_LOG", "trace");
    let mut proxy = Running::start(&mut command);
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    proxy.write(b"SSH-2.0-test\r\n");
    proxy.wait_for_output(is_exchanged);
    proxy
}

/// Whether the server's half of the key exchange is there, to its last byte.
pub(crate) fn is_exchanged(output: &[u8]) -> bool {
    let packet = output.split_inclusive(|byte| *byte == b'\n').next().map_or(0, <[u8]>::len);
    let length = output.get(packet..packet + 4).map(|bytes| u32::from_be_bytes(bytes.try_into().unwrap()));
    length.is_some_and(|length| output.len() - packet - 4 >= usize::try_from(length).unwrap())
}

fn assert_pure(ended: &Ended) {
    let mut numbers = messages(&ended.stdout);
    numbers.retain(|number| *number != DISCONNECT);
    assert_eq!(numbers, [KEXINIT], "{ended}");
}

#[test]
fn the_servers_bytes_are_all_there_is() {
    for sandbox in [Sandbox::start(), Sandbox::with_sshd()] {
        for options in [&[][..], &["-v"], &["-vv", "--reason", "why"]] {
            let mut proxy = exchange(&sandbox, options);
            proxy.signal(Signal::TERM);
            assert_pure(&proxy.wait().status(130));
        }
    }
}

#[test]
fn logs_go_to_standard_error() {
    let sandbox = Sandbox::start();
    let mut proxy = exchange(&sandbox, &["-v"]);
    proxy.signal(Signal::TERM);
    let ended = proxy.wait().status(130);
    for step in ["the region is us-east-1", "started session you-0", "ended the session at AWS"] {
        assert!(ended.stderr.contains(step), "{step:?} is not in\n{}", ended.stderr);
    }
}

#[test]
fn other_ends_add_nothing() {
    let sandbox = Sandbox::start();
    let mut proxy = exchange(&sandbox, &["-vv"]);
    proxy.signal(Signal::HUP);
    assert_pure(&proxy.wait().status(130));
    assert_pure(&exchange(&sandbox, &["-vv"]).finish().success());
}

#[test]
fn cut_websockets_add_nothing() {
    let sandbox = Sandbox::with_faults(&["reset=200ms"]);
    let mut proxy = exchange(&sandbox, &["-vv"]);
    eventually("it resumes twice", || (sandbox.session().resumes >= 2).then_some(()));
    proxy.signal(Signal::TERM);
    assert_pure(&proxy.wait().status(130));
}

#[test]
fn errors_leave_standard_output_empty() {
    let sandbox = Sandbox::start();
    for instance in [ABSENT, PORT_CLOSED, PUSH_DENIED, START_DENIED, STOPPED, THROTTLED_FOR_EVER, "i-bad"] {
        let mut proxy = Running::start(sandbox.proxy(instance).arg("-vv"));
        let ended = proxy.wait();
        assert_ne!(ended.code, 0, "{ended}");
        assert_eq!(ended.text(), "", "{ended}");
        assert!(ended.stderr.contains("ssh_ec2: error: "), "{ended}");
    }
    for words in [&["proxy"][..], &["proxy", "a", "b", "c", "d"], &["proxy", "--frobnicate"], &[]] {
        let ended = run(sandbox.ssh_ec2().args(words)).status(2);
        assert_eq!(ended.text(), "", "{ended}");
        assert_ne!(ended.stderr, "");
    }
}

/// Also where input has ended before anything was written.
#[test]
fn bytes_that_cannot_be_written_are_an_error() {
    let sandbox = Sandbox::start();
    for input in [Stdio::piped(), Stdio::null()] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let ended = Running::start_with(&mut sandbox.proxy(HEALTHY), input, full.into()).wait().status(1);
        let error = "cannot write to standard output: No space left on device (os error 28)";
        assert_eq!(ended.stderr, told(error, &["free disk space, or redirect standard output elsewhere"]));
        sandbox.assert_tidy();
    }
}
