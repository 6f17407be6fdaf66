//! The HTTP client of the AWS SDK, set up with our certificates and proxy.
//!
//! The SDK's own default reads no CA bundle, loads certificates for plain connections too, and sends requests
//! for container credentials through a proxy. Pooling, timeouts and connecting stay the SDK's.

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector, ConnectorBuilder};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use crate::network::Network;

/// A client for the SDK's calls and its credential providers.
pub(super) fn http_client(network: &Network) -> SharedHttpClient {
    let encrypted = network.clone();
    SharedHttpClient::new(Client {
        network: network.clone(),
        // Plain HTTP is for this machine and its metadata service, which no proxy should see.
        plain: Builder::new()
            .build_with_connector_fn(|settings, components| configured(settings, components).build_http()),
        encrypted: Builder::new().build_with_connector_fn(move |settings, components| {
            encrypted_connector(configured(settings, components), &encrypted)
        }),
    })
}

fn configured(
    settings: Option<&HttpConnectorSettings>,
    components: Option<&RuntimeComponents>,
) -> ConnectorBuilder {
    let mut builder = Connector::builder();
    builder.set_connector_settings(settings.cloned());
    builder.set_sleep_impl(components.and_then(RuntimeComponents::sleep_impl));
    builder
}

fn encrypted_connector(mut builder: ConnectorBuilder, network: &Network) -> Connector {
    let proxy = network.proxy_settings();
    // The URL was checked when `network` was made.
    builder.set_proxy_config(
        proxy.and_then(|(url, spared)| ProxyConfig::https(url).ok().map(|proxy| proxy.no_proxy(spared))),
    );
    let mut trusted = TrustStore::empty();
    if let Ok(roots) = network.roots() {
        trusted.add_pem_certificate(roots.pem.clone());
    }
    let builder = builder.tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    match TlsContext::builder().with_trust_store(trusted).build() {
        Ok(tls) => builder.tls_context(tls).build(),
        Err(_) => builder.build(),
    }
}

/// Two clients in one, because certificates should cost nothing until a connection needs them.
#[derive(Debug)]
struct Client {
    network: Network,
    plain: SharedHttpClient,
    encrypted: SharedHttpClient,
}

impl HttpClient for Client {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(ByScheme {
            network: self.network.clone(),
            plain: self.plain.http_connector(settings, components),
            encrypted: self.encrypted.clone(),
            settings: settings.clone(),
            components: components.clone(),
        })
    }
}

#[derive(Debug)]
struct ByScheme {
    network: Network,
    plain: SharedHttpConnector,
    encrypted: SharedHttpClient,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("http://") {
            return self.plain.call(request);
        }
        // Asked here, where it can be an error: the SDK's connector would go on without roots.
        match self.network.roots() {
            Ok(_) => self.encrypted.http_connector(&self.settings, &self.components).call(request),
            Err(error) => HttpConnectorFuture::ready(Err(ConnectorError::user(error.into()))),
        }
    }
}
