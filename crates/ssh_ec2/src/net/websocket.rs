//! Dials the websocket of a data channel, through a proxy if there is one.
//!
//! The request is sent byte for byte as the URL came, with the headers that it was signed with; no origin, no
//! subprotocol, no extension. What the messages mean, and when to dial again, is decided elsewhere.

mod connect;
mod head;
mod http_proxy;
mod upgrade;
mod url;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use thiserror::Error;
use tokio::time;
use tokio_rustls::rustls;
use tokio_tungstenite::WebSocketStream;

pub use self::connect::Connection;
pub(crate) use self::connect::{Way, connect_through, tls, tls_through};
pub(crate) use self::head::HeadError;
pub(crate) use self::http_proxy::ProxyError;
pub(crate) use self::url::{StreamUrl, Transport};
use crate::net::network::{Network, NetworkError};
use crate::system::explain::{Anchor, Explain};

/// An open websocket: a stream and a sink of messages.
pub type WebSocket = WebSocketStream<Box<dyn Connection>>;

/// A connection to the host of a websocket, ready for the upgrade.
pub(crate) struct Prepared {
    /// The transport (with or without TLS), and host and port.
    destination: (Transport, String),
    stream: Box<dyn Connection>,
    way: Way,
}

impl Prepared {
    /// Whether it goes to an address or through a proxy.
    pub(crate) fn way(&self) -> &Way {
        &self.way
    }
}

/// Connects to the host of `url` and sends nothing. Safe to cancel.
///
/// # Errors
///
/// [`DialError`].
pub(crate) async fn prepare(url: &StreamUrl, network: &Network) -> Result<Prepared, DialError> {
    let (stream, way) = connect::open(url, network).await?;
    Ok(Prepared { destination: destination(url), stream, way })
}

/// [`prepare`] with a time limit.
///
/// # Errors
///
/// [`DialError`].
pub(crate) async fn prepare_within(
    limit: Duration,
    url: &StreamUrl,
    network: &Network,
) -> Result<Prepared, DialError> {
    match time::timeout(limit, prepare(url, network)).await {
        Ok(prepared) => prepared,
        Err(_) => Err(name_proxy(timed_out(url, limit), url, network)),
    }
}

/// Opens the websocket at `url` with `headers`, on the prepared connection if that leads to the same host.
/// TCP_NODELAY is set. Safe to cancel.
///
/// # Errors
///
/// [`DialError`]; after one that [`DialError::is_permanent`] another attempt is of no use.
pub(crate) async fn dial(
    url: &StreamUrl,
    headers: Vec<(HeaderName, HeaderValue)>,
    network: &Network,
    prepared: Option<Prepared>,
) -> Result<WebSocket, DialError> {
    let dialling = async {
        let stream = match prepared.filter(|prepared| prepared.destination == destination(url)) {
            Some(prepared) => prepared.stream,
            None => connect::open(url, network).await?.0,
        };
        upgrade::upgrade(stream, url, &headers).await
    };
    let error = match time::timeout(DIAL_TIMEOUT, dialling).await {
        Ok(Ok(websocket)) => return Ok(websocket),
        Ok(Err(error)) => error,
        Err(_) => timed_out(url, DIAL_TIMEOUT),
    };
    let may_be_proxy =
        matches!(error, DialError::Lost { .. } | DialError::Misanswered { .. } | DialError::Timeout { .. });
    Err(if may_be_proxy { name_proxy(error, url, network) } else { error })
}

fn destination(url: &StreamUrl) -> (Transport, String) {
    (url.transport(), url.host_and_port())
}

fn timed_out(url: &StreamUrl, after: Duration) -> DialError {
    DialError::Timeout { host: url.host().to_owned(), after }
}

/// Adds the proxy to an error, if there is one: it is to be checked first.
fn name_proxy(error: DialError, url: &StreamUrl, network: &Network) -> DialError {
    match connect::proxy_of(url, network) {
        Some(proxy) => ProxyError::through(&proxy, error),
        None => error,
    }
}

/// Whether the same request would be refused again. 408 and 429 are the two statuses of the class 4xx after
/// which a client may try again (RFC 9110, RFC 6585).
fn is_lasting(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

/// The websocket could not be opened.
#[derive(Debug, Error)]
pub(crate) enum DialError {
    /// No address of the host accepted a TCP connection.
    #[error("cannot connect to {host} at {address}")]
    Connect {
        /// The host of the websocket.
        host: String,
        /// The last address that was tried.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// IAM denies the caller the session's data channel (`ssmmessages:OpenDataChannel`).
    #[error("{host} refused the websocket: {message}")]
    Denied {
        /// The host of the websocket.
        host: String,
        /// IAM's message, printable.
        message: String,
        /// AWS's id of the request. None if the response had none.
        request_id: Option<String>,
    },
    /// The server did not answer the upgrade with HTTP.
    #[error("{host} did not answer the websocket upgrade")]
    Lost {
        /// The host of the websocket.
        host: String,
        /// What happened instead.
        source: HeadError,
    },
    /// The server accepted an upgrade, but not the one that was requested.
    #[error("{host} answered the websocket upgrade wrongly: {fault}")]
    Misanswered {
        /// The host of the websocket.
        host: String,
        /// The rule of RFC 6455 that the response broke.
        fault: &'static str,
    },
    /// The network settings cannot be used.
    #[error("cannot make an encrypted connection")]
    Network(#[source] NetworkError),
    /// There is no connection through the HTTP proxy.
    #[error(transparent)]
    Proxy(ProxyError),
    /// The server refused the upgrade.
    #[error("{host} refused the websocket with status {status}{}", colon(body))]
    Refused {
        /// The host of the websocket.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the response's body, printable.
        body: String,
        /// AWS's id of the request. None if the response had none.
        request_id: Option<String>,
    },
    /// The host has no address.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// The host of the websocket.
        host: String,
        /// The error of the resolver.
        source: io::Error,
    },
    /// The time limit was reached.
    #[error("{host} did not answer within {} seconds", after.as_secs())]
    Timeout {
        /// The host of the websocket.
        host: String,
        /// The time limit.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error("cannot make an encrypted connection to {host}")]
    Tls {
        /// The host of the websocket.
        host: String,
        /// The error of rustls, in an I/O error, or that of the operating system.
        source: io::Error,
    },
}

impl DialError {
    /// Whether the same request will not succeed later: it was refused with a 4xx, or the settings cannot
    /// work.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Proxy(error) => error.is_permanent(),
            Self::Refused { status, .. } => is_lasting(*status),
            Self::Denied { .. } | Self::Network(_) => true,
            _ => false,
        }
    }
}

impl Explain for DialError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Connect { .. } | Self::Lost { .. } | Self::Misanswered { .. } | Self::Timeout { .. } => {
                "allow outgoing TCP 443 to that host, or set HTTPS_PROXY if this network has a proxy"
            }
            Self::Denied { .. } => OPEN_CHANNEL_HINT,
            Self::Network(error) => return error.hints(),
            Self::Proxy(error) => return error.hints(),
            Self::Refused { status: 401 | 403, .. } => {
                return vec![
                    "check this machine's clock, and that the credentials have not expired: the upgrade is signed with both".into(),
                    OPEN_CHANNEL_HINT.into(),
                ];
            }
            Self::Refused { .. } => {
                "try again: the session's token is valid for one connection and a short time"
            }
            Self::Resolve { .. } => "check the region, and this machine's DNS",
            Self::Tls { source, .. } if is_distrust(source) => {
                "if a proxy inspects TLS here, set AWS_CA_BUNDLE to a file with its CA certificate"
            }
            Self::Tls { .. } => "check that nothing between here and the host interrupts TLS",
        };
        vec![hint.to_owned()]
    }

    fn anchor(&self) -> Option<Anchor> {
        let anchor = match self {
            Self::Denied { .. } => Anchor::PermissionDenied,
            Self::Network(error) => return error.anchor(),
            Self::Misanswered { .. } => Anchor::NotAws,
            Self::Refused { .. } => Anchor::WebsocketRefused,
            Self::Proxy(error) => return error.anchor(),
            Self::Tls { .. } => Anchor::Certificates,
            Self::Connect { .. } | Self::Lost { .. } | Self::Resolve { .. } | Self::Timeout { .. } => {
                Anchor::Unreachable
            }
        };
        Some(anchor)
    }
}

const OPEN_CHANNEL_HINT: &str = "the caller needs ssmmessages:OpenDataChannel on its own sessions";

/// Whether the handshake failed because of the server's certificate.
fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

fn colon(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}

/// The time limit from the name's lookup to the last byte of the upgrade; the official client allows the
/// upgrade alone 45 s.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);
