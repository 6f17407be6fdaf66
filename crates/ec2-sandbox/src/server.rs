//! The one listener of the region: accepts connections, reads requests and routes each.
//!
//! API calls go to [`api::respond`], upgrades of data channels to [`Gateway::accept`]; there is one page, on
//! which a user approves a sign-in. The region's clock is read once for each request. Protection from slow or
//! hostile peers ends at a bound on the body: the listener is on loopback.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header, request::Parts};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    time,
};

use crate::{
    api, calendar, form,
    gateway::Gateway,
    sigv4::{self, SignatureError},
    tasks::Tasks,
    world::{DEVICE_PAGE, World},
};

/// Routes the requests of all connections.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) world: Arc<World>,
    pub(crate) gateway: Gateway,
    pub(crate) latency: Duration,
    /// The location that every API call is redirected to, if any.
    pub(crate) redirect: Option<HeaderValue>,
    /// The location that every upgrade is redirected to, if any.
    pub(crate) stream_redirect: Option<HeaderValue>,
    /// Unsigned upgrades are refused.
    pub(crate) require_signature: bool,
}

/// Accepts connections for ever. Each is served by a task of its own in `tasks`.
pub(crate) async fn serve(listener: TcpListener, server: Arc<Server>, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => tasks.spawn(connection(stream, Arc::clone(&server))),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                // Probably out of file descriptors: trying again at once would only use the processor.
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>) {
    // Messages of a data channel are small and must not wait for each other's acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let service = service_fn(|request| server.respond(request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service).with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection broke off");
    }
}

impl Server {
    async fn respond(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let now = self.world.now();
        let mut response = self.answer(request, now).await;
        // Clients correct their clock by it.
        if let Ok(date) = HeaderValue::try_from(calendar::http_date(now)) {
            response.headers_mut().insert(header::DATE, date);
        }
        Ok(response)
    }

    async fn answer(&self, request: Request<Incoming>, now: SystemTime) -> Response<Full<Bytes>> {
        if let Some(session_id) = request.uri().path().strip_prefix(DATA_CHANNEL) {
            let session_id = String::from_utf8_lossy(&form::decode(session_id.as_bytes())).into_owned();
            return match &self.stream_redirect {
                Some(location) => redirect(StatusCode::FOUND, location),
                None => self.upgrade(&session_id, request, now),
            };
        }
        if request.uri().path() == DEVICE_PAGE {
            return self.approve_device(request.uri(), now);
        }
        if let Some(location) = &self.redirect {
            return redirect(StatusCode::TEMPORARY_REDIRECT, location);
        }
        let (parts, body) = request.into_parts();
        let response = match Limited::new(body, BODY_LIMIT).collect().await {
            Ok(body) => api::respond(&self.world, &parts, &body.to_bytes(), now),
            Err(_) => plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB, or broke off"),
        };
        if !self.latency.is_zero() {
            time::sleep(self.latency).await;
        }
        tracing::debug!(target = ?target(&parts), status = %response.status(), "api");
        response
    }

    /// The page where the user enters the code of a sign-in, or opens the URL that contains it.
    fn approve_device(&self, uri: &Uri, now: SystemTime) -> Response<Full<Bytes>> {
        let query = form::parse(uri.query().unwrap_or_default().as_bytes());
        let code = query.iter().find(|(name, _)| name == b"user_code").map(|(_, code)| code.as_slice());
        let code = String::from_utf8_lossy(code.unwrap_or_default());
        if self.world.identity_center(|identity_center| identity_center.approve(&code, now)) {
            plain(StatusCode::OK, "the device has been approved")
        } else {
            plain(StatusCode::NOT_FOUND, "no device waits for this user_code")
        }
    }

    fn upgrade(
        &self,
        session_id: &str,
        request: Request<Incoming>,
        now: SystemTime,
    ) -> Response<Full<Bytes>> {
        match self.check_upgrade(session_id, &request, now) {
            Ok(()) => self.gateway.accept(session_id, request),
            Err((status, message)) => plain(status, &message),
        }
    }

    /// An upgrade may be unsigned, as those of clients before 1.2.764.0, unless a signature is required. A
    /// signature that is present must be right. AWS does not document whether it still accepts unsigned
    /// upgrades.
    fn check_upgrade(
        &self,
        session_id: &str,
        request: &Request<Incoming>,
        now: SystemTime,
    ) -> Result<(), (StatusCode, String)> {
        let headers = request.headers();
        let websocket =
            headers.get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
        if request.method() != http::Method::GET || !websocket {
            return Err((
                StatusCode::BAD_REQUEST,
                "a data channel is opened by a websocket upgrade".to_owned(),
            ));
        }
        if request.uri().query() != Some(&World::stream_query()) {
            let message = "the query is not that of the StreamUrl, byte for byte".to_owned();
            return Err((StatusCode::FORBIDDEN, message));
        }
        if !headers.contains_key(header::AUTHORIZATION) && !self.require_signature {
            return Ok(());
        }
        let parts = sigv4::Parts { method: "GET", uri: request.uri(), headers, body: b"" };
        let verdict = api::authenticate(&self.world, parts, "ssmmessages", now);
        let (caller, region) = verdict.map_err(|refusal| (StatusCode::FORBIDDEN, refusal.to_string()))?;
        // An unknown session has no region; it is refused later, with its token.
        if self.world.session_region(session_id).is_some_and(|of_session| of_session != region) {
            return Err((StatusCode::FORBIDDEN, SignatureError::Scope("a valid region").to_string()));
        }
        api::authorization::check_channel(&self.world, &caller, region, session_id)
            .map_err(|refusal| (StatusCode::FORBIDDEN, refusal))
    }
}

fn redirect(status: StatusCode, location: &HeaderValue) -> Response<Full<Bytes>> {
    let mut response = plain(status, "it is elsewhere, as asked for");
    response.headers_mut().insert(header::LOCATION, location.clone());
    response
}

fn plain(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(format!("{message}\n")));
    *response.status_mut() = status;
    api::add_request_id(&mut response, &api::request_id());
    response
}

/// The operation or path of a request, for the log; never its parameters.
fn target(parts: &Parts) -> String {
    let target = parts.headers.get(api::TARGET).and_then(|target| target.to_str().ok());
    target.map_or_else(|| format!("{} {}", parts.method, parts.uri.path()), str::to_owned)
}

const DATA_CHANNEL: &str = "/v1/data-channel/";
const BODY_LIMIT: usize = 1024 * 1024;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
