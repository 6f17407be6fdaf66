//! Answers that lead to another host, which must not get a token or a signature.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::assert_harmless;
use crate::errors::fails;
use crate::harness::{Ended, HEALTHY, Running, Sandbox};
use crate::impostor::{NOT_AWS, listen, respond, ticket};

/// A server that nothing should connect to. Returns its address and the count of connections.
fn trap() -> (String, Arc<AtomicUsize>) {
    let caught = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&caught);
    let address = listen(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
    });
    (address, caught)
}

/// Runs the proxy in a region with a fault that leads to such a server.
fn lead(fault: impl Fn(&str) -> String) -> Ended {
    let (address, caught) = trap();
    let sandbox = Sandbox::with_faults(&[&fault(&address)]);
    let ended = Running::start(&mut sandbox.proxy(HEALTHY)).wait().status(1);
    assert_harmless(&ended);
    assert_eq!(ended.text(), "", "{ended}");
    assert_eq!(caught.load(Ordering::Relaxed), 0, "somebody came: {ended}");
    sandbox.assert_tidy();
    ended
}

#[test]
fn redirected_calls_are_not_followed() {
    let ended = lead(|trap| format!("redirect=http://{trap}/"));
    assert!(ended.stderr.starts_with("ssh_ec2: error: "), "{ended}");
    assert!(
        ended.stderr.contains("ssm:StartSession") || ended.stderr.contains("SendSSHPublicKey"),
        "{ended}"
    );
}

#[test]
fn redirected_websockets_are_not_followed() {
    for scheme in ["ws", "http"] {
        let ended = lead(|trap| format!("stream-redirect={scheme}://{trap}/"));
        assert!(
            ended.stderr.starts_with("ssh_ec2: error: 127.0.0.1 refused the websocket with status 302"),
            "{ended}"
        );
    }
}

#[test]
fn a_stream_url_with_a_disguised_host_is_refused() {
    let aws = "ssmmessages.us-east-1.amazonaws.com";
    let disguises: [fn(&str, &str) -> String; 4] = [
        |aws, trap| format!("wss://{aws}@{trap}"),
        |aws, trap| format!("ws://{aws}:443@{trap}"),
        |aws, trap| format!("wss://{trap}\\@{aws}"),
        |aws, trap| format!("wss://{trap}%2f@{aws}"),
    ];
    for disguise in disguises {
        let ended = lead(|trap| format!("stream-url={}", disguise(aws, trap)));
        let error = "cannot understand the answer to ssm:StartSession: its stream URL is not a websocket URL";
        assert!(ended.stderr.starts_with(&format!("ssh_ec2: error: {error}\n")), "{ended}");
    }
}

/// 0.0.0.0 reaches this machine, but it is not a loopback address, the only kind that cannot lead elsewhere.
#[test]
fn a_stream_url_without_encryption_leads_to_loopback_addresses_only() {
    let ended = lead(|trap| format!("stream-url=ws://{}", trap.replace("127.0.0.1", "0.0.0.0")));
    assert!(
        ended.stderr.contains("error: the session's websocket is at 0.0.0.0, which is not Session Manager\n")
    );
}

/// An HTTP proxy that plays AWS and answers with this StreamUrl.
struct WayToAws {
    proxy: String,
    /// Every host and port of a CONNECT.
    asked: Arc<Mutex<Vec<String>>>,
    terminated: Arc<AtomicUsize>,
}

impl WayToAws {
    /// Answers in the place of AWS, with a certificate for its names that the test makes trusted.
    fn start(stream_url: &'static str) -> Self {
        let (asked, terminated) = (Arc::<Mutex<Vec<String>>>::default(), Arc::new(AtomicUsize::new(0)));
        let (log, count) = (Arc::clone(&asked), Arc::clone(&terminated));
        let config = tls();
        let proxy = listen(move |stream| {
            let Some(place) = accept_connect(&stream) else { return };
            log.lock().unwrap_or_else(PoisonError::into_inner).push(place.clone());
            if !place.starts_with("ssm.") && !place.starts_with("ec2-instance-connect.") {
                return;
            }
            let tls = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            respond(tls, |operation| match operation {
                "SendSSHPublicKey" => (200, r#"{"RequestId": "x", "Success": true}"#.to_owned()),
                "TerminateSession" => {
                    count.fetch_add(1, Ordering::Relaxed);
                    (200, "{}".to_owned())
                }
                _ => (200, ticket(stream_url)),
            });
        });
        Self { proxy, asked, terminated }
    }

    fn command(&self, sandbox: &Sandbox) -> Command {
        let mut command = sandbox.proxy(HEALTHY);
        command.env_remove("AWS_ENDPOINT_URL").env("HTTPS_PROXY", format!("http://{}", self.proxy)).env(
            "AWS_CA_BUNDLE",
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/hostile/not_aws.pem"),
        );
        command
    }
}

/// Accepts a CONNECT. Returns its host and port.
fn accept_connect(stream: &TcpStream) -> Option<String> {
    let mut reader = BufReader::with_capacity(1, stream.take(4096));
    let (mut first, mut line) = (String::new(), String::new());
    reader.read_line(&mut first).ok()?;
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        line.clear();
    }
    let mut stream = stream;
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").ok()?;
    Some(first.split(' ').nth(1)?.to_owned())
}

fn tls() -> Arc<ServerConfig> {
    let pem = include_bytes!("not_aws.pem");
    let certificate = CertificateDer::from_pem_slice(pem).unwrap();
    let key = PrivateKeyDer::from_pem_slice(pem).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
}

/// As with AWS itself: no endpoint is configured, and the host names are real.
#[test]
fn a_session_at_aws_gives_its_token_to_no_other_host() {
    let sandbox = Sandbox::start();
    for (url, host) in [
        ("wss://evil.example/v1/data-channel/you-1", "evil.example"),
        (
            "wss://ssmmessages.us-east-1.amazonaws.com.evil.example/v1",
            "ssmmessages.us-east-1.amazonaws.com.evil.example",
        ),
        ("wss://ssmmessages.eu-west-1.amazonaws.com/v1", "ssmmessages.eu-west-1.amazonaws.com"),
        ("wss://s3.us-east-1.amazonaws.com/v1", "s3.us-east-1.amazonaws.com"),
        ("wss://127.0.0.1:1/v1", "127.0.0.1"),
        ("ws://127.0.0.1:1/v1", "127.0.0.1"),
    ] {
        let aws = WayToAws::start(url);
        let error = format!("the session's websocket is at {host}, which is not Session Manager");
        fails(&mut aws.command(&sandbox), 1, &error, &[NOT_AWS]);
        let asked = aws.asked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let expected = ["ssm.", "ssmmessages.", "ec2-instance-connect."]
            .map(|name| name.to_owned() + "us-east-1.amazonaws.com:443");
        assert!(asked.contains(&expected[0]), "{asked:?}");
        assert!(asked.iter().all(|place| expected.contains(place)), "{asked:?}");
        assert_eq!(aws.terminated.load(Ordering::Relaxed), 1, "the session is ended all the same");
    }
}
