//! The message gateway: joins a client's websockets to the SSM agent of its session.
//!
//! A session is one task, which begins with StartSession, outlives the client's websockets and owns the SSM
//! agent. The gateway relays messages byte for byte, both ways, and makes `channel_closed`,
//! `pause_publication` and `start_publication` itself. What happens to messages on the way is in `faults`.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, sync::mpsc};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

use self::session::Session;
use crate::{
    faults::Faults,
    hosts::Hosts,
    tasks::Tasks,
    world::{SessionInfo, SessionState, World},
};

mod session;

pub(crate) type ClientSocket = WebSocketStream<TcpStream>;

/// What every session needs.
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
        gateway.take_up_sessions();
        gateway
    }

    /// SSM agents do not wait for a client: their clock runs from StartSession.
    fn take_up_sessions(&self) {
        let mut starts = self.world.watch_starts();
        let welcome = self.welcome(String::new());
        self.tasks.spawn(async move {
            while let Some(info) = starts.recv().await {
                if *info.state.borrow() == SessionState::Connected {
                    welcome.session(info);
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
        let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
            return refuse(StatusCode::BAD_REQUEST, "there is no Sec-WebSocket-Key");
        };
        let accept = derive_accept_key(key.as_bytes());
        let Ok(accept) = HeaderValue::try_from(accept) else {
            return refuse(StatusCode::BAD_REQUEST, "the Sec-WebSocket-Key cannot be answered");
        };
        let upgrade = hyper::upgrade::on(&mut request);
        let welcome = self.welcome(session_id.to_owned());
        self.tasks.spawn(async move {
            match upgrade.await.map_err(io::Error::other).and_then(raw_socket) {
                Ok((stream, read)) if read.is_empty() => {
                    welcome.serve(WebSocketStream::from_raw_socket(stream, Role::Server, None).await).await;
                }
                // Its buffer would hold one message at a time for good; a client that waits for its answer never
                // comes here.
                Ok((stream, read)) => {
                    welcome
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

    fn welcome(&self, session_id: String) -> Welcome {
        Welcome {
            session_id,
            world: Arc::clone(&self.world),
            hosts: Arc::clone(&self.hosts),
            tasks: self.tasks.clone(),
            faults: self.faults.clone(),
            sessions: Arc::clone(&self.sessions),
        }
    }
}

/// Receives a websocket: reads its first message, and takes it to its session.
struct Welcome {
    session_id: String,
    world: Arc<World>,
    hosts: Arc<Hosts>,
    tasks: Tasks,
    faults: Faults,
    sessions: Arc<Mutex<HashMap<String, mpsc::Sender<ClientSocket>>>>,
}

impl Welcome {
    async fn serve(self, mut socket: ClientSocket) {
        use futures_util::StreamExt;
        let token = loop {
            match socket.next().await {
                Some(Ok(Message::Text(text))) => break token_of(&text),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                _ => return,
            }
        };
        let info = match self.world.take_token(&self.session_id, &token.unwrap_or_default()) {
            Ok(info) => info,
            Err(refusal) => {
                tracing::info!(session = self.session_id, %refusal, "a data channel was refused");
                let _ = socket.close(None).await;
                return;
            }
        };
        let sender = self.session(info);
        // The session may have ended in the meantime; then the websocket just closes.
        let _ = sender.send(socket).await;
    }

    /// The way to the running session, or to a new one.
    fn session(&self, info: SessionInfo) -> mpsc::Sender<ClientSocket> {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = sessions.get(&info.id).filter(|sender| !sender.is_closed()) {
            return sender.clone();
        }
        let (sender, sockets) = mpsc::channel(1);
        let id = info.id.clone();
        sessions.insert(id.clone(), sender.clone());
        let session =
            Session::new(info, sockets, &self.faults, Arc::clone(&self.hosts), Arc::clone(&self.world));
        let all = Arc::clone(&self.sessions);
        self.tasks.spawn(async move {
            session.run().await;
            all.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        });
        sender
    }
}

fn token_of(text: &str) -> Option<String> {
    let message: serde_json::Value = serde_json::from_str(text).ok()?;
    message.get("TokenValue")?.as_str().map(str::to_owned)
}

/// The TCP connection below an upgraded one, and what was read of it already.
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
