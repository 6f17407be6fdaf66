//! Credentials from the region's STS and Identity Center: how they are got, what they allow, how long they
//! live.

use ec2_sandbox::{Options, Region};
use serde_json::json;

use crate::client::{Client, Reply};

const ADMIN: &str = "arn:aws:iam::123456789012:role/admin";
const MFA: &str = "arn:aws:iam::123456789012:role/mfa";
const DEVICE: &str = "arn:aws:iam::123456789012:mfa/you";
const YOU: &str = "arn:aws:sts::123456789012:assumed-role/sandbox/you";

async fn region() -> (Region, Client) {
    let region = Region::start(Options::default()).await.unwrap();
    let client = Client::new(&region);
    (region, client)
}

async fn assume(client: &Client, role: &str, more: &[(&str, &str)]) -> Reply {
    let input = [("Action", "AssumeRole"), ("RoleArn", role), ("RoleSessionName", "me@example.com")];
    client.sts(&[&input, more].concat()).await
}

async fn identity(client: &Client) -> String {
    client.sts(&[("Action", "GetCallerIdentity")]).await.elements("Arn").concat()
}

fn refusal(reply: &Reply) -> (u16, String, String) {
    (reply.status, reply.elements("Code").concat(), reply.elements("Message").concat())
}

#[tokio::test]
async fn a_role_is_assumed_and_acts_under_its_own_name() {
    let (_region, client) = region().await;
    let reply = assume(&client, ADMIN, &[("ExternalId", "partner"), ("DurationSeconds", "900")]).await;
    let arn = "arn:aws:sts::123456789012:assumed-role/admin/me@example.com";
    assert_eq!(reply.elements("Arn"), [arn]);
    assert_eq!(reply.elements("AssumedRoleId"), ["AROA0SANDBOX000ADMIN0:me@example.com"]);
    let expiration = reply.elements("Expiration").pop().unwrap();
    assert_eq!((expiration.len(), expiration.ends_with('Z')), (20, true), "{expiration}");

    let admin = client.with_credentials(&reply);
    assert!(admin.access_key_id.starts_with("ASIA"));
    assert_eq!(identity(&admin).await, arn);
    let europe = admin.in_region("eu-west-1");
    assert_eq!(europe.ec2(&[("Action", "DescribeInstances")]).await.elements("instanceId").len(), 1);
    let session = json!({"Target": "i-0decaf00000000001", "DocumentName": "AWS-StartSSHSession"});
    let started = admin.ssm("StartSession", &session).await;
    assert!(started.text("SessionId").starts_with("me@example.com-0"));
    let denied = json!({"Target": "i-0dead000000000006", "DocumentName": "AWS-StartSSHSession"});
    let message = admin.ssm("StartSession", &denied).await.text("Message");
    assert!(message.starts_with(&format!("User: {arn} is not authorized")), "{message}");
}

#[tokio::test]
async fn a_role_may_ask_for_a_code() {
    let (region, client) = region().await;
    let code = region.mfa_code();
    let wrong = if code == "000000" { "000001" } else { "000000" };
    let refused = |message: &str| (403, "AccessDenied".to_owned(), message.to_owned());

    let missing = format!("User: {YOU} is not authorized to perform: sts:AssumeRole on resource: {MFA}");
    assert_eq!(refusal(&assume(&client, MFA, &[]).await), refused(&missing));
    let invalid = "MultiFactorAuthentication failed with invalid MFA one time pass code. ";
    let both = [("SerialNumber", DEVICE), ("TokenCode", wrong)];
    for role in [MFA, ADMIN] {
        assert_eq!(refusal(&assume(&client, role, &both).await), refused(invalid));
    }
    let device = "MultiFactorAuthentication failed, unable to validate MFA code.  Please verify your MFA serial \
                  number is valid and associated with this user.";
    let both = [("SerialNumber", "arn:aws:iam::123456789012:mfa/me"), ("TokenCode", code)];
    assert_eq!(refusal(&assume(&client, MFA, &both).await), refused(device));
    let half =
        "MultiFactorAuthentication failed, must provide both MFA serial number and one time pass code. ";
    assert_eq!(refusal(&assume(&client, MFA, &[("TokenCode", code)]).await), refused(half));

    for _ in 0..2 {
        let reply = assume(&client, MFA, &[("SerialNumber", DEVICE), ("TokenCode", code)]).await;
        let arn = "arn:aws:sts::123456789012:assumed-role/mfa/me@example.com";
        assert_eq!(identity(&client.with_credentials(&reply)).await, arn);
    }
}

#[tokio::test]
async fn a_session_token_carries_the_code_to_roles() {
    let (region, client) = region().await;
    let plain = client.with_credentials(&client.sts(&[("Action", "GetSessionToken")]).await);
    assert_eq!(identity(&plain).await, YOU);
    assert_eq!(assume(&plain, MFA, &[]).await.status, 403);
    let input = [("Action", "GetSessionToken"), ("SerialNumber", DEVICE), ("TokenCode", region.mfa_code())];
    let proven = client.with_credentials(&client.sts(&input).await);
    assert_eq!(identity(&proven).await, YOU);
    assert_eq!(assume(&proven, MFA, &[]).await.status, 200);
    let again = proven.sts(&[("Action", "GetSessionToken")]).await;
    let message = "Cannot call GetSessionToken with session credentials";
    assert_eq!(refusal(&again), (403, "AccessDenied".to_owned(), message.to_owned()));
}

#[tokio::test]
async fn what_no_role_can_be_assumed_with_is_refused() {
    let (_region, client) = region().await;
    let unknown = "arn:aws:iam::123456789012:role/nobody";
    let message = format!("User: {YOU} is not authorized to perform: sts:AssumeRole on resource: {unknown}");
    assert_eq!(refusal(&assume(&client, unknown, &[]).await), (403, "AccessDenied".to_owned(), message));
    for (role, more) in [
        ("admin", &[][..]),
        ("arn:aws:s3:::bucket/that/is/no/role", &[]),
        (ADMIN, &[("DurationSeconds", "899")]),
        (ADMIN, &[("DurationSeconds", "43201")]),
        (ADMIN, &[("TokenCode", "12345")]),
        (ADMIN, &[("TokenCode", "12345a")]),
        (ADMIN, &[("ExternalId", "a b")]),
    ] {
        let (status, code, message) = refusal(&assume(&client, role, more).await);
        assert_eq!((status, code.as_str()), (400, "ValidationError"), "{role} {more:?} {message}");
    }
    let nameless = client.sts(&[("Action", "AssumeRole"), ("RoleArn", ADMIN)]).await;
    let message = "1 validation error detected: Value null at 'roleSessionName' failed to satisfy constraint: \
                   Member must not be null";
    assert_eq!(refusal(&nameless), (400, "ValidationError".to_owned(), message.to_owned()));

    let admin = client.with_credentials(&assume(&client, ADMIN, &[("DurationSeconds", "43200")]).await);
    let chained = assume(&admin, ADMIN, &[("DurationSeconds", "3601")]).await;
    let message =
        "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.";
    assert_eq!(refusal(&chained), (400, "ValidationError".to_owned(), message.to_owned()));
    assert_eq!(assume(&admin, ADMIN, &[]).await.status, 200);
}

#[tokio::test]
async fn credentials_of_roles_expire_with_all_others() {
    let (region, client) = region().await;
    let admin = client.with_credentials(&assume(&client, ADMIN, &[]).await);
    region.expire_credentials();
    for client in [client, admin] {
        let reply = client.sts(&[("Action", "GetCallerIdentity")]).await;
        assert_eq!((reply.status, reply.elements("Code").concat().as_str()), (403, "ExpiredToken"));
        assert_eq!(client.ec2(&[("Action", "DescribeRegions")]).await.elements("Code"), ["RequestExpired"]);
        assert_eq!(client.ssm("StartSession", &json!({})).await.code(), "ExpiredTokenException");
    }
}
