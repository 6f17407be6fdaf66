//! An error of an HTTP proxy names the proxy, by its URL and without its password.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::harness::{Ended, HEALTHY, Running, Sandbox, run};
use crate::impostor::listen;

/// What a proxy does with a request.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Proxy {
    /// Sends this answer and closes.
    Answers(&'static str),
    /// Nothing listens on its port.
    Closed,
    /// Its name does not exist.
    Unknown,
}

/// One proxy, the message behind its URL, and the hint.
pub(crate) struct Row {
    proxy: Proxy,
    scheme: &'static str,
    said: &'static str,
    hint: &'static str,
}

const fn row(proxy: Proxy, said: &'static str, hint: &'static str) -> Row {
    Row { proxy, scheme: "http://", said, hint }
}

const CORRECT: &str =
    "correct HTTPS_PROXY, or unset it where no proxy is needed; hosts in NO_PROXY are reached without it";
const OPERATOR: &str =
    "ask the proxy's operator to allow CONNECT to that host on port 443, or list the host in NO_PROXY";
const USABLE: &str = "check that HTTPS_PROXY names an HTTP proxy, and its port";
const ROWS: [Row; 10] = [
    row(Proxy::Closed, " cannot be reached: ", CORRECT),
    row(Proxy::Unknown, " cannot be reached: cannot find the address of proxy.invalid: ", CORRECT),
    row(
        Proxy::Answers("HTTP/1.1 407 X\r\n\r\n"),
        " answered 407 (Proxy Authentication Required)\n",
        "correct the user and password in HTTPS_PROXY; only Basic authentication is supported",
    ),
    row(Proxy::Answers("HTTP/1.0 403 X\r\n\r\n<html>"), " answered 403 (Forbidden)\n", OPERATOR),
    row(Proxy::Answers("HTTP/1.1 502 X\r\n\r\n"), " answered 502 (Bad Gateway)\n", OPERATOR),
    row(Proxy::Answers("HTTP/1.1 302 X\r\nLocation: http://a/\r\n\r\n"), " answered 302 (Found)\n", OPERATOR),
    row(
        Proxy::Answers("SSH-2.0-OpenSSH_9.6\r\n"),
        " did not answer as an HTTP proxy does: the answer is not HTTP\n",
        USABLE,
    ),
    row(Proxy::Answers(""), " did not answer as an HTTP proxy does: the connection was lost: ", USABLE),
    row(Proxy::Answers("HTTP/1.1 200 Connected\r\n\r\n"), "", OPERATOR),
    Row {
        scheme: "https://",
        ..row(
            Proxy::Answers("HTTP/1.1 400 Bad Request\r\n\r\n"),
            " cannot be reached: cannot make an encrypted connection to 127.0.0.1: ",
            "write HTTPS_PROXY with `http://`, unless the proxy itself speaks TLS",
        )
    },
];

impl Row {
    /// The host and port of a proxy of this kind.
    fn start(&self) -> String {
        match self.proxy {
            Proxy::Answers(answer) => listen(move |stream| serve(stream, answer)),
            Proxy::Closed => {
                TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string()
            }
            Proxy::Unknown => "proxy.invalid:3128".to_owned(),
        }
    }

    /// Makes a command use the proxy. Returns the URL that messages show.
    fn give(&self, command: &mut Command) -> String {
        let address = self.start();
        command.env("HTTPS_PROXY", format!("{}me:s3cret@{address}", self.scheme));
        format!("{}{address}", self.scheme)
    }

    /// Asserts that the error names the proxy, and that it has the one hint.
    fn check(&self, ended: &Ended, before: &str, url: &str) {
        let (first, hint) = ended.stderr.split_once('\n').unwrap_or_else(|| panic!("{ended}"));
        let first = format!("{first}\n");
        let said = match self.said {
            "" => format!(", through the proxy {url}: "),
            said => format!("{before}the proxy {url}{said}"),
        };
        assert!(first.starts_with("ssh_ec2: error: "), "{ended}");
        assert!(first.contains(&said), "{said:?} is not in {ended}");
        assert_eq!(hint, format!("ssh_ec2: hint: {}\n", self.hint), "{ended}");
        assert_eq!(ended.links, ["http-proxy"]);
        assert!(!ended.stderr.contains("s3cret") && !ended.stderr.contains("me:"), "{ended}");
    }
}

/// Reads the head of a request and answers it.
fn serve(mut stream: TcpStream, answer: &str) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|read| read == 1) {
        request.push(byte[0]);
        // A TLS record, which has no empty line at its end.
        if request == [22] {
            break;
        }
    }
    let _ = stream.write_all(answer.as_bytes());
}

#[test]
fn calls_name_the_proxy_that_fails() {
    let sandbox = Sandbox::start();
    for row in &ROWS {
        let mut command = sandbox.proxy(HEALTHY);
        command.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.amazonaws.com");
        let url = row.give(&mut command);
        let ended = Running::start(&mut command).wait().status(1);
        row.check(&ended, "cannot reach ssm.us-east-1.amazonaws.com: ", &url);
    }
}

#[test]
fn a_list_names_the_proxy_that_fails() {
    let sandbox = Sandbox::start();
    for row in [&ROWS[0], &ROWS[2], &ROWS[6]] {
        let mut command = sandbox.ssh_ec2();
        command.env("AWS_ENDPOINT_URL_EC2", "https://ec2.us-east-1.amazonaws.com").arg("list");
        let url = row.give(&mut command);
        let ended = run(&mut command).status(1);
        let said = format!(
            "ssh_ec2: us-east-1: cannot reach ec2.us-east-1.amazonaws.com: the proxy {url}{}",
            row.said
        );
        assert!(ended.stderr.starts_with(&said), "{said:?} is not in {ended}");
        assert!(ended.stderr.ends_with(&format!("hint: {}\n", row.hint)), "{ended}");
        assert!(!ended.stderr.contains("s3cret"), "{ended}");
    }
}

/// Some rows are left out: temporary errors are retried for some seconds, and the doctor opens the same
/// websockets.
#[test]
fn websockets_name_the_proxy_that_fails() {
    let sandbox = Sandbox::with_faults(&["stream-url=wss://ssmmessages.us-east-1.amazonaws.com"]);
    for row in [&ROWS[0], &ROWS[2], &ROWS[3], &ROWS[8]] {
        let mut command = sandbox.proxy(HEALTHY);
        let url = row.give(&mut command);
        let ended = Running::start(&mut command).wait().status(1);
        row.check(&ended, "error: ", &url);
    }
}

#[test]
fn the_doctor_names_the_proxy_that_fails() {
    let sandbox = Sandbox::start();
    for row in &ROWS {
        let mut command = sandbox.ssh_ec2();
        command.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.amazonaws.com");
        let url = row.give(&mut command);
        let ended = run(command.args(["doctor", "--json", HEALTHY])).status(1);
        let report: Value = serde_json::from_str(ended.text()).unwrap();
        let broken = report["checks"].as_array().unwrap().last().unwrap();
        let fact = format!("{}\n", broken["fact"].as_str().unwrap());
        assert!(fact.starts_with("ssm: ") && fact.contains(&format!("the proxy {url}")), "{ended}");
        assert!(fact.contains(row.said), "{ended}");
        assert_eq!(broken["hints"], serde_json::json!([row.hint]), "{ended}");
        assert!(!ended.text().contains("s3cret"), "{ended}");
    }
}

#[test]
fn a_proxy_is_known_by_each_of_its_variables_and_forms() {
    let sandbox = Sandbox::start();
    let closed = row(Proxy::Closed, " cannot be reached: ", CORRECT);
    let without_password = row(
        Proxy::Answers("HTTP/1.1 407 X\r\n\r\n"),
        " answered 407 (Proxy Authentication Required)\n",
        "put the proxy's user and password into HTTPS_PROXY: `http://user:password@host:port`",
    );
    for (row, name, scheme) in [
        (&closed, "https_proxy", "http://"),
        (&closed, "HTTPS_PROXY", ""),
        (&without_password, "HTTPS_PROXY", "http://"),
    ] {
        let mut command = sandbox.proxy(HEALTHY);
        let address = row.start();
        command.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.amazonaws.com");
        command.env(name, format!("{scheme}{address}"));
        let ended = Running::start(&mut command).wait().status(1);
        row.check(&ended, "cannot reach ssm.us-east-1.amazonaws.com: ", &format!("http://{address}"));
    }
}

/// A proxy that accepts connections and sends nothing.
#[test]
fn a_proxy_that_stays_silent_is_named() {
    let silent = listen(|mut stream| while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {});
    let sandbox = Sandbox::start();
    let mut command = sandbox.proxy(HEALTHY);
    command.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.amazonaws.com");
    command.env("HTTPS_PROXY", format!("http://me:s3cret@{silent}"));
    let ended = Running::start(&mut command).wait().status(1);
    let said = format!("within 3.1s, through the proxy http://{silent}\n");
    assert!(ended.stderr.contains(&said), "{ended}");
    assert!(ended.stderr.ends_with(&format!("hint: {OPERATOR}\n")), "{ended}");
    let mut doctor = sandbox.ssh_ec2();
    doctor.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.amazonaws.com");
    doctor.env("HTTPS_PROXY", format!("http://me:s3cret@{silent}"));
    let ended = run(doctor.args(["doctor", HEALTHY])).status(1);
    let said = format!("did not answer within 5 seconds, through the proxy http://{silent} (");
    assert!(ended.text().contains(&said), "{ended}");
}
