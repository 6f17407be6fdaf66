//! The endpoint that a service is called at: the one that the user configured, or AWS's own.

use aws_config::SdkConfig;
use aws_types::service_config::ServiceConfigKey;

use crate::aws::Aws;
use crate::aws::client::endpoint;
use crate::aws::client::service::{EC2, INSTANCE_CONNECT, SSM, SSM_MESSAGES, Service};
use crate::aws::error::AwsError;
use crate::net::websocket::StreamUrl;

/// A service that a connection needs, and where it is.
#[derive(Clone, Debug)]
pub(crate) struct Endpoint {
    /// The first label of AWS's own host, as in `ssm.eu-west-1.amazonaws.com`.
    pub service: &'static str,
    /// The endpoint as a websocket URL, which [`crate::net::websocket::prepare`] connects to.
    pub url: StreamUrl,
}

impl Aws {
    /// The endpoints that a connection needs.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadEndpoint`], [`AwsError::UnencryptedEndpoint`].
    pub(crate) fn endpoints(&self) -> Result<Vec<Endpoint>, AwsError> {
        let services: [&'static Service; 4] = [&SSM, &SSM_MESSAGES, &INSTANCE_CONNECT, &EC2];
        let endpoint = |service: &'static Service| {
            let url = match self.configured_endpoint(service) {
                // With a configured endpoint, only the response of StartSession has the address of the
                // websockets.
                None if service.id == SSM_MESSAGES.id => match self.message_gateway() {
                    Some(url) => url,
                    None => return Ok(None),
                },
                _ => {
                    let text = self.endpoint(service)?;
                    let websocket = text.replacen("http", "ws", 1);
                    StreamUrl::new(&websocket).map_err(|_| AwsError::BadEndpoint { service: service.id })?
                }
            };
            Ok(Some(Endpoint { service: service.prefix, url }))
        };
        services.into_iter().filter_map(|service| endpoint(service).transpose()).collect()
    }

    /// The endpoint of EC2 that the user configured. None for AWS's own.
    pub(crate) fn instances_endpoint(&self) -> Option<String> {
        self.configured_endpoint(&EC2)
    }

    /// Where the websockets of sessions are expected, to connect there early. None when an endpoint is
    /// configured: then only StartSession says where they are.
    pub(crate) fn message_gateway(&self) -> Option<StreamUrl> {
        if self.configured_gateways().is_empty() { self.endpoints.message_gateway() } else { None }
    }

    /// Refuses a stream URL that does not lead to Session Manager of this region, or to what the user
    /// configured in its place. An unencrypted one may lead to this machine only.
    ///
    /// # Errors
    ///
    /// [`AwsError::UntrustedStreamUrl`].
    pub(crate) fn check_stream_url(&self, url: &StreamUrl) -> Result<(), AwsError> {
        self.endpoints.check_stream_url(url, &self.configured_gateways())
    }

    /// The endpoint of a service.
    ///
    /// # Errors
    ///
    /// [`AwsError::BadEndpoint`], [`AwsError::UnencryptedEndpoint`].
    pub(crate) fn endpoint(&self, service: &Service) -> Result<String, AwsError> {
        let Some(endpoint) = self.configured_endpoint(service) else {
            return Ok(self.endpoints.endpoint(service));
        };
        endpoint::check_endpoint(service, &endpoint)?;
        Ok(endpoint)
    }

    /// The endpoint of a service that the user configured.
    pub(crate) fn configured_endpoint(&self, service: &Service) -> Option<String> {
        configured_endpoint(&self.sdk, service)
    }

    /// The configured endpoints that stream URLs may lead to.
    fn configured_gateways(&self) -> Vec<String> {
        let services = [&SSM, &SSM_MESSAGES].into_iter();
        services.filter_map(|service| self.configured_endpoint(service)).collect()
    }
}

/// The endpoint in the environment or the profile, for this service or for all.
pub(crate) fn configured_endpoint(sdk: &SdkConfig, service: &Service) -> Option<String> {
    let key = ServiceConfigKey::builder()
        .service_id(service.id)
        .env("AWS_ENDPOINT_URL")
        .profile("endpoint_url")
        .build()
        .ok()?;
    sdk.service_config()?.load_config(key).filter(|endpoint| !endpoint.is_empty())
}
