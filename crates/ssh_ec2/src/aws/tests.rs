//! Calls against a server on loopback: the requests, and what each kind of response becomes.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_types::service_config::{LoadServiceConfig, ServiceConfigKey};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::aws::calls::session::SessionTicket;
use crate::aws::client::endpoint::RegionEndpoints;
use crate::aws::client::http_client;
use crate::aws::client::operation::ApiClient;
use crate::aws::client::request_id::RequestId;
use crate::aws::credentials::cache::{CredentialCache, Provider};
use crate::net::network::{Network, NetworkEnvironment};
use crate::net::websocket::StreamUrl;
use crate::target::SessionTarget;

#[derive(Debug)]
struct Fixed(String);

impl LoadServiceConfig for Fixed {
    fn load_config(&self, _: ServiceConfigKey<'_>) -> Option<String> {
        Some(self.0.clone())
    }
}

fn aws(endpoint: String) -> Aws {
    let network = Network::new(&NetworkEnvironment::default()).unwrap();
    let connections = Connections::default();
    let retries = RetryConfig::standard().with_initial_backoff(Duration::from_millis(1));
    let sdk = SdkConfig::builder()
        .behavior_version(BehaviorVersion::v2026_01_12())
        .http_client(http_client::http_client(&network, &connections))
        .retry_config(retries)
        .timeout_config(TimeoutConfig::builder().operation_timeout(Duration::from_secs(5)).build())
        .service_config(Fixed(endpoint))
        .build();
    let credentials = Credentials::new("AKID", "secret", Some("session".into()), None, "test");
    Aws {
        client: ApiClient::new(sdk.clone(), "eu-west-1"),
        credentials: CredentialCache::new(
            Provider::Sdk(SharedCredentialsProvider::new(credentials)),
            SignIn::Environment,
        ),
        endpoints: RegionEndpoints { region: "eu-west-1".into(), fips: false, dual_stack: false },
        profile: None,
        access_key: String::new(),
        sdk,
        connections,
        limit: None,
        patience: Duration::ZERO,
    }
}

/// A whole response, with `headers` that end in CRLF each.
fn answer(status: u16, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} x\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    )
}

/// Answers as many requests as there are answers. Returns the result of the calls, and the requests.
async fn with_answers<T>(answers: &[String], calls: impl AsyncFnOnce(&Aws) -> T) -> (T, Vec<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let aws = aws(format!("http://{}", listener.local_addr().unwrap()));
    let serve = async {
        let mut requests = Vec::new();
        for answer in answers {
            let (mut client, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !is_whole(&request) {
                assert_ne!(client.read_buf(&mut request).await.unwrap(), 0);
            }
            requests.push(String::from_utf8(request).unwrap());
            client.write_all(answer.as_bytes()).await.unwrap();
        }
        requests
    };
    let both = async { tokio::join!(calls(&aws), serve) };
    timeout(Duration::from_secs(10), both).await.expect("as many calls as answers")
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    body.len() == length.parse::<usize>().unwrap()
}

fn header<'a>(request: &'a str, name: &str) -> &'a str {
    request.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap()
}

async fn start(aws: &Aws) -> Result<SessionTicket, AwsError> {
    let target = SessionTarget::Instance("i-0a1b2c3d".parse().unwrap());
    let parameters = [("portNumber", vec!["22".to_owned()])].into();
    let request = StartSession { target: &target, document: Document::Ssh, parameters, reason: Some("") };
    aws.start_session(&request).await
}

const TICKET: &str = r#"{"SessionId":"me@x-0","TokenValue":"secret token","StreamUrl":"ws://127.0.0.1:9/v1?cell-number=A+b/c=="}"#;

#[tokio::test]
async fn a_started_session_is_a_ticket_and_shows_no_secret() {
    let answers = [answer(200, "", TICKET)];
    let (ticket, requests) = with_answers(&answers, start).await;
    let ticket = ticket.unwrap();
    assert_eq!(ticket.session_id.as_str(), "me@x-0");
    assert_eq!(ticket.stream_url.path_and_query(), "/v1?cell-number=A+b/c==");
    assert_eq!(ticket.token.expose(), "secret token");
    assert!(!format!("{ticket:?}").contains("secret") && !format!("{ticket:?}").contains("cell"));

    assert!(requests[0].starts_with("POST / HTTP/1.1\r\n"));
    assert_eq!(header(&requests[0], "x-amz-target"), "AmazonSSM.StartSession");
    assert_eq!(header(&requests[0], "content-type"), "application/x-amz-json-1.1");
    assert_eq!(header(&requests[0], "x-amz-security-token"), "session");
    assert!(header(&requests[0], "authorization").contains("/eu-west-1/ssm/aws4_request"));
    assert!(requests[0].ends_with(
        r#"{"Target":"i-0a1b2c3d","DocumentName":"AWS-StartSSHSession","Parameters":{"portNumber":["22"]}}"#
    ));
}

#[tokio::test]
async fn a_machine_may_be_on_a_later_page() {
    let id = "i-0a1b2c3d".parse().unwrap();
    let first = r#"{"InstanceInformationList":[],"NextToken":"more"}"#;
    let second =
        r#"{"InstanceInformationList":[{"InstanceId":"i-0a1b2c3d","PingStatus":"Online"}],"NextToken":""}"#;
    let answers = [answer(200, "", first), answer(200, "", second)];
    let (found, requests) = with_answers(&answers, async |aws| aws.managed(&id).await).await;
    assert!(found.unwrap().unwrap().online);
    assert!(requests[1].contains(r#""NextToken":"more""#), "{}", requests[1]);
    let answers = [answer(200, "", first), answer(200, "", r#"{"NextToken":""}"#)];
    let (found, _) = with_answers(&answers, async |aws| aws.managed(&id).await).await;
    assert_eq!(found.unwrap(), None);
}

#[tokio::test]
async fn a_key_is_pushed_for_a_user() {
    let answers = [
        answer(200, "", r#"{"RequestId":"r-2","Success":true}"#),
        answer(200, "x-amzn-requestid: r-1\r\n", r#"{"Success":true}"#),
    ];
    let (pushed, requests) = with_answers(&answers, async |aws| {
        let (instance, user) = ("i-0a1b2c3d".parse().unwrap(), "ubuntu".parse().unwrap());
        let push = || aws.push_key(&instance, &user, "ssh-ed25519 AAAA me\n");
        [push().await.unwrap(), push().await.unwrap()]
    })
    .await;
    assert_eq!(pushed.each_ref().map(RequestId::as_str), ["r-2", "r-1"]);
    assert_eq!(header(&requests[0], "x-amz-target"), "AWSEC2InstanceConnectService.SendSSHPublicKey");
    assert!(requests[0].ends_with(
        r#"{"InstanceId":"i-0a1b2c3d","InstanceOSUser":"ubuntu","SSHPublicKey":"ssh-ed25519 AAAA me"}"#
    ));
}

#[tokio::test]
async fn throttling_and_server_errors_are_retried() {
    let throttled = answer(400, "x-amzn-errortype: ThrottlingException:http://x/\r\n", "{}");
    let answers = [throttled.clone(), answer(500, "", "oops"), answer(200, "", TICKET)];
    let (ticket, _) = with_answers(&answers, start).await;
    ticket.unwrap();
    let answers = [throttled.clone(), throttled.clone(), throttled];
    let (error, _) = with_answers(&answers, start).await;
    assert!(matches!(error, Err(AwsError::Throttled { .. })), "{error:?}");
}

#[tokio::test]
async fn a_session_that_cannot_go_on_is_expired_and_not_an_error() {
    let stream_url = StreamUrl::new("wss://old.example/v1").unwrap();
    let gone = r#"{"__type":"DoesNotExistException","Message":"no such session"}"#;
    let no_url = r#"{"SessionId":"s-1","TokenValue":"t"}"#;
    let answers = [
        answer(200, "", TICKET),
        answer(200, "", r#"{"TokenValue":""}"#),
        answer(400, "", gone),
        answer(200, "", no_url),
    ];
    let (resumed, _) = with_answers(&answers, async |aws| {
        let session = start(aws).await.unwrap().session_id;
        let mut resumed = Vec::new();
        for _ in 0..3 {
            resumed.push(aws.resume_session(&session, &stream_url).await.unwrap());
        }
        resumed
    })
    .await;
    assert!(matches!(resumed[0], Resumption::Expired) && matches!(resumed[1], Resumption::Expired));
    let Resumption::Ticket(ticket) = &resumed[2] else { panic!("{resumed:?}") };
    assert_eq!(ticket.stream_url, stream_url);
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_not_quoted() {
    for body in ["{}", r#"{"TokenValue":"secret","SessionId":"a\nb","StreamUrl":"x"}"#, r#"["secret"]"#] {
        let answers = [answer(200, "", body)];
        let (error, _) = with_answers(&answers, start).await;
        let error = error.unwrap_err();
        assert!(matches!(error, AwsError::Malformed { .. }), "{body}: {error:?}");
        assert!(!format!("{error:?}").contains("secret"));
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_for_calls_and_for_the_upgrade() {
    let ahead = SystemTime::now() + Duration::from_secs(3 * 3600);
    let date = DateTime::from(ahead).fmt(Format::HttpDate).unwrap();
    let date = format!("date: {date}\r\n");
    let wrong = answer(400, &date, r#"{"__type":"InvalidSignatureException","message":"Signature expired"}"#);
    let answers = [wrong, answer(200, &date, TICKET)];
    let (headers, requests) = with_answers(&answers, async |aws| {
        let ticket = start(aws).await.unwrap();
        aws.sign_upgrade(&ticket.stream_url).await.unwrap()
    })
    .await;
    // In minutes of the day, give or take the time that the test takes.
    let minute = |date: &str| date[9..11].parse::<u32>().unwrap() * 60 + date[11..13].parse::<u32>().unwrap();
    let first = minute(header(&requests[0], "x-amz-date"));
    let is_ahead = |date: &str| (178..=182).contains(&((minute(date) + 1440 - first) % 1440));
    assert!(is_ahead(header(&requests[1], "x-amz-date")));
    let (_, signed) = headers.iter().find(|(name, _)| name == "x-amz-date").unwrap();
    assert!(is_ahead(signed.to_str().unwrap()));
}

#[tokio::test]
async fn a_dead_endpoint_is_named_with_its_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let aws = aws(format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let error = start(&aws).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot reach 127.0.0.1");
    assert!(!error.is_permanent() && std::error::Error::source(&error).is_some());
}

#[tokio::test]
async fn a_websocket_elsewhere_gets_no_signature() {
    let url = StreamUrl::new("wss://evil.example/v1").unwrap();
    let aws = aws("https://ssm.eu-west-1.amazonaws.com".into());
    let error = aws.sign_upgrade(&url).await.unwrap_err();
    assert!(matches!(error, AwsError::UntrustedStreamUrl { .. }), "{error:?}");
}

const CALLER: &str = "<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/me</Arn>\
    <UserId>AIDA</UserId><Account>123456789012</Account></GetCallerIdentityResult></GetCallerIdentityResponse>";
const UNKNOWN: &str =
    "<ErrorResponse><Error><Code>InvalidClientTokenId</Code><Message>no</Message></Error></ErrorResponse>";

#[tokio::test]
async fn rejected_credentials_are_tried_in_the_usual_region() {
    for (status, body, known) in [(200, CALLER, true), (403, UNKNOWN, false)] {
        let answers = [answer(status, "", body)];
        let (found, requests) = with_answers(&answers, async |aws| aws.is_known_elsewhere().await).await;
        assert_eq!(found, known);
        assert!(header(&requests[0], "authorization").contains("/us-east-1/sts/"), "{requests:?}");
    }
    let (found, _) = with_answers(&[], async |aws| {
        let off = aws.has_region_off().await;
        off || aws.in_region("us-east-1").unwrap().is_known_elsewhere().await
    })
    .await;
    assert!(!found, "neither with an endpoint of the user's, nor in that region itself");
}

/// A port on which nothing listens.
async fn unused() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap())
}

#[tokio::test]
async fn a_host_that_refuses_connections_is_distinguished_from_a_silent_one() {
    let instance = "i-0a1b2c3d".parse().unwrap();
    let refused = aws(unused().await).console_output(&instance, Latest::No).await;
    assert!(matches!(refused, Err(AwsError::NoConnection { .. })), "{refused:?}");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let aws = aws(url).with_limit(Duration::from_millis(200));
    let silent = aws.console_output(&instance, Latest::No).await;
    assert!(matches!(silent, Err(AwsError::Unreachable { .. })), "{silent:?}");
    drop(listener);
    let gone = aws.console_output(&instance, Latest::No).await;
    assert!(matches!(gone, Err(AwsError::Unreachable { .. })), "it was there before: {gone:?}");
}
