//! The settings for every connection to AWS: which certificates to trust, and which HTTP proxy to use.
//!
//! One [`Network`] serves the AWS calls and the websocket, so both trust the same roots and use the same
//! proxy. Certificates are read when a TLS connection is first made: reading those of the system takes
//! milliseconds, which a plain connection to this machine need not spend. This file opens no connection.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::{env, fmt, fs, io};

use crate::system::explain::{Anchor, Explain};
use http::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use thiserror::Error;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// The settings that [`Network::new`] needs, as the user's environment gives them.
#[derive(Clone, Default)]
pub(crate) struct NetworkEnvironment {
    /// A PEM file to trust instead of the system's roots: `AWS_CA_BUNDLE`, or `ca_bundle` of the profile.
    pub ca_bundle: Option<PathBuf>,
    /// The proxy for `https` and `wss`. Plain connections stay on this machine and use no proxy.
    pub https_proxy: Option<String>,
    /// Hosts, domain suffixes and networks to reach without the proxy, separated by commas.
    pub no_proxy: Option<String>,
}

impl NetworkEnvironment {
    /// Reads `AWS_CA_BUNDLE`, `https_proxy` and `no_proxy`. As in the AWS CLI, lower case wins over upper
    /// case, and an empty variable counts as absent.
    pub(crate) fn from_env() -> Self {
        let first = |names: &[&str]| names.iter().find_map(env::var_os).filter(|value| !value.is_empty());
        let text = |names: &[&str]| first(names).and_then(|value| value.into_string().ok());
        Self {
            ca_bundle: first(&["AWS_CA_BUNDLE"]).map(PathBuf::from),
            https_proxy: text(&["https_proxy", "HTTPS_PROXY"]),
            no_proxy: text(&["no_proxy", "NO_PROXY"]),
        }
    }
}

/// Does not show the proxy, whose address may carry a password.
impl fmt::Debug for NetworkEnvironment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NetworkEnvironment")
            .field("ca_bundle", &self.ca_bundle)
            .field("https_proxy", &self.https_proxy.as_ref().map(|_| ".."))
            .field("no_proxy", &self.no_proxy)
            .finish()
    }
}

/// The network settings cannot be used.
#[derive(Debug, Error)]
pub(crate) enum NetworkError {
    /// No certificate in the CA bundle can be used as a root.
    #[error("{} holds no usable CA certificate", path.display())]
    CaBundleEmpty {
        /// The file named by the environment or the profile.
        path: PathBuf,
    },
    /// The CA bundle is not PEM.
    #[error("cannot parse the CA bundle {}", path.display())]
    CaBundleMalformed {
        /// The file named by the environment or the profile.
        path: PathBuf,
        /// The error of the parser.
        source: pem::Error,
    },
    /// The CA bundle cannot be read.
    #[error("cannot read the CA bundle {}", path.display())]
    CaBundleUnreadable {
        /// The file named by the environment or the profile.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The system has no root certificates.
    #[error("this system has no root certificates to verify AWS with")]
    NoRoots,
    /// The proxy is not an `http` or `https` URL. Its text is not kept: it may carry a password.
    #[error("HTTPS_PROXY is not the URL of an HTTP proxy")]
    Proxy,
    /// The TLS library refused its own defaults.
    #[error("cannot set up TLS")]
    Tls(#[source] rustls::Error),
}

impl Explain for NetworkError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::CaBundleEmpty { .. } | Self::CaBundleMalformed { .. } | Self::CaBundleUnreadable { .. } => {
                vec!["point AWS_CA_BUNDLE, or `ca_bundle` of the profile, at a file of PEM certificates".into()]
            }
            Self::NoRoots => vec![
                "install the system's certificates (package `ca-certificates`), or set AWS_CA_BUNDLE or SSL_CERT_FILE"
                    .into(),
            ],
            Self::Proxy => vec![
                "write it as `http://host:port` or `http://user:password@host:port`, with special characters percent-encoded"
                    .into(),
            ],
            Self::Tls(_) => Vec::new(),
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(match self {
            Self::Proxy => Anchor::HttpProxy,
            Self::CaBundleEmpty { .. }
            | Self::CaBundleMalformed { .. }
            | Self::CaBundleUnreadable { .. }
            | Self::NoRoots
            | Self::Tls(_) => Anchor::Certificates,
        })
    }
}

/// Certificates and proxy for every connection of this process. Clones share the certificates that were read.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    ca_bundle: Option<PathBuf>,
    matcher: Matcher,
    tls: OnceLock<Arc<ClientConfig>>,
}

impl Network {
    /// Checks the proxy settings. Certificates are read later, when needed.
    ///
    /// # Errors
    ///
    /// [`NetworkError::Proxy`].
    pub(crate) fn new(environment: &NetworkEnvironment) -> Result<Self, NetworkError> {
        let https_proxy = environment.https_proxy.as_deref().map(proxy_url).transpose()?;
        let no_proxy = match environment.no_proxy.as_deref() {
            Some(hosts) => format!("{hosts},{NEVER_PROXIED}"),
            None => NEVER_PROXIED.to_owned(),
        };
        let matcher =
            Matcher::builder().https(https_proxy.as_deref().unwrap_or("")).no(no_proxy.as_str()).build();
        Ok(Self(Arc::new(Shared { ca_bundle: environment.ca_bundle.clone(), matcher, tls: OnceLock::new() })))
    }

    /// The proxy for a TLS connection to `authority` (`host` or `host:port`). None for a direct connection.
    pub(crate) fn proxy_for(&self, authority: &str) -> Option<Intercept> {
        let uri = Uri::builder().scheme("https").authority(authority).path_and_query("/").build().ok()?;
        self.0.matcher.intercept(&uri)
    }

    /// The TLS settings of every connection. The trusted roots are read at the first call.
    pub(crate) fn tls(&self) -> Result<Arc<ClientConfig>, NetworkError> {
        if let Some(tls) = self.0.tls.get() {
            return Ok(Arc::clone(tls));
        }
        // The provider is named because another crate may enable a second one, and rustls panics if it has to
        // choose.
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(NetworkError::Tls)?
            .with_root_certificates(trusted_roots(self.0.ca_bundle.as_deref())?)
            .with_no_client_auth();
        Ok(Arc::clone(self.0.tls.get_or_init(|| Arc::new(tls))))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("ca_bundle", &self.0.ca_bundle).finish_non_exhaustive()
    }
}

fn trusted_roots(ca_bundle: Option<&Path>) -> Result<RootCertStore, NetworkError> {
    let certificates = match ca_bundle {
        Some(path) => read_bundle(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    // The system's store may have certificates that rustls refuses.
    roots.add_parsable_certificates(certificates);
    match ca_bundle {
        _ if !roots.is_empty() => Ok(roots),
        Some(path) => Err(NetworkError::CaBundleEmpty { path: path.to_owned() }),
        None => Err(NetworkError::NoRoots),
    }
}

fn read_bundle(path: &Path) -> Result<Vec<CertificateDer<'static>>, NetworkError> {
    let pem = fs::read(path)
        .map_err(|source| NetworkError::CaBundleUnreadable { path: path.to_owned(), source })?;
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .map_err(|source| NetworkError::CaBundleMalformed { path: path.to_owned(), source })
}

fn proxy_url(text: &str) -> Result<String, NetworkError> {
    // Without a scheme it is an HTTP proxy, as in curl and Python.
    let url = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let uri: Uri = url.parse().map_err(|_| NetworkError::Proxy)?;
    match (uri.scheme_str(), uri.host()) {
        // A `#` in a password would begin a fragment, and the parser would read `user` as the host.
        (Some("http" | "https"), Some(host)) if !host.is_empty() && !url.contains('#') => Ok(url),
        _ => Err(NetworkError::Proxy),
    }
}

/// An error and its causes. The error in an I/O error counts as its cause; `source` would skip it.
pub(crate) fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error: &&'a (dyn Error + 'static)| match error.downcast_ref() {
        Some(io) => io::Error::get_ref(io).map(|inner| inner as &(dyn Error + 'static)),
        None => error.source(),
    })
}

/// Hosts that are never reached through a proxy: this machine, and the credentials services on link-local
/// addresses.
const NEVER_PROXIED: &str = "localhost,127.0.0.0/8,::1,169.254.0.0/16,fe80::/10,fd00:ec2::/32";

#[cfg(test)]
mod tests {
    use super::*;

    fn network(https_proxy: &str, no_proxy: &str) -> Network {
        let environment = NetworkEnvironment {
            https_proxy: Some(https_proxy.into()),
            no_proxy: Some(no_proxy.into()),
            ..NetworkEnvironment::default()
        };
        Network::new(&environment).unwrap()
    }

    #[test]
    fn no_proxy_matches_hosts_suffixes_and_networks() {
        let network = network("proxy.corp:3128", "amazonaws.com, 10.0.0.0/8");
        for spared in
            ["ssm.eu-west-1.amazonaws.com", "10.1.2.3:443", "[::1]:8443", "localhost:1", "127.9.9.9"]
        {
            assert!(network.proxy_for(spared).is_none(), "{spared}");
        }
        for proxied in ["ssm.us-iso-east-1.c2s.ic.gov", "11.0.0.1", "notamazonaws.com:443"] {
            assert!(network.proxy_for(proxied).is_some(), "{proxied}");
        }
    }

    #[test]
    fn proxy_password_is_decoded_for_the_proxy_and_never_shown() {
        let network = network("http://me:p%40ss@proxy.corp:3128", "");
        let proxy = network.proxy_for("ssm.eu-west-1.amazonaws.com").unwrap();
        assert_eq!(proxy.basic_auth().unwrap(), "Basic bWU6cEBzcw==");
        assert_eq!(proxy.uri(), "http://proxy.corp:3128/");
        let environment =
            NetworkEnvironment { https_proxy: Some("http://me:secret@p".into()), ..Default::default() };
        assert!(!format!("{network:?} {environment:?} {proxy:?}").contains("secret"));
    }

    #[test]
    fn a_proxy_that_is_not_http_is_refused() {
        for proxy in ["socks5://localhost:1080", "http://", "http://a b", "http://me:pa#ss@proxy:1"] {
            let environment =
                NetworkEnvironment { https_proxy: Some(proxy.into()), ..NetworkEnvironment::default() };
            assert!(matches!(Network::new(&environment), Err(NetworkError::Proxy)), "{proxy}");
        }
    }

    #[test]
    fn a_bundle_without_certificates_is_an_error_and_not_an_empty_trust() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let environment = NetworkEnvironment { ca_bundle: Some(path.clone()), ..Default::default() };
        let network = Network::new(&environment).unwrap();
        assert!(matches!(network.tls(), Err(NetworkError::CaBundleUnreadable { .. })));
        fs::write(&path, "no certificate here").unwrap();
        assert!(matches!(network.tls(), Err(NetworkError::CaBundleEmpty { .. })));
        fs::write(&path, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
        assert!(matches!(network.tls(), Err(NetworkError::CaBundleMalformed { .. })));
    }

    /// A self-signed certificate without a purpose.
    const CERTIFICATE: &str = "MIIBejCCAR+gAwIBAgIUPjbaY0R3UepV2xQ09JiuhnDWMgIwCgYIKoZIzj0EAwIwEjEQMA4GA1UEAwwHdGVzdCBjYTAe\
         Fw0yNjExMjMxNTI2MzhaFw0yNjEyMjMxNTI2MzhaMBIxEDAOBgNVBAMMB3Rlc3QgY2EwWTATBgcqhkjOPQIBBggqhkjO\
         PQMBBwNCAAQIWTcs8qlgyQeTn9q0FV5bTAg5vXncuUYn7pNLN1pii6nu/L3ZXle5AeTC9YP83R6/njWAXJ8v1Ex4Owvq\
         H/MWo1MwUTAdBgNVHQ4EFgQUusJycOrl57Z9ngE+5S4z6axWyeEwHwYDVR0jBBgwFoAUusJycOrl57Z9ngE+5S4z6axW\
         yeEwDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNJADBGAiEAm5p31x7bJDv6Ei2IzF9wI7JHkM5RMZ0ADNKPZhM1\
         +qYCIQC+DgDJ/E4WSK/w6dgocLwXSGII4rPmRDy4brm40ytFYw==";

    #[test]
    fn what_is_no_certificate_is_passed_over_and_the_rest_is_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ca.pem");
        let unusable = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let usable = format!("-----BEGIN CERTIFICATE-----\n{CERTIFICATE}\n-----END CERTIFICATE-----\n");
        fs::write(&path, format!("{unusable}{usable}")).unwrap();
        let roots = trusted_roots(Some(&path)).unwrap();
        let subjects: Vec<_> = roots.subjects();
        assert_eq!(subjects.len(), 1);
        assert!(subjects[0].as_ref().windows(7).any(|bytes| bytes == b"test ca"), "{subjects:?}");
    }
}
