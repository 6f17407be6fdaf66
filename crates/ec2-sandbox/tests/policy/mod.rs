//! The policy of the caller that the region starts with, and each service's error for a denied call.

use ec2_sandbox::{Faults, Options, Region};
use serde_json::{Value, json};

use crate::{
    HEALTHY, KEY,
    client::{Client, Reply, WITHOUT_QUOTA},
    start_session, upgrade,
};

const INSTANCES: &str = "arn:aws:ec2:us-east-1:123456789012:instance/*";
const DOCUMENT: &str = "arn:aws:ssm:*::document/AWS-StartSSHSession";
const OWN_SESSIONS: &str = "arn:aws:ssm:*:*:session/${aws:userid}-*";
const SESSIONS: &str = "arn:aws:ssm:*:*:session/*";
const ROLE: &str = "arn:aws:iam::123456789012:role/sandbox";

async fn region(statements: Value) -> (Region, Client) {
    let policy = json!({"Version": "2012-10-17", "Statement": statements}).to_string();
    let mut faults = Faults::default();
    faults.add(WITHOUT_QUOTA).unwrap();
    let region = Region::start(Options { policy: Some(policy), faults, ..Options::default() }).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

fn allow(actions: Value, resources: Value) -> Value {
    json!({"Effect": "Allow", "Action": actions, "Resource": resources})
}

fn denial(action: &str, resource: &str) -> String {
    format!(
        "User: arn:aws:sts::123456789012:assumed-role/sandbox/you is not authorized to perform: {action} on \
         resource: {resource} because no identity-based policy allows the {action} action"
    )
}

#[track_caller]
fn assert_denied(reply: &Reply, action: &str, resource: &str) {
    assert_eq!((reply.status, reply.code().as_str()), (400, "AccessDeniedException"), "{}", reply.body);
    assert_eq!(reply.text("Message"), denial(action, resource));
}

async fn push(client: &Client, id: &str, user: &str) -> Reply {
    let input = json!({"InstanceId": id, "InstanceOSUser": user, "SSHPublicKey": KEY});
    client.instance_connect("SendSSHPublicKey", &input).await
}

#[tokio::test]
async fn a_malformed_policy_starts_no_region() {
    let options = Options { policy: Some("{\"Statement\": []".to_owned()), ..Options::default() };
    let error = Region::start(options).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("the policy is not JSON: "), "{error}");
}

#[tokio::test]
async fn each_service_refuses_in_its_own_words_what_nothing_allows() {
    let (region, client) = region(json!([])).await;
    let instance = INSTANCES.replace('*', HEALTHY);
    let ec2 = client.ec2(&[("Action", "DescribeInstances")]).await;
    assert_eq!((ec2.status, ec2.elements("Code")), (403, vec!["UnauthorizedOperation".to_owned()]));
    let message = denial("ec2:DescribeInstances", "*");
    assert_eq!(
        ec2.elements("Message"),
        [format!("You are not authorized to perform this operation. {message}")]
    );
    let role = "arn:aws:iam::123456789012:role/admin";
    let sts = [("Action", "AssumeRole"), ("RoleArn", role), ("RoleSessionName", "me")];
    let sts = client.sts(&sts).await;
    assert_eq!((sts.status, sts.elements("Code")), (403, vec!["AccessDenied".to_owned()]));
    assert_eq!(sts.elements("Message"), [denial("sts:AssumeRole", role)]);
    let iam = [("Action", "SimulatePrincipalPolicy"), ("PolicySourceArn", ROLE)];
    let iam = client.iam(&iam).await;
    assert_eq!((iam.status, iam.elements("Code")), (403, vec!["AccessDenied".to_owned()]));
    assert_eq!(iam.elements("Message"), [denial("iam:SimulatePrincipalPolicy", ROLE)]);

    assert_denied(
        &push(&client, HEALTHY, "ec2-user").await,
        "ec2-instance-connect:SendSSHPublicKey",
        &instance,
    );
    assert_denied(&start_session(&client, HEALTHY).await, "ssm:StartSession", &instance);
    for operation in ["DescribeInstanceInformation", "DescribeSessions", "GetConnectionStatus"] {
        let reply = client.ssm(operation, &json!({"State": "Active", "Target": HEALTHY})).await;
        assert_denied(&reply, &format!("ssm:{operation}"), "*");
    }
    for operation in ["ResumeSession", "TerminateSession"] {
        let reply = client.ssm(operation, &json!({"SessionId": "you-0"})).await;
        let session = "arn:aws:ssm:us-east-1:123456789012:session/you-0";
        assert_denied(&reply, &format!("ssm:{operation}"), session);
    }
    for action in ["GetCallerIdentity", "GetSessionToken"] {
        assert_eq!(client.sts(&[("Action", action)]).await.status, 200, "{action}");
    }
    assert!(region.sessions().is_empty());
}

#[tokio::test]
async fn a_denial_says_that_it_is_explicit() {
    let (_region, client) = region(json!([
        allow(json!("*"), json!("*")),
        {"Effect": "Deny", "Action": "ssm:Start*", "Resource": DOCUMENT},
    ]))
    .await;
    let message = start_session(&client, HEALTHY).await.text("Message");
    let end = "on resource: arn:aws:ssm:us-east-1::document/AWS-StartSSHSession with an explicit deny in an \
               identity-based policy";
    assert!(message.ends_with(end), "{message}");
}

#[tokio::test]
async fn keys_are_pushed_for_some_users_and_tags_only() {
    let mut statement = allow(json!("ec2-instance-connect:SendSSHPublicKey"), json!(INSTANCES));
    statement["Condition"] = json!({
        "StringEquals": {"ec2:osuser": "ec2-user", "aws:ResourceTag/Name": "web-1", "ec2:ResourceTag/Name": "web-1"}
    });
    let (_region, client) = region(json!([statement])).await;
    assert_eq!(push(&client, HEALTHY, "ec2-user").await.status, 200);
    for (id, user) in
        [(HEALTHY, "root"), ("i-0decaf00000000002", "ec2-user"), ("i-0ffff000000000001", "ec2-user")]
    {
        let action = "ec2-instance-connect:SendSSHPublicKey";
        assert_denied(&push(&client, id, user).await, action, &INSTANCES.replace('*', id));
    }
}

#[tokio::test]
async fn sessions_need_the_instance_and_the_document() {
    let mut instances = allow(json!("ssm:StartSession"), json!(INSTANCES));
    instances["Condition"] = json!({
        "StringEquals": {"ssm:resourceTag/Name": "web-1"},
        "BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"},
    });
    let (region, client) =
        region(json!([instances, allow(json!("ssm:StartSession"), json!(DOCUMENT))])).await;
    assert_eq!(start_session(&client, HEALTHY).await.status, 200);
    let start = async |target: &str, document: Option<&str>| {
        let mut input = json!({"Target": target});
        if let Some(document) = document {
            input["DocumentName"] = json!(document);
        }
        client.ssm("StartSession", &input).await
    };
    let arn = "arn:aws:ssm:us-east-1::document/AWS-StartSSHSession";
    assert_eq!(start(HEALTHY, Some(arn)).await.status, 200);
    let action = "ssm:StartSession";
    let other = start("i-0decaf00000000002", Some("AWS-StartSSHSession")).await;
    assert_denied(&other, action, &INSTANCES.replace('*', "i-0decaf00000000002"));
    for (document, owner) in [("AWS-StartPortForwardingSession", ""), ("Mine", "123456789012")] {
        let refused = format!("arn:aws:ssm:us-east-1:{owner}:document/{document}");
        assert_denied(&start(HEALTHY, Some(document)).await, action, &refused);
    }
    assert_denied(&start(HEALTHY, None).await, action, &INSTANCES.replace('*', HEALTHY));
    let node = "mi-0decaf00000000001";
    let refused = format!("arn:aws:ssm:us-east-1:123456789012:managed-instance/{node}");
    assert_denied(&start(node, Some("AWS-StartSSHSession")).await, action, &refused);
    assert_eq!(region.sessions().len(), 2);
}

#[tokio::test]
async fn own_sessions_are_told_by_their_ids_and_by_their_tags() {
    let start = allow(json!("ssm:StartSession"), json!("*"));
    let actions = json!(["ssm:ResumeSession", "ssm:TerminateSession"]);
    let mut tagged = allow(actions.clone(), json!("*"));
    tagged["Condition"] = json!({"StringLike": {
        "ssm:resourceTag/aws:ssmmessages:session-id": "${aws:userid}",
        "ssm:resourceTag/aws:ssmmessages:target-id": HEALTHY,
    }});
    let by_id = allow(actions.clone(), json!(OWN_SESSIONS));
    let by_name = allow(actions, json!("arn:aws:ssm:us-east-1:123456789012:session/you-*"));
    // The ids of a role's sessions begin with the name of the role's session, not with the whole unique id.
    let (_region, client) = region(json!([start.clone(), by_id])).await;
    let id = start_session(&client, HEALTHY).await.text("SessionId");
    let resumed = client.ssm("ResumeSession", &json!({"SessionId": id})).await;
    assert_denied(&resumed, "ssm:ResumeSession", &format!("arn:aws:ssm:us-east-1:123456789012:session/{id}"));
    for own in [by_name, tagged] {
        let (region, client) = region(json!([start.clone(), own])).await;
        let id = start_session(&client, HEALTHY).await.text("SessionId");
        assert_eq!(client.ssm("ResumeSession", &json!({"SessionId": id})).await.status, 200);
        let foreign = client.ssm("TerminateSession", &json!({"SessionId": "other-0"})).await;
        assert_denied(&foreign, "ssm:TerminateSession", "arn:aws:ssm:us-east-1:123456789012:session/other-0");
        assert_eq!(client.ssm("TerminateSession", &json!({"SessionId": id})).await.status, 200);
        assert!(region.sessions()[0].ended.is_some());
    }
}

#[tokio::test]
async fn a_signed_upgrade_needs_a_permission() {
    let allowed =
        [allow(json!("ssm:StartSession"), json!("*")), allow(json!("ssmmessages:*"), json!(SESSIONS))];
    for (statements, status) in [(&allowed[..], 101), (&allowed[..1], 403)] {
        let (region, client) = region(json!(statements)).await;
        let started = start_session(&client, HEALTHY).await;
        let url = started.text("StreamUrl");
        let path = url.strip_prefix(&region.endpoint().replace("http", "ws")).unwrap();
        let reply = upgrade(&client, path, true).await;
        assert_eq!(reply.status, status, "{}", reply.body);
        if status == 403 {
            let session = format!("arn:aws:ssm:us-east-1:123456789012:session/{}", started.text("SessionId"));
            assert_eq!(reply.elements("Message"), [denial("ssmmessages:OpenDataChannel", &session)]);
        }
    }
}

#[tokio::test]
async fn a_role_that_is_assumed_is_not_subject_to_it() {
    let (_region, client) =
        region(json!([allow(json!("sts:AssumeRole"), json!("arn:aws:iam::*:role/admin"))])).await;
    assert_eq!(client.ec2(&[("Action", "DescribeInstances")]).await.status, 403);
    let token = client.with_credentials(&client.sts(&[("Action", "GetSessionToken")]).await);
    assert_eq!(token.ec2(&[("Action", "DescribeInstances")]).await.status, 403);
    let role = [
        ("Action", "AssumeRole"),
        ("RoleArn", "arn:aws:iam::123456789012:role/admin"),
        ("RoleSessionName", "me"),
    ];
    let admin = client.with_credentials(&client.sts(&role).await);
    assert_eq!(admin.ec2(&[("Action", "DescribeInstances")]).await.status, 200);
}

/// The decisions in the order of the response, and the missing condition keys.
async fn simulate(client: &Client, source: &str, rest: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let first = [("Action", "SimulatePrincipalPolicy"), ("PolicySourceArn", source)];
    let reply = client.iam(&[&first[..], rest].concat()).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let missing = reply.elements("MissingContextValues").into_iter();
    (reply.elements("EvalDecision"), missing.filter(|keys| !keys.is_empty()).collect())
}

#[tokio::test]
async fn a_simulation_knows_what_it_is_told() {
    let mut instances = allow(json!("ssm:StartSession"), json!(INSTANCES));
    instances["Condition"] = json!({"StringEquals": {"ssm:resourceTag/Name": "web-1"}});
    let (_region, client) = region(json!([
        instances,
        allow(json!("iam:SimulatePrincipalPolicy"), json!(ROLE)),
        {"Effect": "Deny", "Action": "ec2:*", "Resource": "*"},
    ]))
    .await;
    let instance = INSTANCES.replace('*', HEALTHY);
    let asked = [
        ("ActionNames.member.1", "ssm:StartSession"),
        ("ActionNames.member.2", "ec2:DescribeInstances"),
        ("ResourceArns.member.1", instance.as_str()),
        ("ResourceArns.member.2", DOCUMENT),
    ];
    let (decisions, missing) = simulate(&client, ROLE, &asked).await;
    assert_eq!(decisions, ["implicitDeny", "implicitDeny", "explicitDeny", "explicitDeny"]);
    assert_eq!(missing, ["<member>ssm:resourcetag/name</member>"; 2]);
    let told = [
        ("ContextEntries.member.1.ContextKeyName", "ssm:resourceTag/Name"),
        ("ContextEntries.member.1.ContextKeyType", "string"),
        ("ContextEntries.member.1.ContextKeyValues.member.1", "web-1"),
    ];
    let (decisions, missing) = simulate(&client, ROLE, &[&asked[..], &told].concat()).await;
    assert_eq!(decisions, ["allowed", "implicitDeny", "explicitDeny", "explicitDeny"]);
    assert!(missing.is_empty());
}

#[tokio::test]
async fn a_simulation_is_of_a_role_and_signed_for_the_home_of_iam() {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    let asked = [("ActionNames.member.1", "ec2:DescribeInstances")];
    assert_eq!(simulate(&client, ROLE, &asked).await.0, ["allowed"]);
    for (arn, status, code) in [
        ("arn:aws:sts::123456789012:assumed-role/sandbox/you", 400, "InvalidInput"),
        ("arn:aws:iam::123456789012:role/nobody", 404, "NoSuchEntity"),
    ] {
        let input = [("Action", "SimulatePrincipalPolicy"), ("PolicySourceArn", arn), asked[0]];
        let reply = client.iam(&input).await;
        assert_eq!((reply.status, reply.elements("Code")), (status, vec![code.to_owned()]), "{arn}");
    }
    let input = [("Action", "SimulatePrincipalPolicy"), ("PolicySourceArn", ROLE), asked[0]];
    let elsewhere = client.in_region("eu-west-1").iam(&input).await;
    assert_eq!(
        (elsewhere.status, elsewhere.elements("Code")),
        (403, vec!["SignatureDoesNotMatch".to_owned()])
    );
}
