//! The message gateway: joins a client's websockets to the SSM agent of its session.
//!
//! A session is one task, in `relay`, which begins with StartSession, outlives the client's websockets and
//! owns the SSM agent. The gateway relays messages byte for byte, both ways, and makes `channel_closed`,
//! `pause_publication` and `start_publication` itself (`record`). `line` delays, doubles and loses messages.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc, time};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role, frame::coding::CloseCode},
    },
};

use self::{first_message::FirstMessageError, relay::Relay};
use crate::{
    faults::Faults,
    hosts::Hosts,
    tasks::Tasks,
    world::{SessionInfo, SessionState, World},
};

mod first_message;
mod line;
mod record;
mod relay;

pub(crate) type ClientSocket = WebSocketStream<TcpStream>;

/// Accepts the websockets of data channels and runs the sessions.
#[derive(Debug)]
pub(crate) struct Gateway {
    world: Arc<World>,
    hosts: Arc<Hosts>,
    tasks: Tasks,
    faults: Faults,
    /// Where the next websocket of a running session goes.
    sessions: Arc<Mutex<HashMap<String, mpsc::Sender<ClientSocket>>>>,
}

impl Gateway {
    pub(crate) fn new(world: Arc<World>, hosts: Hosts, tasks: Tasks, faults: Faults) -> Self {
        let gateway = Self { world, hosts: Arc::new(hosts), tasks, faults, sessions: Arc::default() };
        gateway.run_sessions();
        gateway
    }

    /// SSM agents do not wait for a client: their clock runs from StartSession.
    fn run_sessions(&self) {
        let mut starts = self.world.watch_starts();
        let acceptor = self.acceptor(String::new());
        self.tasks.spawn(async move {
            while let Some(info) = starts.recv().await {
                if *info.state.borrow() == SessionState::Connected {
                    acceptor.session(info);
                }
            }
        });
    }

    /// Answers the upgrade of a data channel, and serves the websocket that follows.
    pub(crate) fn accept(&self, session_id: &str, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
        let resumed = self.world.was_attached(session_id);
        if self.faults.refuse_upgrade || (self.faults.refuse_resume && resumed) {
            return refuse(StatusCode::FORBIDDEN, "the upgrade is refused, as asked for");
        }
        let accept = match accept_key(request.headers()) {
            Ok(accept) => accept,
            Err((status, message)) => return refuse(status, message),
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let acceptor = self.acceptor(session_id.to_owned());
        self.tasks.spawn(async move {
            match upgrade.await.map_err(io::Error::other).and_then(raw_socket) {
                Ok((stream, read)) if read.is_empty() => {
                    acceptor.serve(WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
                }
                // A separate arm, since a websocket made from bytes already read keeps a buffer of one
                // message for ever. A client that waits for the answer to its upgrade never needs it.
                Ok((stream, read)) => {
                    acceptor
                        .serve(WebSocketStream::from_partially_read(stream, read, Role::Server, None).await)
                        .await;
                }
                Err(error) => tracing::debug!(%error, "an upgrade broke off"),
            }
        });
        let mut response = Response::new(Full::default());
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
        response
    }

    fn acceptor(&self, session_id: String) -> Acceptor {
        Acceptor {
            session_id,
            world: Arc::clone(&self.world),
            hosts: Arc::clone(&self.hosts),
            tasks: self.tasks.clone(),
            faults: self.faults.clone(),
            sessions: Arc::clone(&self.sessions),
        }
    }
}

/// Receives a websocket: reads its first message and passes the websocket to its session.
struct Acceptor {
    session_id: String,
    world: Arc<World>,
    hosts: Arc<Hosts>,
    tasks: Tasks,
    faults: Faults,
    sessions: Arc<Mutex<HashMap<String, mpsc::Sender<ClientSocket>>>>,
}

impl Acceptor {
    async fn serve(self, mut socket: ClientSocket) {
        let limit = self.faults.first_message_limit.unwrap_or(FIRST_MESSAGE_LIMIT);
        let admitted = match time::timeout(limit, first_message(&mut socket)).await {
            Ok(None) => return,
            Ok(Some(message)) => self.admit(message),
            Err(_) => Err(format!("no first message came within {limit:?}")),
        };
        let info = match admitted {
            Ok(info) => info,
            Err(refusal) => {
                tracing::info!(session = self.session_id, refusal, "a data channel was refused");
                // A client that does not read cannot hold the connection.
                let _ = time::timeout(CLOSING_TIMEOUT, close(socket)).await;
                return;
            }
        };
        let sender = self.session(info);
        // The session may have ended in the meantime; then the websocket just closes.
        let _ = sender.send(socket).await;
    }

    /// The session whose token the first message holds.
    fn admit(&self, message: Result<String, FirstMessageError>) -> Result<SessionInfo, String> {
        let token =
            message.and_then(|text| first_message::token(&text)).map_err(|error| error.to_string())?;
        let info = self.world.take_token(&self.session_id, &token, self.world.now());
        info.map_err(|refusal| refusal.to_string())
    }

    /// Where to send a websocket of this session, which is started if it does not run.
    fn session(&self, info: SessionInfo) -> mpsc::Sender<ClientSocket> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sessions.get(&info.id).filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let (sender, sockets) = mpsc::channel(1);
        let id = info.id.clone();
        sessions.insert(id.clone(), sender.clone());
        let relay = Relay::new(info, sockets, &self.faults, Arc::clone(&self.hosts), Arc::clone(&self.world));
        let all = Arc::clone(&self.sessions);
        self.tasks.spawn(async move {
            relay.run().await;
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
        sender
    }
}

/// The first message other than a ping or pong; `None` if the client leaves before it.
async fn first_message(socket: &mut ClientSocket) -> Option<Result<String, FirstMessageError>> {
    loop {
        match socket.next().await?.ok()? {
            Message::Text(text) => return Some(Ok(text.to_string())),
            Message::Binary(_) => return Some(Err(FirstMessageError::Binary)),
            Message::Close(_) => return None,
            Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
        }
    }
}

/// Closes a websocket whose first message was refused, and reads on until the client has gone: unread bytes
/// would reset the connection, and the client would not see the close code.
async fn close(mut socket: ClientSocket) {
    let frame = CloseFrame { code: REFUSAL_CODE, reason: "".into() };
    if socket.close(Some(frame)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// The answer to the key of an upgrade, or why RFC 6455, section 4.2.1, does not allow the upgrade.
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, (StatusCode, &'static str)> {
    let text =
        |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok()).unwrap_or_default();
    let is_upgrade = |word: &str| word.trim().eq_ignore_ascii_case("upgrade");
    if !text(header::CONNECTION).split(',').any(is_upgrade) {
        return Err((StatusCode::BAD_REQUEST, "Connection does not say Upgrade"));
    }
    if text(header::SEC_WEBSOCKET_VERSION) != "13" {
        return Err((StatusCode::UPGRADE_REQUIRED, "Sec-WebSocket-Version is not 13"));
    }
    let key = text(header::SEC_WEBSOCKET_KEY);
    if STANDARD.decode(key).map_or(0, |key| key.len()) != 16 {
        return Err((StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is not the base64 of 16 bytes"));
    }
    let accept = HeaderValue::try_from(derive_accept_key(key.as_bytes()));
    accept.map_err(|_| (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key cannot be answered"))
}

/// The TCP connection below an upgraded one, and the bytes already read from it.
fn raw_socket(upgraded: Upgraded) -> io::Result<(TcpStream, Vec<u8>)> {
    let parts = upgraded
        .downcast::<TokioIo<TcpStream>>()
        .map_err(|_| io::Error::other("the connection below the upgrade is not TCP"))?;
    Ok((parts.io.into_inner(), parts.read_buf.to_vec()))
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{message}\n")));
    *response.status_mut() = status;
    response
}

/// The close code after a first message that is wrong, late, or has an invalid token. AWS does not document
/// its own code.
const REFUSAL_CODE: CloseCode = CloseCode::Policy;
/// How long to wait for a client's first message. Clients send it at once.
const FIRST_MESSAGE_LIMIT: Duration = Duration::from_secs(10);
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);
