//! The HTTP client for the AWS SDK, on the connections of `connections.rs`.
//!
//! The SDK's own client reads no CA bundle, sends requests for container credentials through a proxy, and
//! does not distinguish a host to which no TCP connection can be made from one that does not answer. HTTP and
//! the pool of connections are hyper's. HTTP/1.1 only: the requests are few, and one that starts while
//! another is under way gets a connection of its own.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aws_smithy_runtime_api::client::connection::{CaptureSmithyConnection, ConnectionMetadata};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::retry::ErrorKind;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use thiserror::Error;
use tokio::time::timeout;

use crate::aws::client::connections::{Connections, Dialer, TooSlow};
use crate::net::network::Network;

/// A client for the SDK's calls and its credential providers.
pub(crate) fn http_client(network: &Network, connections: &Connections) -> SharedHttpClient {
    SharedHttpClient::new(PooledClient {
        network: network.clone(),
        connections: connections.clone(),
        pools: Mutex::default(),
    })
}

type Pool = legacy::Client<Dialer, SdkBody>;

#[derive(Debug)]
struct PooledClient {
    network: Network,
    connections: Connections,
    /// One pool for each connect timeout: that of the calls, and the SDK's shorter ones for the metadata
    /// service and for container credentials.
    pools: Mutex<Vec<(Option<Duration>, Pool)>>,
}

impl PooledClient {
    fn pool(&self, limit: Option<Duration>) -> Pool {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = pools.iter().find(|(known, _)| *known == limit) {
            return pool.clone();
        }
        let dialer = Dialer::new(self.network.clone(), self.connections.clone(), limit);
        let pool = legacy::Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(dialer);
        pools.push((limit, pool.clone()));
        pool
    }
}

impl HttpClient for PooledClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Exchange {
            network: self.network.clone(),
            pool: self.pool(settings.connect_timeout()),
            limit: settings.read_timeout(),
        })
    }
}

#[derive(Debug)]
struct Exchange {
    network: Network,
    pool: Pool,
    /// The time limit from the request to the head of the response.
    limit: Option<Duration>,
}

impl HttpConnector for Exchange {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let mut request = match request.try_into_http1x() {
            Ok(request) => request,
            Err(error) => return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        };
        // Without trusted roots, as with a CA bundle that cannot be read, no connection is tried.
        if request.uri().scheme_str() == Some("https")
            && let Err(error) = self.network.tls()
        {
            return HttpConnectorFuture::ready(Err(ConnectorError::user(error.into())));
        }
        let captured = capture_connection(&mut request);
        if let Some(capture) = request.extensions().get::<CaptureSmithyConnection>() {
            capture.set_connection_retriever(move || metadata(&captured));
        }
        let response = self.pool.request(request);
        let limit = self.limit;
        HttpConnectorFuture::new(async move {
            let response = match limit {
                Some(limit) => timeout(limit, response)
                    .await
                    .map_err(|_| ConnectorError::timeout(NoResponse(limit).into()))?,
                None => response.await,
            };
            let response = response.map_err(classify)?;
            HttpResponse::try_from(response.map(SdkBody::from_body_1_x))
                .map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

/// Lets the SDK close a connection after a server error, so that the retry takes another one.
fn metadata(captured: &CaptureConnection) -> Option<ConnectionMetadata> {
    captured.connection_metadata().as_ref()?;
    let captured = captured.clone();
    let poison = move || {
        if let Some(connected) = captured.connection_metadata().as_ref() {
            connected.poison();
        }
    };
    Some(ConnectionMetadata::builder().proxied(false).poison_fn(poison).build())
}

/// The head of a response did not arrive in time.
#[derive(Debug, Error)]
#[error("no answer within {0:?}")]
struct NoResponse(Duration);

/// A failed exchange. hyper's own error names the phase alone; the message here is that of its cause.
#[derive(Debug)]
struct NoExchange(legacy::Error);

impl fmt::Display for NoExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.source() {
            Some(cause) => write!(f, "{cause}"),
            None => write!(f, "{}", self.0),
        }
    }
}

impl StdError for NoExchange {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// Classifies an error for the SDK's retries.
fn classify(error: legacy::Error) -> ConnectorError {
    let http = cause::<hyper::Error>(&error);
    let is = |test: fn(&hyper::Error) -> bool| http.is_some_and(test);
    let is_late = cause::<TooSlow>(&error).is_some() || is(hyper::Error::is_timeout);
    let is_lost = is(hyper::Error::is_closed)
        || is(hyper::Error::is_canceled)
        || error.is_connect()
        || cause::<io::Error>(&error).is_some();
    let (is_user, is_cut) = (is(hyper::Error::is_user), is(hyper::Error::is_incomplete_message));
    let error = NoExchange(error).into();
    match () {
        () if is_late => ConnectorError::timeout(error),
        () if is_user => ConnectorError::user(error),
        () if is_cut => ConnectorError::other(error, Some(ErrorKind::TransientError)),
        () if is_lost => ConnectorError::io(error),
        () => ConnectorError::other(error, None),
    }
}

fn cause<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}
