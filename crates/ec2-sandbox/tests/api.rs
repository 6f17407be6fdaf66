//! The region as its clients meet it: over TCP, signed by code that is not the region's.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

mod client;

use std::time::{Duration, Instant};

use ec2_sandbox::{Options, Region, SessionState};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::client::{Client, Reply, query};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
const HEALTHY: &str = "i-0decaf00000000001";

async fn region() -> (Region, Client) {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

async fn start_session(client: &Client, target: &str) -> Reply {
    let input = json!({"Target": target, "DocumentName": "AWS-StartSSHSession"});
    client.ssm("StartSession", &input).await
}

#[tokio::test]
async fn a_session_is_started_resumed_and_terminated() {
    let (region, client) = region().await;
    let started = start_session(&client, HEALTHY).await;
    assert_eq!(started.status, 200);
    let id = started.text("SessionId");
    assert!(started.text("StreamUrl").starts_with(&format!(
        "{}/v1/data-channel/{id}?role=publish_subscribe&cell-number=",
        region.endpoint().replace("http", "ws")
    )));
    assert!(!region.sessions_ended(Duration::ZERO).await);

    let resumed = client.ssm("ResumeSession", &json!({"SessionId": id})).await;
    assert_eq!(resumed.text("StreamUrl"), started.text("StreamUrl"));
    assert_ne!(resumed.text("TokenValue"), started.text("TokenValue"));

    let terminated = client.ssm("TerminateSession", &json!({"SessionId": id})).await;
    assert_eq!(terminated.text("SessionId"), id);
    assert!(region.sessions_ended(Duration::ZERO).await);
    let resumed = client.ssm("ResumeSession", &json!({"SessionId": id})).await;
    assert_eq!((resumed.status, resumed.text("TokenValue").as_str()), (200, ""));
    let again = client.ssm("TerminateSession", &json!({"SessionId": id})).await;
    assert_eq!(again.code(), "ValidationException");

    let [session] = &region.sessions()[..] else { panic!("one session") };
    assert_eq!(
        (session.target.as_str(), session.port, session.state),
        (HEALTHY, 22, SessionState::Terminated)
    );
}

#[tokio::test]
async fn waiting_for_the_end_of_sessions_wakes_when_the_last_one_ends() {
    let (region, client) = region().await;
    let id = start_session(&client, HEALTHY).await.text("SessionId");
    let input = json!({"SessionId": id});
    let (ended, terminated) =
        tokio::join!(region.sessions_ended(Duration::from_secs(30)), client.ssm("TerminateSession", &input));
    assert!(ended);
    assert_eq!(terminated.status, 200);
}

#[tokio::test]
async fn each_failing_instance_fails_in_its_own_way() {
    let (_region, client) = region().await;
    for (id, code, message) in [
        ("i-0dead000000000001", "TargetNotConnected", "i-0dead000000000001 is not connected."),
        ("i-0dead000000000002", "TargetNotConnected", "i-0dead000000000002 is not connected."),
        ("i-0123456789abcdef0", "TargetNotConnected", "i-0123456789abcdef0 is not connected."),
        (
            "i-0dead000000000006",
            "AccessDeniedException",
            "User: arn:aws:sts::123456789012:assumed-role/sandbox/you is not authorized to perform: \
             ssm:StartSession on resource: arn:aws:ec2:us-east-1:123456789012:instance/i-0dead000000000006 \
             because no identity-based policy allows the ssm:StartSession action",
        ),
        ("i-0dead000000000008", "ThrottlingException", "Rate exceeded"),
        ("i-0dead000000000008", "ThrottlingException", "Rate exceeded"),
        ("i-0dead000000000009", "ThrottlingException", "Rate exceeded"),
    ] {
        let reply = start_session(&client, id).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, code), "{id}");
        assert_eq!(reply.text("Message"), message);
    }
    assert_eq!(start_session(&client, "i-0dead000000000008").await.status, 200);
}

#[tokio::test]
async fn a_session_that_may_not_be_ended_stays() {
    let (region, client) = region().await;
    let id = start_session(&client, "i-0dead000000000007").await.text("SessionId");
    for operation in ["ResumeSession", "TerminateSession"] {
        let reply = client.ssm(operation, &json!({"SessionId": id})).await;
        assert_eq!(reply.code(), "AccessDeniedException");
        assert!(reply.text("Message").contains(&format!("arn:aws:ssm:us-east-1:123456789012:session/{id} ")));
    }
    assert!(!region.sessions_ended(Duration::ZERO).await);
}

#[tokio::test]
async fn malformed_session_requests_are_refused() {
    let (_region, client) = region().await;
    let ssh = |extra: serde_json::Value| {
        let mut input = json!({"Target": HEALTHY, "DocumentName": "AWS-StartSSHSession"});
        input.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        input
    };
    for (input, code) in [
        (json!({}), "ValidationException"),
        (json!({"Target": HEALTHY}), "InvalidDocument"),
        (ssh(json!({"Reason": ""})), "ValidationException"),
        (ssh(json!({"Reason": "two\nlines"})), "ValidationException"),
        (ssh(json!({"Parameters": {"portNumber": "22"}})), "com.amazon.coral.service#SerializationException"),
        (ssh(json!({"Parameters": {"portNumber": ["0"]}})), "InvalidParameters"),
    ] {
        assert_eq!(client.ssm("StartSession", &input).await.raw_code(), code, "{input}");
    }
    let unknown = client.ssm("ResumeSession", &json!({"SessionId": "you-0"})).await;
    assert_eq!(unknown.code(), "DoesNotExistException");
    assert_eq!(client.ssm("SendCommand", &json!({})).await.code(), "UnknownOperationException");
}

#[tokio::test]
async fn keys_are_taken_for_instances_that_run() {
    let (_region, client) = region().await;
    let push = async |id: &str, user: &str, key: &str, zone: Option<&str>| {
        let mut input = json!({"InstanceId": id, "InstanceOSUser": user, "SSHPublicKey": key});
        if let Some(zone) = zone {
            input["AvailabilityZone"] = json!(zone);
        }
        client.instance_connect("SendSSHPublicKey", &input).await
    };
    let taken = push(HEALTHY, "ec2-user", KEY, None).await;
    assert_eq!((taken.status, &taken.json()["Success"]), (200, &json!(true)));
    assert_eq!(push(HEALTHY, "ec2-user", KEY, Some("us-east-1a")).await.status, 200);
    assert_eq!(push("i-0dead000000000003", "ec2-user", KEY, None).await.status, 200);
    for (id, user, key, zone, code) in [
        (HEALTHY, "ec2-user", KEY, Some("us-east-1z"), "InvalidArgsException"),
        (HEALTHY, "1000", KEY, None, "InvalidArgsException"),
        (HEALTHY, "ec2-user", "ssh-ed25519", None, "InvalidArgsException"),
        ("i-0123456789abcdef0", "ec2-user", KEY, None, "EC2InstanceNotFoundException"),
        ("i-0dead000000000001", "ec2-user", KEY, None, "EC2InstanceStateInvalidException"),
        ("i-0dead000000000005", "ec2-user", KEY, None, "AccessDeniedException"),
    ] {
        let reply = push(id, user, key, zone).await;
        assert_eq!(reply.raw_code(), format!("com.amazonaws.ec2instanceconnect#{code}"), "{id} {user}");
    }
}

#[tokio::test]
async fn every_instance_is_found_page_by_page() {
    let (region, client) = region().await;
    let expected: Vec<_> = region.instances().iter().map(|instance| instance.id.to_owned()).collect();
    let (mut ids, mut token) = (Vec::new(), None::<String>);
    loop {
        let reply = client.ssm("DescribeInstanceInformation", &json!({"NextToken": token})).await;
        let page = reply.json();
        let list = page["InstanceInformationList"].as_array().unwrap();
        ids.extend(list.iter().map(|item| item["InstanceId"].as_str().unwrap().to_owned()));
        token = page["NextToken"].as_str().map(str::to_owned);
        if token.is_none() {
            break;
        }
    }
    assert_eq!(ids, expected);

    let (mut ids, mut token) = (Vec::new(), None::<String>);
    loop {
        let mut input = vec![("Action", "DescribeInstances"), ("Version", "2016-11-15"), ("MaxResults", "5")];
        input.extend(token.as_deref().map(|token| ("NextToken", token)));
        let reply = client.ec2(&input).await;
        ids.extend(reply.elements("instanceId"));
        token = reply.elements("nextToken").pop();
        if token.is_none() {
            break;
        }
    }
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn instances_are_found_by_filter() {
    let (_region, client) = region().await;
    let found = async |filters: &[(&str, &str)]| {
        let mut input = vec![("Action".to_owned(), "DescribeInstances".to_owned())];
        for (number, (name, value)) in (1..).zip(filters) {
            input.push((format!("Filter.{number}.Name"), (*name).to_owned()));
            input.push((format!("Filter.{number}.Value.1"), (*value).to_owned()));
        }
        client.ec2(&input).await.elements("instanceId")
    };
    assert_eq!(found(&[("tag:Name", "web-*")]).await, ["i-0decaf00000000001", "i-0decaf00000000002"]);
    assert_eq!(found(&[("instance-state-name", "stopped")]).await, ["i-0dead000000000001"]);
    assert_eq!(found(&[("private-ip-address", "10.0.0.13")]).await, ["i-0decaf00000000003"]);
    assert_eq!(found(&[("ip-address", "203.0.113.12")]).await, ["i-0decaf00000000002"]);
    assert_eq!(found(&[("private-dns-name", "ip-10-0-0-11.ec2.internal")]).await, [HEALTHY]);
    assert!(found(&[("tag:Name", "web-1"), ("instance-state-name", "stopped")]).await.is_empty());

    let reply = client.ec2(&[("Action", "DescribeInstances"), ("Filter.1.Name", "colour")]).await;
    assert_eq!(reply.elements("Code"), ["InvalidParameterValue"]);
    let reply = client.ec2(&[("Action", "DescribeInstances"), ("InstanceId.1", "i-0123456789abcdef0")]).await;
    assert_eq!(reply.elements("Code"), ["InvalidInstanceID.NotFound"]);
    let reply = client.ec2(&[("Action", "RunInstances")]).await;
    assert_eq!(reply.elements("Code"), ["InvalidAction"]);
}

#[tokio::test]
async fn instances_are_told_apart_by_the_state_of_their_ssm_agent() {
    let (_region, client) = region().await;
    let lost = json!({"Filters": [{"Key": "PingStatus", "Values": ["ConnectionLost"]}]});
    let reply = client.ssm("DescribeInstanceInformation", &lost).await.json();
    let ids = reply["InstanceInformationList"].as_array().unwrap().iter().map(|item| &item["InstanceId"]);
    assert_eq!(ids.collect::<Vec<_>>(), ["i-0dead000000000001", "i-0dead000000000002"]);
    for (target, status) in [(HEALTHY, "connected"), ("i-0dead000000000002", "notconnected")] {
        let reply = client.ssm("GetConnectionStatus", &json!({"Target": target})).await;
        assert_eq!(reply.text("Status"), status);
    }
}

#[tokio::test]
async fn the_caller_learns_who_it_is() {
    let (_region, client) = region().await;
    let reply = client.post("sts", None, &query(&[("Action", "GetCallerIdentity")])).await;
    assert_eq!(reply.elements("Arn"), ["arn:aws:sts::123456789012:assumed-role/sandbox/you"]);
    assert_eq!(reply.elements("Account"), ["123456789012"]);
}

#[tokio::test]
async fn every_service_refuses_wrong_credentials_in_its_own_words() {
    let (region, good) = region().await;
    let (mut secret, mut id, mut token) = (good.clone(), good.clone(), good.clone());
    secret.secret_access_key.push('x');
    id.access_key_id.push('X');
    token.session_token = None;
    let ec2 = ["AuthFailure"; 3];
    let sts = ["SignatureDoesNotMatch", "InvalidClientTokenId", "InvalidClientTokenId"];
    let json = ["InvalidSignatureException", "UnrecognizedClientException", "UnrecognizedClientException"];
    for (case, client) in [&secret, &id, &token].into_iter().enumerate() {
        let reply = client.ec2(&[("Action", "DescribeInstances")]).await;
        assert_eq!((reply.status, reply.elements("Code")), (401, vec![ec2[case].to_owned()]));
        let reply = client.post("sts", None, &query(&[("Action", "GetCallerIdentity")])).await;
        assert_eq!((reply.status, reply.elements("Code")), (403, vec![sts[case].to_owned()]));
        let reply = start_session(client, HEALTHY).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, json[case]));
        let reply = client.instance_connect("SendSSHPublicKey", &json!({})).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, json[case]));
    }
    assert!(region.sessions().is_empty());

    region.expire_credentials();
    assert_eq!(start_session(&good, HEALTHY).await.code(), "ExpiredTokenException");
}

#[tokio::test]
async fn an_unsigned_call_is_refused() {
    let (_region, client) = region().await;
    let target = [("x-amz-target", "AmazonSSM.StartSession")];
    let reply = client.send("POST", "/", &target, "{}").await;
    assert_eq!(reply.raw_code(), "com.amazon.coral.service#MissingAuthenticationTokenException");
    assert_eq!(reply.header("x-amzn-requestid").map(str::len), Some(36));
    let reply = client.send("POST", "/", &[], "Action=DescribeInstances&Version=2016-11-15").await;
    assert_eq!(reply.elements("Code"), ["MissingAuthenticationToken"]);
    let reply = client.send("POST", "/", &[], &"a".repeat(1024 * 1024 + 1)).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn a_data_channel_opens_unsigned_or_rightly_signed() {
    let (region, client) = region().await;
    let url = start_session(&client, HEALTHY).await.text("StreamUrl");
    let path = url.strip_prefix(&region.endpoint().replace("http", "ws")).unwrap();
    let upgrade = async |client: &Client, path: &str, signed: bool| {
        let signature = if signed { client.sign("GET", path, "ssmmessages", &[], "") } else { vec![] };
        let mut headers: Vec<_> = signature.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        headers.extend([("upgrade", "websocket"), ("connection", "upgrade")]);
        headers.extend([("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
        client.send("GET", path, &headers, "").await
    };
    assert_eq!(upgrade(&client, path, false).await.status, 101);
    assert_eq!(upgrade(&client, path, true).await.status, 101);

    let mut wrong = client.clone();
    wrong.secret_access_key.push('x');
    let refused = upgrade(&wrong, path, true).await;
    assert_eq!(refused.status, 403);
    assert!(refused.body.starts_with("The request signature we calculated does not match"));
    assert_eq!(upgrade(&client, &path.replace('+', "%2B"), true).await.status, 403);
    assert_eq!(client.send("GET", path, &[], "").await.status, 400);
}

#[tokio::test]
async fn latency_is_added_to_every_call() {
    let latency = Duration::from_millis(30);
    let region = Region::start(Options { latency, ..Options::default() }).await.unwrap();
    let before = Instant::now();
    start_session(&Client::new(&region), HEALTHY).await;
    assert!(before.elapsed() >= latency);
}

#[tokio::test]
async fn a_dropped_region_closes_its_connections_and_its_port() {
    let (region, client) = region().await;
    let address = region.endpoint().strip_prefix("http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).await.unwrap();
    // An answer on a second connection shows that the first one has been accepted.
    start_session(&client, HEALTHY).await;
    drop(region);
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(TcpStream::connect(&address).await.is_err());
}
