//! The AWS CLI against the region: its choice of region and credentials.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::{fs, path::Path, process::Stdio};

use ec2_sandbox::{Options, Region};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;

/// A region, and a home directory with AWS configuration files.
struct Home {
    region: Region,
    directory: TempDir,
}

impl Home {
    async fn new(options: Options) -> Self {
        let region = Region::start(options).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("config"), CONFIG).unwrap();
        Self { region, directory }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The output of the AWS CLI as JSON, or its standard error if it fails.
    async fn aws(&self, words: &[&str]) -> Result<Value, String> {
        let mut command = Command::new("aws");
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        let output = command
            .envs(self.region.environment())
            .env("AWS_CONFIG_FILE", self.path().join("config"))
            .env("HOME", self.path())
            .args(["--output", "json"])
            .args(words)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        if !output.status.success() {
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        Ok(serde_json::from_slice(&output.stdout).unwrap_or_default())
    }

    async fn identity(&self, profile: &str) -> Result<String, String> {
        let identity = self.aws(&["--profile", profile, "sts", "get-caller-identity"]).await?;
        Ok(identity["Arn"].as_str().unwrap().to_owned())
    }
}

/// Without `cli_follow_urlparam = false`, version 1 of the AWS CLI downloads an argument that is a URL.
const CONFIG: &str = "\
[default]
cli_follow_urlparam = false

[profile admin]
role_arn = arn:aws:iam::123456789012:role/admin
role_session_name = cli
credential_source = Environment

[profile mfa]
role_arn = arn:aws:iam::123456789012:role/mfa
role_session_name = cli
credential_source = Environment

[profile sso]
sso_session = sandbox
sso_account_id = 123456789012
sso_role_name = sandbox

[sso-session sandbox]
sso_region = us-east-1
sso_start_url = https://sandbox.awsapps.com/start
sso_registration_scopes = sso:account:access
";

#[tokio::test]
async fn each_region_is_seen_by_itself() {
    let home = Home::new(Options { fleet: 8, ..Options::default() }).await;
    let regions = home.aws(&["ec2", "describe-regions", "--query", "Regions[].RegionName"]).await.unwrap();
    assert_eq!(regions, json!(["us-east-1", "us-west-2", "eu-west-1", "ap-southeast-2"]));
    let query = "Reservations[].Instances[].Tags[?Key=='Name'].Value[]";
    let words = ["--region", "eu-west-1", "ec2", "describe-instances", "--query", query];
    assert_eq!(home.aws(&words).await.unwrap(), json!(["eu-web", "node-0003", "node-0007"]));
    let query = "Reservations[0].Instances[0].NetworkInterfaces[0].Ipv6Addresses[0].Ipv6Address";
    let words = ["ec2", "describe-instances", "--instance-ids", "i-0decaf00000000007", "--query", query];
    assert_eq!(home.aws(&words).await.unwrap(), "2001:db8::17");
    let error = home.aws(&["--region", "eu-central-1", "ec2", "describe-regions"]).await.unwrap_err();
    assert!(error.contains("(AuthFailure)"), "{error}");
}

#[tokio::test]
async fn a_profile_assumes_its_role() {
    let home = Home::new(Options::default()).await;
    let arn = home.identity("admin").await.unwrap();
    assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/admin/cli");
    let error = home.identity("mfa").await.unwrap_err();
    assert!(error.contains("(AccessDenied) when calling the AssumeRole operation"), "{error}");
    let words = ["sts", "get-session-token", "--serial-number", "arn:aws:iam::123456789012:mfa/you"];
    let with_code = [&words[..], &["--token-code", home.region.mfa_code()]].concat();
    let credentials = home.aws(&with_code).await.unwrap();
    assert!(credentials["Credentials"]["AccessKeyId"].as_str().unwrap().starts_with("ASIA"));
}

#[tokio::test]
async fn a_profile_refreshes_its_token_and_gets_the_role_behind_it() {
    let home = Home::new(Options { sso_approves: true, ..Options::default() }).await;
    let words = ["--client-name", "cli", "--client-type", "public", "--scopes", "sso:account:access"];
    let client = home.aws(&[&["sso-oidc", "register-client"], &words[..]].concat()).await.unwrap();
    let (id, secret) = (client["clientId"].as_str().unwrap(), client["clientSecret"].as_str().unwrap());
    // With `=`, since a value that begins with a dash would be read as an option.
    let (id, secret) = (format!("--client-id={id}"), format!("--client-secret={secret}"));
    let words =
        ["sso-oidc", "start-device-authorization", "--start-url", "https://sandbox.awsapps.com/start"];
    let device = home.aws(&[&words[..], &[&id, &secret]].concat()).await.unwrap();
    let code = format!("--device-code={}", device["deviceCode"].as_str().unwrap());
    let grant = "urn:ietf:params:oauth:grant-type:device_code";
    let words = ["sso-oidc", "create-token", "--grant-type", grant, &code, &id, &secret];
    let tokens = home.aws(&words).await.unwrap();

    let cache = home.path().join(".aws/sso/cache");
    fs::create_dir_all(&cache).unwrap();
    let token = json!({
        "startUrl": "https://sandbox.awsapps.com/start",
        "region": "us-east-1",
        "accessToken": tokens["accessToken"],
        "refreshToken": tokens["refreshToken"],
        "expiresAt": "2020-01-01T00:00:00Z",
        "clientId": client["clientId"],
        "clientSecret": client["clientSecret"],
        "registrationExpiresAt": "2100-01-01T00:00:00Z",
    });
    fs::write(cache.join(TOKEN_FILE), token.to_string()).unwrap();
    home.region.expire_access_tokens();
    let arn = home.identity("sso").await.unwrap();
    assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/AWSReservedSSO_sandbox_0decaf0000000000/you");
    let actions: Vec<_> = home.region.calls().into_iter().map(|call| call.action).collect();
    assert_eq!(actions[3..], ["sso-oidc:CreateToken", "sso:GetRoleCredentials", "sts:GetCallerIdentity"]);
}

/// The SHA-1 of the session's name.
const TOKEN_FILE: &str = "9ed037b84943c4caa3a520e48a5540181c46c98c.json";
