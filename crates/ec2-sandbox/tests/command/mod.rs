//! Sessions that run a command, over a real websocket.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use ec2_sandbox::{Faults, Options, Region};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use ssm_channel::{
    Channel, Closed, Draft, Event, Header, MessageId, MessageType, Origin, Outgoing, PayloadType,
    SessionType, Side,
};
use tokio::net::TcpStream;
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

use crate::client::{Client, Reply, WITHOUT_QUOTA, with_faults, without_quota};

const HEALTHY: &str = "i-0decaf00000000001";
const DOCUMENT: &str = "AWS-StartNonInteractiveCommand";

async fn start(client: &Client, target: &str, document: &str, parameters: &Value) -> Reply {
    let input = json!({"Target": target, "DocumentName": document, "Parameters": parameters});
    client.ssm("StartSession", &input).await
}

/// A command in a shell.
fn shell(script: &str) -> Value {
    json!({"command": [format!("sh -c {}", quote(script))]})
}

/// Quotes one word, for the SSM agent as for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r#"'"'"'"#))
}

/// A client on a session's data channel.
struct Session {
    socket: WebSocketStream<TcpStream>,
    channel: Channel,
    kind: Option<SessionType>,
    output: Vec<u8>,
    errors: Vec<u8>,
    statuses: Vec<i32>,
    longest: usize,
}

impl Session {
    async fn open(started: &Reply) -> Self {
        assert_eq!(started.status, 200, "{}", started.body);
        let url = started.text("StreamUrl");
        let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
        let (socket, _) = client_async(&url, TcpStream::connect(host).await.unwrap()).await.unwrap();
        let now = Instant::now();
        let origin = Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now };
        let mut channel = Channel::new(Side::Client { client_id: "client".into() }, origin);
        channel.attach(now, &started.text("TokenValue"));
        Self {
            socket,
            channel,
            kind: None,
            output: Vec::new(),
            errors: Vec::new(),
            statuses: Vec::new(),
            longest: 0,
        }
    }

    /// Runs the client until `enough` is true or the session ends. Returns the gateway's reason in the second
    /// case.
    async fn until(&mut self, enough: impl Fn(&Self) -> bool) -> Option<String> {
        loop {
            let now = Instant::now();
            self.channel.handle_timeout(now);
            while let Some(outgoing) = self.channel.poll_transmit(now) {
                let message = match outgoing {
                    Outgoing::Open(text) => Message::text(text),
                    Outgoing::Record(record) => Message::Binary(record),
                };
                self.socket.send(message).await.unwrap();
            }
            while let Some(bytes) = self.channel.read() {
                self.longest = self.longest.max(bytes.len());
                self.output.extend_from_slice(&bytes);
            }
            while let Some(bytes) = self.channel.read_error() {
                self.errors.extend_from_slice(&bytes);
            }
            while let Some(event) = self.channel.poll_event() {
                match event {
                    Event::Ready { session, .. } => self.kind = session,
                    Event::ExitStatus(status) => self.statuses.push(status),
                    Event::Closed(Closed::ByGateway { output }) => return Some(output),
                    other => panic!("{other:?}"),
                }
            }
            if enough(self) {
                return None;
            }
            let deadline = self.channel.poll_timeout().unwrap_or(now + Duration::from_secs(30));
            match tokio::time::timeout_at(deadline.into(), self.socket.next()).await {
                Ok(Some(Ok(Message::Binary(record)))) => {
                    self.channel.handle_message(Instant::now(), record).unwrap();
                }
                Ok(Some(Ok(_))) | Err(_) => {}
                Ok(_) => return Some("the websocket is closed".to_owned()),
            }
        }
    }

    /// The whole output of a session that ends by itself.
    async fn finish(mut self) -> String {
        assert_eq!(self.until(|_| false).await.as_deref(), Some(""));
        String::from_utf8(self.output).unwrap()
    }
}

/// What a script prints on an instance.
async fn run(client: &Client, target: &str, script: &str) -> String {
    let started = start(client, target, DOCUMENT, &shell(script)).await;
    Session::open(&started).await.finish().await
}

/// A command without a shell: its output, its error output and what the gateway says at the end.
async fn run_bare(client: &Client, command: &str) -> (String, String, String) {
    let started = start(client, HEALTHY, DOCUMENT, &json!({"command": [command]})).await;
    let mut session = Session::open(&started).await;
    let closed = session.until(|_| false).await.unwrap();
    let [output, errors] = [session.output, session.errors].map(|bytes| String::from_utf8(bytes).unwrap());
    (output, errors, closed)
}

#[tokio::test]
async fn a_command_runs_to_its_end_and_its_output_comes_in_small_messages() {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    let document = format!("arn:aws:ssm:us-east-1::document/{DOCUMENT}");
    let command = "sh -c \"printf %05000d 0; echo end >&2\"";
    let started = start(&client, HEALTHY, &document, &json!({"command": [command]})).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|_| false).await.as_deref(), Some(""));
    assert_eq!(String::from_utf8(session.output).unwrap(), "0".repeat(5000) + "end\n");
    assert_eq!(session.longest, 1024);
    let kind = SessionType { session_type: "NonInteractiveCommands".to_owned(), properties: Value::Null };
    assert_eq!(session.kind, Some(kind));
    let [summary] = &region.sessions()[..] else { panic!("one session") };
    assert_eq!((summary.port, summary.command.as_deref()), (0, Some(command)));
    assert!(region.sessions_ended(Duration::from_secs(30)).await);
    assert_eq!(run(&client, HEALTHY, "true").await, "");
}

#[tokio::test]
async fn input_is_dropped_and_an_interrupt_is_not() {
    let region = Region::start(Options::default()).await.unwrap();
    let command = shell("trap 'echo interrupted; exit' INT; cat; while :; do :; done");
    let mut session = Session::open(&start(&Client::new(&region), HEALTHY, DOCUMENT, &command).await).await;
    let mut draft = Draft::with_capacity(16);
    assert_eq!(session.until(|session| session.channel.send_capacity() > 0).await, None);
    // Before the shell has set its trap, the first interrupt kills it, which ends the session too.
    draft.push(b"ignored\n\x03");
    session.channel.send(Instant::now(), &mut draft).unwrap();
    assert_eq!(session.until(|_| false).await.as_deref(), Some(""));
    assert!([&b"interrupted\n"[..], b""].contains(&&session.output[..]), "{:?}", session.output);
}

#[tokio::test]
async fn a_command_runs_without_a_shell() {
    let (_region, client) = with_faults(&["command-error=20ms", WITHOUT_QUOTA]).await;
    let no = String::new;
    let echoed = run_bare(&client, "echo one; echo $HOME ~ * # comment\nnext").await;
    assert_eq!(echoed, ("one; echo $HOME ~ * next\n".to_owned(), no(), no()));
    // Without a shell, `*` is not expanded, as on a real instance.
    let (keys, errors, closed) = run_bare(&client, "cat /etc/ssh/ssh_host_*_key.pub").await;
    assert!(
        keys.starts_with("cat: ") && keys.ends_with("ssh_host_*_key.pub': No such file or directory\n"),
        "{keys}"
    );
    assert_eq!((errors, closed), (no(), no()), "a complaint is output");
    let not_found = run_bare(&client, "for i in 1; do echo $i; done").await;
    assert_eq!(not_found, (no(), "exec: \"for\": executable file not found in $PATH".to_owned(), no()));
    let denied = run_bare(&client, "/etc/passwd").await;
    assert_eq!(denied, (no(), "fork/exec /etc/passwd: permission denied".to_owned(), no()));
    let error =
        "Unable to start command: Failed to parse commands input: EOF found when expecting closing quote\n\n";
    let unparsable = run_bare(&client, "echo \"unterminated").await;
    assert_eq!(unparsable, (no(), error.to_owned(), format!("\n----------ERROR-------\n{error}")));
    let blank = run_bare(&client, " ").await;
    assert_eq!(
        blank,
        (no(), no(), "Commands cannot be empty for session type NonInteractiveCommands".to_owned())
    );
}

#[tokio::test]
async fn the_files_of_an_instance_tell_its_keys_and_settings() {
    let (region, client) = without_quota().await;
    let keys = run(&client, HEALTHY, "cat /etc/ssh/ssh_host_*_key.pub").await;
    let kinds: Vec<_> = keys.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(kinds, ["ecdsa-sha2-nistp256", "ssh-ed25519"]);
    assert!(region.replace_host_key(HEALTHY).unwrap());
    assert!(!region.replace_host_key("i-0123456789abcdef0").unwrap());
    assert_eq!(run(&client, HEALTHY, "cat /etc/ssh/ssh_host_*_key.pub").await, keys);
    assert_ne!(run(&client, "i-0decaf00000000002", "cat /etc/ssh/ssh_host_*_key.pub").await, keys);

    let look = "grep AuthorizedKeysCommand /etc/ssh/sshd_config; test -x /opt/aws/bin/eic_run_authorized_keys && echo there";
    let usual = "AuthorizedKeysCommand /opt/aws/bin/eic_run_authorized_keys %u %f\n\
                 AuthorizedKeysCommandUser ec2-instance-connect\nthere\n";
    assert_eq!(run(&client, HEALTHY, look).await, usual);
    assert_eq!(run(&client, "i-0dead000000000003", look).await, "");
    let look = format!("{look}; getenforce 2>/dev/null");
    assert_eq!(run(&client, "i-0dead000000000018", &look).await, usual);
    assert_eq!(run(&client, "i-0dead000000000019", &look).await, "there\n");
    assert_eq!(run(&client, "i-0dead00000000001a", &look).await, format!("{usual}Enforcing\n"));
    let ahead = run(&client, "i-0dead000000000018", "date +%s; date -u +%Y").await;
    let (seconds, year) = ahead.trim().split_once('\n').unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    assert!((now + 540..=now + 600).contains(&seconds.parse().unwrap()), "{ahead}");
    assert_eq!(year.len(), 4);
    let id = "id -u ec2-user; id -u ghost; echo $?; getenforce 2>/dev/null; echo $?";
    assert_eq!(run(&client, HEALTHY, id).await, "1000\nid: ‘ghost’: no such user\n1\n127\n");
}

#[tokio::test]
async fn commands_may_be_denied_while_ssh_is_not() {
    let mut faults = Faults::default();
    faults.add("deny=ssm:StartSession@AWS-StartNonInteractiveCommand").unwrap();
    faults.add("deny=ssm:StartSession@i-0decaf00000000002").unwrap();
    let region = Region::start(Options { faults, ..Options::default() }).await.unwrap();
    let client = Client::new(&region);
    let denied = start(&client, HEALTHY, DOCUMENT, &json!({"command": ["true"]})).await;
    assert_eq!(denied.code(), "AccessDeniedException");
    assert_eq!(
        denied.text("Message"),
        "User: arn:aws:sts::123456789012:assumed-role/sandbox/you is not authorized to perform: \
         ssm:StartSession on resource: arn:aws:ssm:us-east-1::document/AWS-StartNonInteractiveCommand \
         because no identity-based policy allows the ssm:StartSession action"
    );
    let ssh = async |target| start(&client, target, "AWS-StartSSHSession", &json!({})).await;
    assert_eq!(ssh(HEALTHY).await.status, 200);
    assert!(ssh("i-0decaf00000000002").await.text("Message").contains("instance/i-0decaf00000000002 "));
}

#[tokio::test]
async fn an_old_ssm_agent_refuses_what_it_does_not_know() {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    for (document, parameters, kind) in [
        ("AWS-StartSSHSession", json!({}), "Port"),
        (DOCUMENT, json!({"command": ["true"]}), "NonInteractiveCommands"),
    ] {
        let started = start(&client, "i-0dead000000000015", document, &parameters).await;
        let output = Session::open(&started).await.until(|_| false).await.unwrap();
        let refusal = format!("Plugin with name {kind} is not supported by this version of ssm agent,");
        assert!(output.starts_with(&refusal), "{output}");
    }
}

#[tokio::test]
async fn a_silent_ssm_agent_never_begins_a_handshake() {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    let started = start(&client, "i-0dead000000000016", "AWS-StartSSHSession", &json!({})).await;
    let mut session = Session::open(&started).await;
    let input = json!({"SessionId": started.text("SessionId")});
    assert_eq!(client.ssm("TerminateSession", &input).await.status, 200);
    // The session may end before the websocket is passed to it.
    session.until(|_| false).await.unwrap();
    assert_eq!((session.kind, session.output), (None, Vec::new()));
}

#[tokio::test]
async fn what_is_no_ssh_server_answers_in_its_own_words() {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    let started = start(&client, "i-0dead000000000017", "AWS-StartSSHSession", &json!({})).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|session| session.channel.send_capacity() > 0).await, None);
    let mut draft = Draft::with_capacity(32);
    draft.push(b"SSH-2.0-example\r\n");
    session.channel.send(Instant::now(), &mut draft).unwrap();
    assert_eq!(session.finish().await, "HTTP/1.1 400 Bad Request\r\n\r\n");
}

#[tokio::test]
async fn a_session_ends_when_nothing_moves() {
    let (region, client) = with_faults(&["idle=300ms"]).await;
    let started = start(&client, HEALTHY, DOCUMENT, &shell("exec sleep 600")).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|_| false).await.as_deref(), Some(""));
    assert!(session.kind.is_some(), "it had begun");
    assert!(region.sessions_ended(Duration::from_secs(30)).await);
}

#[tokio::test]
async fn a_message_that_is_too_large_costs_the_websocket() {
    let (_region, client) = with_faults(&[]).await;
    let started = start(&client, HEALTHY, DOCUMENT, &shell("exec sleep 600")).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|session| session.channel.send_capacity() > 0).await, None);
    for (length, end) in [(128 * 1024, None), (128 * 1024 + 1, Some("the websocket is closed"))] {
        let mut draft = Draft::with_capacity(length);
        draft.push(&vec![b'x'; length]);
        session.channel.send(Instant::now(), &mut draft).unwrap();
        let ended = session.until(|session| end.is_none() && session.channel.unacknowledged() == 0).await;
        assert_eq!(ended.as_deref(), end);
    }
}

#[tokio::test]
async fn an_interrupt_is_acknowledged_when_the_command_has_ended() {
    let (_region, client) = with_faults(&[]).await;
    let directory = tempfile::tempdir().unwrap();
    let [ready, go] = ["ready", "go"].map(|name| directory.path().join(name));
    // The shell waits in a builtin, so that it handles its trap at once.
    let script = format!(
        "trap 'read x <{1}; echo interrupted; exit' INT; mkfifo {0} {1}; : >{0}; while :; do :; done",
        ready.display(),
        go.display()
    );
    let started = start(&client, HEALTHY, DOCUMENT, &shell(&script)).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|session| session.channel.send_capacity() > 0).await, None);
    let opened = tokio::task::spawn_blocking(move || {
        while std::fs::File::open(&ready).is_err() {
            std::thread::yield_now();
        }
    });
    opened.await.unwrap();
    let mut draft = Draft::with_capacity(16);
    draft.push(b"\x03");
    session.channel.send(Instant::now(), &mut draft).unwrap();
    let repeated = Instant::now() + Duration::from_millis(500);
    session.until(|_| Instant::now() >= repeated).await;
    assert!(session.channel.unacknowledged() > 0, "the command has not ended");
    let written = tokio::task::spawn_blocking(move || std::fs::write(go, "x\n"));
    assert_eq!(session.until(|_| false).await.as_deref(), Some(""));
    written.await.unwrap().unwrap();
    assert_eq!((session.output, session.channel.unacknowledged()), (b"interrupted\n".to_vec(), 0));
}

#[tokio::test]
async fn outputs_may_be_separate_and_then_there_is_an_exit_status() {
    let (_region, client) = with_faults(&["command-error=20ms"]).await;
    let script = "echo out; echo err >&2; exit 3";
    for (command, output, errors, status) in [
        (format!("sh -c {}", quote(script)), "out\n", "err\n", 3),
        (
            "no-such-program".to_owned(),
            "",
            "exec: \"no-such-program\": executable file not found in $PATH",
            1,
        ),
    ] {
        let parameters = json!({"command": [command], "separateOutputStream": ["true"]});
        let mut session = Session::open(&start(&client, HEALTHY, DOCUMENT, &parameters).await).await;
        assert_eq!(session.until(|_| false).await.as_deref(), Some(""));
        assert_eq!((session.output, session.errors), (output.into(), errors.into()), "{command}");
        assert_eq!(session.statuses, [status], "{command}");
    }
}

#[tokio::test]
async fn a_header_that_claims_more_than_there_is_ends_the_reading() {
    let (_region, client) = with_faults(&[]).await;
    let started = start(&client, HEALTHY, DOCUMENT, &shell("exec sleep 600")).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|session| session.channel.send_capacity() > 0).await, None);
    let mut record = record(MessageType::Acknowledge, b"{}").to_vec();
    record[..4].copy_from_slice(&1000_u32.to_be_bytes());
    for (bad, unacknowledged) in [(None, 0), (Some(record), 1)] {
        if let Some(record) = bad {
            session.socket.send(Message::Binary(record.into())).await.unwrap();
        }
        let mut draft = Draft::with_capacity(16);
        draft.push(b"x");
        session.channel.send(Instant::now(), &mut draft).unwrap();
        let repeated = Instant::now() + Duration::from_millis(500);
        let enough = |session: &Session| session.channel.unacknowledged() == 0 || Instant::now() >= repeated;
        assert_eq!(session.until(enough).await, None);
        assert_eq!(session.channel.unacknowledged().min(1), unacknowledged);
    }
}

#[tokio::test]
async fn each_message_is_answered_with_a_pause_while_the_ssm_agent_is_away() {
    let (_region, client) = with_faults(&["cut-agent=100ms", "pause-each"]).await;
    let started = start(&client, HEALTHY, DOCUMENT, &shell("exec sleep 600")).await;
    let mut session = Session::open(&started).await;
    assert_eq!(session.until(|session| session.channel.send_capacity() > 0).await, None);
    let meaningless = Message::Binary(record(MessageType::Acknowledge, b"{}"));
    let (mut socket, mut pauses) = (session.socket, 0);
    let deadline = Instant::now() + Duration::from_secs(60);
    // The loss itself causes one pause.
    while pauses < 3 {
        assert!(Instant::now() < deadline, "the SSM agent's loss is answered once");
        socket.send(meaningless.clone()).await.unwrap();
        while let Ok(next) = tokio::time::timeout(Duration::from_millis(1), socket.next()).await {
            let Message::Binary(record) = next.unwrap().unwrap() else { continue };
            match ssm_channel::Message::parse(record).unwrap().header.message_type {
                MessageType::PausePublication => pauses += 1,
                MessageType::StartPublication => pauses = 0,
                _ => {}
            }
        }
    }
}

/// A message that a correct client never sends.
fn record(message_type: MessageType, payload: &'static [u8]) -> Bytes {
    let header = Header {
        message_type,
        created_at: 1_700_000_000_000,
        sequence_number: 0,
        flags: 3,
        id: MessageId::from_bytes([7; 16]),
        payload_type: PayloadType::None,
    };
    ssm_channel::Message { header, payload: Bytes::from_static(payload) }.encode()
}
