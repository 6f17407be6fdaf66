//! Errors of the HTTP proxy that `HTTPS_PROXY` names.
//!
//! Each message names the proxy by its URL, without user and password. Where a proxy is in use, a hint to set
//! one, or a message about the host behind it, would mislead.

use std::error::Error;

use http::StatusCode;
use hyper_util::client::proxy::matcher::Intercept;
use thiserror::Error;
use tokio_rustls::rustls;

use super::{DialError, HeadError};
use crate::net::network::causes;
use crate::system::explain::{Anchor, Explain};

/// No connection through the HTTP proxy.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// It answered `CONNECT` with something other than success.
    #[error("the proxy {proxy} answered {}", status_text(*.status))]
    Refused {
        /// The URL of the proxy.
        proxy: String,
        /// The HTTP status.
        status: u16,
        /// Whether it was given a user and a password.
        has_password: bool,
    },
    /// It took the connection, but the connection through it failed.
    #[error("{source}, through the proxy {proxy}")]
    Through {
        /// The URL of the proxy.
        proxy: String,
        /// What failed.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It has no address, or cannot be connected to.
    #[error("the proxy {proxy} cannot be reached")]
    Unreachable {
        /// The URL of the proxy.
        proxy: String,
        /// Why.
        source: Box<dyn Error + Send + Sync>,
    },
    /// It closed the connection, or its answer is not HTTP.
    #[error("the proxy {proxy} did not answer as an HTTP proxy does")]
    Unusable {
        /// The URL of the proxy.
        proxy: String,
        /// What happened instead.
        source: HeadError,
    },
}

impl ProxyError {
    /// A failure to connect to the proxy itself.
    pub(crate) fn unreachable(
        proxy: &Intercept,
        source: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> DialError {
        DialError::Proxy(Self::Unreachable { proxy: url(proxy), source: source.into() })
    }

    /// A failure behind the proxy.
    pub(crate) fn through(proxy: &Intercept, source: impl Into<Box<dyn Error + Send + Sync>>) -> DialError {
        DialError::Proxy(Self::Through { proxy: url(proxy), source: source.into() })
    }

    /// The error of a proxy, if one is among an error and its causes.
    pub fn among<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes(error).find_map(|error| match error.downcast_ref() {
            Some(DialError::Proxy(fault)) => Some(fault),
            _ => None,
        })
    }

    /// True if the proxy will give the same answer later.
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
