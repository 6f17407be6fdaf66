//! The errors of the HTTP proxy that `HTTPS_PROXY` names.
//!
//! Each message has the URL of the proxy, without user and password. Where a proxy is in use, a hint to set
//! one, or a message about the host behind it alone, would mislead.

use std::error::Error;

use http::StatusCode;
use hyper_util::client::proxy::matcher::Intercept;
use thiserror::Error;
use tokio_rustls::rustls;

use super::{DialError, HeadError};
use crate::net::network::causes;
use crate::system::explain::{Anchor, Explain};

/// There is no connection through the HTTP proxy.
#[derive(Debug, Error)]
pub(crate) enum ProxyError {
    /// The proxy refused `CONNECT`.
    #[error("the proxy {proxy} answered {}", status_text(*.status))]
    Refused {
        /// The URL of the proxy, without user and password.
        proxy: String,
        /// The HTTP status.
        status: u16,
        /// Whether user and password were sent to it.
        has_password: bool,
    },
    /// The proxy accepted `CONNECT`, but the connection through it failed.
    #[error("{source}, through the proxy {proxy}")]
    Through {
        /// The URL of the proxy, without user and password.
        proxy: String,
        /// The error of the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The name of the proxy has no address, or the connection to it failed.
    #[error("the proxy {proxy} cannot be reached")]
    Unreachable {
        /// The URL of the proxy, without user and password.
        proxy: String,
        /// The error of the connection.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The proxy closed the connection, or its response is not HTTP.
    #[error("the proxy {proxy} did not answer as an HTTP proxy does")]
    Unusable {
        /// The URL of the proxy, without user and password.
        proxy: String,
        /// The error in reading the response.
        source: HeadError,
    },
}

impl ProxyError {
    /// The error for a failed connection to the proxy itself.
    pub(crate) fn unreachable(
        proxy: &Intercept,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> DialError {
        DialError::Proxy(Self::Unreachable { proxy: url(proxy), source: source.into() })
    }

    /// The error for a failed connection through the proxy.
    pub(crate) fn through(proxy: &Intercept, source: impl Into<Box<dyn Error + Send + Sync>>) -> DialError {
        DialError::Proxy(Self::Through { proxy: url(proxy), source: source.into() })
    }

    /// The error of a proxy among an error and its causes.
    pub(crate) fn among<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| match error.downcast_ref() {
            Some(DialError::Proxy(fault)) => Some(fault),
            _ => None,
        })
    }

    /// Whether the proxy will answer in the same way later.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Refused { status, .. } => super::is_lasting(*status),
            Self::Through { .. } | Self::Unreachable { .. } | Self::Unusable { .. } => false,
        }
    }
}

impl Explain for ProxyError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::Refused { status: 407, has_password: false, .. } => {
                "put the proxy's user and password into HTTPS_PROXY: `http://user:password@host:port`"
            }
            Self::Refused { status: 407, .. } => {
                "correct the user and password in HTTPS_PROXY; only Basic authentication is supported"
            }
            Self::Refused { .. } | Self::Through { .. } => {
                "ask the proxy's operator to allow CONNECT to that host on port 443, or list the host in NO_PROXY"
            }
            Self::Unreachable { source, .. } if tls_error(source.as_ref()).is_some_and(is_distrust) => {
                "set AWS_CA_BUNDLE to a file with the CA certificate of the proxy, and of AWS"
            }
            Self::Unreachable { source, .. } if tls_error(source.as_ref()).is_some() => {
                "write HTTPS_PROXY with `http://`, unless the proxy itself speaks TLS"
            }
            Self::Unreachable { .. } => {
                "correct HTTPS_PROXY, or unset it where no proxy is needed; hosts in NO_PROXY are reached without it"
            }
            Self::Unusable { .. } => "check that HTTPS_PROXY names an HTTP proxy, and its port",
        };
        vec![hint.to_owned()]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(Anchor::HttpProxy)
    }
}

/// The URL of a proxy, without user and password.
pub(super) fn url(proxy: &Intercept) -> String {
    proxy.uri().to_string().trim_end_matches('/').to_owned()
}

fn status_text(status: u16) -> String {
    let reason = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} ({reason})"))
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    causes(error).find_map(|error| error.downcast_ref())
}

fn is_distrust(error: &rustls::Error) -> bool {
    matches!(error, rustls::Error::InvalidCertificate(_))
}
