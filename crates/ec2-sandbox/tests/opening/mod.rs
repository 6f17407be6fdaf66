//! How the gateway checks a websocket's first message and its token.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{
        Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use crate::client::{Client, Reply, WITHOUT_QUOTA, with_faults};

const HEALTHY: &str = "i-0decaf00000000001";
const REQUEST_ID: &str = "03f311e8-3f85-4ad9-b8d6-37c9111355a4";

async fn start(client: &Client) -> Reply {
    let input = json!({"Target": HEALTHY, "DocumentName": "AWS-StartSSHSession"});
    let started = client.ssm("StartSession", &input).await;
    assert_eq!(started.status, 200, "{}", started.body);
    started
}

async fn connect(started: &Reply) -> WebSocketStream<TcpStream> {
    let url = started.text("StreamUrl");
    let host = url.strip_prefix("ws://").unwrap().split('/').next().unwrap();
    client_async(&url, TcpStream::connect(host).await.unwrap()).await.unwrap().0
}

/// The first message of AWS's plugin.
fn opening(started: &Reply) -> Value {
    json!({
        "MessageSchemaVersion": "1.0",
        "RequestId": REQUEST_ID,
        "TokenValue": started.text("TokenValue"),
        "ClientId": "5795be64-bb70-418b-8b54-53abe3d8f694",
        "ClientVersion": "1.2.677.0",
    })
}

/// The result of a first message: `Ok` with the first record of the session, or the code of the close frame.
async fn outcome(started: &Reply, message: Message) -> Result<(), Option<CloseCode>> {
    let mut socket = connect(started).await;
    socket.send(message).await.unwrap();
    answer(&mut socket).await
}

async fn answer(socket: &mut WebSocketStream<TcpStream>) -> Result<(), Option<CloseCode>> {
    let next = tokio::time::timeout(Duration::from_secs(30), socket.next()).await.unwrap();
    match next {
        Some(Ok(Message::Binary(_))) => Ok(()),
        Some(Ok(Message::Close(Some(CloseFrame { code, .. })))) => Err(Some(code)),
        _ => Err(None),
    }
}

#[tokio::test]
async fn the_first_message_has_its_five_fields() {
    let (region, client) = with_faults(&[WITHOUT_QUOTA]).await;
    let refused = Err(Some(CloseCode::Policy));
    for (member, value) in [
        ("MessageSchemaVersion", json!("9.9")),
        ("MessageSchemaVersion", json!(1.0)),
        ("MessageSchemaVersion", Value::Null),
        ("RequestId", json!("x")),
        ("RequestId", json!("03f311e8_3f85_4ad9_b8d6_37c9111355a4")),
        ("RequestId", json!(5)),
        ("TokenValue", json!("")),
        ("TokenValue", json!("guessed")),
        ("TokenValue", json!(7)),
        ("ClientId", json!(7)),
        ("ClientId", json!("")),
        ("ClientVersion", json!(1.2)),
        ("ClientVersion", json!("one")),
        // Only SSM agents send it.
        ("ClientInstanceId", json!(HEALTHY)),
    ] {
        let started = start(&client).await;
        let mut message = opening(&started);
        message[member] = value.clone();
        let text = message.to_string();
        assert_eq!(outcome(&started, Message::text(text)).await, refused, "{member} {value}");
    }
    for member in ["MessageSchemaVersion", "RequestId", "TokenValue", "ClientId", "ClientVersion"] {
        let started = start(&client).await;
        let mut message = opening(&started);
        message.as_object_mut().unwrap().remove(member);
        assert_eq!(outcome(&started, Message::text(message.to_string())).await, refused, "{member}");
    }
    let started = start(&client).await;
    let text = opening(&started).to_string();
    for message in [Message::text("{"), Message::text("[]"), Message::binary(text.clone())] {
        assert_eq!(outcome(&started, message.clone()).await, refused, "{message}");
    }
    // None of these has consumed the token.
    assert_eq!(outcome(&started, Message::text(text)).await, Ok(()));
    drop(region);
}

#[tokio::test]
async fn a_token_is_good_for_one_connection() {
    let (_region, client) = with_faults(&[]).await;
    let started = start(&client).await;
    let message = Message::text(opening(&started).to_string());
    assert_eq!(outcome(&started, message.clone()).await, Ok(()));
    assert_eq!(outcome(&started, message).await, Err(Some(CloseCode::Policy)));
    let resumed = client.ssm("ResumeSession", &json!({"SessionId": started.text("SessionId")})).await;
    let mut message = opening(&started);
    message["TokenValue"] = json!(resumed.text("TokenValue"));
    assert_eq!(outcome(&started, Message::text(message.to_string())).await, Ok(()));
}

#[tokio::test]
async fn a_token_that_is_old_admits_nobody() {
    let (_region, client) = with_faults(&["token-life=0s"]).await;
    let started = start(&client).await;
    let message = Message::text(opening(&started).to_string());
    assert_eq!(outcome(&started, message).await, Err(Some(CloseCode::Policy)));
}

#[tokio::test]
async fn a_client_that_says_nothing_is_sent_away() {
    let (_region, client) = with_faults(&["first-message=50ms"]).await;
    let started = start(&client).await;
    let mut socket = connect(&started).await;
    assert_eq!(answer(&mut socket).await, Err(Some(CloseCode::Policy)));
}

#[tokio::test]
async fn an_unsigned_upgrade_can_be_refused() {
    let (region, client) = with_faults(&["require-signature"]).await;
    let url = start(&client).await.text("StreamUrl");
    let path = url.strip_prefix(&region.endpoint().replace("http", "ws")).unwrap();
    let reply = crate::upgrade(&client, path, false).await;
    assert_eq!((reply.status, reply.body.as_str()), (403, "Missing Authentication Token\n"));
    assert_eq!(crate::upgrade(&client, path, true).await.status, 101);
}

#[tokio::test]
async fn an_upgrade_is_one_of_rfc_6455() {
    let (region, client) = with_faults(&[]).await;
    let url = start(&client).await.text("StreamUrl");
    let path = url.strip_prefix(&region.endpoint().replace("http", "ws")).unwrap();
    let right = [
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    for (name, value, status) in [
        ("connection", "keep-alive", 400),
        ("sec-websocket-version", "8", 426),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ", 400),
        ("sec-websocket-key", "c2hvcnQ=", 400),
        ("x-other", "x", 101),
    ] {
        let others = right.into_iter().filter(|(other, _)| *other != name);
        let headers: Vec<_> = others.chain([(name, value)]).collect();
        assert_eq!(client.send("GET", path, &headers, "").await.status, status, "{name}");
    }
}

#[tokio::test]
async fn an_ssm_agent_does_not_wait_for_its_client() {
    let (region, client) = with_faults(&[]).await;
    let started = start(&client).await;
    // The SSM agent's limit for the handshake is 15 s.
    assert!(region.sessions_ended(Duration::from_secs(60)).await);
    let message = Message::text(opening(&started).to_string());
    assert_eq!(outcome(&started, message).await, Err(Some(CloseCode::Policy)));
}
