use http::HeaderValue;

use super::*;

const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
const UPGRADE: &str =
    "/v1/data-channel/user-0123456789abcdef0?role=publish_subscribe&cell-number=AAEAAd+bc/dE==";

fn credentials(session_token: Option<&str>) -> Credentials {
    Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: SECRET.to_owned(),
        session_token: session_token.map(str::to_owned),
    }
}

fn at(date: &str) -> SystemTime {
    calendar::parse_basic(date).unwrap()
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let pairs = pairs
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()));
    pairs.collect()
}

fn authorization(scope: &str, signed_headers: &str, signature: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/{scope}/aws4_request, SignedHeaders={signed_headers}, \
         Signature={signature}"
    )
}

/// The upgrade of docs/protocol.md, section 2.6, with signatures made by AWS's Go signer.
fn upgrade(session_token: Option<&str>) -> HeaderMap {
    let (signed, signature) = match session_token {
        None => ("host;x-amz-date", "7cccc17d66deb4b70714a2858ec908826a14f414c9cad1acbd20be7dfbacf49c"),
        Some(_) => (
            "host;x-amz-date;x-amz-security-token",
            "87b60aaaabd97a008b844baa627c070ddc12eabc05da0219c50fa79b9231317f",
        ),
    };
    let mut headers = headers(&[
        ("host", "ssmmessages.us-west-2.amazonaws.com"),
        ("x-amz-date", "20260102T030405Z"),
        ("sec-websocket-version", "13"),
        ("authorization", &authorization("20260102/us-west-2/ssmmessages", signed, signature)),
    ]);
    if let Some(token) = session_token {
        headers.insert(SECURITY_TOKEN, HeaderValue::from_str(token).unwrap());
    }
    headers
}

fn verify_upgrade(
    headers: &HeaderMap,
    token: Option<&str>,
    uri: &str,
    now: &str,
) -> Result<(), SignatureError> {
    let uri = uri.parse().unwrap();
    let parts = Parts { method: "GET", uri: &uri, headers, body: b"" };
    verify(parts, &credentials(token), "us-west-2", "ssmmessages", at(now))
}

#[test]
fn upgrade_signature_without_session_token_is_accepted() {
    assert_eq!(verify_upgrade(&upgrade(None), None, UPGRADE, "20260102T030405Z"), Ok(()));
}

#[test]
fn upgrade_signature_with_session_token_is_accepted() {
    let token = Some("TOKEN/EX+AMPLE==");
    assert_eq!(verify_upgrade(&upgrade(token), token, UPGRADE, "20260102T030405Z"), Ok(()));
}

#[test]
fn a_url_that_was_encoded_again_does_not_match() {
    let uri = UPGRADE.replace('+', "%2B");
    let verdict = verify_upgrade(&upgrade(None), None, &uri, "20260102T030405Z");
    assert_eq!(verdict, Err(SignatureError::Mismatch));
}

/// `get-vanilla` of AWS's published Signature Version 4 test suite.
#[test]
fn aws_published_example_is_accepted() {
    let signature = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
    let headers = headers(&[
        ("host", "example.amazonaws.com"),
        ("x-amz-date", "20150830T123600Z"),
        ("authorization", &authorization("20150830/us-east-1/service", "host;x-amz-date", signature)),
    ]);
    let uri = "/".parse().unwrap();
    let parts = Parts { method: "GET", uri: &uri, headers: &headers, body: b"" };
    let credentials = Credentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
        session_token: None,
    };
    assert_eq!(verify(parts, &credentials, "us-east-1", "service", at("20150830T123600Z")), Ok(()));
}

#[test]
fn a_clock_may_be_five_minutes_off_and_no_more() {
    let verdict = |now| verify_upgrade(&upgrade(None), None, UPGRADE, now);
    assert_eq!(verdict("20260102T030905Z"), Ok(()));
    assert_eq!(verdict("20260102T025905Z"), Ok(()));
    let late = "Signature expired: 20260102T030405Z is now earlier than 20260102T030406Z (20260102T030906Z - 5 min.)";
    assert_eq!(verdict("20260102T030906Z"), Err(SignatureError::Skew(late.to_owned())));
    assert!(matches!(verdict("20260102T025904Z"), Err(SignatureError::Skew(_))));
}

#[test]
fn unknown_credentials_are_told_from_a_wrong_signature() {
    let now = "20260102T030405Z";
    let token = Some("TOKEN/EX+AMPLE==");
    assert_eq!(verify_upgrade(&upgrade(None), token, UPGRADE, now), Err(SignatureError::UnknownCredentials));
    assert_eq!(verify_upgrade(&upgrade(token), None, UPGRADE, now), Err(SignatureError::UnknownCredentials));
    let mut wrong = upgrade(None);
    let value = authorization("20260102/us-west-2/ssmmessages", "host;x-amz-date", &"0".repeat(64));
    wrong.insert(header::AUTHORIZATION, value.parse().unwrap());
    assert_eq!(verify_upgrade(&wrong, None, UPGRADE, now), Err(SignatureError::Mismatch));
    wrong.remove(header::AUTHORIZATION);
    assert_eq!(verify_upgrade(&wrong, None, UPGRADE, now), Err(SignatureError::Missing));
}

#[test]
fn a_signature_for_elsewhere_is_refused() {
    let headers = upgrade(None);
    let uri = UPGRADE.parse().unwrap();
    let parts = Parts { method: "GET", uri: &uri, headers: &headers, body: b"" };
    let verdict =
        |region, service| verify(parts, &credentials(None), region, service, at("20260102T030405Z"));
    assert_eq!(verdict("eu-west-1", "ssmmessages"), Err(SignatureError::Scope("a valid region")));
    assert_eq!(verdict("us-west-2", "ssm"), Err(SignatureError::Scope("correct service")));
}

#[test]
fn an_unsigned_amz_header_is_refused() {
    let mut headers = upgrade(None);
    headers.insert("x-amz-target", HeaderValue::from_static("AmazonSSM.StartSession"));
    assert_eq!(verify_upgrade(&headers, None, UPGRADE, "20260102T030405Z"), Err(SignatureError::Mismatch));
}

#[test]
fn paths_are_normalised_and_encoded_twice() {
    for (path, canonical) in [
        ("/", "/"),
        ("//", "/"),
        ("/./a/../b/", "/b/"),
        ("/../..", "/"),
        ("/you%40home-0", "/you%2540home-0"),
        ("/you@home-0", "/you%40home-0"),
    ] {
        assert_eq!(canonical_path(path), canonical, "{path}");
    }
}

#[test]
fn queries_are_sorted_and_encoded_once() {
    let query = "role=publish_subscribe&cell-number=AAEAAd+bc/dE==";
    assert_eq!(canonical_query(query), "cell-number=AAEAAd%20bc%2FdE%3D%3D&role=publish_subscribe");
    assert_eq!(canonical_query("b=2&a=%7e&b=1&c"), "a=~&b=1&b=2&c=");
}
