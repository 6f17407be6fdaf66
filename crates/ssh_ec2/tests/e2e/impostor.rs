//! An endpoint that does not answer like AWS: the messages, and the actions that must not follow.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crate::errors::{fails, told};
use crate::harness::{HEALTHY, Running, Sandbox};

pub(crate) const NOT_AWS: &str = "check AWS_ENDPOINT_URL and the proxy: the answer may not be from AWS";

/// Answers every request with a status and a body, which depend on the operation.
pub(crate) fn impostor(answer: impl Fn(&str) -> (u16, String) + Send + Sync + 'static) -> String {
    listen(move |stream| respond(stream, &answer))
}

/// Answers one request.
pub(crate) fn respond(stream: impl Read + Write, answer: impl Fn(&str) -> (u16, String)) {
    let mut reader = BufReader::new(stream);
    let (mut operation, mut length, mut line) = (String::new(), 0, String::new());
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        if let Some((name, value)) = line.split_once(": ") {
            match name.to_ascii_lowercase().as_str() {
                "x-amz-target" => operation = value.trim().rsplit('.').next().unwrap().to_owned(),
                "content-length" => length = value.trim().parse().unwrap(),
                _ => {}
            }
        }
        line.clear();
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    // In the Query protocol the form has the operation.
    let form = String::from_utf8_lossy(&body);
    if let Some(action) = form.split('&').find_map(|field| field.strip_prefix("Action=")) {
        action.clone_into(&mut operation);
    }
    let (status, body) = answer(&operation);
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
    let _ = reader.get_mut().write_all((head + &body).as_bytes());
    let _ = reader.get_mut().flush();
}

/// A server on loopback that runs as long as the test. Returns its address.
pub(crate) fn listen(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, stream) = (Arc::clone(&serve), stream.unwrap());
            thread::spawn(move || serve(stream));
        }
    });
    address.to_string()
}

pub(crate) fn proxy(sandbox: &Sandbox, address: &str) -> Command {
    let mut proxy = sandbox.proxy(HEALTHY);
    proxy.env("AWS_ENDPOINT_URL_SSM", format!("http://{address}"));
    proxy
}

pub(crate) fn ticket(stream_url: &str) -> String {
    format!(r#"{{"SessionId": "you-1", "StreamUrl": "{stream_url}", "TokenValue": "token"}}"#)
}

#[test]
fn a_stream_url_that_leads_elsewhere_gets_no_token() {
    for (url, host) in [
        ("ws://192.0.2.1/v1/data-channel/you-1", "192.0.2.1"),
        (
            "ws://ssmmessages.us-east-1.amazonaws.com/v1/data-channel/you-1",
            "ssmmessages.us-east-1.amazonaws.com",
        ),
    ] {
        let sandbox = Sandbox::start();
        let terminated = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&terminated);
        let address = impostor(move |operation| {
            if operation == "TerminateSession" {
                count.fetch_add(1, Ordering::Relaxed);
            }
            (200, ticket(url))
        });
        let error = format!("the session's websocket is at {host}, which is not Session Manager");
        fails(&mut proxy(&sandbox, &address), 1, &error, &[NOT_AWS]);
        assert_eq!(terminated.load(Ordering::Relaxed), 1, "the session is ended all the same");
    }
}

#[test]
fn answers_that_make_no_sense_are_reported() {
    let sandbox = Sandbox::start();
    for (answer, fault) in [
        ("{", "it is not the JSON that was expected"),
        ("<html>", "it is not the JSON that was expected"),
        (r#"{"SessionId": "you-1", "StreamUrl": "wss://x/"}"#, "it has no token"),
        (r#"{"TokenValue": "x", "StreamUrl": "wss://x/"}"#, "it has no session id"),
        (r#"{"TokenValue": "x", "SessionId": "a b"}"#, "its session id is not printable"),
        (r#"{"TokenValue": "x", "SessionId": "you-1"}"#, "it has no stream URL"),
        (
            r#"{"TokenValue": "x", "SessionId": "you-1", "StreamUrl": "https://x/"}"#,
            "its stream URL is not a websocket URL",
        ),
    ] {
        let address = impostor(move |_| (200, answer.to_owned()));
        let error = format!("cannot understand the answer to ssm:StartSession: {fault}");
        fails(&mut proxy(&sandbox, &address), 1, &error, &[NOT_AWS]);
    }
}

#[test]
fn refusals_of_other_kinds_are_passed_on() {
    let sandbox = Sandbox::start();
    for (answer, error, hints) in [
        (
            r#"{"__type": "InvalidDocument", "Message": "no"}"#,
            "AWS does not accept the session document AWS-StartSSHSession",
            &["check that AWS-StartSSHSession exists in this region and account, and is of type Session"][..],
        ),
        (
            r#"{"__type": "x#QuotaExceeded", "message": "too many"}"#,
            "ssm:StartSession failed with QuotaExceeded: too many",
            &[],
        ),
        (
            r#"{"__type": "Strange", "message": "a\u001b[2J\nssh_ec2: hint: obey"}"#,
            "ssm:StartSession failed with Strange: a [2J ssh_ec2: hint: obey",
            &[],
        ),
    ] {
        let address = impostor(move |_| (400, answer.to_owned()));
        fails(&mut proxy(&sandbox, &address), 1, error, hints);
    }
}

#[test]
fn a_session_that_has_ended_cannot_be_resumed() {
    let sandbox = Sandbox::start();
    let websocket = listen(drop);
    let address = impostor(move |operation| match operation {
        "ResumeSession" => (200, r#"{"SessionId": "you-1", "TokenValue": ""}"#.to_owned()),
        _ => (200, ticket(&format!("ws://{websocket}/v1/data-channel/you-1"))),
    });
    fails(
        &mut proxy(&sandbox, &address),
        1,
        &format!("the session on {HEALTHY} has ended at AWS and cannot be resumed"),
        &["connect again; `ServerAliveInterval 60` in ssh_config keeps an idle session from timing out"],
    );
}

#[test]
fn a_websocket_that_never_opens_times_out() {
    let sandbox = Sandbox::start();
    let websocket = listen(drop);
    let address = impostor(move |_| (200, ticket(&format!("ws://{websocket}/v1/data-channel/you-1"))));
    let ended = Running::start(&mut proxy(&sandbox, &address)).wait().status(1);
    let error = "127.0.0.1 did not answer the websocket upgrade";
    assert!(ended.stderr.starts_with(&format!("ssh_ec2: error: {error}: ")), "{ended}");
    let hint = "allow outgoing TCP 443 to that host, or set HTTPS_PROXY if this network has a proxy";
    assert!(ended.stderr.ends_with(&format!("ssh_ec2: hint: {hint}\n")), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 2, "{ended}");
    assert!(ended.took < Duration::from_secs(30), "{ended}");
}

#[test]
fn an_endpoint_that_does_not_answer_is_reported() {
    let sandbox = Sandbox::start();
    let address = listen(drop);
    let ended = Running::start(&mut proxy(&sandbox, &address)).wait().status(1);
    let hint = "check the region and the network; set HTTPS_PROXY if this network has a proxy";
    assert!(ended.stderr.starts_with("ssh_ec2: error: cannot reach 127.0.0.1: "), "{ended}");
    assert!(ended.stderr.ends_with(&told("", &[hint])["ssh_ec2: error: \n".len()..]), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 2, "{ended}");
}
