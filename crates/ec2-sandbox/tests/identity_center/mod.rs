//! Signing in with Identity Center, request by request.

use ec2_sandbox::{Faults, Options, Region};
use serde_json::{Value, json};

use crate::client::{Client, Reply};

const START_URL: &str = "https://sandbox.awsapps.com/start";
const DEVICE_GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// A registered client of Identity Center.
struct Device {
    client: Client,
    id: String,
    secret: String,
}

impl Device {
    async fn register(region: &Region, scopes: &[&str]) -> Self {
        let client = Client::new(region);
        let input = json!({"clientName": "test", "clientType": "public", "scopes": scopes});
        let reply = post(&client, "/client/register", &input).await;
        Self { id: reply.text("clientId"), secret: reply.text("clientSecret"), client }
    }

    async fn post(&self, path: &str, more: Value) -> Reply {
        let mut input = json!({"clientId": self.id, "clientSecret": self.secret});
        input.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        post(&self.client, path, &input).await
    }

    async fn start(&self) -> Reply {
        self.post("/device_authorization", json!({"startUrl": START_URL})).await
    }

    async fn poll(&self, device_code: &str) -> Reply {
        self.post("/token", json!({"grantType": DEVICE_GRANT, "deviceCode": device_code})).await
    }

    async fn refresh(&self, token: &str) -> Reply {
        self.post("/token", json!({"grantType": "refresh_token", "refreshToken": token})).await
    }

    async fn portal(&self, path: &str, token: &str) -> Reply {
        self.client.send("GET", path, &[("x-amz-sso_bearer_token", token)], "").await
    }
}

async fn post(client: &Client, path: &str, input: &Value) -> Reply {
    let headers = [("content-type", "application/json")];
    client.send("POST", path, &headers, &input.to_string()).await
}

/// Status, the type in the header, the OAuth error.
fn refusal(reply: &Reply) -> (u16, String, String) {
    let (code, _) = reply.header("x-amzn-errortype").unwrap().split_once(':').unwrap();
    (reply.status, code.to_owned(), reply.text("error"))
}

fn refused(status: u16, name: &str, error: &str) -> (u16, String, String) {
    (status, format!("{name}exception"), error.to_owned())
}

const CREDENTIALS: &str = "/federation/credentials?role_name=sandbox&account_id=123456789012";

#[tokio::test]
async fn a_device_gets_its_token_and_the_token_a_role() {
    let region = Region::start(Options::default()).await.unwrap();
    let device = Device::register(&region, &[]).await;
    let started = device.start().await;
    let (code, user_code) = (started.text("deviceCode"), started.text("userCode"));
    assert_eq!(started.text("verificationUri"), format!("{}/device", region.endpoint()));
    let complete = format!("{}/device?user_code={user_code}", region.endpoint());
    assert_eq!(started.text("verificationUriComplete"), complete);
    for _ in 0..2 {
        let pending = refused(400, "authorizationpending", "authorization_pending");
        assert_eq!(refusal(&device.poll(&code).await), pending);
    }
    assert!(!region.approve_device("AAAA-AAAA"));
    assert!(region.approve_device(&user_code));
    let tokens = device.poll(&code).await;
    assert_eq!(
        (tokens.json()["expiresIn"].as_u64(), tokens.text("tokenType").as_str()),
        (Some(28_800), "Bearer")
    );
    assert!(tokens.json().get("refreshToken").is_none());
    assert_eq!(refusal(&device.poll(&code).await), refused(400, "invalidgrant", "invalid_grant"));

    let token = tokens.text("accessToken");
    let accounts = device.portal("/assignment/accounts?max_result=10", &token).await.json();
    assert_eq!(accounts["accountList"][0]["accountId"], "123456789012");
    let roles = device.portal("/assignment/roles?account_id=123456789012", &token).await.json();
    assert_eq!(roles["roleList"], json!([{"accountId": "123456789012", "roleName": "sandbox"}]));
    let credentials = &device.portal(CREDENTIALS, &token).await.json()["roleCredentials"];
    assert!(credentials["expiration"].as_u64().unwrap() > 1_700_000_000_000);
    let text = |name: &str| credentials[name].as_str().unwrap().to_owned();
    let role = Client {
        access_key_id: text("accessKeyId"),
        secret_access_key: text("secretAccessKey"),
        session_token: Some(text("sessionToken")),
        ..device.client.clone()
    };
    let identity = role.sts(&[("Action", "GetCallerIdentity")]).await;
    let arn = "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_sandbox_0decaf0000000000/you";
    assert_eq!(identity.elements("Arn"), [arn]);

    let actions: Vec<_> = region.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(actions[0], "sso-oidc:RegisterClient");
    assert_eq!(
        actions[6..],
        ["sso:ListAccounts", "sso:ListAccountRoles", "sso:GetRoleCredentials", "sts:GetCallerIdentity"]
    );
}

#[tokio::test]
async fn the_page_that_a_device_shows_approves_it() {
    let region = Region::start(Options::default()).await.unwrap();
    let device = Device::register(&region, &[]).await;
    let started = device.start().await;
    let visit = async |url: &str| {
        device.client.send("GET", url.strip_prefix(&region.endpoint()).unwrap(), &[], "").await.status
    };
    assert_eq!(visit(&started.text("verificationUri")).await, 404);
    assert_eq!(visit(&started.text("verificationUriComplete")).await, 200);
    assert_eq!(device.poll(&started.text("deviceCode")).await.status, 200);
}

#[tokio::test]
async fn a_token_is_refreshed_when_it_has_expired() {
    let region = Region::start(Options { sso_approves: true, ..Options::default() }).await.unwrap();
    let device = Device::register(&region, &["sso:account:access"]).await;
    let first = device.poll(&device.start().await.text("deviceCode")).await;
    assert_eq!(first.json()["expiresIn"], 3600);
    assert_eq!(device.portal(CREDENTIALS, &first.text("accessToken")).await.status, 200);
    region.expire_access_tokens();
    let refused_token = device.portal(CREDENTIALS, &first.text("accessToken")).await;
    assert_eq!((refused_token.status, refused_token.code().as_str()), (401, "UnauthorizedException"));
    assert_eq!(refused_token.text("message"), "Session token not found or invalid");
    let second = device.refresh(&first.text("refreshToken")).await;
    assert_eq!(device.portal(CREDENTIALS, &second.text("accessToken")).await.status, 200);
    let again = device.refresh(&first.text("refreshToken")).await;
    assert_eq!(refusal(&again), refused(400, "invalidgrant", "invalid_grant"));
    assert_eq!(device.refresh(&second.text("refreshToken")).await.status, 200);
}

#[tokio::test]
async fn what_identity_center_does_not_know_is_refused() {
    let mut faults = Faults::default();
    faults.add("throttle=StartDeviceAuthorization:0/1").unwrap();
    faults.add("throttle=ListAccounts:0/1").unwrap();
    let options = Options { sso_approves: true, faults, ..Options::default() };
    let region = Region::start(options).await.unwrap();
    let mut device = Device::register(&region, &[]).await;
    let elsewhere =
        device.post("/device_authorization", json!({"startUrl": "https://d-1.awsapps.com/start"})).await;
    assert_eq!(refusal(&elsewhere), refused(400, "invalidrequest", "invalid_request"));
    assert_eq!(refusal(&device.start().await), refused(400, "slowdown", "slow_down"));
    let unsupported = device.post("/token", json!({"grantType": "password"})).await;
    assert_eq!(refusal(&unsupported), refused(400, "unsupportedgranttype", "unsupported_grant_type"));
    let confidential = json!({"clientName": "test", "clientType": "confidential"});
    let reply = post(&device.client, "/client/register", &confidential).await;
    assert_eq!(refusal(&reply), refused(400, "invalidclientmetadata", "invalid_client_metadata"));
    device.secret.push('x');
    assert_eq!(refusal(&device.poll("code").await), refused(401, "invalidclient", "invalid_client"));

    assert_eq!(device.portal("/assignment/accounts", "token").await.status, 401);
    let throttled = device.portal("/assignment/accounts", "token").await;
    assert_eq!((throttled.status, throttled.code().as_str()), (429, "TooManyRequestsException"));
    assert_eq!(device.client.send("GET", "/token", &[], "").await.status, 400);
}

#[tokio::test]
async fn an_access_token_is_worth_its_own_role_until_its_user_signs_out() {
    let region = Region::start(Options { sso_approves: true, ..Options::default() }).await.unwrap();
    let device = Device::register(&region, &[]).await;
    let token = device.poll(&device.start().await.text("deviceCode")).await.text("accessToken");
    for (path, status, code) in [
        (CREDENTIALS.replace("sandbox", "admin"), 403, "ForbiddenException"),
        (CREDENTIALS.replace("123456789012", "210987654321"), 403, "ForbiddenException"),
        ("/federation/credentials?role_name=sandbox".to_owned(), 400, "InvalidRequestException"),
    ] {
        let reply = device.portal(&path, &token).await;
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{path}");
        assert_eq!(reply.header("x-amzn-errortype"), Some(code.to_ascii_lowercase().as_str()));
    }
    let signed_out = device.client.send("POST", "/logout", &[("x-amz-sso_bearer_token", &token)], "").await;
    assert_eq!(signed_out.status, 200);
    assert_eq!(device.portal(CREDENTIALS, &token).await.status, 401);
}
