use super::*;
use crate::aws::client::service::{EC2, INSTANCE_CONNECT, SSM, SSO, SSO_OIDC};

fn endpoints_of(region: &str, fips: bool, dual_stack: bool) -> RegionEndpoints {
    RegionEndpoints { region: region.to_owned(), fips, dual_stack }
}

#[test]
fn endpoints_are_those_that_botocore_resolves() {
    for line in include_str!("../endpoints.txt").lines().filter(|line| !line.starts_with('#')) {
        let [service, region, fips, dual_stack, expected] =
            line.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let endpoints = endpoints_of(region, fips == "1", dual_stack == "1");
        let services = [&SSM, &INSTANCE_CONNECT, &EC2, &SSO, &SSO_OIDC];
        let found = match services.into_iter().find(|s| s.prefix == service) {
            Some(service) => endpoints.endpoint(service),
            None => endpoints.sign_in_endpoint(),
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
        let found = endpoints_of(region, false, false).usual_region();
        assert_eq!(found, usual);
        assert_eq!(endpoints_of(found, false, false).usual_region(), usual, "it is of the same partition");
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

/// The URLs that are trusted in eu-west-1.
fn trusted<'a>(configured: &[&str], urls: &[&'a str]) -> Vec<&'a str> {
    let configured: Vec<_> = configured.iter().map(ToString::to_string).collect();
    let endpoints = endpoints_of("eu-west-1", false, false);
    let is_trusted =
        |url: &&&str| endpoints.check_stream_url(&StreamUrl::new(url).unwrap(), &configured).is_ok();
    urls.iter().filter(is_trusted).copied().collect()
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
    assert_eq!(trusted(&[], &URLS), URLS[..3]);
    let others = ["ssmmessages.us-east-1.amazonaws.com", "ssmmessages.eu-west-1.amazonaws.com.evil.example"];
    assert!(others.iter().all(|host| trusted(&[], &[&format!("wss://{host}/")]).is_empty()));
}

#[test]
fn an_interface_endpoint_makes_interface_endpoints_believable() {
    let endpoint = "https://vpce-2.ssm.eu-west-1.vpce.amazonaws.com";
    assert_eq!(trusted(&[endpoint], &URLS), URLS[..4]);
}

/// Any account can offer an endpoint service, whose names end like those of AWS's services.
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
    assert_eq!(trusted(&[endpoint], &urls.each_ref().map(String::as_str)), urls[..3]);
}

/// A dot at the end makes a name absolute; it does not make another host of it.
#[test]
fn an_endpoint_at_aws_is_known_in_whatever_form_it_is_written() {
    for endpoint in
        ["https://vpce-2.ssm.eu-west-1.vpce.amazonaws.com.", "https://SSM.eu-west-1.AmazonAWS.com.:443/"]
    {
        assert_eq!(trusted(&[endpoint], &URLS), URLS[..4], "{endpoint}");
    }
}

#[test]
fn an_endpoint_of_the_users_own_may_lead_anywhere_encrypted() {
    assert_eq!(trusted(&["http://127.0.0.1:5000"], &URLS), URLS[..7]);
    // It does not pass for AWS by looking similar.
    assert_eq!(trusted(&["https://evilamazonaws.com"], &URLS), URLS[..7]);
}
