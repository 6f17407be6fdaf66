//! Makes the connections for API calls, and records whether any could be made.
//!
//! In a network that cannot reach EC2 (it has interface endpoints for other services alone, say) a host key
//! is accepted that nothing confirms. An attacker who only disturbs EC2's responses must not achieve the
//! same. TCP decides: after any attempt has established a connection to a host, that host counts as
//! reachable. Proxy, certificates and errors are those of the websocket.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::future::{Future, Ready, ready};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dns_lookup::{AddrInfoHints, LookupErrorKind, SockType, getaddrinfo};
use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::dns::Name;
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tower_service::Service;

use crate::net::network::Network;
use crate::net::websocket::{self, DialError, ProxyError};

type BoxError = Box<dyn StdError + Send + Sync>;

/// The outcome of this process's attempts to connect, for each host. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Connections(Arc<Mutex<HashMap<String, Tally>>>);

#[derive(Debug, Default)]
struct Tally {
    begun: u64,
    /// Attempts that ended because no TCP connection can be made, and those that wait for one.
    without_connection: u64,
}

impl Connections {
    /// Whether connections to the host of this URL were tried, and none can be made: each attempt was
    /// refused, had no route or no answer, or the name does not exist. Attempts through a proxy do not count
    /// as such: the proxy may have a route.
    pub(crate) fn are_impossible(&self, url: &str) -> bool {
        let destination = url.parse().ok().and_then(|uri| host_and_port(&uri));
        let tallies = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let tally = destination.and_then(|(host, port)| tallies.get(&format!("{host}:{port}")));
        tally.is_some_and(|tally| tally.begun > 0 && tally.begun == tally.without_connection)
    }

    fn begin(&self, host: &str, port: u16) -> Attempt {
        let attempt = Attempt {
            tallies: self.clone(),
            destination: format!("{host}:{port}"),
            is_without_connection: false,
        };
        attempt.change(|tally| tally.begun += 1);
        attempt
    }
}

/// One attempt. It may be dropped at any time; then its last state is kept.
struct Attempt {
    tallies: Connections,
    /// Host and port.
    destination: String,
    is_without_connection: bool,
}

impl Attempt {
    fn change(&self, change: impl FnOnce(&mut Tally)) {
        let mut tallies = self.tallies.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(tallies.entry(self.destination.clone()).or_default());
    }

    fn set_without_connection(&mut self, is_without_connection: bool) {
        if self.is_without_connection != is_without_connection {
            self.is_without_connection = is_without_connection;
            self.change(|tally| match is_without_connection {
                true => tally.without_connection += 1,
                false => tally.without_connection -= 1,
            });
        }
    }
}

/// Makes the connections of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    network: Network,
    connections: Connections,
    /// The time limit of one connection, with name, TCP, proxy and TLS.
    limit: Option<Duration>,
}

/// A connection took longer than it may.
#[derive(Debug, Error)]
#[error("no connection within {0:?}")]
pub(crate) struct TooSlow(Duration);

/// The URL names no host.
#[derive(Debug, Error)]
#[error("the URL has no host")]
struct NoHost;

impl Dialer {
    pub(crate) fn new(network: Network, connections: Connections, limit: Option<Duration>) -> Self {
        Self { network, connections, limit }
    }

    async fn dial(&self, uri: Uri) -> Result<Stream, BoxError> {
        let (host, port) = host_and_port(&uri).ok_or(NoHost)?;
        let is_encrypted = uri.scheme_str() == Some("https");
        let destination = format!("{}:{port}", uri.host().unwrap_or_default());
        // Plain HTTP is for this machine and the metadata service, which must not go through a proxy.
        let proxy = if is_encrypted { self.network.proxy_for(&destination) } else { None };
        let mut attempt = self.connections.begin(&host, port);
        let stream = match &proxy {
            Some(proxy) => {
                let unreachable = |error| ProxyError::unreachable(proxy, error);
                let mut stream = self.connect_to_proxy(proxy.uri()).await.map_err(unreachable)?;
                websocket::connect_through(&mut stream, &destination, proxy).await?;
                websocket::tls_through(stream, &host, proxy, &self.network).await?
            }
            None => {
                let stream = direct(&uri, &host, port, &mut attempt).await?;
                if is_encrypted { websocket::tls(stream, &host, &self.network).await? } else { stream }
            }
        };
        Ok(Stream(TokioIo::new(stream)))
    }

    async fn connect_to_proxy(&self, uri: &Uri) -> Result<Box<dyn websocket::Connection>, BoxError> {
        let (host, port) = host_and_port(uri).ok_or(NoHost)?;
        let addresses = resolve(&host, port).await.map_err(|(_, error)| error)?;
        let stream = connect(uri, addresses).await?;
        match uri.scheme_str() {
            Some("https") => Ok(websocket::tls(stream, &host, &self.network).await?),
            _ => Ok(stream),
        }
    }

    /// The error for a connection that took too long. It names the proxy if there is one.
    fn too_slow(&self, uri: &Uri, limit: Duration) -> BoxError {
        let destination = uri.host().zip(uri.port_u16().or(Some(443)));
        let proxy = destination.filter(|_| uri.scheme_str() == Some("https"));
        let proxy = proxy.and_then(|(host, port)| self.network.proxy_for(&format!("{host}:{port}")));
        match proxy {
            Some(proxy) => ProxyError::through(&proxy, TooSlow(limit)).into(),
            None => TooSlow(limit).into(),
        }
    }
}

/// Makes a TCP connection to a host, and records in `attempt` whether one can be made at all.
async fn direct(
    uri: &Uri,
    host: &str,
    port: u16,
    attempt: &mut Attempt,
) -> Result<Box<dyn websocket::Connection>, BoxError> {
    let addresses = resolve(host, port).await.map_err(|(lookup, error)| {
        attempt.set_without_connection(lookup == Lookup::NoSuchName);
        error
    })?;
    attempt.set_without_connection(true);
    let connected = connect(uri, addresses).await;
    attempt.set_without_connection(connected.as_ref().is_err_and(|error| is_unreachable(error.as_ref())));
    connected
}

/// Tries addresses of IPv6 and IPv4 in parallel, as RFC 8305 demands; the first that connects wins.
async fn connect(uri: &Uri, addresses: Vec<SocketAddr>) -> Result<Box<dyn websocket::Connection>, BoxError> {
    let mut connector = HttpConnector::new_with_resolver(Known(addresses));
    connector.enforce_http(false);
    connector.set_nodelay(true);
    Ok(Box::new(connector.call(uri.clone()).await?.into_inner()))
}

/// Whether an error means that nothing listens, or that there is no route. Other errors, such as too many
/// open files, concern this machine alone.
fn is_unreachable(error: &(dyn StdError + 'static)) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable, TimedOut};
    let mut causes = std::iter::successors(Some(error), |&error: &&(dyn StdError + 'static)| error.source());
    let cause = causes.find_map(|error| error.downcast_ref::<io::Error>());
    cause.is_some_and(|error| {
        matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable | TimedOut)
    })
}

/// Why a name has no address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Lookup {
    /// DNS says that there is no such name.
    NoSuchName,
    /// Any other failure, such as a name server that does not answer. It may be temporary.
    Failed,
}

impl Lookup {
    fn of(kind: LookupErrorKind) -> Self {
        if matches!(kind, LookupErrorKind::NoName) { Self::NoSuchName } else { Self::Failed }
    }
}

/// The addresses of a host, from getaddrinfo. The standard library calls it too, but hides its error code.
async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, (Lookup, DialError)> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let failed = |lookup, source| (lookup, DialError::Resolve { host: host.to_owned(), source });
    let name = host.to_owned();
    let found = spawn_blocking(move || {
        let hints = AddrInfoHints { socktype: SockType::Stream.into(), ..AddrInfoHints::default() };
        getaddrinfo(Some(&name), None, Some(hints)).map(Iterator::collect::<io::Result<Vec<_>>>)
    });
    let found = match found.await {
        Ok(Ok(found)) => found.map_err(|source| failed(Lookup::Failed, source))?,
        Ok(Err(error)) => return Err(failed(Lookup::of(error.kind()), error.into())),
        Err(error) => return Err(failed(Lookup::Failed, error.into())),
    };
    Ok(found.into_iter().map(|info| SocketAddr::new(info.sockaddr.ip(), port)).collect())
}

/// Host and port of a URL, the host without brackets.
fn host_and_port(uri: &Uri) -> Option<(String, u16)> {
    let default = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    Some((host, uri.port_u16().unwrap_or(default)))
}

impl Service<Uri> for Dialer {
    type Response = Stream;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move {
            match dialer.limit {
                Some(limit) => match timeout(limit, dialer.dial(uri.clone())).await {
                    Ok(dialled) => dialled,
                    Err(_) => Err(dialer.too_slow(&uri, limit)),
                },
                None => dialer.dial(uri).await,
            }
        })
    }
}

/// A resolver for a host whose addresses are known.
#[derive(Clone)]
struct Known(Vec<SocketAddr>);

impl Service<Name> for Known {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Ready<io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Name) -> Self::Future {
        ready(Ok(self.0.clone().into_iter()))
    }
}

/// A connection with hyper's traits.
pub(crate) struct Stream(TokioIo<Box<dyn websocket::Connection>>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_name_that_does_not_exist_is_beyond_reach() {
        for (kind, lookup) in [
            (LookupErrorKind::NoName, Lookup::NoSuchName),
            (LookupErrorKind::NoData, Lookup::Failed),
            (LookupErrorKind::Again, Lookup::Failed),
            (LookupErrorKind::Fail, Lookup::Failed),
            (LookupErrorKind::System, Lookup::Failed),
        ] {
            assert_eq!(Lookup::of(kind), lookup, "{kind:?}");
        }
    }

    #[test]
    fn a_host_is_beyond_reach_while_no_attempt_got_further() {
        let connections = Connections::default();
        let url = "https://EC2.example/";
        assert!(!connections.are_impossible(url), "nothing was tried");
        let mut refused = connections.begin("ec2.example", 443);
        assert!(!connections.are_impossible(url), "its name is being looked up");
        refused.set_without_connection(true);
        drop(refused);
        assert!(connections.are_impossible(url));
        assert!(!connections.are_impossible("http://ec2.example/"), "another port");
        let mut connected = connections.begin("ec2.example", 443);
        connected.set_without_connection(true);
        connected.set_without_connection(false);
        assert!(!connections.are_impossible(url));
        let mut refused = connections.begin("ec2.example", 443);
        refused.set_without_connection(true);
        assert!(!connections.are_impossible(url), "it was there before");
    }

    #[test]
    fn what_this_machine_lacks_says_nothing_of_a_host() {
        let says = |kind: io::ErrorKind| is_unreachable(&io::Error::from(kind));
        assert!(says(io::ErrorKind::ConnectionRefused) && says(io::ErrorKind::NetworkUnreachable));
        assert!(!says(io::ErrorKind::PermissionDenied) && !says(io::ErrorKind::ConnectionReset));
        // EMFILE.
        assert!(!is_unreachable(&io::Error::from_raw_os_error(24)));
    }

    #[tokio::test]
    async fn a_host_is_there_if_one_of_its_addresses_is() {
        use tokio::net::TcpListener;

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let uri: Uri = format!("http://two.example:{port}/").parse().unwrap();
        let addresses = |hosts: &[[u8; 4]]| hosts.iter().map(|host| (*host, port).into()).collect();
        assert!(connect(&uri, addresses(&[[127, 0, 0, 2], [127, 0, 0, 1]])).await.is_ok());
        let error = connect(&uri, addresses(&[[127, 0, 0, 2], [127, 0, 0, 3]])).await.err().unwrap();
        assert!(is_unreachable(error.as_ref()), "{error}");
    }
}
