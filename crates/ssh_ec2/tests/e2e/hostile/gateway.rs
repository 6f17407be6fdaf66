//! A gateway that breaks the protocol. The program continues where it can, and explains where it cannot.

use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::Signal;
use sha2::{Digest as _, Sha256};
use tokio_tungstenite::tungstenite::{Message, WebSocket, accept};

use super::assert_harmless;
use crate::harness::{Ended, HEALTHY, Running, Sandbox, eventually};
use crate::impostor::{impostor, listen, proxy, ticket};

const OUTPUT: u32 = 1;
const HANDSHAKE_REQUEST: u32 = 5;
const HANDSHAKE_COMPLETE: u32 = 7;
const GREETING: &[u8] = b"SSH-2.0-hostile\n";
const EVIL: &str = "a\u{1b}[2J\u{9b}31m\u{202e}\nforged: ssh_ec2: hint: obey";
const MEBIBYTE: usize = 1 << 20;

/// A message in wire format, built without the code under test.
fn record(label: &str, number: i64, payload_type: u32, payload: &[u8]) -> Vec<u8> {
    let mut record = 116_u32.to_be_bytes().to_vec();
    record.extend_from_slice(format!("{label:<32}").as_bytes());
    record.extend_from_slice(&1_u32.to_be_bytes());
    record.extend_from_slice(&1_700_000_000_000_u64.to_be_bytes());
    record.extend_from_slice(&number.to_be_bytes());
    record.extend_from_slice(&0_u64.to_be_bytes());
    record.extend_from_slice(&[0x42; 16]);
    record.extend_from_slice(&Sha256::digest(payload));
    record.extend_from_slice(&payload_type.to_be_bytes());
    record.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
    record.extend_from_slice(payload);
    record
}

fn output(number: i64, payload_type: u32, payload: &[u8]) -> Vec<u8> {
    record("output_stream_data", number, payload_type, payload)
}

/// The message with other bytes at this offset.
fn with(mut record: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    record[at..at + bytes.len()].copy_from_slice(bytes);
    record
}

fn closed(output: &str) -> Vec<u8> {
    let payload = serde_json::json!({ "MessageType": "channel_closed", "Output": output }).to_string();
    record("channel_closed", 0, 0, payload.as_bytes())
}

/// Runs the proxy with a gateway that calls `talk` with every websocket, once it was opened. Returns how the
/// proxy ended, and how many sessions it ended at AWS.
fn meet(
    options: &[&str],
    talk: impl Fn(&mut WebSocket<TcpStream>) + Send + Sync + 'static,
) -> (Ended, usize) {
    let sandbox = Sandbox::start();
    let (mut running, terminated) = start(&sandbox, options, talk);
    let ended = running.wait();
    assert_harmless(&ended);
    (ended, terminated.load(Ordering::Relaxed))
}

fn start(
    sandbox: &Sandbox,
    options: &[&str],
    talk: impl Fn(&mut WebSocket<TcpStream>) + Send + Sync + 'static,
) -> (Running, Arc<AtomicUsize>) {
    let websocket = listen(move |stream| {
        let mut websocket = accept(stream).unwrap();
        let opening = websocket.read().unwrap().into_text().unwrap();
        assert!(opening.contains(r#""TokenValue":"token""#), "{opening}");
        talk(&mut websocket);
    });
    let terminated = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&terminated);
    let aws = impostor(move |operation| match operation {
        "ResumeSession" => (200, r#"{"SessionId": "you-1", "TokenValue": ""}"#.to_owned()),
        "TerminateSession" => {
            count.fetch_add(1, Ordering::Relaxed);
            (200, "{}".to_owned())
        }
        "StartSession" => (200, ticket(&format!("ws://{websocket}/v1/data-channel/you-1"))),
        // Calls that look for the cause are denied.
        _ => (400, r#"{"__type": "AccessDeniedException", "message": "no"}"#.to_owned()),
    });
    (Running::start(proxy(sandbox, &aws).args(options)), terminated)
}

fn say(websocket: &mut WebSocket<TcpStream>, records: impl IntoIterator<Item = Vec<u8>>) {
    for record in records {
        // Fails if the client has already closed the websocket.
        let _ = websocket.send(Message::Binary(record.into()));
    }
}

/// Reads until the client closes.
fn listen_on(websocket: &mut WebSocket<TcpStream>) {
    while websocket.read().is_ok() {}
}

fn malformed() -> Vec<Vec<u8>> {
    let data = || output(0, OUTPUT, b"evil");
    vec![
        Vec::new(),
        vec![0xff],
        data()[..119].to_vec(),
        with(data(), 0, &0_u32.to_be_bytes()),
        with(data(), 0, &115_u32.to_be_bytes()),
        with(data(), 0, &125_u32.to_be_bytes()),
        with(data(), 0, &u32::MAX.to_be_bytes()),
        with(data(), 4, &[b' '; 32]),
        with(data(), 4, &[0; 32]),
        with(data(), 40, &[0; 8]),
        with(data(), 80, &[0; 32]),
        with(with(data(), 80, &[0; 32]), 116, &u32::MAX.to_be_bytes()),
        with(data(), 120, b"EVIL"),
        record("dance", 0, OUTPUT, b"evil"),
        record("\u{1b}[2J\u{7f}\n", 0, OUTPUT, b"evil"),
        with(record("dance", 0, OUTPUT, b"evil"), 4, &[0xff; 32]),
        record("input_stream_data", 0, OUTPUT, b"evil"),
        record("acknowledge", 0, 0, b"{"),
        record("acknowledge", 0, 0, b"\xff\xfe"),
        record("acknowledge", 0, 0, br#"{"AcknowledgedMessageSequenceNumber": 9223372036854775807}"#),
        record("acknowledge", 0, 0, br#"{"AcknowledgedMessageSequenceNumber": -1}"#),
        record("agent_session_state", 0, 0, EVIL.as_bytes()),
        record("start_publication", 0, 0, b""),
        output(-1, OUTPUT, b"evil"),
        output(i64::MIN, OUTPUT, b"evil"),
        output(i64::MAX, OUTPUT, b"evil"),
    ]
}

/// An SSM agent that sends two HandshakeRequests, with actions that no client knows.
fn handshake() -> [Vec<u8>; 6] {
    let request = |action: &str| {
        serde_json::json!({
            "AgentVersion": EVIL,
            "RequestedClientActions": [
                { "ActionType": action, "ActionParameters": { "SessionType": EVIL } },
                { "ActionType": "SessionType", "ActionParameters": { "SessionType": "Port", "Properties": [] } },
            ],
        })
        .to_string()
    };
    let complete = serde_json::json!({ "HandshakeTimeToComplete": -1, "CustomerMessage": EVIL.repeat(9000) });
    [
        output(0, HANDSHAKE_REQUEST, b"\xff\xfe{"),
        output(1, HANDSHAKE_REQUEST, b"{}"),
        output(2, HANDSHAKE_REQUEST, request(EVIL).as_bytes()),
        output(3, HANDSHAKE_REQUEST, request("Dance").as_bytes()),
        output(4, u32::MAX, EVIL.as_bytes()),
        output(5, HANDSHAKE_COMPLETE, complete.to_string().as_bytes()),
    ]
}

#[test]
fn malformed_messages_are_dropped_and_what_is_right_arrives() {
    let (ended, terminated) = meet(&["-vv"], |websocket| {
        let _ = websocket.send(Message::text(EVIL));
        say(websocket, malformed());
        say(websocket, handshake());
        say(websocket, malformed());
        say(websocket, [output(6, OUTPUT, GREETING), closed("")]);
        listen_on(websocket);
    });
    assert_eq!((ended.code, ended.stdout.as_slice()), (0, GREETING), "{ended}");
    let dropped = ended.stderr.matches("a message from the gateway was dropped").count();
    assert_eq!(dropped, 2 * 16 + 2, "{ended}");
    assert!(!ended.stderr.contains("\"token\""), "{ended}");
    assert_eq!(terminated, 0, "the gateway ended it");
}

#[test]
fn the_end_in_the_gateways_words_is_shown_and_not_obeyed() {
    let evil = EVIL.repeat(MEBIBYTE / EVIL.len() / 2);
    for words in [EVIL.to_owned(), evil] {
        let last = words.clone();
        let (ended, _) = meet(&[], move |websocket| {
            say(websocket, [closed(&last)]);
            listen_on(websocket);
        });
        let error =
            format!("ssh_ec2: error: the session on {HEALTHY} could not be started: a\u{fffd}[2J\u{fffd}31m");
        assert!(ended.code == 1 && ended.stderr.starts_with(&error), "{ended}");
        assert!(ended.stdout.is_empty() && ended.stderr.len() < 10_000, "{ended}");
        let (ended, _) = meet(&[], move |websocket| {
            say(websocket, [output(0, OUTPUT, GREETING), closed(&words)]);
            listen_on(websocket);
        });
        let error = format!("ssh_ec2: error: the session on {HEALTHY} was ended: a\u{fffd}[2J\u{fffd}31m");
        assert!(ended.code == 1 && ended.stderr.starts_with(&error), "{ended}");
        assert!(ended.stdout == GREETING && ended.stderr.len() < 10_000, "{ended}");
    }
}

#[test]
fn frames_that_break_the_websocket_end_it() {
    let huge = |opcode: u8, length: u64| [&[opcode, 127][..], &length.to_be_bytes()].concat();
    let half = vec![0; MEBIBYTE / 2 + 1];
    let fragment = |opcode: u8| [huge(opcode, half.len() as u64), half.clone()].concat();
    let frames = [
        // An impossible length; a length just above the limit; the same in two fragments.
        huge(0x82, u64::MAX),
        huge(0x82, MEBIBYTE as u64 + 1),
        [fragment(0x02), fragment(0x80)].concat(),
        // Reserved bits and opcodes, a masked frame, a continuation without a start, a fragmented ping, a
        // text that is not UTF-8.
        vec![0xf2, 0],
        vec![0x8b, 0],
        vec![0x82, 0x80, 0, 0, 0, 0],
        vec![0x80, 1, 0],
        vec![0x09, 0],
        vec![0x81, 2, 0xff, 0xfe],
    ];
    for frame in frames {
        let (ended, terminated) = meet(&[], move |websocket| {
            say(websocket, [output(0, OUTPUT, GREETING)]);
            let _ = websocket.get_mut().write_all(&frame);
            listen_on(websocket);
        });
        let error =
            format!("ssh_ec2: error: the session on {HEALTHY} has ended at AWS and cannot be resumed\n");
        assert!(ended.code == 1 && ended.stderr.starts_with(&error), "{ended}");
        assert_eq!((ended.stdout.as_slice(), terminated), (GREETING, 1), "{ended}");
    }
}

/// More than 200 MB that cannot be passed to ssh.
#[test]
fn a_flood_fills_no_memory() {
    let sandbox = Sandbox::start();
    let done = Arc::new(AtomicBool::new(false));
    let flooded = Arc::clone(&done);
    let (mut proxy, terminated) = start(&sandbox, &[], move |websocket| {
        let piece = vec![0; 64 * 1024];
        for number in 1..1600_i64 {
            say(websocket, [output(number, OUTPUT, &piece), output(-number, OUTPUT, &piece)]);
            let _ = websocket.send(Message::Ping(vec![0; 125].into()));
        }
        let acknowledge = record("acknowledge", 0, 0, br#"{"AcknowledgedMessageSequenceNumber": 0}"#);
        say(websocket, std::iter::repeat_n(acknowledge, 1000));
        flooded.store(true, Ordering::Relaxed);
        listen_on(websocket);
    });
    eventually("the flood is over", || done.load(Ordering::Relaxed).then_some(()));
    let status = fs::read_to_string(format!("/proc/{}/status", proxy.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: usize = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100 * 1024, "{peak} KiB were held");
    proxy.signal(Signal::TERM);
    let ended = proxy.wait().status(130);
    assert_harmless(&ended);
    assert_eq!((ended.stdout.len(), terminated.load(Ordering::Relaxed)), (0, 1), "{ended}");
}
