//! Dials the websocket of a data channel, around proxies, and explains why if it fails.
//!
//! The request goes out byte for byte as the URL came, with the headers that it was signed with; no origin,
//! no subprotocol, no extension. What the messages mean, and when to dial again, is decided elsewhere.

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

pub use self::connect::{Connection, Way};
pub(crate) use self::connect::{ask_proxy, tls, tls_through};
pub use self::head::HeadError;
pub use self::http_proxy::ProxyError;
pub use self::url::{NotAStreamUrl, StreamUrl, Transport};
use crate::net::network::{Network, NetworkError};
use crate::system::explain::{Anchor, Explain};

/// An open websocket: a stream and a sink of messages.
pub type WebSocket = WebSocketStream<Box<dyn Connection>>;

/// From the name's lookup to the last byte of the upgrade; the official client gives the upgrade alone 45 s.
const DIAL_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a host at which a websocket is expected, ready for its upgrade.
pub struct Prepared {
    place: (Transport, String),
    stream: Box<dyn Connection>,
    way: Way,
}

impl Prepared {
    /// The way that it takes.
    pub fn way(&self) -> &Way {
        &self.way
    }
}

/// Connects to the host of `url` and sends nothing. Safe to cancel.
///
/// # Errors
///
/// [`DialError`].
pub async fn prepare(url: &StreamUrl, network: &Network) -> Result<Prepared, DialError> {
    let place = (url.transport(), url.host_and_port());
    let (stream, way) = connect::open(url, network).await?;
    Ok(Prepared { place, stream, way })
}

/// The same within a time limit.
///
/// # Errors
///
/// [`DialError`].
pub async fn prepare_within(
    after: Duration,
    url: &StreamUrl,
    network: &Network,
) -> Result<Prepared, DialError> {
    match time::timeout(after, prepare(url, network)).await {
        Ok(prepared) => prepared,
        Err(_) => Err(blame_proxy(timed_out(url, after), url, network)),
    }
}

/// Opens the websocket at `url`, sending `headers` along, on the prepared connection if it leads to the same host.
/// TCP_NODELAY is set. Safe to cancel.
///
/// # Errors
///
/// [`DialError`]; [`DialError::is_permanent`] tells whether another attempt could end otherwise.
pub async fn dial(
    url: &StreamUrl,
    headers: Vec<(HeaderName, HeaderValue)>,
    network: &Network,
    prepared: Option<Prepared>,
) -> Result<WebSocket, DialError> {
    let dialling = async {
        let fits = prepared.filter(|prepared| prepared.place == (url.transport(), url.host_and_port()));
        let stream = match fits {
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
    let is_of_the_way =
        matches!(error, DialError::Lost { .. } | DialError::Misanswered { .. } | DialError::Timeout { .. });
    Err(if is_of_the_way { blame_proxy(error, url, network) } else { error })
}

fn timed_out(url: &StreamUrl, after: Duration) -> DialError {
    DialError::Timeout { host: url.host().to_owned(), after }
}

/// Names the proxy on the way, which is to be checked first.
fn blame_proxy(error: DialError, url: &StreamUrl, network: &Network) -> DialError {
    match connect::proxy_of(url, network) {
        Some(proxy) => ProxyError::through(&proxy, error),
        None => error,
    }
}

/// Whether the same request would be refused again. 408 and 429 are the two statuses of the class 4xx that
/// ask to try again (RFC 9110, RFC 6585).
fn is_lasting(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

/// The websocket could not be opened.
#[derive(Debug, Error)]
pub enum DialError {
    /// No address of the host took a TCP connection; this is what the last one said.
    #[error("cannot connect to {host} at {address}")]
    Connect {
        /// The host.
        host: String,
        /// The address tried last.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// IAM does not let the caller open the session's data channel.
    #[error("{host} refused the websocket: {message}")]
    Denied {
        /// The host.
        host: String,
        /// What IAM said, printable.
        message: String,
        /// What AWS calls the request.
        request_id: Option<String>,
    },
    /// The server did not answer the upgrade with HTTP.
    #[error("{host} did not answer the websocket upgrade")]
    Lost {
        /// The host.
        host: String,
        /// What happened instead.
        source: HeadError,
    },
    /// The server agreed to an upgrade, but not to ours.
    #[error("{host} answered the websocket upgrade wrongly: {fault}")]
    Misanswered {
        /// The host.
        host: String,
        /// Which rule of RFC 6455 the answer broke.
        fault: &'static str,
    },
    /// The network settings cannot be used.
    #[error("cannot make an encrypted connection")]
    Network(#[source] NetworkError),
    /// The HTTP proxy does not lead on.
    #[error(transparent)]
    Proxy(ProxyError),
    /// The server refused the upgrade.
    #[error("{host} refused the websocket with status {status}{}", colon(body))]
    Refused {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The beginning of the answer, printable.
        body: String,
        /// What AWS calls the request.
        request_id: Option<String>,
    },
    /// The host has no address.
    #[error("cannot find the address of {host}")]
    Resolve {
        /// The host.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// It took too long.
    #[error("{host} did not answer within {} seconds", after.as_secs())]
    Timeout {
        /// The host.
        host: String,
        /// The time allowed.
        after: Duration,
    },
    /// The TLS handshake failed.
    #[error("cannot make an encrypted connection to {host}")]
    Tls {
        /// The host.
        host: String,
        /// A `rustls::Error` inside, or an I/O error.
        source: io::Error,
    },
}

impl DialError {
    /// True if the same dial will not succeed later: refused with a 4xx, or settings that cannot work.
    pub fn is_permanent(&self) -> bool {
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
                "try again: the session's token is good for one connection and a short time"
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

/// Whether the handshake failed over the server's certificate.
fn is_distrust(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    matches!(inner, Some(rustls::Error::InvalidCertificate(_)))
}

fn colon(body: &str) -> String {
    if body.is_empty() { String::new() } else { format!(": {body}") }
}
