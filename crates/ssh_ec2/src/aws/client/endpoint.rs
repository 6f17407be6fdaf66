//! Where AWS's own endpoints are, and which stream URLs to trust. (Pure.)
//!
//! The table stands for the partitions and endpoint rules of the service models (botocore 1.43.11,
//! `partitions.json` and `endpoint-rule-set-1.json`); the test compares it with what botocore resolves. An
//! endpoint that the user configured is trusted, except that nothing unencrypted leaves this machine.

use std::net::IpAddr;

use http::Uri;

use crate::aws::client::service::{GovFips, SIGN_IN, SSM_MESSAGES, Service};
use crate::aws::error::AwsError;
use crate::net::websocket::{StreamUrl, Transport};

/// The endpoints of a region, in the variant that the user chose.
#[derive(Clone, Debug)]
pub(crate) struct RegionEndpoints {
    pub(crate) region: String,
    pub(crate) fips: bool,
    pub(crate) dual_stack: bool,
}

impl RegionEndpoints {
    /// AWS's own endpoint of `service` in this region.
    pub(crate) fn endpoint(&self, service: &Service) -> String {
        format!("https://{}", self.host(service))
    }

    /// AWS's own endpoint of AWS Sign-In in this region.
    pub(crate) fn sign_in_endpoint(&self) -> String {
        let (region, suffix) = (&self.region, self.partition().sign_in_suffix);
        match (self.fips, self.dual_stack) {
            (false, false) => format!("https://{region}.signin.{suffix}"),
            (true, false) if region == "us-gov-west-1" => format!("https://signin-fips.{suffix}"),
            (true, false) if region.starts_with("us-gov-") => {
                format!("https://{region}.signin-fips.{suffix}")
            }
            _ => self.endpoint(&SIGN_IN),
        }
    }

    /// The root URL of the websockets of sessions (`ssmmessages`).
    pub(crate) fn message_gateway(&self) -> Option<StreamUrl> {
        StreamUrl::new(&format!("wss://{}/", self.host(&SSM_MESSAGES))).ok()
    }

    fn host(&self, service: &Service) -> String {
        let Self { region, fips, dual_stack } = self;
        let same_host = region.starts_with("us-gov-") && service.gov_fips == GovFips::SameHost;
        let fips = if *fips && (*dual_stack || !same_host) { "-fips" } else { "" };
        let suffix = if *dual_stack { self.partition().dual_stack_suffix } else { self.partition().suffix };
        format!("{}{fips}.{region}.{suffix}", service.prefix)
    }

    /// The region of this partition that is enabled in every account.
    pub(crate) fn usual_region(&self) -> &'static str {
        self.partition().usual_region
    }

    fn partition(&self) -> &'static Partition {
        let here = |partition: &&Partition| self.region.starts_with(partition.region_prefix);
        PARTITIONS.iter().find(here).unwrap_or(&PARTITIONS[PARTITIONS.len() - 1])
    }

    /// Whether `host` is AWS's own for the websockets of this region, in any variant.
    fn is_message_host(&self, host: &str) -> bool {
        [false, true].into_iter().any(|dual_stack| {
            let suffix =
                if dual_stack { self.partition().dual_stack_suffix } else { self.partition().suffix };
            ["", "-fips"]
                .into_iter()
                .any(|fips| host.eq_ignore_ascii_case(&format!("ssmmessages{fips}.{}.{suffix}", self.region)))
        })
    }

    /// Whether `host` is an interface endpoint of this region for websockets (AWS PrivateLink), as in
    /// `vpce-0a1b-2c3d.ssmmessages.eu-west-1.vpce.amazonaws.com`.
    ///
    /// The label of the service decides: any account can offer an endpoint service, whose names have the same
    /// form with its own id (`vpce-svc-…`) in that place.
    ///
    /// <https://docs.aws.amazon.com/vpc/latest/privatelink/privatelink-access-aws-services.html>
    fn is_private_link(&self, host: &str) -> bool {
        let suffix = format!(".{}.vpce.{}", self.region, self.partition().suffix);
        let host = host.to_ascii_lowercase();
        let labels = host.strip_suffix(&suffix).and_then(|labels| labels.split_once('.'));
        labels.is_some_and(|(endpoint, service)| {
            endpoint.starts_with("vpce-") && matches!(service, "ssmmessages" | "ssmmessages-fips")
        })
    }

    /// Whether the suffix of `host` is one of AWS's.
    fn is_aws(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        PARTITIONS
            .iter()
            .flat_map(|partition| [partition.suffix, partition.dual_stack_suffix])
            .any(|suffix| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')))
    }

    /// Refuses a stream URL that does not lead to Session Manager: the websocket's host receives a signature
    /// and a session token. `configured` are the endpoints that the user set for it.
    pub(crate) fn check_stream_url(&self, url: &StreamUrl, configured: &[String]) -> Result<(), AwsError> {
        let host = url.host();
        let is_private = url.transport() == Transport::Tls || is_loopback(host);
        let is_expected = url.transport() == Transport::Tls && self.is_message_host(host);
        // An endpoint at AWS answers with hosts at AWS. Any other endpoint is the user's own or an
        // emulator's, and only it knows where its websockets are.
        let is_configured = configured
            .iter()
            .filter_map(|endpoint| host_of(endpoint))
            .any(|endpoint| if self.is_aws(&endpoint) { self.is_private_link(host) } else { true });
        if is_private && (is_expected || is_configured) {
            Ok(())
        } else {
            Err(AwsError::UntrustedStreamUrl { host: host.to_owned() })
        }
    }
}

/// Refuses a region name that cannot be part of a host name.
pub(crate) fn check_region(region: &str) -> Result<(), AwsError> {
    if is_region(region) { Ok(()) } else { Err(AwsError::BadRegion { region: region.to_owned() }) }
}

/// Whether a region name can be part of a host name.
pub(crate) fn is_region(region: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&region.len())
        && region.bytes().all(allowed)
        && !region.starts_with('-')
        && !region.ends_with('-')
}

/// Refuses a configured endpoint that is not a URL, or that would send requests unencrypted to another
/// machine.
pub(crate) fn check_endpoint(service: &Service, endpoint: &str) -> Result<(), AwsError> {
    let uri = endpoint.parse::<Uri>().ok();
    let host = host_of(endpoint);
    match (uri.as_ref().and_then(Uri::scheme_str), host) {
        (Some("https"), Some(_)) => Ok(()),
        (Some("http"), Some(host)) if is_loopback(&host) => Ok(()),
        (Some("http"), Some(host)) => Err(AwsError::UnencryptedEndpoint { service: service.id, host }),
        _ => Err(AwsError::BadEndpoint { service: service.id }),
    }
}

/// The host of an endpoint; an IPv6 address without brackets.
pub(crate) fn host_of(endpoint: &str) -> Option<String> {
    let uri = endpoint.parse::<Uri>().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']);
    if host.is_empty() { None } else { Some(host.to_owned()) }
}

fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => host.eq_ignore_ascii_case("localhost"),
    }
}

struct Partition {
    region_prefix: &'static str,
    /// Enabled in every account (botocore's `implicitGlobalRegion`).
    usual_region: &'static str,
    suffix: &'static str,
    dual_stack_suffix: &'static str,
    sign_in_suffix: &'static str,
}

/// The first that matches; the last matches every region, as in the SDKs.
const PARTITIONS: [Partition; 8] = [
    partition("cn-", "cn-northwest-1", "amazonaws.com.cn", "api.amazonwebservices.com.cn", "amazonaws.cn"),
    partition("us-gov-", "us-gov-west-1", "amazonaws.com", "api.aws", "amazonaws-us-gov.com"),
    partition("us-iso-", "us-iso-east-1", "c2s.ic.gov", "api.aws.ic.gov", "c2shome.ic.gov"),
    partition("us-isob-", "us-isob-east-1", "sc2s.sgov.gov", "api.aws.scloud", "sc2shome.sgov.gov"),
    partition("eu-isoe-", "eu-isoe-west-1", "cloud.adc-e.uk", "api.cloud-aws.adc-e.uk", "csphome.adc-e.uk"),
    partition("us-isof-", "us-isof-south-1", "csp.hci.ic.gov", "api.aws.hci.ic.gov", "csphome.hci.ic.gov"),
    partition("eusc-", "eusc-de-east-1", "amazonaws.eu", "api.amazonwebservices.eu", "amazonaws-eusc.eu"),
    partition("", "us-east-1", "amazonaws.com", "api.aws", "aws.amazon.com"),
];

const fn partition(
    region_prefix: &'static str,
    usual_region: &'static str,
    suffix: &'static str,
    dual_stack_suffix: &'static str,
    sign_in_suffix: &'static str,
) -> Partition {
    Partition { region_prefix, usual_region, suffix, dual_stack_suffix, sign_in_suffix }
}

#[cfg(test)]
mod tests;
