//! botocore against the region. It is the library of the AWS CLI, so it is installed for the Python that runs
//! `aws`.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::{env, path::PathBuf};

use ec2_sandbox::{Faults, Options, Region};
use serde_json::{Value, json};
use tokio::process::Command;

/// Makes each call of a list, without botocore's own checks of the input, and prints each result as a line.
const CALLS: &str = r#"
import json, sys
import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError

session = botocore.session.get_session()
config = Config(parameter_validation=False, retries={"max_attempts": 0})
for service, operation, arguments, pages in json.load(sys.stdin):
    client = session.create_client(service, config=config)
    try:
        if pages:
            pages = client.get_paginator(operation).paginate(**arguments)
            result = ["ok", [page for page in pages], 200, pages.result_keys[0].expression]
        else:
            result = ["ok", getattr(client, operation)(**arguments), 200, ""]
    except ClientError as error:
        response = error.response
        metadata = response["ResponseMetadata"]
        code, message = response["Error"]["Code"], response["Error"]["Message"]
        result = [code, message, metadata["HTTPStatusCode"], metadata.get("RequestId", "")]
    print(json.dumps(result, default=str))
"#;

/// The Python of the first `aws` in PATH.
fn python() -> PathBuf {
    let path = env::var_os("PATH").unwrap();
    let beside = env::split_paths(&path).find(|directory| directory.join("aws").is_file());
    beside.expect("this test needs `aws`, which is not there: `pip install awscli`").join("python3")
}

async fn with_faults(words: &[&str]) -> Region {
    let mut faults = Faults::default();
    for word in words {
        faults.add(word).unwrap();
    }
    Region::start(Options { faults, ..Options::default() }).await.unwrap()
}

/// The results of `calls`: an error code, the message or the response, the HTTP status, the request id.
async fn results(region: &Region, calls: &Value) -> Vec<(String, Value, u64, String)> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("calls.json");
    std::fs::write(&file, calls.to_string()).unwrap();
    let mut command = Command::new(python());
    for (name, _) in env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command.envs(region.environment()).env("HOME", directory.path());
    let output =
        command.args(["-c", CALLS]).stdin(std::fs::File::open(file).unwrap()).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn botocore_reads_code_message_status_and_request_id_of_every_kind_of_error() {
    let region = with_faults(&["throttle=GetConnectionStatus:0/1", "deny=ec2:DescribeRegions"]).await;
    let target = "i-0decaf00000000001";
    let session = |document: Value, target: &str| json!({"Target": target, "DocumentName": document});
    let user = json!({"InstanceId": target, "InstanceOSUser": "0$", "SSHPublicKey": "x"});
    let web = json!({"Filters": [{"Key": "InstanceIds", "Values": ["web"]}]});
    let role = json!({"RoleArn": "arn:aws:iam::123456789012:role/none", "RoleSessionName": "me"});
    let stopped = session(json!("AWS-StartSSHSession"), "i-0dead000000000001");
    let expected = [
        ("ssm", "get_connection_status", json!({"Target": target}), "ok", 200),
        ("ssm", "get_connection_status", json!({"Target": target}), "ThrottlingException", 400),
        ("ssm", "start_session", session(json!("a b"), target), "ValidationException", 400),
        ("ssm", "start_session", session(json!(["a"]), target), "SerializationException", 400),
        ("ssm", "start_session", stopped, "TargetNotConnected", 400),
        ("ssm", "send_command", json!({"DocumentName": "a"}), "UnknownOperationException", 400),
        ("ssm", "describe_instance_information", web, "InvalidInstanceInformationFilterValue", 400),
        ("ec2-instance-connect", "send_ssh_public_key", user, "InvalidArgsException", 400),
        ("ec2", "describe_instances", json!({"Filters": [{"Name": "a"}]}), "InvalidParameterValue", 400),
        ("ec2", "describe_instances", json!({"InstanceIds": ["i-0"]}), "InvalidInstanceID.Malformed", 400),
        ("ec2", "describe_regions", json!({}), "UnauthorizedOperation", 403),
        ("sts", "assume_role", role, "AccessDenied", 403),
    ];
    let calls: Value =
        expected.iter().map(|(service, call, input, ..)| json!([service, call, input, false])).collect();
    let results = results(&region, &calls).await;
    assert_eq!(results.len(), expected.len());
    for ((_, call, input, code, status), found) in expected.iter().zip(results) {
        let (found, message, found_status, request_id) = found;
        assert_eq!((found.as_str(), found_status), (*code, *status), "{call} {input}: {message}");
        if found != "ok" {
            assert!(message.as_str().is_some_and(|message| !message.is_empty()), "{call} {input}");
            assert_eq!(request_id.len(), 36, "{call} {input}: {request_id}");
        }
    }
}

#[tokio::test]
async fn botocore_finds_all_items_on_pages_that_are_short_or_empty() {
    let region = Region::start(Options { fleet: 400, ..Options::default() }).await.unwrap();
    let web = json!([{"Name": "tag:Name", "Values": ["web-*"]}]);
    let online = json!([{"Key": "PingStatus", "Values": ["Online"]}]);
    let calls = json!([
        ["ec2", "describe_instances", {"Filters": web}, true],
        ["ec2", "describe_instances", {"MaxResults": 50}, true],
        ["ssm", "describe_instance_information", {"Filters": online}, true],
    ]);
    let results = results(&region, &calls).await;
    let counts: Vec<_> = results
        .iter()
        .map(|(code, pages, _, key)| {
            assert_eq!(code, "ok", "{pages}");
            let items = |page: &Value| match key.as_str() {
                "Reservations" => {
                    let reservations = page[key].as_array().unwrap().iter();
                    reservations.map(|found| found["Instances"].as_array().unwrap().len()).sum()
                }
                _ => page[key].as_array().unwrap().len(),
            };
            let pages: Vec<_> = pages.as_array().unwrap().iter().map(items).collect();
            (pages[0], pages.iter().sum::<usize>())
        })
        .collect();
    let home = region.instances().iter().filter(|instance| instance.region == "us-east-1").count();
    assert_eq!(counts[..2], [(0, 3), (4, home)]);
    assert!(counts[2].0 == 0 && counts[2].1 > 100, "{counts:?}");
}
