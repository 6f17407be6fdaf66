//! A host key that AWS does not list: after which answers of AWS it is accepted at first use.
//!
//! One table. EC2 is a server of the test, or a port without one, or a proxy; the rest is a region in which
//! the caller may not read sshd's files through a session. Each row runs `ssh_ec2 known-hosts` by hand, and
//! many run ssh itself besides. Rows run side by side, since many wait for a time limit.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use dns_lookup::{LookupErrorKind, getaddrinfo};

use crate::harness::{Sandbox, WITHOUT_QUOTA, run, wait_until_runnable};
use crate::impostor::{impostor, listen, ticket};

/// Presents another key than AWS lists.
const IMPOSTOR: &str = "i-0dead00000000001d";
const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
const NO_FILES: &str = "deny=ssm:StartSession@AWS-StartNonInteractiveCommand";

/// How EC2 reacts to a call.
#[derive(Clone, Copy)]
enum Act {
    Answer(u16, &'static str),
    /// An answer after this time.
    Late(Duration, u16, &'static str),
    /// Closes the connection.
    Close,
    /// Begins an answer and closes the connection.
    Half,
    /// Begins an answer and never ends it.
    Stall,
    /// Accepts the connection and sends nothing.
    Silence,
}

use Act::{Answer, Close, Half, Late, Silence, Stall};

/// Where EC2 is.
enum Ec2 {
    /// In the region.
    There,
    /// A server, with its reactions to the first call and to the call for `Latest`.
    Server(Act, Act),
    /// A server that does not speak TLS where TLS is expected.
    NoTls(Act),
    /// A server that closes the first connection and then stops listening.
    Gone,
    /// Two addresses: one refuses connections, the other reacts so.
    TwoAddresses(Act),
    /// A port on which nothing listens.
    Refused,
    /// A port that answers no SYN.
    NoAnswerToSyn,
    /// A name that does not exist.
    NoSuchName,
    /// Behind a proxy that reacts so to CONNECT.
    Proxy(Act),
    /// Behind a proxy on whose port nothing listens.
    NoProxy,
}

use Ec2::{Gone, NoAnswerToSyn, NoProxy, NoSuchName, NoTls, Proxy, Refused, Server, There, TwoAddresses};

/// The caller's credentials.
#[derive(Clone, Copy, PartialEq)]
enum Caller {
    /// In the environment.
    Known,
    /// From a program that runs this shell command before it prints them.
    Program(&'static str),
    /// From a program, and expired.
    Expired,
    /// None.
    Nobody,
}

use Caller::{Expired, Known, Nobody, Program};

/// Whether the key is accepted.
#[derive(Clone, Copy, PartialEq)]
enum Outcome {
    AcceptedAndWritten,
    AcceptedOnce,
    /// Refused, with a message that contains this.
    Refused(&'static str),
    /// Refused, since AWS lists another one.
    Refuted,
}

use Outcome::{AcceptedAndWritten, AcceptedOnce, Refused as No, Refuted};

/// The programs that run the row.
#[derive(Clone, Copy, PartialEq)]
enum By {
    Hand,
    /// ssh as well.
    Ssh,
}

const EMPTY: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
    <GetConsoleOutputResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>r</requestId>\
    <instanceId>i-0dead00000000001d</instanceId><timestamp>2026-01-01T00:00:00.000Z</timestamp><output/>\
    </GetConsoleOutputResponse>";
const OF_ANOTHER: &str = "<GetConsoleOutputResponse><instanceId>i-0decaf00000000001</instanceId><output/>\
    </GetConsoleOutputResponse>";
const NO_BASE64: &str = "<GetConsoleOutputResponse><instanceId>i-0dead00000000001d</instanceId><output>*</output>\
    </GetConsoleOutputResponse>";
/// Two blocks; the second one lists no key.
const CONTRADICTED: &str = "<GetConsoleOutputResponse><output>\
    LS0tLS1CRUdJTiBTU0ggSE9TVCBLRVkgS0VZUy0tLS0tDQpzc2gtZWQyNTUxOSBBQUFBQzNOemFDMWxaREkxTlRFNU\
    FBQUFJSjF5SXE4SlFUbVI4Y1lxazBrV2tLcWs5bTBuTlEweXFHcTVtSm0xb0d4aw0KLS0tLS1FTkQgU1NIIEhPU1Qg\
    S0VZIEtFWVMtLS0tLQ0KLS0tLS1CRUdJTiBTU0ggSE9TVCBLRVkgS0VZUy0tLS0tDQpub3RoaW5nDQotLS0tLUVORC\
    BTU0ggSE9TVCBLRVkgS0VZUy0tLS0tDQo=\
    </output></GetConsoleOutputResponse>";
/// A block without an end marker.
const NO_END: &str = "<GetConsoleOutputResponse><output>\
    Y2ktaW5mbwotLS0tLUJFR0lOIFNTSCBIT1NUIEtFWSBLRVlTLS0tLS0Kc3NoLWVkMjU1\
    </output></GetConsoleOutputResponse>";
/// A block without a begin marker.
const NO_BEGIN: &str = "<GetConsoleOutputResponse><output>\
    bFpESTEKLS0tLS1FTkQgU1NIIEhPU1QgS0VZIEtFWVMtLS0tLQo=</output></GetConsoleOutputResponse>";
const OTHER_ROOT: &str = "<DescribeInstancesResponse/>";
const HTML: &str = "<html><body>Please log in to the proxy</body></html>";
const XHTML: &str = "<?xml version=\"1.0\"?><html><body>UnauthorizedOperation</body></html>";
/// A denial of S3.
const BUCKET: &str = "<?xml version=\"1.0\"?><Error><Code>AccessDenied</Code><Message>no</Message></Error>";

macro_rules! refusal {
    ($code:literal) => {
        concat!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>",
            $code,
            "</Code><Message>because</Message></Error></Errors><RequestID>r</RequestID></Response>"
        )
    };
}

const DENIED: &str = refusal!("UnauthorizedOperation");
const UNSUPPORTED: &str = refusal!("UnsupportedOperation");
const THROTTLED: &str = refusal!("RequestLimitExceeded");
const INTERNAL: &str = refusal!("InternalError");

const OK: Act = Answer(200, EMPTY);
const SLOW: Duration = Duration::from_millis(1600);
/// Three attempts take longer than CONSOLE_TIMEOUT.
const TOO_SLOW: Duration = Duration::from_millis(2500);

#[rustfmt::skip]
const TABLE: &[(&str, Ec2, Caller, By, Outcome)] = &[
    // AWS answers, and lists no key.
    ("empty twice", Server(OK, OK), Known, By::Ssh, AcceptedAndWritten),
    ("not for this type", Server(OK, Answer(400, UNSUPPORTED)), Known, By::Ssh, AcceptedAndWritten),
    ("denied", Server(Answer(403, DENIED), Close), Known, By::Ssh, AcceptedAndWritten),
    ("denied by IAM", Server(Answer(403, refusal!("AccessDenied")), Close), Known, By::Hand, AcceptedAndWritten),
    ("denied for now", Server(OK, Answer(403, DENIED)), Known, By::Hand, AcceptedAndWritten),
    ("late, but in time", Server(Late(SLOW, 200, EMPTY), Late(SLOW, 200, EMPTY)), Known, By::Hand, AcceptedAndWritten),
    // No connection can be made.
    ("refused", Refused, Known, By::Ssh, AcceptedOnce),
    ("no answer to SYN", NoAnswerToSyn, Known, By::Ssh, AcceptedOnce),
    ("no such name", NoSuchName, Known, By::Ssh, AcceptedOnce),
    // EC2 fails or throttles.
    ("500", Server(Answer(500, INTERNAL), OK), Known, By::Ssh, No("InternalError")),
    ("503", Server(Answer(503, refusal!("Unavailable")), OK), Known, By::Hand, No("Unavailable")),
    ("500 that denies", Server(Answer(500, DENIED), OK), Known, By::Hand, No("UnauthorizedOperation")),
    ("503 that denies", Server(OK, Answer(503, DENIED)), Known, By::Hand, No("UnauthorizedOperation")),
    ("500, not for this type", Server(OK, Answer(500, UNSUPPORTED)), Known, By::Hand, No("UnsupportedOperation")),
    ("empty, then 500", Server(OK, Answer(500, INTERNAL)), Known, By::Ssh, No("InternalError")),
    ("empty, then 503", Server(OK, Answer(503, refusal!("Unavailable"))), Known, By::Hand, No("Unavailable")),
    ("throttled", Server(Answer(503, THROTTLED), OK), Known, By::Ssh, No("throttles ec2:GetConsoleOutput")),
    ("throttled slowly", Server(Late(TOO_SLOW, 503, THROTTLED), OK), Known, By::Ssh, No("no answer within 6 seconds")),
    ("empty, then throttled", Server(OK, Late(TOO_SLOW, 400, THROTTLED)), Known, By::Hand, No("no answer within 6 seconds")),
    // EC2 refuses the call for another reason than a denied permission.
    ("not supported at all", Server(Answer(400, UNSUPPORTED), OK), Known, By::Hand, No("not supported")),
    ("no such instance", Server(Answer(400, refusal!("InvalidInstanceID.NotFound")), OK), Known, By::Hand, No("does not exist")),
    ("expired", Server(Answer(400, refusal!("RequestExpired")), OK), Known, By::Hand, No("have expired")),
    ("unknown key", Server(Answer(401, refusal!("AuthFailure")), OK), Known, By::Hand, No("does not know the access key")),
    ("wrong signature", Server(Answer(403, refusal!("SignatureDoesNotMatch")), OK), Known, By::Hand, No("signature")),
    ("opt in", Server(Answer(401, refusal!("OptInRequired")), OK), Known, By::Hand, No("OptInRequired")),
    // The answer is not EC2's.
    ("200 of a proxy", Server(Answer(200, HTML), OK), Known, By::Ssh, No("not the XML that was expected")),
    ("200 of XHTML", Server(Answer(200, XHTML), OK), Known, By::Hand, No("not the XML that was expected")),
    ("200 of nothing", Server(Answer(200, ""), OK), Known, By::Hand, No("not the XML that was expected")),
    ("204", Server(Answer(204, ""), OK), Known, By::Hand, No("204")),
    ("202", Server(Answer(202, EMPTY), OK), Known, By::Hand, No("202")),
    ("302", Server(Answer(302, HTML), OK), Known, By::Hand, No("302")),
    ("302 that denies", Server(Answer(302, DENIED), OK), Known, By::Hand, No("UnauthorizedOperation")),
    ("bare 403", Server(Answer(403, ""), OK), Known, By::Ssh, No("403")),
    ("403 of a proxy", Server(Answer(403, HTML), OK), Known, By::Hand, No("403")),
    ("403 of XHTML", Server(Answer(403, XHTML), OK), Known, By::Hand, No("403")),
    ("403 of a bucket", Server(Answer(403, BUCKET), OK), Known, By::Hand, No("403")),
    ("empty, then 403 of a bucket", Server(OK, Answer(403, BUCKET)), Known, By::Hand, No("403")),
    ("404 of a proxy", Server(Answer(404, HTML), OK), Known, By::Hand, No("404")),
    ("407", Server(Answer(407, HTML), OK), Known, By::Hand, No("407")),
    ("502 of a proxy", Server(Answer(502, HTML), OK), Known, By::Hand, No("502")),
    ("empty, then 200 of a proxy", Server(OK, Answer(200, HTML)), Known, By::Hand, No("not the XML that was expected")),
    ("empty, then 403 of a proxy", Server(OK, Answer(403, HTML)), Known, By::Ssh, No("403")),
    ("empty, then 400 of a proxy", Server(OK, Answer(400, HTML)), Known, By::Hand, No("400")),
    ("another operation's answer", Server(Answer(200, OTHER_ROOT), OK), Known, By::Hand, No("not the XML that was expected")),
    ("another instance's console", Server(Answer(200, OF_ANOTHER), OK), Known, By::Hand, No("about another instance")),
    ("two blocks of keys", Server(Answer(200, CONTRADICTED), OK), Known, By::Hand, No("lists different host keys")),
    ("a block without its end", Server(Answer(200, NO_END), OK), Known, By::Hand, No("only a part of them")),
    ("a block without its begin", Server(OK, Answer(200, NO_BEGIN)), Known, By::Hand, No("only a part of them")),
    ("no base64", Server(Answer(200, NO_BASE64), OK), Known, By::Hand, No("not base64")),
    // The connection is established, but no complete answer comes.
    ("closed", Server(Close, OK), Known, By::Ssh, No("cannot reach 127.0.0.1")),
    ("half an answer", Server(Half, OK), Known, By::Hand, No("cannot reach 127.0.0.1")),
    ("an answer that stalls", Server(Stall, OK), Known, By::Hand, No("no answer within 6 seconds")),
    ("silence", Server(Silence, OK), Known, By::Ssh, No("no answer within 6 seconds")),
    ("empty, then closed", Server(OK, Close), Known, By::Hand, No("cannot reach 127.0.0.1")),
    ("empty, then half an answer", Server(OK, Half), Known, By::Hand, No("cannot reach 127.0.0.1")),
    ("empty, then silence", Server(OK, Silence), Known, By::Hand, No("no answer within 6 seconds")),
    ("closed once, then refused", Gone, Known, By::Ssh, No("cannot reach 127.0.0.1")),
    ("one of two addresses closes", TwoAddresses(Close), Known, By::Hand, No("cannot reach localhost")),
    ("one of two addresses is silent", TwoAddresses(Silence), Known, By::Hand, No("no answer within 6 seconds")),
    ("no TLS", NoTls(Answer(200, EMPTY)), Known, By::Ssh, No("encrypted connection to 127.0.0.1")),
    ("TLS is closed", NoTls(Close), Known, By::Hand, No("encrypted connection to 127.0.0.1")),
    ("TLS is silent", NoTls(Silence), Known, By::Hand, No("cannot reach 127.0.0.1")),
    // Through a proxy.
    ("proxy says 403", Proxy(Answer(403, HTML)), Known, By::Ssh, No("answered 403")),
    ("proxy says 407", Proxy(Answer(407, HTML)), Known, By::Hand, No("answered 407")),
    ("proxy says 502", Proxy(Answer(502, "")), Known, By::Hand, No("answered 502")),
    ("proxy says 302", Proxy(Answer(302, "")), Known, By::Hand, No("answered 302")),
    ("proxy closes", Proxy(Close), Known, By::Hand, No("the proxy")),
    ("proxy is silent", Proxy(Silence), Known, By::Hand, No("cannot reach ec2.us-east-1.amazonaws.com")),
    ("proxy lets through, to something else", Proxy(Answer(200, "")), Known, By::Hand, No("encrypted connection")),
    ("no proxy", NoProxy, Known, By::Ssh, No("cannot reach ec2.us-east-1.amazonaws.com")),
    // Credentials.
    ("slow credentials", Server(OK, OK), Program("sleep 7"), By::Ssh, AcceptedAndWritten),
    ("slow credentials, silence", Server(Silence, OK), Program("sleep 7"), By::Hand, No("no answer within 6 seconds")),
    ("slow credentials, refused", Refused, Program("sleep 7"), By::Hand, AcceptedOnce),
    ("no credentials", Server(OK, OK), Nobody, By::Hand, No("there are no AWS credentials")),
    ("no credentials, refused", Refused, Nobody, By::Hand, No("there are no AWS credentials")),
    ("credentials fail", Server(OK, OK), Program("exit 1;"), By::Hand, No("cannot get the AWS credentials")),
    ("credentials fail, refused", Refused, Program("exit 1;"), By::Hand, No("cannot get the AWS credentials")),
    ("slow credentials fail", Refused, Program("sleep 7; exit 1;"), By::Hand, No("cannot get the AWS credentials")),
    ("expired credentials, refused", Refused, Expired, By::Hand, No("xpired")),
];

/// The session ends in the middle of the first key.
const CUT_SHORT: &[&str] = &["agent-payload=64", "pace=10s", "idle=1s"];

/// Other faults of the region, with the state of EC2 meanwhile.
#[rustfmt::skip]
const FAULTS: &[(&[&str], Ec2, Outcome)] = &[
    // The files of sshd list another key.
    (&[], Server(OK, OK), Refuted),
    (&[], Server(Answer(403, DENIED), OK), Refuted),
    (&[], Server(Answer(500, INTERNAL), OK), Refuted),
    (&[], Refused, Refuted),
    // The caller has no permission, or has it and AWS lists nothing.
    (&["deny=ec2:GetConsoleOutput", NO_FILES], There, AcceptedAndWritten),
    (&["deny=ec2:GetConsoleOutput", "deny=ssm:StartSession"], There, AcceptedAndWritten),
    (&["deny=ec2:GetConsoleOutput"], There, Refuted),
    (&[NO_FILES], There, Refuted),
    // It is not known whether the files list the key.
    (&["never-attach"], Server(OK, OK), No("did not answer a session")),
    (&["never-attach"], Server(Answer(403, DENIED), OK), No("did not answer a session")),
    (&["never-attach"], Refused, No("did not answer a session")),
    (&["slow-attach=20s"], Refused, No("did not answer a session")),
    (CUT_SHORT, Server(OK, OK), No("ended before it had read them")),
    (CUT_SHORT, Server(Answer(403, DENIED), OK), No("ended before it had read them")),
    (CUT_SHORT, Refused, No("ended before it had read them")),
    (&["refuse-upgrade"], Server(OK, OK), No("refused the websocket")),
    (&["refuse-upgrade"], Refused, No("refused the websocket")),
    (&["refuse-upgrade", "deny=ec2:GetConsoleOutput"], There, No("refused the websocket")),
    (&["stream-url=ws://192.0.2.1/"], Server(OK, OK), No("192.0.2.1, which is not Session Manager")),
    (&["stream-url=ws://127.0.0.1:1/"], Refused, No("cannot connect to 127.0.0.1")),
    (&["stream-redirect=ws://192.0.2.1/"], Server(OK, OK), No("302")),
    (&["redirect=http://192.0.2.1/"], Server(OK, OK), No("307")),
    (&["redirect=http://192.0.2.1/"], Refused, No("307")),
    (&["redirect=http://192.0.2.1/"], There, No("307")),
];

#[test]
fn a_made_up_key_is_accepted_only_after_an_answer_or_without_a_way_to_ec2() {
    // Each row starts a session that reads sshd's files, and AWS has a quota for sessions.
    let sandbox = Sandbox::with_faults(&[NO_FILES, WITHOUT_QUOTA]);
    each(TABLE, |row| try_row(&sandbox, row));
    sandbox.assert_tidy();
}

#[test]
fn no_fault_of_the_region_gets_a_made_up_key_accepted() {
    each(FAULTS, |(faults, ec2, outcome)| {
        let sandbox = Sandbox::with_faults(faults);
        let found = attempt(&mut by_hand(&sandbox), ec2, Known, *outcome, KEY, 1);
        sandbox.wait_for_the_end();
        found.map_err(|ended| format!("{faults:?}: {ended}"))
    });
}

/// A call that starts a session is not cancelled when the time limit of the EC2 call has passed.
#[test]
fn a_session_that_starts_late_is_ended_all_the_same() {
    let sandbox = Sandbox::start();
    let ended = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&ended);
    let websocket = listen(drop);
    let session_manager = impostor(move |operation| {
        if operation == "TerminateSession" {
            count.fetch_add(1, Ordering::Relaxed);
        } else {
            let (_sender, nothing) = mpsc::channel::<()>();
            let _ = nothing.recv_timeout(Duration::from_secs(7));
        }
        (200, ticket(&format!("ws://{websocket}/v1/data-channel/you-1")))
    });
    let mut command = by_hand(&sandbox);
    command.env("AWS_ENDPOINT_URL_SSM", format!("http://{session_manager}"));
    let cause = No("did not answer the websocket upgrade");
    attempt(&mut command, &Server(OK, OK), Known, cause, KEY, 1).unwrap();
    assert_eq!(ended.load(Ordering::Relaxed), 1);
}

/// Runs all rows, and fails with a list of those that differ.
#[track_caller]
fn each<R: Sync>(table: &[R], judge: impl Fn(&R) -> Result<(), String> + Sync) {
    let wrong = Mutex::new(Vec::new());
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                while let Some(row) = table.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = judge(row);
                    wrong.lock().unwrap().extend(found.err());
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {} rows:\n{}", wrong.len(), table.len(), wrong.join("\n"));
}

/// Many at once, since most rows wait for a time limit or for a retry.
const SIDE_BY_SIDE: usize = 12;

fn try_row(sandbox: &Sandbox, row: &(&str, Ec2, Caller, By, Outcome)) -> Result<(), String> {
    let (name, ec2, caller, by, outcome) = row;
    let outcome = match (ec2, outcome) {
        // Without a working DNS server no answer says that the name does not exist.
        (NoSuchName, AcceptedOnce) if !is_known_not_to_exist(NO_SUCH_NAME) => No("cannot find the address"),
        _ => *outcome,
    };
    attempt(&mut by_hand(sandbox), ec2, *caller, outcome, KEY, 1)
        .map_err(|ended| format!("{name}, by hand: {ended}"))?;
    if *by == By::Ssh {
        let mut ssh = sandbox.ssh_ec2();
        ssh.args(["-oLogLevel=ERROR", &sandbox.at(IMPOSTOR), "echo ACCEPTED"]);
        attempt(&mut ssh, ec2, *caller, outcome, "ACCEPTED", 255)
            .map_err(|ended| format!("{name}, by ssh: {ended}"))?;
    }
    Ok(())
}

fn by_hand(sandbox: &Sandbox) -> Command {
    let mut command = sandbox.ssh_ec2();
    let presented = format!("ssh-ed25519:{KEY}");
    command.args(["known-hosts", "--host", "x", "--presented", &presented, IMPOSTOR]);
    command
}

/// Runs a command with a directory of its own, and compares the outcome.
fn attempt(
    command: &mut Command,
    ec2: &Ec2,
    caller: Caller,
    outcome: Outcome,
    accepted: &str,
    status: i32,
) -> Result<(), String> {
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    command.env("SSH_EC2_DIR", directory.path()).env("AWS_EC2_METADATA_DISABLED", "true");
    set_caller(command, caller, directory.path());
    let _servers = set_ec2(command, ec2);
    let ended = run(command);
    let known = fs::read_to_string(directory.path().join("known_hosts")).unwrap_or_default();
    let (is_accepted, is_written) = (ended.text().contains(accepted), !known.is_empty());
    let errors = ended.stderr.lines().filter(|line| line.starts_with("ssh_ec2: error: ")).count();
    let once = ended.stderr.matches("is accepted unchecked, for this connection only").count();
    let is_right = match outcome {
        AcceptedAndWritten => ended.code == 0 && is_accepted && is_written && errors == 0,
        AcceptedOnce => ended.code == 0 && is_accepted && !is_written && errors == 0 && once == 1,
        No(cause) => {
            let said = format!("the host key of {IMPOSTOR} cannot be checked: ");
            let error = ended.stderr.lines().find(|line| line.contains(&said)).unwrap_or_default();
            let is_said = errors == 1 && error.contains(cause) && once == 0;
            ended.code == status && !is_accepted && !is_written && is_said
        }
        Refuted => {
            let error = format!("ssh_ec2: error: {IMPOSTOR} presents the host key ED25519 ");
            ended.code == status && !is_accepted && ended.stderr.contains(&error) && once == 0
        }
    };
    if is_right { Ok(()) } else { Err(format!("accepted {is_accepted}, written {is_written}: {ended}")) }
}

fn set_caller(command: &mut Command, caller: Caller, directory: &Path) {
    let program = match caller {
        Known => return,
        Nobody => None,
        Program(first) => Some((first, "2038-01-01T00:00:00Z")),
        Expired => Some(("true", "2020-01-01T00:00:00Z")),
    };
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"].map(|name| {
        let value = command.get_envs().find(|(found, _)| *found == name).unwrap().1.unwrap();
        value.to_str().unwrap().to_owned()
    });
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    let mut config = "[default]\n".to_owned();
    if let Some((first, expiry)) = program {
        let [id, secret, token] = keys;
        let script = directory.join("credentials");
        let json = format!(
            r#"{{"Version": 1, "AccessKeyId": "{id}", "SecretAccessKey": "{secret}", "SessionToken": "{token}", "Expiration": "{expiry}"}}"#
        );
        fs::write(&script, format!("#!/bin/sh\n[ \"$1\" = -V ] && exit\n{first}\necho '{json}'\n")).unwrap();
        run(Command::new("chmod").arg("+x").arg(&script)).success();
        wait_until_runnable(&script);
        config.push_str(&format!("credential_process = {}\n", script.display()));
    }
    let file = directory.join("aws_config");
    fs::write(&file, config).unwrap();
    command.env("AWS_CONFIG_FILE", file);
}

/// Sets the endpoint of EC2 for the command. The returned value must live as long as the command.
fn set_ec2(command: &mut Command, ec2: &Ec2) -> Vec<Box<dyn std::any::Any>> {
    let mut kept: Vec<Box<dyn std::any::Any>> = Vec::new();
    let url = match ec2 {
        There => return kept,
        Server(first, latest) => {
            let (first, latest) = (*first, *latest);
            format!("http://{}", listen(move |stream| serve(stream, first, latest)))
        }
        NoTls(act) => {
            let act = *act;
            format!("https://{}", listen(move |stream| serve(stream, act, act)))
        }
        Gone => format!("http://{}", once()),
        TwoAddresses(act) => {
            let act = *act;
            let address: SocketAddr = listen(move |stream| serve(stream, act, act)).parse().unwrap();
            format!("http://localhost:{}", address.port())
        }
        Refused => format!("http://{}", unused()),
        NoAnswerToSyn => {
            let (address, backlog) = full_backlog();
            kept.push(Box::new(backlog));
            format!("http://{address}")
        }
        NoSuchName => format!("https://{NO_SUCH_NAME}"),
        Proxy(act) => {
            let act = *act;
            command.env("HTTPS_PROXY", format!("http://{}", listen(move |stream| serve(stream, act, act))));
            "https://ec2.us-east-1.amazonaws.com".to_owned()
        }
        NoProxy => {
            command.env("HTTPS_PROXY", format!("http://{}", unused()));
            "https://ec2.us-east-1.amazonaws.com".to_owned()
        }
    };
    command.env("AWS_ENDPOINT_URL_EC2", url);
    kept
}

/// Serves one connection.
fn serve(stream: TcpStream, first: Act, latest: Act) {
    let mut reader = BufReader::new(stream);
    let (mut length, mut line) = (0, String::new());
    while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
        line.clear();
    }
    let mut body = vec![0; length];
    let _ = reader.read_exact(&mut body);
    let is_latest = String::from_utf8_lossy(&body).contains("Latest=true");
    let mut stream = reader.into_inner();
    let head = |status, length| {
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
    };
    let answer = |status: u16, body: &str| match status {
        204 => "HTTP/1.1 204 X\r\nConnection: close\r\n\r\n".to_owned(),
        _ => head(status, body.len()) + body,
    };
    let silence = |stream: &mut TcpStream, limit| {
        // Until the client closes.
        stream.set_read_timeout(limit).unwrap();
        while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    };
    let said = match if is_latest { latest } else { first } {
        Answer(status, body) => answer(status, body),
        Late(delay, status, body) => {
            silence(&mut stream, Some(delay));
            answer(status, body)
        }
        Close => return,
        Half => head(200, EMPTY.len()) + &EMPTY[..EMPTY.len() / 2],
        Stall => {
            let _ = stream.write_all((head(200, EMPTY.len()) + &EMPTY[..EMPTY.len() / 2]).as_bytes());
            return silence(&mut stream, None);
        }
        Silence => return silence(&mut stream, None),
    };
    let _ = stream.write_all(said.as_bytes());
}

/// A port that accepts one connection, closes it, and does not listen any more by then.
fn once() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        drop(stream);
    });
    address
}

fn unused() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

/// A port with a full queue of connections, so that the kernel drops further SYNs.
fn full_backlog() -> (SocketAddr, (TcpListener, Vec<TcpStream>)) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut waiting = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        waiting.push(stream);
    }
    (address, (listener, waiting))
}

fn is_known_not_to_exist(name: &str) -> bool {
    getaddrinfo(Some(name), None, None).is_err_and(|error| matches!(error.kind(), LookupErrorKind::NoName))
}

/// RFC 6761 reserves `.invalid`: such a name never exists.
const NO_SUCH_NAME: &str = "ec2.us-east-1.invalid";
