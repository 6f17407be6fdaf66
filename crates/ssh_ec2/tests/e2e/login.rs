//! A profile of `aws login`: its file is shared with the AWS CLI, which must still be able to use it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::{Value, json};

use crate::credential_process::alone;
use crate::errors::{fails, told};
use crate::harness::{HEALTHY, Running, Sandbox, binary, run};
use crate::impostor::listen;

const SESSION: &str = "arn:aws:iam::123456789012:user/you";
/// SHA-256 of it.
const FILE: &str = "b0cd47de6981ccf6350722416ca074a81a434ffb25ddac49aa2758b191c9f282.json";
const HINT: &str = "sign in again: `aws login --profile login`";
/// From RFC 9500, 2.3: a key for tests.
const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\n\
    MHcCAQEEIObLW92AqkWunJXowVR2Z5/+yVPBaFHnEedDk5WJxk/BoAoGCCqGSM49\n\
    AwEHoUQDQgAEQiVI+I+3gv+17KN0RFLHKh5Vj71vc75eSOkyMsxFxbFsTNEMTLjV\n\
    uKFxOelIgsiZJXKZNCX0FBmrfpCkKklCcg==\n-----END EC PRIVATE KEY-----\n";

fn keys(sandbox: &Sandbox) -> Value {
    let environment = sandbox.region.environment();
    let value = |name: &str| &environment.iter().find(|(found, _)| found == name).unwrap().1;
    json!({
        "accessKeyId": value("AWS_ACCESS_KEY_ID"),
        "secretAccessKey": value("AWS_SECRET_ACCESS_KEY"),
        "sessionToken": value("AWS_SESSION_TOKEN"),
    })
}

fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.home().join(".aws/login/cache").join(FILE)
}

/// Writes the file with the region's credentials, as `aws login` would, and with a field of another program.
fn write(sandbox: &Sandbox, expires: &str) -> Value {
    let mut access_token = keys(sandbox);
    access_token["accountId"] = json!("123456789012");
    access_token["expiresAt"] = json!(expires);
    access_token["later"] = json!(1);
    let token = json!({
        "accessToken": access_token, "tokenType": "aws_sigv4", "refreshToken": "first", "idToken": "id",
        "clientId": "arn:aws:signin:::devtools/same-device", "dpopKey": KEY, "signInRegion": "us-east-2",
        "later": { "kept": [true] },
    });
    keep(sandbox, &token);
    token
}

fn keep(sandbox: &Sandbox, token: &Value) {
    fs::create_dir_all(file(sandbox).parent().unwrap()).unwrap();
    fs::write(file(sandbox), token.to_string()).unwrap();
    fs::set_permissions(file(sandbox), fs::Permissions::from_mode(0o600)).unwrap();
}

fn read(sandbox: &Sandbox) -> Value {
    serde_json::from_slice(&fs::read(file(sandbox)).unwrap()).unwrap()
}

fn configured(sandbox: &Sandbox, mut command: Command) -> Command {
    let config = sandbox.file("config");
    fs::write(&config, format!("[profile login]\nregion = us-east-1\nlogin_session = {SESSION}\n")).unwrap();
    command.env("AWS_CONFIG_FILE", config).env("AWS_PROFILE", "login");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

fn ssh_ec2(sandbox: &Sandbox) -> Command {
    let mut command = sandbox.ssh_ec2();
    command.args(["-q", &sandbox.target(), "echo in"]);
    configured(sandbox, command)
}

type Requests = Arc<Mutex<Vec<(String, String)>>>;

/// A server that refreshes sign-ins like AWS Sign-In. Returns its URL, and head and body of each request.
fn sign_in_service(answer: impl Fn(usize) -> (u16, Value) + Send + Sync + 'static) -> (String, Requests) {
    let requests = Requests::default();
    let seen = Arc::clone(&requests);
    let address = listen(move |stream| {
        let request = receive(&stream);
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push(request);
        let (status, body) = answer(seen.len());
        drop(seen);
        send(&stream, status, &body.to_string());
    });
    (format!("http://{address}"), requests)
}

fn receive(stream: &TcpStream) -> (String, String) {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap() <= 2 {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

fn send(mut stream: &TcpStream, status: u16, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes()).unwrap();
}

fn requests(requests: &Requests) -> Vec<(String, String)> {
    requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// The server's answer.
fn renewed(sandbox: &Sandbox) -> Value {
    json!({
        "accessToken": keys(sandbox), "tokenType": "aws_sigv4", "expiresIn": 900, "refreshToken": "second",
    })
}

#[test]
fn credentials_that_last_are_used_and_nobody_is_asked() {
    let sandbox = Sandbox::start();
    let before = write(&sandbox, "2199-01-01T00:00:00Z");
    let (service, seen) = sign_in_service(|_| (500, json!({})));
    let mut command = ssh_ec2(&sandbox);
    assert_eq!(run(command.env("AWS_ENDPOINT_URL_SIGNIN", &service)).success().text(), "in\n");
    assert_eq!((read(&sandbox), requests(&seen).len()), (before, 0));
}

#[test]
fn a_refresh_keeps_all_that_it_does_not_renew() {
    let sandbox = Sandbox::start();
    let before = write(&sandbox, "2020-01-01T00:00:00Z");
    let inode = fs::metadata(file(&sandbox)).unwrap().ino();
    let answer = renewed(&sandbox);
    let (service, seen) = sign_in_service(move |_| (200, answer.clone()));
    let mut command = ssh_ec2(&sandbox);
    let ended = run(command.env("AWS_ENDPOINT_URL_SIGNIN", &service)).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));

    let after = read(&sandbox);
    assert_eq!(after["refreshToken"], "second");
    let mut expected = before;
    expected["refreshToken"] = after["refreshToken"].clone();
    expected["accessToken"]["expiresAt"] = after["accessToken"]["expiresAt"].clone();
    assert_eq!(after, expected, "nothing else has changed");
    let expires = after["accessToken"]["expiresAt"].as_str().unwrap();
    assert!(expires.len() == "2026-01-01T00:00:00Z".len() && expires.ends_with('Z'), "{expires}");
    let metadata = fs::metadata(file(&sandbox)).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    assert_ne!(metadata.ino(), inode, "the file is replaced as a whole: a reader never sees half of it");

    let [(head, body)] = &requests(&seen)[..] else { panic!("{:?}", requests(&seen)) };
    assert!(head.starts_with("POST /v1/token HTTP/1.1\r\n"), "{head}");
    let proof =
        head.lines().find_map(|line| line.to_ascii_lowercase().starts_with("dpop: ").then(|| &line[6..]));
    assert_eq!(proof.unwrap().split('.').count(), 3, "{head}");
    assert!(!head.to_ascii_lowercase().contains("authorization:"), "{head}");
    let sent: Value = serde_json::from_str(body).unwrap();
    let client = "arn:aws:signin:::devtools/same-device";
    let expected = json!({ "clientId": client, "grantType": "refresh_token", "refreshToken": "first" });
    assert_eq!(sent, expected);
}

/// A refresh token can be used once.
#[test]
fn forks_that_start_together_refresh_once() {
    let sandbox = Sandbox::start();
    write(&sandbox, "2020-01-01T00:00:00Z");
    let answer = renewed(&sandbox);
    let denied = json!({ "__type": "AccessDeniedException", "error": "TOKEN_EXPIRED", "message": "used" });
    let (service, seen) =
        sign_in_service(move |count| if count == 1 { (200, answer.clone()) } else { (400, denied.clone()) });
    let mut forks = sandbox.command("sh");
    forks.args(["-c", "for i in 1 2 3 4; do \"$0\" -q -n web-1 'echo in' & done; wait"]).arg(binary());
    let mut forks = configured(&sandbox, forks);
    let ended = run(forks.env("AWS_ENDPOINT_URL_SIGNIN", &service)).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\nin\nin\nin\n", ""));
    assert_eq!(requests(&seen).len(), 1);
}

#[test]
fn a_session_is_refreshed_in_its_own_region() {
    let sandbox = Sandbox::start();
    write(&sandbox, "2020-01-01T00:00:00Z");
    // A proxy that refuses every connection.
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&asked);
    let proxy = listen(move |stream| {
        let (head, _) = receive(&stream);
        let line = head.lines().next().unwrap().to_owned();
        seen.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        send(&stream, 403, "");
    });
    let mut command = configured(&sandbox, sandbox.proxy(HEALTHY));
    command.env("HTTPS_PROXY", format!("http://{proxy}")).env("AWS_REGION", "eu-west-1");
    command.env_remove("AWS_ENDPOINT_URL");
    let ended = Running::start(&mut command).wait().status(1);
    let asked = asked.lock().unwrap_or_else(PoisonError::into_inner);
    assert!(!asked.is_empty(), "{ended}");
    let expected = "CONNECT us-east-2.signin.aws.amazon.com:443 HTTP/1.1";
    assert!(asked.iter().all(|line| line == expected), "{asked:?}");
}

#[test]
fn a_session_that_cannot_go_on_names_aws_login_and_its_file_stays() {
    let denied =
        |reason: &str| (400, json!({ "__type": "AccessDeniedException", "error": reason, "message": "No." }));
    let cases = [
        (denied("TOKEN_EXPIRED"), "the AWS sign-in of profile login has expired"),
        (
            denied("USER_CREDENTIALS_CHANGED"),
            "the AWS sign-in of profile login is not valid any more: the password was changed",
        ),
    ];
    for (answer, error) in cases {
        let sandbox = Sandbox::start();
        let before = write(&sandbox, "2020-01-01T00:00:00Z");
        let (service, _) = sign_in_service(move |_| answer.clone());
        let mut command = configured(&sandbox, sandbox.proxy(HEALTHY));
        fails(command.env("AWS_ENDPOINT_URL_SIGNIN", &service), 1, error, &[HINT]);
        assert_eq!(read(&sandbox), before);
    }

    let sandbox = Sandbox::start();
    write(&sandbox, "2020-01-01T00:00:00Z");
    let answer = denied("INSUFFICIENT_PERMISSIONS");
    let (service, _) = sign_in_service(move |_| answer.clone());
    let mut command = configured(&sandbox, sandbox.proxy(HEALTHY));
    let error = "AWS refused signin:CreateOAuth2Token on the sign-in of `aws login`: No.";
    fails(
        command.env("AWS_ENDPOINT_URL_SIGNIN", &service),
        1,
        error,
        &["the caller needs signin:CreateOAuth2Token"],
    );
}

#[test]
fn a_session_that_is_not_there_or_not_whole_is_named() {
    let sandbox = Sandbox::start();
    let mut command = configured(&sandbox, sandbox.proxy(HEALTHY));
    fails(&mut command, 1, "the AWS sign-in of profile login is missing", &[HINT]);
    let token = write(&sandbox, "2199-01-01T00:00:00Z");
    for name in ["accessToken", "refreshToken", "clientId", "dpopKey"] {
        let mut damaged = token.clone();
        damaged.as_object_mut().unwrap().remove(name);
        keep(&sandbox, &damaged);
        let mut command = configured(&sandbox, sandbox.proxy(HEALTHY));
        fails(&mut command, 1, "the AWS sign-in of profile login is incomplete", &[HINT]);
        assert_eq!(read(&sandbox), damaged, "it is not written");
    }
    keep(&sandbox, &token);
    fs::set_permissions(file(&sandbox), fs::Permissions::from_mode(0o666)).unwrap();
    let mut command = configured(&sandbox, sandbox.proxy(HEALTHY));
    let ended = run(&mut alone(&sandbox, &command)).status(1);
    let error = format!(
        "the AWS sign-in of profile login is not trusted: other users can write to {}",
        file(&sandbox).display()
    );
    assert_eq!(ended.stderr, told(&error, &[HINT]));
    command.env_remove("AWS_CONFIG_FILE");
}

#[test]
fn the_directory_of_the_files_can_be_named() {
    let sandbox = Sandbox::start();
    write(&sandbox, "2199-01-01T00:00:00Z");
    let elsewhere = sandbox.home().join("elsewhere");
    fs::rename(file(&sandbox).parent().unwrap(), &elsewhere).unwrap();
    for named in [elsewhere.display().to_string(), "~/elsewhere".to_owned(), "$HOME/elsewhere".to_owned()] {
        let mut command = ssh_ec2(&sandbox);
        let ended = run(command.env("AWS_LOGIN_CACHE_DIRECTORY", named)).success();
        assert_eq!(ended.text(), "in\n");
    }
}

/// Text that the SDK's provider logs at its most verbose level.
#[test]
fn no_log_has_a_token() {
    let sandbox = Sandbox::start();
    write(&sandbox, "2020-01-01T00:00:00Z");
    let mut answer = renewed(&sandbox);
    answer["refreshToken"] = json!("second-refresh-token");
    let (service, _) = sign_in_service(move |_| (200, answer.clone()));
    let mut command = sandbox.ssh_ec2();
    command.args(["-vv", &sandbox.target(), "echo in"]);
    let mut command = configured(&sandbox, command);
    let ended = run(command.env("AWS_ENDPOINT_URL_SIGNIN", &service).env("RUST_LOG", "trace")).success();
    assert!(ended.stderr.contains("the sign-in of `aws login` was refreshed"), "{ended}");
    let keys = keys(&sandbox);
    let secrets = ["secretAccessKey", "sessionToken"].map(|name| keys[name].as_str().unwrap());
    for secret in secrets.into_iter().chain(["second-refresh-token", "EC PRIVATE KEY", "dpop+jwt"]) {
        assert!(!ended.stderr.contains(secret), "{secret} is in {ended}");
    }
}
