//! Makes the connection for a websocket: name, TCP, a proxy's `CONNECT` and TLS where they are needed.
//!
//! Addresses are tried one after the other, in the order of the resolver. Nothing is retried here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use hyper_util::client::proxy::matcher::Intercept;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{self, TcpStream};
use tokio::time;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use super::head::{self, HeadError};
use super::http_proxy;
use super::{DialError, ProxyError, StreamUrl, Transport};
use crate::net::network::Network;

/// A byte stream that a websocket can run on.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Connection for S {}

/// Where a connection leads first.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    /// To this address of the host.
    Direct(SocketAddr),
    /// Through this proxy, as host and port.
    Proxy(String),
}

/// A connection to the host of `url`, ready for HTTP, and where it leads first.
pub(super) async fn open(
    url: &StreamUrl,
    network: &Network,
) -> Result<(Box<dyn Connection>, Way), DialError> {
    if let Some(proxy) = proxy_of(url, network) {
        let way = Way::Proxy(proxy.uri().authority().map(ToString::to_string).unwrap_or_default());
        let stream = through(&proxy, url, network).await?;
        return Ok((tls_through(stream, url.host(), &proxy, network).await?, way));
    }
    let (stream, address) = tcp(url.host(), url.port()).await?;
    let stream = match url.transport() {
        Transport::Plain => stream,
        Transport::Tls => tls(stream, url.host(), network).await?,
    };
    Ok((stream, Way::Direct(address)))
}

/// The proxy for a host. Plain connections stay on this machine, and use none.
pub(super) fn proxy_of(url: &StreamUrl, network: &Network) -> Option<Intercept> {
    match url.transport() {
        Transport::Plain => None,
        Transport::Tls => network.proxy_for(&url.host_and_port()),
    }
}

async fn tcp(host: &str, port: u16) -> Result<(Box<dyn Connection>, SocketAddr), DialError> {
    let resolve = |source| DialError::Resolve { host: host.to_owned(), source };
    let addresses = net::lookup_host((host, port)).await.map_err(resolve)?;
    let mut error = resolve(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    for address in addresses {
        match tcp_to(address).await {
            Ok(stream) => return Ok((Box::new(stream), address)),
            Err(source) => error = DialError::Connect { host: host.to_owned(), address, source },
        }
    }
    Err(error)
}

async fn tcp_to(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = time::timeout(CONNECT_TIMEOUT, TcpStream::connect(address))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // A keystroke must not wait for the acknowledgement of the one before.
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Encrypts a connection to `host` with TLS, and checks the host's certificate.
pub(crate) async fn tls(
    stream: Box<dyn Connection>,
    host: &str,
    network: &Network,
) -> Result<Box<dyn Connection>, DialError> {
    let failed = |source| DialError::Tls { host: host.to_owned(), source };
    let name = ServerName::try_from(host.to_owned())
        .map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let config = network.tls().map_err(DialError::Network)?;
    let stream = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await.map_err(failed)?;
    Ok(Box::new(stream))
}

/// Encrypts a connection to `host` through a proxy. Errors name the proxy, which is to be checked first,
/// unless the certificate is not trusted: that is the host's, or that of a proxy that inspects TLS.
pub(crate) async fn tls_through(
    stream: Box<dyn Connection>,
    host: &str,
    proxy: &Intercept,
    network: &Network,
) -> Result<Box<dyn Connection>, DialError> {
    tls(stream, host, network).await.map_err(|error| match &error {
        DialError::Tls { source, .. } if !super::is_distrust(source) => ProxyError::through(proxy, error),
        _ => error,
    })
}

async fn through(
    proxy: &Intercept,
    url: &StreamUrl,
    network: &Network,
) -> Result<Box<dyn Connection>, DialError> {
    let encrypted = proxy.uri().scheme_str() == Some("https");
    let port = proxy.uri().port_u16().unwrap_or(if encrypted { 443 } else { 80 });
    let host = proxy.uri().host().unwrap_or_default().trim_matches(['[', ']']);
    let unreachable = |error: DialError| ProxyError::unreachable(proxy, error);
    let (mut stream, _) = tcp(host, port).await.map_err(unreachable)?;
    if encrypted {
        stream = tls(stream, host, network).await.map_err(unreachable)?;
    }
    connect_through(&mut stream, &url.host_and_port(), proxy).await?;
    Ok(stream)
}

/// Asks the proxy on `stream` for a tunnel to `destination` with `CONNECT` (RFC 9110, section 9.3.6).
pub(crate) async fn connect_through<S: Connection>(
    stream: &mut S,
    destination: &str,
    proxy: &Intercept,
) -> Result<(), DialError> {
    let mut request = format!("CONNECT {destination} HTTP/1.1\r\nHost: {destination}\r\n").into_bytes();
    if let Some(authorization) = proxy.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let url = http_proxy::url(proxy);
    let lost = |source| DialError::Proxy(ProxyError::Unusable { proxy: url.clone(), source });
    stream.write_all(&request).await.map_err(|source| lost(source.into()))?;
    stream.flush().await.map_err(|source| lost(source.into()))?;
    let (head, rest) = head::read(stream).await.map_err(lost)?;
    match head.status {
        // In TLS the client sends first, so bytes behind the head are not from the destination.
        200..=299 if rest.is_empty() => Ok(()),
        200..=299 => Err(lost(HeadError::Malformed)),
        status => {
            let has_password = proxy.basic_auth().is_some();
            Err(DialError::Proxy(ProxyError::Refused { proxy: url, status, has_password }))
        }
    }
}

impl fmt::Debug for dyn Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection")
    }
}

/// The time limit for one address; if it drops packets, time must be left for the next one.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::network::NetworkEnvironment;
    use tokio::io::AsyncReadExt as _;
    use tokio::net::TcpListener;

    fn behind(proxy: &str) -> Network {
        let https_proxy = Some(proxy.to_owned());
        Network::new(&NetworkEnvironment { https_proxy, ..NetworkEnvironment::default() }).unwrap()
    }

    /// Dials `wss://ssm.example/` through a proxy that answers `answer`. Returns the request to the proxy,
    /// and the error.
    async fn ask(answer: &str) -> (String, DialError) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let network = behind(&format!("http://me:p%40ss@{address}"));
        let url = StreamUrl::new("wss://ssm.example/v1?x=1").unwrap();
        let proxy = async {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = vec![0; 4096];
            let length = client.read(&mut request).await.unwrap();
            client.write_all(answer.as_bytes()).await.unwrap();
            // What follows an accepted CONNECT is TLS; an answer that is not ends the handshake.
            if answer.contains(" 200 ") {
                let mut hello = [0; 5];
                client.read_exact(&mut hello).await.unwrap();
                assert_eq!(hello[0], 22, "a TLS handshake record");
                client.write_all(b"no TLS here").await.unwrap();
            }
            String::from_utf8(request[..length].to_vec()).unwrap()
        };
        let (request, dialled) = tokio::join!(proxy, open(&url, &network));
        (request, dialled.err().unwrap())
    }

    #[tokio::test]
    async fn the_proxy_is_asked_for_host_and_port_with_its_password() {
        let (request, error) = ask("HTTP/1.0 200 Connection established\r\n\r\n").await;
        assert_eq!(
            request,
            "CONNECT ssm.example:443 HTTP/1.1\r\nHost: ssm.example:443\r\n\
             Proxy-Authorization: Basic bWU6cEBzcw==\r\n\r\n"
        );
        let said = "cannot make an encrypted connection to ssm.example, through the proxy http://127.0.0.1:";
        assert!(error.to_string().starts_with(said), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_of_the_proxy_is_reported_without_its_password() {
        let (_, error) = ask("HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n").await;
        assert!(matches!(error, DialError::Proxy(ProxyError::Refused { status: 407, .. })), "{error:?}");
        assert!(error.is_permanent());
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("p@ss") && !shown.contains("p%40ss") && !shown.contains("me:"), "{shown}");
    }

    #[tokio::test]
    async fn a_proxy_that_sends_first_is_not_trusted() {
        let (_, error) = ask("HTTP/1.1 201 Created\r\n\r\nHTTP/1.1 101 gotcha\r\n\r\n").await;
        assert!(matches!(error, DialError::Proxy(ProxyError::Unusable { .. })), "{error:?}");
    }

    #[tokio::test]
    async fn a_closed_port_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let free = listener.local_addr().unwrap();
        drop(listener);
        let url = StreamUrl::new(&format!("ws://{free}/")).unwrap();
        let error = open(&url, &Network::new(&NetworkEnvironment::default()).unwrap()).await.unwrap_err();
        assert!(matches!(&error, DialError::Connect { address, .. } if *address == free), "{error:?}");
        assert!(!error.is_permanent());
    }
}
