//! Checks that come before the operation: digests, content types, versions, and the constraints of the
//! service models (as in botocore's `service-2.json`).

use ec2_sandbox::{Options, Region};
use serde_json::{Value, json};

use crate::client::{Client, JSON, Reply, sha256, without_quota};

const HEALTHY: &str = "i-0decaf00000000001";
const FORM: &str = "application/x-www-form-urlencoded";

async fn region() -> (Region, Client) {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

#[tokio::test]
async fn a_digest_that_lies_is_refused_although_it_is_signed() {
    let (_region, client) = region().await;
    let body = "Action=DescribeRegions&Version=2016-11-15";
    let call = async |digest: &str| {
        client.post_with("ec2", &[("content-type", FORM), ("x-amz-content-sha256", digest)], body).await
    };
    assert_eq!(call(&sha256(body)).await.status, 200);
    for digest in [sha256(""), "UNSIGNED-PAYLOAD".to_owned(), String::new()] {
        let reply = call(&digest).await;
        assert_eq!((reply.status, reply.elements("Code")), (401, vec!["AuthFailure".to_owned()]), "{digest}");
    }
}

#[tokio::test]
async fn a_json_service_takes_its_own_type_and_no_other() {
    let (_region, client) = region().await;
    let call = async |kind: Option<&str>| {
        let kind = kind.map(|kind| ("content-type", kind));
        let target = [("x-amz-target", "AmazonSSM.GetConnectionStatus")];
        let headers: Vec<_> = kind.into_iter().chain(target).collect();
        client.post_with("ssm", &headers, &json!({"Target": HEALTHY}).to_string()).await
    };
    for kind in [JSON, "Application/X-Amz-JSON-1.1", "application/x-amz-json-1.1; charset=utf-8"] {
        assert_eq!(call(Some(kind)).await.status, 200, "{kind}");
    }
    for kind in
        [None, Some("text/plain"), Some("application/x-amz-json-1.0"), Some("application/json"), Some("")]
    {
        let reply = call(kind).await;
        assert_eq!(reply.raw_code(), "com.amazon.coral.service#UnknownOperationException", "{kind:?}");
    }
}

#[tokio::test]
async fn a_query_service_reads_forms_and_nothing_else() {
    let (_region, client) = region().await;
    let body = "Action=GetCallerIdentity&Version=2011-06-15";
    let call = async |kind: &str| client.post_with("sts", &[("content-type", kind)], body).await;
    assert_eq!(call("application/x-www-form-urlencoded; charset=utf-8").await.status, 200);
    for kind in ["text/plain", JSON] {
        assert_eq!(call(kind).await.elements("Code"), ["MissingAction"], "{kind}");
    }
}

#[tokio::test]
async fn a_version_that_there_is_not_is_refused() {
    let (_region, client) = region().await;
    let reply = client.ec2(&[("Action", "DescribeRegions"), ("Version", "2099-01-01")]).await;
    assert_eq!((reply.status, reply.elements("Code")), (400, vec!["NoSuchVersion".to_owned()]));
    let message = "The requested version (2099-01-01) of service AmazonEC2 does not exist";
    assert_eq!(reply.elements("Message"), [message]);
    for (service, action) in [("ec2", "DescribeRegions"), ("sts", "GetCallerIdentity")] {
        let reply = client.post(service, None, &format!("Action={action}")).await;
        let code = if service == "ec2" { "MissingParameter" } else { "InvalidAction" };
        assert_eq!(reply.elements("Code"), [code], "{service}");
    }
    let reply = client.sts(&[("Action", "GetCallerIdentity"), ("Version", "2010-05-08")]).await;
    let message = "Could not find operation GetCallerIdentity for version 2010-05-08";
    assert_eq!(
        (reply.elements("Code"), reply.elements("Message")),
        (vec!["InvalidAction".to_owned()], vec![message.to_owned()])
    );
}

async fn message(reply: Reply, code: &str) -> String {
    assert_eq!((reply.status, reply.raw_code().as_str()), (400, code), "{}", reply.body);
    reply.text("Message")
}

#[tokio::test]
async fn sessions_are_asked_for_within_the_limits_of_the_model() {
    let (region, client) = without_quota().await;
    let start = async |input: Value| client.ssm("StartSession", &input).await;
    let ssh = |member: &str, value: Value| {
        let mut input = json!({"Target": HEALTHY, "DocumentName": "AWS-StartSSHSession"});
        input[member] = value;
        input
    };
    let name = message(start(ssh("DocumentName", json!("a b"))).await, "ValidationException").await;
    let rule = r"Member must satisfy regular expression pattern: ^[a-zA-Z0-9_\-.:/]{3,128}$";
    let error = format!(
        "1 validation error detected: Value 'a b' at 'documentName' failed to satisfy constraint: {rule}"
    );
    assert_eq!(name, error);
    for input in [
        ssh("DocumentName", json!("")),
        ssh("DocumentName", json!("ab")),
        ssh("DocumentName", json!("a".repeat(129))),
        ssh("DocumentName", json!("AWS-StartSSHSession\n")),
        ssh("Target", json!("")),
        ssh("Target", json!("i".repeat(401))),
        ssh("Reason", json!("")),
        ssh("Reason", json!("é".repeat(257))),
        ssh("Parameters", json!({"": ["22"]})),
        ssh("Parameters", json!({"p".repeat(256): ["22"]})),
        ssh("Parameters", json!({"portNumber": [""]})),
        ssh("Parameters", json!({"portNumber": ["2".repeat(65536)]})),
    ] {
        let text = input.to_string();
        let told = message(start(input).await, "ValidationException").await;
        assert!(told.starts_with("1 validation error detected: Value "), "{told} {text:.200}");
    }
    let both = message(start(json!({"DocumentName": "a", "Reason": ""})).await, "ValidationException").await;
    assert!(both.starts_with("3 validation errors detected: Value null at 'target' failed"), "{both}");
    // Within the constraints, but there is no such document.
    assert_eq!(start(ssh("DocumentName", json!("a.b:c/d_e-f"))).await.code(), "InvalidDocument");
    assert!(region.sessions().is_empty());
    assert_eq!(start(ssh("Reason", json!("é".repeat(256)))).await.status, 200);
    let resumed = client.ssm("ResumeSession", &json!({"SessionId": "s".repeat(97)})).await;
    message(resumed, "ValidationException").await;
}

#[tokio::test]
async fn keys_are_looked_into() {
    let (_region, client) = region().await;
    let push = async |key: &str| {
        let input = json!({"InstanceId": HEALTHY, "InstanceOSUser": "ec2-user", "SSHPublicKey": key});
        let reply = client.instance_connect("SendSSHPublicKey", &input).await;
        if reply.status == 200 { "taken".to_owned() } else { reply.code() }
    };
    for key in [&format!("ssh-rsa {RSA_2048}"), &format!("ssh-rsa {RSA_2048} a comment\n"), ED25519] {
        assert_eq!(push(key).await, "taken", "{key}");
    }
    // Sixteen characters of base64 are twelve whole bytes.
    let (head, tail) = ED25519.split_at(ED25519.len() - 16);
    for key in [
        &format!("ssh-rsa {RSA_1024}"),
        &format!("ssh-rsa {}", &RSA_2048[..RSA_2048.len() - 16]),
        &format!("ssh-rsa {RSA_2048}{tail}"),
        &format!("{ED25519}{tail}"),
        &format!("{head} {}", "c".repeat(80)),
        &format!("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 {}", "c".repeat(80)),
        &format!("ssh-ed25519 {RSA_2048}"),
    ] {
        assert_eq!(push(key).await, "InvalidArgsException", "{key}");
    }
}

#[tokio::test]
async fn agents_are_listed_by_filters_that_there_are() {
    let (_region, client) = region().await;
    let list = async |member: &str, filter: Value| {
        client.ssm("DescribeInstanceInformation", &json!({ member: [filter] })).await
    };
    let new = async |key: &str, values: &[&str]| list("Filters", json!({"Key": key, "Values": values})).await;
    let old = async |key: &str, values: &[&str]| {
        list("InstanceInformationFilterList", json!({"key": key, "valueSet": values})).await
    };
    for (key, value) in [
        ("ActivationIds", "8b0b1e5e-2f4c-4b53-8f0a-2f6a3d6e1c11"),
        ("IamRole", "sandbox"),
        ("AssociationStatus", "Pending"),
        ("InstanceIds", HEALTHY),
        ("InstanceIds", "i-0decaf00"),
        ("InstanceIds", "mi-0decaf00000000001"),
        ("PingStatus", "Inactive"),
        ("PlatformTypes", "MacOS"),
        ("ResourceType", "ManagedInstance"),
    ] {
        assert_eq!((new(key, &[value]).await.status, old(key, &[value]).await.status), (200, 200), "{key}");
    }
    for (key, value) in [
        ("PlatformType", "Linux"),
        ("SourceIds", HEALTHY),
        ("SourceTypes", "AWS::EC2::Instance"),
        ("tag:a", "b"),
    ] {
        assert_eq!(new(key, &[value]).await.status, 200, "{key}");
        assert_eq!(old(key, &[value]).await.code(), "ValidationException", "{key}");
    }
    assert_eq!(new("Colour", &["red"]).await.code(), "InvalidFilterKey");
    for (key, value) in [("InstanceIds", "web"), ("PingStatus", "online"), ("PlatformTypes", "BeOS")] {
        for reply in [new(key, &[value]).await, old(key, &[value]).await] {
            assert_eq!(reply.code(), "InvalidInstanceInformationFilterValue", "{key}");
        }
    }
    for values in [vec![], vec![""], vec![HEALTHY; 101]] {
        for reply in [new("InstanceIds", &values).await, old("InstanceIds", &values).await] {
            assert_eq!(reply.code(), "ValidationException", "{}", values.len());
        }
    }
    assert_eq!(new("InstanceIds", &[HEALTHY; 100]).await.status, 200);
}

#[tokio::test]
async fn sessions_are_listed_by_filters_that_there_are() {
    let (_region, client) = region().await;
    let started =
        client.ssm("StartSession", &json!({"Target": HEALTHY, "DocumentName": "AWS-StartSSHSession"})).await;
    let list = async |filters: Value| {
        client.ssm("DescribeSessions", &json!({"State": "Active", "Filters": filters})).await
    };
    // The first page may be empty.
    let ids = async |key: &str, value: &str| {
        let filters = json!([{"key": key, "value": value}]);
        let first = list(filters.clone()).await.json();
        let input = json!({"State": "Active", "Filters": filters, "NextToken": first["NextToken"]});
        let reply = client.ssm("DescribeSessions", &input).await.json();
        let ids = reply["Sessions"].as_array().unwrap().iter().map(|session| session["SessionId"].as_str());
        ids.map(|id| id.unwrap().to_owned()).collect::<Vec<_>>()
    };
    let id = started.text("SessionId");
    // No client has opened its data channel.
    assert_eq!(ids("Status", "Connecting").await, [id.as_str()]);
    assert_eq!(ids("Status", "Connected").await, [""; 0]);
    assert_eq!(ids("InvokedAfter", "2024-08-29T00:00:00Z").await, [id.as_str()]);
    assert_eq!(ids("InvokedAfter", "2999-01-01T00:00:00Z").await, [""; 0]);
    assert_eq!(ids("InvokedBefore", "2024-08-29T00:00:00Z").await, [""; 0]);
    assert_eq!(ids("InvokedBefore", "2999-01-01T00:00:00Z").await, [id.as_str()]);
    for filters in [
        json!([]),
        json!([{"key": "Colour", "value": "red"}]),
        json!([{"key": "Target", "value": ""}]),
        json!([{"key": "Target", "value": "i".repeat(401)}]),
        json!([{"key": "Status", "value": "Running"}]),
        json!([{"key": "InvokedAfter", "value": "yesterday"}]),
        json!(vec![json!({"key": "Target", "value": HEALTHY}); 7]),
    ] {
        assert_eq!(list(filters.clone()).await.code(), "ValidationException", "{filters:.200}");
    }
    let none = client.ssm("DescribeSessions", &json!({"State": "active"})).await;
    message(none, "ValidationException").await;
}

#[tokio::test]
async fn instances_are_asked_for_by_filters_that_there_are() {
    let (_region, client) = region().await;
    let code = async |filters: &[(String, String)]| {
        let mut input = vec![("Action".to_owned(), "DescribeInstances".to_owned())];
        input.extend_from_slice(filters);
        client.ec2(&input).await.elements("Code")
    };
    let filter = |name: &str, values: usize| {
        let values = (1..=values).map(|number| (format!("Filter.1.Value.{number}"), "x".to_owned()));
        [("Filter.1.Name".to_owned(), name.to_owned())].into_iter().chain(values).collect::<Vec<_>>()
    };
    for name in [
        "architecture",
        "iam-instance-profile.arn",
        "image-id",
        "instance.group-id",
        "instance.group-name",
        "key-name",
        "launch-time",
        "owner-id",
        "platform",
        "platform-details",
        "reservation-id",
        "tenancy",
    ] {
        assert_eq!(code(&filter(name, 1)).await, [""; 0], "{name}");
    }
    assert_eq!(code(&filter("colour", 1)).await, ["InvalidParameterValue"]);
    assert_eq!(code(&filter("tag:Name", 0)).await, ["InvalidParameterValue"]);
    assert_eq!(code(&filter("tag:Name", 200)).await, [""; 0]);
    assert_eq!(code(&filter("tag:Name", 201)).await, ["FilterLimitExceeded"]);
    // Without the filter's name.
    assert_eq!(code(&filter("tag:Name", 1)[1..]).await, ["InvalidParameterValue"]);
}

/// Keys of the documented types and sizes, and one that is too small.
const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
const RSA_1024: &str = "AAAAB3NzaC1yc2EAAAADAQABAAAAgQC9mK/fKJivx3tDmDG3vXsINvnXcTX9soYBjCsk/JN3Fad5vbBaLL5EpxXl95YT2b641oygy8hIriTXC+/vLmi5XT2G6njZdup6opY1oAISI31+XW8QPxYcQbrL68l0HkobBCYEFsGnOqwrlL9RgrHB1/U1Kb6IG6TT4JgpXqnI+w==";
const RSA_2048: &str = "AAAAB3NzaC1yc2EAAAADAQABAAABAQDYMtHrRSwSb9I+D0tzrLpkfMeSZbdATQIo0U602zV+oklje1ZfLCDpL7atAYaQ5I2niThh9XtuyH8H/Ie+Z85ld/O/kt/L/81cwhnvqR0ouYAxRyy0xMXZuv4lwOnv4sJO1wDkmdMFAGpP1kUw3DW2cAH1i/cKqBT7Dcb70rDHKr4rgYB7TKSylzbosWO/hVltrrkqI0LNw6Qb+hX9IYH4m7SgXRYCYc3MmhQJbjaZAeNn+bbrG4yU9PorLEDdC8orjYjTgDHG1QoBPcAYUhlt9+Xrwdu0GaK5Fr2OwyXLzpoT7l7yzDaisNMy7aqCXDUmSxbky+90tm7WhqvMNc0R";
