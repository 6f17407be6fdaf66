//! The loop between a websocket and two pipes, in memory and on a clock that moves only when nothing else
//! does.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use ssh_ec2::net::websocket::{Connection, WebSocket};
use ssh_ec2::road::tunnel::{self, Attachment, End, Local, Notice, Resume};
use ssm_channel::{Channel, Draft, Origin, Outgoing, SessionType, Side, SsmAgentVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

fn origin() -> Origin {
    Origin { seed: 1, unix_time: Duration::from_secs(1_700_000_000), now: Instant::now().into_std() }
}

async fn websockets() -> (WebSocket, WebSocketStream<DuplexStream>) {
    let (ours, theirs) = duplex(256 * 1024);
    let ours: Box<dyn Connection> = Box::new(ours);
    let ours = WebSocketStream::from_raw_socket(ours, Role::Client, None).await;
    (ours, WebSocketStream::from_raw_socket(theirs, Role::Server, None).await)
}

/// An SSM agent behind its gateway, which sends this many bytes to the client and runs until the websocket
/// closes.
async fn serve(socket: &mut WebSocketStream<DuplexStream>, mut bytes: usize) {
    let session = SessionType { session_type: "Port".into(), properties: serde_json::json!({}) };
    let agent_version = SsmAgentVersion::parse("3.3.1142.0").unwrap();
    let mut channel = Channel::new(Side::Instance { agent_version, session }, origin());
    channel.attach(Instant::now().into_std(), "");
    channel.accept_data();
    let mut draft = Draft::with_capacity(1024);
    loop {
        let now = Instant::now().into_std();
        channel.handle_timeout(now);
        while bytes > 0 && channel.send_capacity() > 0 {
            let length = bytes.min(1024);
            draft.push(&vec![b'x'; length]);
            channel.send(now, &mut draft).unwrap();
            bytes -= length;
        }
        while let Some(Outgoing::Record(record)) = channel.poll_transmit(now) {
            if socket.feed(Message::Binary(record)).await.is_err() {
                return;
            }
        }
        if socket.flush().await.is_err() {
            return;
        }
        let deadline =
            channel.poll_timeout().map_or(Instant::now() + Duration::from_secs(3600), Instant::from_std);
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(record))) => drop(channel.handle_message(Instant::now().into_std(), record)),
                Some(Ok(_)) => {}
                _ => return,
            },
            () = sleep_until(deadline) => {}
        }
    }
}

/// Runs a tunnel whose input stays open, until `stop`. Returns its end and its notices.
async fn run(
    socket: WebSocket,
    output: DuplexStream,
    stop: impl Future<Output = ()>,
    resume: impl FnMut() -> Resume<'static, String, &'static str>,
) -> (End<(), &'static str>, Vec<Notice>) {
    let (input, _open) = duplex(64);
    let (end, notices) = run_with(socket, input, output, stop, resume).await;
    (end, notices.into_iter().map(|(_, notice)| notice).collect())
}

/// The same with an input. Notices come with their time in seconds.
async fn run_with(
    socket: WebSocket,
    input: DuplexStream,
    output: DuplexStream,
    stop: impl Future<Output = ()>,
    resume: impl FnMut() -> Resume<'static, String, &'static str>,
) -> (End<(), &'static str>, Vec<(u64, Notice)>) {
    let began = Instant::now();
    let channel = Channel::new(Side::Client { client_id: "client".into() }, origin());
    let first = Attachment { socket, token: "token".to_owned() };
    let notices = RefCell::new(Vec::new());
    let local = Local::Pipes { input: Box::new(input), output: Box::new(output) };
    let keep = |notice| notices.borrow_mut().push((began.elapsed().as_secs(), notice));
    let outcome = tunnel::run(channel, first, local, stop, resume, keep).await;
    (outcome.end, notices.into_inner())
}

#[tokio::test(start_paused = true)]
async fn an_ssh_that_stands_still_for_minutes_costs_neither_bytes_nor_the_websocket() {
    const BYTES: usize = 8 << 20;
    let (socket, mut gateway) = websockets().await;
    let (output, mut ssh) = duplex(64 * 1024);
    let read_all = Cell::new(false);
    let reader = async {
        sleep(Duration::from_secs(200)).await;
        let mut room = vec![0; BYTES];
        ssh.read_exact(&mut room).await.unwrap();
        assert!(room.iter().all(|byte| *byte == b'x'));
        read_all.set(true);
        // Time for messages of the gateway that are still under way.
        sleep(Duration::from_secs(100)).await;
    };
    let resume = || -> Resume<'static, String, &'static str> { panic!("the websocket was lost") };
    let ((end, notices), ()) = tokio::join!(run(socket, output, reader, resume), serve(&mut gateway, BYTES));
    assert!(read_all.get());
    assert!(matches!(end, End::Stopped(())), "{end:?}");
    assert!(!notices.contains(&Notice::Lost), "{notices:?}");
    assert!(!notices.contains(&Notice::FallenSilent), "what was not read is no silence: {notices:?}");
}

/// A gateway without an SSM agent: it answers pings only.
async fn answer_pings(socket: &mut WebSocketStream<DuplexStream>) {
    while let Some(Ok(_)) = socket.next().await {}
}

/// When each of these notices came, in seconds.
fn times(notices: &[(u64, Notice)], wanted: &Notice) -> Vec<u64> {
    notices.iter().filter(|(_, notice)| notice == wanted).map(|(at, _)| *at).collect()
}

#[tokio::test(start_paused = true)]
async fn an_ssm_agent_that_never_begins_is_noted_once_after_five_seconds() {
    let (socket, mut gateway) = websockets().await;
    let (output, _ssh) = duplex(64 * 1024);
    let (input, _open) = duplex(64);
    let resume = || -> Resume<'static, String, &'static str> { panic!("the websocket was lost") };
    let tunnel = run_with(socket, input, output, sleep(Duration::from_secs(50)), resume);
    let ((end, notices), ()) = tokio::join!(tunnel, answer_pings(&mut gateway));
    assert!(matches!(end, End::Stopped(())), "{end:?}");
    assert_eq!(notices, [(5, Notice::NothingComes)]);
}

/// A worker that dies while a session is idle is noticed when ssh next sends something.
#[tokio::test(start_paused = true)]
async fn a_session_worker_that_dies_is_noted_once_after_five_seconds() {
    let (socket, mut gateway) = websockets().await;
    let (output, _ssh) = duplex(64 * 1024);
    let (input, mut typing) = duplex(64 * 1024);
    let resume = || -> Resume<'static, String, &'static str> { panic!("the websocket was lost") };
    let tunnel = run_with(socket, input, output, sleep(Duration::from_secs(100)), resume);
    let worker = async {
        let _ = timeout(Duration::from_secs(10), serve(&mut gateway, 1)).await;
        answer_pings(&mut gateway).await;
    };
    let typist = async {
        for at in [8, 20, 22, 40] {
            sleep_until(Instant::now() + Duration::from_secs(at)).await;
            // The tunnel may have ended.
            let _ = typing.write_all(b"x").await;
        }
    };
    let ((end, notices), (), ()) = tokio::join!(tunnel, worker, typist);
    assert!(matches!(end, End::Stopped(())), "{end:?}");
    assert_eq!(times(&notices, &Notice::FallenSilent), [8 + 20 + 5]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_that_nobody_ends_is_noted_after_five_seconds() {
    let (socket, mut gateway) = websockets().await;
    let (output, _ssh) = duplex(64 * 1024);
    let (input, _open) = duplex(64);
    let resume = || -> Resume<'static, String, &'static str> { panic!("the websocket was lost") };
    let tunnel = run_with(socket, input, output, sleep(Duration::from_secs(60)), resume);
    let worker = async {
        let _ = timeout(Duration::from_secs(10), serve(&mut gateway, 1)).await;
        gateway.send(Message::Binary(publication("pause_publication"))).await.unwrap();
        sleep(Duration::from_secs(4)).await;
        gateway.send(Message::Binary(publication("start_publication"))).await.unwrap();
        sleep(Duration::from_secs(6)).await;
        gateway.send(Message::Binary(publication("pause_publication"))).await.unwrap();
        answer_pings(&mut gateway).await;
    };
    let ((_, notices), ()) = tokio::join!(tunnel, worker);
    assert_eq!(times(&notices, &Notice::FallenSilent), [10 + 4 + 6 + 5]);
}

/// A message of the gateway's own, which has no payload.
fn publication(message_type: &str) -> Bytes {
    let mut record = BytesMut::with_capacity(120);
    record.put_u32(116);
    record.put_slice(message_type.as_bytes());
    record.put_bytes(0, 32 - message_type.len());
    record.put_u32(1);
    record.put_u64(1_700_000_000_000);
    record.put_bytes(0, 120 - 48);
    record.freeze()
}

#[tokio::test(start_paused = true)]
async fn a_path_that_has_died_is_noticed_within_a_minute_and_left() {
    let (socket, mut gateway) = websockets().await;
    let (output, _ssh) = duplex(64 * 1024);
    let began = Instant::now();
    let lost_after = Cell::new(Duration::ZERO);
    let resume = || -> Resume<'static, String, &'static str> {
        lost_after.set(began.elapsed());
        Box::pin(async { Err("there is no other") })
    };
    // The gateway's end stays open, but nothing reads it any more.
    let serving = timeout(Duration::from_secs(10), serve(&mut gateway, 1));
    let ((end, notices), _) = tokio::join!(run(socket, output, pending(), resume), serving);
    assert!(matches!(end, End::Lost("there is no other")), "{end:?}");
    assert!(notices.contains(&Notice::Lost), "{notices:?}");
    assert_eq!(lost_after.get().as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_takes_nothing_does_not_make_the_loop_spin() {
    let (socket, mut gateway) = websockets().await;
    let (output, _ssh) = duplex(64 * 1024);
    let (input, mut typing) = duplex(64 * 1024);
    let upload = async {
        // More than the websocket holds. The write fails once the tunnel has ended.
        let piece = vec![b'x'; 64 * 1024];
        while typing.write_all(&piece).await.is_ok() {}
    };
    let resume = || -> Resume<'static, String, &'static str> { Box::pin(async { Err("there is no other") }) };
    let serving = timeout(Duration::from_secs(1), serve(&mut gateway, 1));
    let tunnel = run_with(socket, input, output, pending(), resume);
    // A deadline in the past would stop the paused clock, and this would never end.
    let ((end, _), _, ()) = tokio::join!(tunnel, serving, upload);
    assert!(matches!(end, End::Lost("there is no other")), "{end:?}");
}

/// A gateway does so with a token that it does not accept: the upgrade succeeds, then the websocket is
/// closed.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_closes_every_websocket_at_once_is_not_asked_for_others_in_haste() {
    let (socket, mut gateway) = websockets().await;
    gateway.close(None).await.unwrap();
    let (output, _ssh) = duplex(64 * 1024);
    let count = Cell::new(0);
    let resume = || -> Resume<'static, String, &'static str> {
        // Without any pause the paused clock would not move, and this would never end.
        if count.get() == 100 {
            return Box::pin(pending());
        }
        count.set(count.get() + 1);
        Box::pin(async {
            let (socket, mut gateway) = websockets().await;
            gateway.close(None).await.unwrap();
            Ok(Attachment { socket, token: "token".to_owned() })
        })
    };
    let (end, _) = run(socket, output, sleep(Duration::from_secs(30)), resume).await;
    assert!(matches!(end, End::Stopped(())), "{end:?}");
    assert!((5..15).contains(&count.get()), "{}", count.get());
}

#[tokio::test(start_paused = true)]
async fn an_idle_websocket_that_answers_pings_is_kept() {
    let (socket, mut gateway) = websockets().await;
    let (output, _ssh) = duplex(64 * 1024);
    let resume = || -> Resume<'static, String, &'static str> { panic!("the websocket was lost") };
    let stop = sleep(Duration::from_secs(3600));
    let ((end, notices), ()) = tokio::join!(run(socket, output, stop, resume), serve(&mut gateway, 1));
    assert!(matches!(end, End::Stopped(())), "{end:?}");
    assert!(!notices.contains(&Notice::FallenSilent), "{notices:?}");
}
