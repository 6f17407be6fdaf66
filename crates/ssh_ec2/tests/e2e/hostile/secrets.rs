//! Secrets that must not be in a log, since users attach logs to reports.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::harness::{DEADLINE, Running, Sandbox, eventually, run};
use crate::impostor::{impostor, listen, proxy};

/// A relay in front of the region that keeps the answers.
fn tap(sandbox: &Sandbox) -> (String, Arc<Mutex<Vec<u8>>>) {
    let heard = Arc::<Mutex<Vec<u8>>>::default();
    let (kept, region) = (Arc::clone(&heard), sandbox.region.endpoint().replace("http://", ""));
    let address = listen(move |client| {
        let server = TcpStream::connect(&region).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || {
            let _ = std::io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
        let (mut server, mut client) = (server, client);
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = server.read(&mut buffer) {
            kept.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&buffer[..length]);
            if client.write_all(&buffer[..length]).is_err() {
                break;
            }
        }
    });
    (format!("http://{address}"), heard)
}

/// The values of a field in JSON answers.
fn values(text: &str, field: &str) -> Vec<String> {
    let begins = format!("\"{field}\":\"");
    text.split(&begins).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
}

/// A whole connection, with a second websocket on the way.
#[test]
fn the_longest_log_has_no_secret() {
    let sandbox = Sandbox::with_faults(&["close=300ms"]);
    let (endpoint, heard) = tap(&sandbox);
    let mut command = sandbox.ssh_ec2();
    command.env("AWS_ENDPOINT_URL_SSM", &endpoint).env("RUST_LOG", "trace");
    let mut ssh = Running::start(command.args(["-vv", "web-1", "echo in; cat"]));
    ssh.wait_for_output(|output| output == b"in\n");
    eventually("the session is resumed", || (sandbox.session().resumes > 0).then_some(()));
    let ended = ssh.finish().success();
    sandbox.assert_tidy();
    let log = &ended.stderr;
    for step in ["ssm:StartSession", "ssm:ResumeSession", "resumed", "ended the session at AWS"] {
        assert!(log.contains(step), "{step:?} is not in\n{log}");
    }

    let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
    let heard = String::from_utf8_lossy(&heard);
    let (tokens, urls) = (values(&heard, "TokenValue"), values(&heard, "StreamUrl"));
    assert!(tokens.len() >= 2 && urls.len() >= 2, "{heard}");
    let environment = sandbox.region.environment();
    let credentials = environment
        .iter()
        .filter(|(name, _)| ["AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].contains(&name.as_str()));
    let credentials: Vec<_> = credentials.map(|(_, value)| value.clone()).collect();
    assert_eq!(credentials.len(), 2);
    for secret in tokens.iter().chain(&urls).chain(&credentials) {
        assert!(secret.len() > 15, "{secret:?}");
        assert!(!log.contains(secret), "{secret:?} is in\n{log}");
    }
    let shapes = [
        "AWS4-HMAC",
        "Signature",
        "X-Amz-Security-Token",
        "TokenValue",
        "Authorization",
        "data-channel",
        "PRIVATE KEY",
    ];
    for shape in shapes {
        assert!(!log.to_lowercase().contains(&shape.to_lowercase()), "{shape:?} is in\n{log}");
    }
}

/// AWS quotes the request that it refuses, with the session token.
#[test]
fn a_refused_signature_is_not_shown() {
    let sandbox = Sandbox::start();
    let environment = sandbox.region.environment();
    let token = &environment.iter().find(|(name, _)| name == "AWS_SESSION_TOKEN").unwrap().1;
    let body = serde_json::json!({
        "__type": "InvalidSignatureException",
        "message": format!(
            "The signature does not match.\n\nThe Canonical String for this request should have been\n\
             'POST\n/\n\nhost:x\nx-amz-security-token:{token}\n'"
        ),
    })
    .to_string();
    let address = impostor(move |_| (400, body.clone()));
    let ended = run(proxy(&sandbox, &address).arg("-vv")).status(1);
    let error =
        "error: AWS did not accept the signature of ssm:StartSession: The signature does not match.\n";
    assert!(ended.stderr.contains(error), "{ended}");
    assert!(!ended.stderr.contains(&token[..16]), "{ended}");
}
