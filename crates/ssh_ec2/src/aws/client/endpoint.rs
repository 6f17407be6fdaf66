//! Where the AWS services are, and which stream URLs to believe. (Pure.)
//!
//! The table stands for the partitions and endpoint rules of the service models (botocore 1.43.11,
//! `partitions.json` and `endpoint-rule-set-1.json`); the test compares it with what botocore resolves.
//! Whoever sets an endpoint is trusted with it, except that nothing unencrypted leaves this machine.

use std::net::IpAddr;

use http::Uri;

use crate::aws::error::AwsError;
use crate::net::websocket::{StreamUrl, Transport};

/// An AWS service, as far as calling it goes.
#[derive(Debug)]
pub(in crate::aws) struct Service {
    /// The service id, of which `AWS_ENDPOINT_URL_<ID>` and the key in a `services` section are made.
    pub(in crate::aws) id: &'static str,
    /// First label of the host, name in a signature, and prefix of the IAM actions.
    pub(in crate::aws) prefix: &'static str,
    /// How its calls are written.
    pub(in crate::aws) protocol: Protocol,
    /// Whether GovCloud has a host of its own for FIPS.
    pub(in crate::aws) gov_fips: GovFips,
}

/// How a service's calls and answers are written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::aws) enum Protocol {
    /// JSON 1.1.
    Json {
        /// Before the operation in `X-Amz-Target`.
        target: &'static str,
    },
    /// A form in, XML out.
    Query {
        /// Of the API.
        version: &'static str,
    },
}

/// What FIPS without dual-stack means in GovCloud, where every endpoint is FIPS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::aws) enum GovFips {
    /// There is no `-fips` host.
    SameHost,
    /// There is one, as everywhere.
    OwnHost,
}

/// Systems Manager.
pub(in crate::aws) const SSM: Service =
    Service { id: "SSM", prefix: "ssm", protocol: json("AmazonSSM"), gov_fips: GovFips::SameHost };

/// EC2 Instance Connect.
pub(in crate::aws) const INSTANCE_CONNECT: Service = Service {
    id: "EC2 Instance Connect",
    prefix: "ec2-instance-connect",
    protocol: json("AWSEC2InstanceConnectService"),
    gov_fips: GovFips::OwnHost,
};

/// The service that the websockets are addressed to. It is signed for, but not called.
pub(in crate::aws) const SSM_MESSAGES: Service =
    Service { id: "ssmmessages", prefix: "ssmmessages", protocol: json(""), gov_fips: GovFips::SameHost };

/// EC2.
pub(in crate::aws) const EC2: Service = Service {
    id: "EC2",
    prefix: "ec2",
    protocol: Protocol::Query { version: "2016-11-15" },
    gov_fips: GovFips::SameHost,
};

/// STS, in its regional form.
pub(in crate::aws) const STS: Service = Service {
    id: "STS",
    prefix: "sts",
    protocol: Protocol::Query { version: "2011-06-15" },
    gov_fips: GovFips::SameHost,
};

/// IAM Identity Center's portal, which gives roles to those who have signed in. Its calls are not signed.
pub(in crate::aws) const SSO: Service =
    Service { id: "SSO", prefix: "portal.sso", protocol: json(""), gov_fips: GovFips::SameHost };

/// IAM Identity Center, where people sign in. Its calls are not signed.
pub(in crate::aws) const SSO_OIDC: Service =
    Service { id: "SSO OIDC", prefix: "oidc", protocol: json(""), gov_fips: GovFips::SameHost };

/// AWS Sign-In, for `aws login`. Its calls are not signed, and its host names have a form of their own.
pub(in crate::aws) const SIGN_IN: Service =
    Service { id: "Signin", prefix: "signin", protocol: json(""), gov_fips: GovFips::OwnHost };

const fn json(target: &'static str) -> Protocol {
    Protocol::Json { target }
}

/// A region, and the variants of its endpoints that the user asked for.
#[derive(Clone, Debug)]
pub(in crate::aws) struct Place {
    pub(in crate::aws) region: String,
    pub(in crate::aws) fips: bool,
    pub(in crate::aws) dual_stack: bool,
}

struct Partition {
    region_prefix: &'static str,
    /// Which no account has to enable (botocore's `implicitGlobalRegion`).
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

impl Place {
    /// The endpoint of `service` here, if the user configured none.
    pub(in crate::aws) fn endpoint(&self, service: &Service) -> String {
        format!("https://{}", self.host(service))
    }

    /// The endpoint of AWS Sign-In here, if the user configured none.
    pub(in crate::aws) fn sign_in_endpoint(&self) -> String {
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

    /// The root of the message gateway's websockets.
    pub(in crate::aws) fn message_gateway(&self) -> Option<StreamUrl> {
        StreamUrl::new(&format!("wss://{}/", self.host(&SSM_MESSAGES))).ok()
    }

    fn host(&self, service: &Service) -> String {
        let Self { region, fips, dual_stack } = self;
        let same_host = region.starts_with("us-gov-") && service.gov_fips == GovFips::SameHost;
        let fips = if *fips && (*dual_stack || !same_host) { "-fips" } else { "" };
        let suffix = if *dual_stack { self.partition().dual_stack_suffix } else { self.partition().suffix };
        format!("{}{fips}.{region}.{suffix}", service.prefix)
    }

    /// The region of this partition in which every account may call.
    pub(in crate::aws) fn usual_region(&self) -> &'static str {
        self.partition().usual_region
    }

    fn partition(&self) -> &'static Partition {
        let here = |partition: &&Partition| self.region.starts_with(partition.region_prefix);
        PARTITIONS.iter().find(here).unwrap_or(&PARTITIONS[PARTITIONS.len() - 1])
    }

    /// Whether `host` is one of this region's for websockets, in whatever variant.
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
    /// The label of the service decides: anybody can offer an endpoint service, whose names have the same
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

    /// Whether `host` belongs to AWS, by its suffix.
    fn is_aws(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let host = host.strip_suffix('.').unwrap_or(&host);
        PARTITIONS
            .iter()
            .flat_map(|partition| [partition.suffix, partition.dual_stack_suffix])
            .any(|suffix| host.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')))
    }

    /// Refuses a stream URL that does not lead to Session Manager: a websocket to anywhere else would be
    /// handed a signature and a session token.
    pub(in crate::aws) fn check_stream_url(
        &self,
        url: &StreamUrl,
        overrides: &[String],
    ) -> Result<(), AwsError> {
        let host = url.host();
        let private = url.transport() == Transport::Tls || is_loopback(host);
        let expected = url.transport() == Transport::Tls && self.is_message_host(host);
        // An endpoint at AWS answers with hosts at AWS. Any other endpoint is the user's own or an
        // emulator's, and only it knows where its websockets are.
        let overridden = overrides
            .iter()
            .filter_map(|endpoint| host_of(endpoint))
            .any(|endpoint| if self.is_aws(&endpoint) { self.is_private_link(host) } else { true });
        if private && (expected || overridden) {
            Ok(())
        } else {
            Err(AwsError::UntrustedStreamUrl { host: host.to_owned() })
        }
    }
}

/// Refuses a region that could not be part of a host name.
pub(in crate::aws) fn check_region(region: &str) -> Result<(), AwsError> {
    if is_region(region) { Ok(()) } else { Err(AwsError::BadRegion { region: region.to_owned() }) }
}

/// Whether a region could be part of a host name.
pub(in crate::aws) fn is_region(region: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&region.len())
        && region.bytes().all(allowed)
        && !region.starts_with('-')
        && !region.ends_with('-')
}

/// Refuses a configured endpoint that is no URL, or would send requests unencrypted to another machine.
pub(in crate::aws) fn check_endpoint(service: &Service, endpoint: &str) -> Result<(), AwsError> {
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
pub(in crate::aws) fn host_of(endpoint: &str) -> Option<String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn place(region: &str, fips: bool, dual_stack: bool) -> Place {
        Place { region: region.to_owned(), fips, dual_stack }
    }

    #[test]
    fn endpoints_are_those_that_botocore_resolves() {
        for line in include_str!("endpoints.txt").lines().filter(|line| !line.starts_with('#')) {
            let [service, region, fips, dual_stack, expected] =
                line.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let place = place(region, fips == "1", dual_stack == "1");
            let services = [&SSM, &INSTANCE_CONNECT, &EC2, &SSO, &SSO_OIDC];
            let found = match services.into_iter().find(|s| s.prefix == service) {
                Some(service) => place.endpoint(service),
                None => place.sign_in_endpoint(),
            };
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn every_partition_has_a_region_that_needs_no_enabling() {
        for (region, usual) in [
            ("ap-east-1", "us-east-1"),
            ("cn-north-1", "cn-northwest-1"),
            ("us-gov-east-1", "us-gov-west-1"),
            ("eusc-de-east-1", "eusc-de-east-1"),
        ] {
            let found = place(region, false, false).usual_region();
            assert_eq!(found, usual);
            assert_eq!(place(found, false, false).usual_region(), usual, "it is of the same partition");
        }
    }

    #[test]
    fn regions_that_would_change_the_host_are_refused() {
        assert!(check_region("eu-west-1").is_ok());
        for region in ["", "evil.com/", "eu_west-1", "-a", "a-", "EU-west-1", "a@b", &"a".repeat(64)] {
            assert!(matches!(check_region(region), Err(AwsError::BadRegion { .. })), "{region}");
        }
    }

    #[test]
    fn endpoints_without_encryption_stay_on_this_machine() {
        for endpoint in ["https://a.b", "http://127.0.0.1:1", "http://[::1]:1/x", "http://localhost"] {
            assert!(check_endpoint(&SSM, endpoint).is_ok(), "{endpoint}");
        }
        for endpoint in ["http://10.0.0.1", "http://localhost.evil", "http://0.0.0.0", "http://127.0.0.1@a"] {
            let checked = check_endpoint(&SSM, endpoint);
            assert!(matches!(checked, Err(AwsError::UnencryptedEndpoint { .. })), "{endpoint} {checked:?}");
        }
        for endpoint in ["", "localhost:1", "ftp://a", "https://", "a b"] {
            let checked = check_endpoint(&SSM, endpoint);
            assert!(matches!(checked, Err(AwsError::BadEndpoint { .. })), "{endpoint} {checked:?}");
        }
    }

    /// Which of the URLs are believed in eu-west-1.
    fn believed<'a>(overrides: &[&str], urls: &[&'a str]) -> Vec<&'a str> {
        let overrides: Vec<_> = overrides.iter().map(ToString::to_string).collect();
        let place = place("eu-west-1", false, false);
        let believe = |url: &&&str| place.check_stream_url(&StreamUrl::new(url).unwrap(), &overrides).is_ok();
        urls.iter().filter(believe).copied().collect()
    }

    const URLS: [&str; 12] = [
        "wss://ssmmessages.eu-west-1.amazonaws.com/v1",
        "wss://SSMMessages-fips.eu-west-1.amazonaws.com/v1",
        "wss://ssmmessages.eu-west-1.api.aws/v1",
        "wss://vpce-1.ssmmessages.eu-west-1.vpce.amazonaws.com/v1",
        "wss://localhost:1/v1",
        "ws://127.0.0.2:1/v1",
        "wss://evil.example/v1",
        // None of the following, ever.
        "ws://ssmmessages.eu-west-1.amazonaws.com/v1",
        "ws://evil.example/v1",
        "ws://10.0.0.1/v1",
        "ws://127.0.0.1.evil.example/v1",
        "ws://0.0.0.0/v1",
    ];

    #[test]
    fn stream_urls_lead_to_session_manager_of_the_region() {
        assert_eq!(believed(&[], &URLS), URLS[..3]);
        let others =
            ["ssmmessages.us-east-1.amazonaws.com", "ssmmessages.eu-west-1.amazonaws.com.evil.example"];
        assert!(others.iter().all(|host| believed(&[], &[&format!("wss://{host}/")]).is_empty()));
    }

    #[test]
    fn an_interface_endpoint_makes_interface_endpoints_believable() {
        let endpoint = "https://vpce-2.ssm.eu-west-1.vpce.amazonaws.com";
        assert_eq!(believed(&[endpoint], &URLS), URLS[..4]);
    }

    /// Anybody can offer an endpoint service of their own, whose names end as those of AWS's services do.
    #[test]
    fn an_interface_endpoint_is_believed_if_it_is_one_of_the_message_gateway() {
        let endpoint = "https://vpce-2.ssm.eu-west-1.vpce.amazonaws.com";
        let hosts = [
            "vpce-0a1b-2c3d.ssmmessages.eu-west-1.vpce.amazonaws.com",
            "VPCE-0a1b-2c3d-eu-west-1a.SSMMessages.eu-west-1.vpce.amazonaws.com",
            "vpce-0a1b-2c3d.ssmmessages-fips.eu-west-1.vpce.amazonaws.com",
            // None of the following.
            "vpce-0a1b-2c3d.vpce-svc-0d1e2f.eu-west-1.vpce.amazonaws.com",
            "ssmmessages.vpce-svc-0d1e2f.eu-west-1.vpce.amazonaws.com",
            "vpce-1.ssmmessages.vpce-svc-0d1e2f.eu-west-1.vpce.amazonaws.com",
            "vpce-1-ssmmessages.eu-west-1.vpce.amazonaws.com",
            "ssmmessages.eu-west-1.vpce.amazonaws.com",
            ".ssmmessages.eu-west-1.vpce.amazonaws.com",
            "vpce-1.ssm.eu-west-1.vpce.amazonaws.com",
            "vpce-1.ssmmessages.us-east-1.vpce.amazonaws.com",
            "vpce-1.ssmmessages.evil.vpce.amazonaws.com",
            "vpce-1.ssmmessages.evil.eu-west-1.vpce.amazonaws.com",
            "vpce-1.evil.ssmmessages.eu-west-1.vpce.amazonaws.com",
            "vpce-1.ssmmessages-evil.eu-west-1.vpce.amazonaws.com",
            "vpce-1.ssmmessages.eu-west-1.vpce.amazonaws.com.",
            "vpce-1.ssmmessages.eu-west-1.vpce.amazonaws.com.evil.example",
            "vpce-1.ssmmessages.eu-west-1.vpce.api.aws",
            "evil-1.ssmmessages.eu-west-1.vpce.amazonaws.com",
            "ssmmessages.vpce-1.eu-west-1.vpce.amazonaws.com",
        ];
        let urls = hosts.map(|host| format!("wss://{host}/v1"));
        assert_eq!(believed(&[endpoint], &urls.each_ref().map(String::as_str)), urls[..3]);
    }

    /// A dot at the end makes a name absolute; it does not make another host of it.
    #[test]
    fn an_endpoint_at_aws_is_known_in_whatever_form_it_is_written() {
        for endpoint in
            ["https://vpce-2.ssm.eu-west-1.vpce.amazonaws.com.", "https://SSM.eu-west-1.AmazonAWS.com.:443/"]
        {
            assert_eq!(believed(&[endpoint], &URLS), URLS[..4], "{endpoint}");
        }
    }

    #[test]
    fn an_endpoint_of_the_users_own_may_lead_anywhere_encrypted() {
        assert_eq!(believed(&["http://127.0.0.1:5000"], &URLS), URLS[..7]);
        // It does not pass for AWS by looking similar.
        assert_eq!(believed(&["https://evilamazonaws.com"], &URLS), URLS[..7]);
    }
}
