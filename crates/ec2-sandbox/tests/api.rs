//! The region as clients use it: over TCP, with requests signed by other code than the region's.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

mod client;
mod command;
mod credentials;
mod identity_center;
mod opening;
mod pages;
mod policy;
mod strict;

use std::time::{Duration, Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use ec2_sandbox::{Faults, Options, Region, SessionState};
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpStream};

use crate::client::{Client, Reply, with_faults, without_quota};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
const HEALTHY: &str = "i-0decaf00000000001";
const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
const EUROPEAN: &str = "i-0decaf0000000000a";

async fn region() -> (Region, Client) {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

/// The ids of the instances of the home region.
fn home_ids(region: &Region) -> Vec<String> {
    let instances = region.instances().into_iter().filter(|instance| instance.region == "us-east-1");
    instances.map(|instance| instance.id).collect()
}

/// Sorts ids, since lists of instances have no fixed order.
fn in_order(mut ids: Vec<String>) -> Vec<String> {
    ids.sort();
    ids
}

async fn start_session(client: &Client, target: &str) -> Reply {
    let input = json!({"Target": target, "DocumentName": "AWS-StartSSHSession"});
    client.ssm("StartSession", &input).await
}

async fn upgrade(client: &Client, path: &str, signed: bool) -> Reply {
    let signature = if signed { client.sign("GET", path, "ssmmessages", &[], "") } else { vec![] };
    let mut headers: Vec<_> = signature.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    headers.extend([("upgrade", "websocket"), ("connection", "upgrade")]);
    headers.extend([("sec-websocket-version", "13"), ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]);
    client.send("GET", path, &headers, "").await
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
    let (_region, client) = without_quota().await;
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
    let (_region, client) = without_quota().await;
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
        ("i-0dead000000000012", "ec2-user", KEY, None, "EC2InstanceStateInvalidException"),
        ("i-0dead00000000001b", "ec2-user", KEY, None, "EC2InstanceStateInvalidException"),
        ("i-0dead000000000005", "ec2-user", KEY, None, "AccessDeniedException"),
    ] {
        let reply = push(id, user, key, zone).await;
        assert_eq!(reply.raw_code(), format!("com.amazonaws.ec2instanceconnect#{code}"), "{id} {user}");
    }
}

/// The instances that Session Manager does not list.
const UNREGISTERED: [&str; 5] = [
    "i-0dead000000000012",
    "i-0dead000000000013",
    "i-0dead000000000014",
    "i-0dead00000000001b",
    "i-0dead00000000001e",
];

#[tokio::test]
async fn every_instance_is_found_page_by_page() {
    let (region, client) = region().await;
    let expected = home_ids(&region);
    let registered: Vec<_> =
        expected.iter().map(String::as_str).filter(|id| !UNREGISTERED.contains(id)).collect();
    let agents = client.agents(&json!([])).await;
    let ids: Vec<_> = agents.iter().map(|item| item["InstanceId"].as_str().unwrap()).collect();
    assert_eq!(ids, registered);
    let pages = client.instance_pages(&[("MaxResults", "5")]).await;
    assert!(pages.len() > 5 && pages.iter().all(|page| page.len() <= 5), "{pages:?}");
    assert_eq!(in_order(pages.concat()), in_order(expected));
}

#[tokio::test]
async fn a_fleet_is_found_in_its_regions() {
    let region = Region::start(Options { fleet: 4800, ..Options::default() }).await.unwrap();
    let client = Client::new(&region).in_region("us-west-2");
    let pages = client.instance_pages(&[]).await;
    // The first page is a short one.
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [4, 1000, 196]);
    for (size, code) in
        [("4", vec!["InvalidParameterValue"]), ("1001", vec!["InvalidParameterValue"]), ("1000", vec![])]
    {
        let reply = client.ec2(&[("Action", "DescribeInstances"), ("MaxResults", size)]).await;
        assert_eq!(reply.elements("Code"), code, "{size}");
    }
    let green = [
        ("Filter.1.Name", "tag:Team"),
        ("Filter.1.Value.1", "green"),
        ("Filter.2.Name", "tag:Name"),
        ("Filter.2.Value.1", "node-000*"),
    ];
    assert_eq!(client.instance_pages(&green).await.concat(), ["i-0f1ee700000000006"]);
    assert_eq!(start_session(&client, "i-0f1ee700000000006").await.status, 200);
}

#[tokio::test]
async fn instances_are_found_by_filter() {
    let (_region, client) = region().await;
    let found = async |filters: &[(&str, &str)]| {
        let names: Vec<_> = (1..=filters.len()).map(|number| format!("Filter.{number}.Name")).collect();
        let values: Vec<_> = (1..=filters.len()).map(|number| format!("Filter.{number}.Value.1")).collect();
        let numbered = names.iter().zip(&values).zip(filters);
        let input = numbered
            .flat_map(|((name, value), filter)| [(name.as_str(), filter.0), (value.as_str(), filter.1)]);
        client.instance_pages(&input.collect::<Vec<_>>()).await.concat()
    };
    assert_eq!(
        found(&[("tag:Name", "web-*")]).await,
        ["i-0decaf00000000001", "i-0decaf00000000002", "i-0decaf00000000004"]
    );
    let stopped = ["i-0dead000000000001", "i-0dead000000000010"];
    assert_eq!(found(&[("instance-state-name", "stopped")]).await, stopped);
    let workers = ["i-0decaf00000000006", "i-0decaf00000000007"];
    assert_eq!(found(&[("tag:aws:autoscaling:groupName", "workers")]).await, workers);
    assert_eq!(found(&[("tag-key", "ssh_ec2:user")]).await, ["i-0decaf00000000005"]);
    for name in ["ipv6-address", "network-interface.ipv6-addresses.ipv6-address"] {
        assert_eq!(found(&[(name, "2001:db8::17")]).await, ["i-0decaf00000000007"]);
    }
    let name = "network-interface.addresses.private-ip-address";
    assert_eq!(found(&[(name, "10.0.0.13")]).await, ["i-0decaf00000000003"]);
    assert_eq!(found(&[("private-ip-address", "10.0.0.13")]).await, ["i-0decaf00000000003"]);
    assert_eq!(found(&[("ip-address", "203.0.113.12")]).await, ["i-0decaf00000000002"]);
    assert_eq!(found(&[("private-dns-name", "ip-10-0-0-11.ec2.internal")]).await, [HEALTHY]);
    assert!(found(&[("tag:Name", "web-1"), ("instance-state-name", "stopped")]).await.is_empty());

    let colour = [("Filter.1.Name", "colour"), ("Filter.1.Value.1", "red")];
    let reply = client.ec2(&[&[("Action", "DescribeInstances")], &colour[..]].concat()).await;
    assert_eq!(reply.elements("Code"), ["InvalidParameterValue"]);
    let reply = client.ec2(&[("Action", "DescribeInstances"), ("InstanceId.1", "i-0123456789abcdef0")]).await;
    assert_eq!(reply.elements("Code"), ["InvalidInstanceID.NotFound"]);
    let reply = client.ec2(&[("Action", "RunInstances")]).await;
    assert_eq!(reply.elements("Code"), ["InvalidAction"]);
}

#[tokio::test]
async fn instances_are_told_apart_by_the_state_of_their_ssm_agent() {
    let (_region, client) = without_quota().await;
    let lost = client.agents(&json!([{"Key": "PingStatus", "Values": ["ConnectionLost"]}])).await;
    assert_eq!(
        lost.iter().map(|item| &item["InstanceId"]).collect::<Vec<_>>(),
        ["i-0dead000000000001", "i-0dead000000000002", "i-0dead000000000010"]
    );
    for target in UNREGISTERED {
        let reply = client.ssm("GetConnectionStatus", &json!({"Target": target})).await;
        assert_eq!(reply.text("Status"), "notconnected");
        assert_eq!(start_session(&client, target).await.code(), "TargetNotConnected");
    }
    let old = client.agents(&json!([{"Key": "AgentVersion", "Values": ["2.3.50.0"]}])).await;
    assert_eq!(old[0]["InstanceId"], "i-0dead000000000015");
    let ubuntu = client.agents(&json!([{"Key": "InstanceIds", "Values": ["i-0decaf00000000004"]}])).await;
    let information = &ubuntu[0];
    assert_eq!(
        (&information["PlatformName"], &information["PlatformVersion"]),
        (&json!("Ubuntu"), &json!("22.04"))
    );
    for (target, status) in [(HEALTHY, "connected"), ("i-0dead000000000002", "notconnected")] {
        let reply = client.ssm("GetConnectionStatus", &json!({"Target": target})).await;
        assert_eq!(reply.text("Status"), status);
    }
}

#[tokio::test]
async fn a_console_tells_the_host_keys() {
    let (_region, client) = region().await;
    let console = async |id: &str, latest: bool| {
        let mut input = vec![("Action", "GetConsoleOutput"), ("InstanceId", id)];
        input.extend(latest.then_some(("Latest", "true")));
        let reply = client.ec2(&input).await;
        assert_eq!(reply.elements("instanceId"), [id]);
        String::from_utf8(STANDARD.decode(&reply.elements("output")[0]).unwrap()).unwrap()
    };
    let told = async |id: &str, latest| {
        let text = console(id, latest).await;
        assert!(text.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
        assert!(text.ends_with(" login: "));
        let prefixed =
            |prefix: &'static str| text.lines().filter(move |line| line.starts_with(prefix)).count();
        ["ec2: 256 SHA256:", "ecdsa-sha2-nistp256 AAAA", "ssh-ed25519 AAAA"].map(prefixed)
    };
    for (id, usual, latest) in [
        (HEALTHY, [2, 1, 1], [2, 1, 1]),
        ("i-0dead000000000001", [2, 1, 1], [2, 1, 1]),
        ("i-0decaf00000000008", [0, 0, 0], [0, 0, 0]),
        ("i-0decaf00000000009", [2, 0, 0], [2, 0, 0]),
        ("i-0decaf0000000000b", [0, 0, 0], [2, 1, 1]),
    ] {
        assert_eq!((told(id, false).await, told(id, true).await), (usual, latest), "{id}");
    }
    let booting = [("Action", "GetConsoleOutput"), ("InstanceId", "i-0dead00000000001b")];
    assert_eq!(client.ec2(&booting).await.elements("output"), [""; 0]);
    let text = console(HEALTHY, false).await;
    assert_eq!(console(HEALTHY, false).await, text, "the keys stay the same");
    let keys = text.split("-----BEGIN SSH HOST KEY KEYS-----\r\n").nth(1).unwrap();
    let keys = keys.split("\r\n-----END SSH HOST KEY KEYS-----\r\n").next().unwrap();
    assert_eq!(keys.lines().filter(|line| line.ends_with(" root@ip-10-0-0-11")).count(), 2, "{keys}");

    let reply = client.ec2(&[("Action", "GetConsoleOutput"), ("InstanceId", "i-0123456789abcdef0")]).await;
    assert_eq!(reply.elements("Code"), ["InvalidInstanceID.NotFound"]);
    let reply = client.ec2(&[("Action", "GetConsoleOutput")]).await;
    assert_eq!(reply.elements("Code"), ["MissingParameter"]);
}

#[tokio::test]
async fn a_denied_action_is_denied_to_all() {
    let mut faults = Faults::default();
    faults.add("deny=ec2:GetConsoleOutput").unwrap();
    let region = Region::start(Options { faults, ..Options::default() }).await.unwrap();
    let input = [("Action", "GetConsoleOutput"), ("InstanceId", HEALTHY)];
    let reply = Client::new(&region).ec2(&input).await;
    assert_eq!((reply.status, reply.elements("Code")), (403, vec!["UnauthorizedOperation".to_owned()]));
}

#[tokio::test]
async fn the_caller_learns_who_it_is() {
    let (_region, client) = region().await;
    let reply = client.sts(&[("Action", "GetCallerIdentity")]).await;
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
        let reply = client.sts(&[("Action", "GetCallerIdentity")]).await;
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
    let reply = client.send("POST", "/", &FORM, "Action=DescribeInstances&Version=2016-11-15").await;
    assert_eq!(reply.elements("Code"), ["MissingAuthenticationToken"]);
    let reply = client.send("POST", "/", &[], &"a".repeat(1024 * 1024 + 1)).await;
    assert_eq!(reply.status, 413);
}

#[tokio::test]
async fn a_data_channel_opens_unsigned_or_rightly_signed() {
    let (region, client) = region().await;
    let url = start_session(&client, HEALTHY).await.text("StreamUrl");
    let path = url.strip_prefix(&region.endpoint().replace("http", "ws")).unwrap();
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
async fn a_region_knows_only_its_own_instances() {
    let (region, client) = region().await;
    let europe = client.in_region("eu-west-1");
    let describe = [("Action", "DescribeInstances")];
    assert_eq!(in_order(client.instance_pages(&[]).await.concat()), in_order(home_ids(&region)));
    let reply = europe.ec2(&describe).await;
    assert_eq!(reply.elements("instanceId"), [EUROPEAN]);
    assert_eq!(reply.elements("availabilityZone"), ["eu-west-1a"]);
    assert_eq!(reply.elements("dnsName"), ["ec2-203-0-113-29.eu-west-1.compute.amazonaws.com"]);
    let oregon = client.in_region("us-west-2");
    let none = oregon.instance_pages(&[("Filter.1.Name", "tag:Name"), ("Filter.1.Value.1", "*")]).await;
    assert_eq!(none.concat(), [""; 0]);
    let absent = client.ec2(&[("Action", "DescribeInstances"), ("InstanceId.1", EUROPEAN)]).await;
    assert_eq!(absent.elements("Code"), ["InvalidInstanceID.NotFound"]);

    for (client, status) in [(&client, "notconnected"), (&europe, "connected")] {
        let reply = client.ssm("GetConnectionStatus", &json!({"Target": EUROPEAN})).await;
        assert_eq!(reply.text("Status"), status);
    }
    let information = europe.ssm("DescribeInstanceInformation", &json!({})).await.json();
    let list = information["InstanceInformationList"].as_array().unwrap();
    assert_eq!(list.iter().map(|item| item["InstanceId"].as_str().unwrap()).collect::<Vec<_>>(), [EUROPEAN]);
    assert_eq!(start_session(&client, EUROPEAN).await.code(), "TargetNotConnected");
    let input = json!({"InstanceId": EUROPEAN, "InstanceOSUser": "ec2-user", "SSHPublicKey": KEY});
    let reply = client.instance_connect("SendSSHPublicKey", &input).await;
    assert_eq!(reply.code(), "EC2InstanceNotFoundException");
    assert_eq!(europe.instance_connect("SendSSHPublicKey", &input).await.status, 200);
}

#[tokio::test]
async fn a_session_belongs_to_the_region_of_its_instance() {
    let (region, client) = region().await;
    let europe = client.in_region("eu-west-1");
    let started = start_session(&europe, EUROPEAN).await;
    let input = json!({"SessionId": started.text("SessionId")});
    assert_eq!(client.ssm("ResumeSession", &input).await.code(), "DoesNotExistException");
    assert_eq!(client.ssm("TerminateSession", &input).await.status, 200);
    for (client, count) in [(&client, 0), (&europe, 1)] {
        let reply = client.ssm("DescribeSessions", &json!({"State": "Active"})).await.json();
        assert_eq!(reply["Sessions"].as_array().unwrap().len(), count);
    }
    let url = started.text("StreamUrl");
    let path = url.strip_prefix(&region.endpoint().replace("http", "ws")).unwrap();
    let refused = upgrade(&client, path, true).await;
    assert_eq!(
        (refused.status, refused.body.as_str()),
        (403, "Credential should be scoped to a valid region.\n")
    );
    assert_eq!(upgrade(&europe, path, true).await.status, 101);
    assert_eq!(europe.ssm("TerminateSession", &input).await.status, 200);
    assert!(region.sessions_ended(Duration::ZERO).await);
}

#[tokio::test]
async fn the_regions_are_listed_and_others_refused() {
    let (_region, client) = region().await;
    let reply = client.ec2(&[("Action", "DescribeRegions")]).await;
    let all = ["us-east-1", "us-west-2", "eu-west-1", "ap-southeast-2"];
    assert_eq!(reply.elements("regionName"), all);
    assert_eq!(reply.elements("optInStatus"), ["opt-in-not-required"; 4]);
    let found =
        async |input: &[(&str, &str)]| client.ec2(&[&[("Action", "DescribeRegions")], input].concat()).await;
    let filter = [("Filter.1.Name", "region-name"), ("Filter.1.Value.1", "us-*")];
    assert_eq!(found(&filter).await.elements("regionName"), ["us-east-1", "us-west-2"]);
    assert_eq!(
        found(&[("RegionName.1", "eu-west-1")]).await.elements("regionEndpoint"),
        ["ec2.eu-west-1.amazonaws.com"]
    );
    assert_eq!(found(&[("RegionName.1", "eu-west-9")]).await.elements("Code"), ["InvalidParameterValue"]);
    let filter = [("Filter.1.Name", "opt-in-status"), ("Filter.1.Value.1", "opted-in")];
    assert_eq!(found(&filter).await.elements("regionName"), [""; 0]);

    let nowhere = client.in_region("eu-central-1");
    let reply = start_session(&nowhere, HEALTHY).await;
    assert_eq!(reply.code(), "InvalidSignatureException");
    let reply = nowhere.ec2(&[("Action", "DescribeRegions")]).await;
    assert_eq!(reply.elements("Code"), ["AuthFailure"]);
    for region in all {
        let client = client.in_region(region);
        assert_eq!(client.sts(&[("Action", "GetCallerIdentity")]).await.status, 200);
    }
}

#[tokio::test]
async fn an_instance_has_its_particulars() {
    let (_region, client) = region().await;
    let one = async |id: &str| client.ec2(&[("Action", "DescribeInstances"), ("InstanceId.1", id)]).await;
    let (older, younger) = (one("i-0decaf00000000006").await, one("i-0decaf00000000007").await);
    assert!(older.elements("launchTime") < younger.elements("launchTime"));
    assert_eq!(younger.elements("ipv6Address"), ["2001:db8::17"; 2]);
    assert_eq!(one("i-0decaf00000000004").await.elements("platformDetails"), ["Linux/UNIX"]);
    let profiles = ["i-0decaf00000000001", "i-0dead000000000013", "i-0dead000000000014"];
    for (id, profile) in profiles.into_iter().zip([true, false, true]) {
        let arns = one(id).await.elements("arn");
        let profile = profile.then(|| "arn:aws:iam::123456789012:instance-profile/sandbox".to_owned());
        assert_eq!(arns, Vec::from_iter(profile), "{id}");
    }
    let (booting, terminated) = (one("i-0dead00000000001b").await, one("i-0dead000000000012").await);
    assert_eq!(booting.elements("instanceState"), ["<code>0</code><name>pending</name>"]);
    assert_eq!(terminated.elements("instanceState"), ["<code>48</code><name>terminated</name>"]);
    assert!(older.elements("launchTime") < booting.elements("launchTime"));
    assert_eq!(booting.elements("privateIpAddress").len(), 3);
    assert_eq!(terminated.elements("privateIpAddress"), [""; 0]);
    let hostile = one("i-0dead000000000011").await;
    assert!(hostile.body.contains("<value>evil\u{fffd}[2J\u{fffd}]0;owned\u{fffd}&#155;</value>"));
    assert_eq!(start_session(&client, "i-0dead000000000011").await.status, 200);
}

#[tokio::test]
async fn a_dry_run_tells_whether_a_call_is_permitted() {
    let mut faults = Faults::default();
    faults.add("deny=ec2:DescribeRegions").unwrap();
    let region = Region::start(Options { faults, ..Options::default() }).await.unwrap();
    let client = Client::new(&region);
    let dry = async |action| client.ec2(&[("Action", action), ("DryRun", "true")]).await;
    let permitted = dry("DescribeInstances").await;
    assert_eq!((permitted.status, permitted.elements("Code")), (412, vec!["DryRunOperation".to_owned()]));
    let message = "Request would have succeeded, but DryRun flag is set.";
    assert_eq!(permitted.elements("Message"), [message]);
    assert_eq!(dry("DescribeRegions").await.elements("Code"), ["UnauthorizedOperation"]);
    let wet = client.ec2(&[("Action", "DescribeInstances"), ("DryRun", "false")]).await;
    assert_eq!(wet.status, 200);
}

#[tokio::test]
async fn every_call_is_recorded_and_refused_ones_too() {
    let (region, client) = region().await;
    client.ec2(&[("Action", "DescribeInstances")]).await;
    start_session(&client.in_region("eu-west-1"), HEALTHY).await;
    client.in_region("eu-central-1").instance_connect("SendSSHPublicKey", &json!({})).await;
    client.send("POST", "/", &FORM, "Action=GetCallerIdentity&Version=2011-06-15").await;
    let calls: Vec<_> = region.calls().into_iter().map(|call| (call.action, call.region, call.ok)).collect();
    let expected = [
        ("ec2:DescribeInstances", "us-east-1", true),
        ("ssm:StartSession", "eu-west-1", false),
        ("ec2-instance-connect:SendSSHPublicKey", "eu-central-1", false),
        ("sts:GetCallerIdentity", "", false),
    ];
    assert_eq!(calls, expected.map(|(action, region, ok)| (action.to_owned(), region.to_owned(), ok)));
}

#[tokio::test]
async fn every_service_throttles_in_its_own_words() {
    let mut faults = Faults::default();
    for action in ["DescribeInstances", "StartSession", "SendSSHPublicKey", "GetCallerIdentity"] {
        faults.add(&format!("throttle={action}:0/1")).unwrap();
    }
    let region = Region::start(Options { faults, ..Options::default() }).await.unwrap();
    let client = Client::new(&region);
    let describe = [("Action", "DescribeInstances")];
    let key = json!({"InstanceId": HEALTHY, "InstanceOSUser": "ec2-user", "SSHPublicKey": KEY});
    for throttled in [false, true] {
        let replies = [
            client.ec2(&describe).await,
            client.sts(&[("Action", "GetCallerIdentity")]).await,
            start_session(&client, HEALTHY).await,
            client.instance_connect("SendSSHPublicKey", &key).await,
        ];
        let expected = if throttled { [503, 400, 400, 400] } else { [200; 4] };
        assert_eq!(replies.each_ref().map(|reply| reply.status), expected);
        if throttled {
            let [ec2, sts, ssm, connect] = replies;
            assert_eq!(ec2.elements("Code"), ["RequestLimitExceeded"]);
            assert_eq!(sts.elements("Code"), ["Throttling"]);
            assert_eq!([ssm.code(), connect.code()], ["ThrottlingException"; 2]);
        }
    }
    assert_eq!(client.in_region("eu-west-1").ec2(&describe).await.status, 200);
}

#[tokio::test]
async fn a_clock_that_is_off_is_off_for_signatures_and_dates() {
    for (word, told) in [("clock=+10m", "Signature expired: "), ("clock=-10m", "Signature not yet current: ")]
    {
        let (_region, client) = with_faults(&[word]).await;
        let reply = start_session(&client, HEALTHY).await;
        assert_eq!(reply.code(), "InvalidSignatureException");
        assert!(reply.json()["message"].as_str().unwrap().starts_with(told), "{}", reply.body);
        let reply = client.ec2(&[("Action", "DescribeInstances")]).await;
        assert_eq!(reply.elements("Code"), ["RequestExpired"]);
        let reply = client.sts(&[("Action", "GetCallerIdentity")]).await;
        assert_eq!(reply.elements("Code"), ["SignatureDoesNotMatch"]);
        let seconds = |date: &str| {
            let date = std::process::Command::new("date").args(["-u", "+%s", "-d", date]).output().unwrap();
            String::from_utf8(date.stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let off = seconds(reply.header("date").unwrap()) - seconds("now");
        assert!((590..=610).contains(&off.abs()) && (off > 0) == word.contains('+'), "{off}");
    }
}

#[tokio::test]
async fn a_clock_that_is_a_little_off_is_minded_by_nobody() {
    let (_region, client) = with_faults(&["clock=-2m"]).await;
    assert_eq!(start_session(&client, HEALTHY).await.status, 200);
}

#[tokio::test]
async fn calls_and_websockets_are_sent_elsewhere() {
    let (region, client) =
        with_faults(&["redirect=https://elsewhere.example/", "stream-redirect=ws://127.0.0.1:1/"]).await;
    let reply = client.ec2(&[("Action", "DescribeInstances")]).await;
    assert_eq!((reply.status, reply.header("location")), (307, Some("https://elsewhere.example/")));
    let reply = upgrade(&client, "/v1/data-channel/you-0", false).await;
    assert_eq!((reply.status, reply.header("location")), (302, Some("ws://127.0.0.1:1/")));
    assert!(region.calls().is_empty());
}

#[tokio::test]
async fn sessions_are_told_another_gateway_and_names_are_long() {
    let (region, client) = with_faults(&["stream-url=wss://gateway.example/", "name-size=70000"]).await;
    let started = start_session(&client, HEALTHY).await;
    let path = format!("wss://gateway.example/v1/data-channel/{}?", started.text("SessionId"));
    assert!(started.text("StreamUrl").starts_with(&path), "{}", started.body);
    let input = [("Action", "DescribeInstances"), ("InstanceId.1", "i-0decaf00000000002")];
    let name = client.ec2(&input).await.elements("value").remove(0);
    assert!(name.starts_with("web-2x") && name.len() == 70_000);
    assert!(region.table().lines().all(|line| line.chars().count() < 160));
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
    // A response on a second connection shows that the first one is accepted.
    start_session(&client, HEALTHY).await;
    drop(region);
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut [0])).await.unwrap();
    assert!(matches!(read, Ok(0) | Err(_)));
    assert!(TcpStream::connect(&address).await.is_err());
}
