//! A profile of IAM Identity Center whose sign-in has expired.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ec2_sandbox::Options;
use serde_json::{Value, json};

use crate::credential_process::alone;
use crate::errors::told;
use crate::harness::{Sandbox, Terminal, binary, run};
use crate::impostor::{impostor, listen};

const CONNECT: [&str; 6] = ["--profile", "sso", "-q", "-n", "web-1", "echo in"];

/// A complete session and a complete profile.
const SETTINGS: &str = "[sso-session s]\nsso_start_url = https://sandbox.awsapps.com/start\nsso_region = us-east-1\n\
    sso_registration_scopes = sso:account:access\n\
    [profile sso]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = sandbox\n\
    region = us-east-1\n";

fn command(sandbox: &Sandbox, program: &str, words: &[&str]) -> Command {
    let profiles = sandbox.file("profiles");
    // Some tests write their own settings before.
    if !profiles.exists() {
        fs::write(&profiles, SETTINGS).unwrap();
    }
    let mut command = sandbox.command(program);
    // The region treats a request for its sign-in page as the user's consent.
    command.env("AWS_CONFIG_FILE", &profiles).env("BROWSER", "curl").args(words);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

/// The token file of the session, named after the SHA-1 of the session's name.
fn token(sandbox: &Sandbox) -> PathBuf {
    sandbox.home().join(".aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json")
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Signs in once.
fn sign_in(sandbox: &Sandbox) {
    let mut terminal = Terminal::start(ssh_ec2(sandbox), 24, 200);
    terminal.wait_for("Press Enter to sign in");
    terminal.type_in("\r");
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);
}

fn calls(sandbox: &Sandbox, action: &str) -> usize {
    sandbox.region.calls().iter().filter(|call| call.action == action).count()
}

fn ssh_ec2(sandbox: &Sandbox) -> Command {
    command(sandbox, &binary().display().to_string(), &CONNECT)
}

#[test]
fn signing_in_is_offered_once_and_serves_both_tools() {
    let sandbox = Sandbox::start();
    let mut terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
    terminal.wait_for("The AWS sign-in of profile sso has expired. Press Enter to sign in");
    terminal.type_in("\r");
    terminal.wait_for("Confirm the code ");
    terminal.wait_for("/device?user_code=");
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);

    let terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
    terminal.wait_for("in\r\n");
    assert!(!terminal.screen().contains("sign-in"), "{}", terminal.screen());
    let caller = ["--profile", "sso", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"];
    let caller = run(&mut command(&sandbox, "aws", &caller)).success();
    assert!(caller.text().contains("assumed-role/AWSReservedSSO_sandbox_"), "{caller}");
    let calls = sandbox.region.calls();
    assert_eq!(calls.iter().filter(|call| call.action == "sso-oidc:RegisterClient").count(), 1);
    sandbox.assert_tidy();
}

#[test]
fn declined_or_without_a_terminal_the_command_is_named() {
    let sandbox = Sandbox::start();
    let hint = "hint: sign in again: `aws sso login --profile sso`";
    let mut terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
    terminal.wait_for("Press Enter to sign in");
    terminal.type_in("\u{3}");
    terminal.wait_for(hint);
    assert_eq!(terminal.status(), 1);

    let mut alone = alone(&sandbox, &ssh_ec2(&sandbox));
    let ended = run(&mut alone).status(1);
    assert!(ended.stderr.contains(hint), "{ended}");
    assert!(!sandbox.region.calls().iter().any(|call| call.action.starts_with("sso-oidc:")));
}

/// Other fields in the file belong to other programs and stay.
#[test]
fn a_token_that_can_be_refreshed_is_and_its_file_keeps_the_rest() {
    let sandbox = Sandbox::start();
    sign_in(&sandbox);
    let path = token(&sandbox);
    let mut expired = read(&path);
    expired["expiresAt"] = json!("2020-01-01T00:00:00UTC");
    expired["other"] = json!({ "kept": [1] });
    fs::write(&path, expired.to_string()).unwrap();

    let ended = run(&mut alone(&sandbox, &ssh_ec2(&sandbox))).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    let refreshed = read(&path);
    assert_ne!(refreshed["accessToken"], expired["accessToken"]);
    for name in ["clientId", "clientSecret", "registrationExpiresAt", "startUrl", "region", "other"] {
        assert_eq!(refreshed[name], expired[name], "{name}");
    }
    assert!(refreshed["refreshToken"].is_string(), "{refreshed}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    // The AWS CLI can use the refreshed token.
    let caller = ["--profile", "sso", "sts", "get-caller-identity"];
    run(&mut command(&sandbox, "aws", &caller)).success();
    assert_eq!((calls(&sandbox, "sso-oidc:RegisterClient"), calls(&sandbox, "sso-oidc:CreateToken")), (1, 2));
}

#[test]
fn forks_that_start_together_refresh_once() {
    // All of them have read the old token before the first one gets a new one.
    let sandbox = Sandbox::with(Options { latency: Duration::from_millis(200), ..Options::default() });
    sign_in(&sandbox);
    let mut expired = read(&token(&sandbox));
    expired["expiresAt"] = json!("2020-01-01T00:00:00Z");
    fs::write(token(&sandbox), expired.to_string()).unwrap();
    let script = "for i in 1 2 3 4; do \"$0\" --profile sso -q -n web-1 'echo in' & done; wait";
    let mut forks = command(&sandbox, "sh", &["-c", script]);
    forks.arg(binary());
    let ended = run(&mut alone(&sandbox, &forks)).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\nin\nin\nin\n", ""));
    assert_eq!(calls(&sandbox, "sso-oidc:CreateToken"), 2, "the sign-in, and one refresh");
}

#[test]
fn a_role_that_is_not_the_users_is_named_without_a_word_of_signing_in() {
    let sandbox = Sandbox::start();
    sign_in(&sandbox);
    for (wrong, role, account) in [
        (SETTINGS.replace("name = sandbox", "name = Admin"), "Admin", "123456789012"),
        (SETTINGS.replace("123456789012", "210987654321"), "sandbox", "210987654321"),
    ] {
        fs::write(sandbox.file("profiles"), wrong).unwrap();
        let ended = run(&mut alone(&sandbox, &ssh_ec2(&sandbox))).status(1);
        let error = format!("you have no role {role} in account {account} of IAM Identity Center");
        let hint = "correct `sso_role_name` and `sso_account_id` of profile sso, or ask for the role; signing in \
                    again does not help";
        assert_eq!(ended.stderr, told(&error, &[hint]));
        assert_eq!(ended.links, ["no-role"]);
    }
}

/// Answers of Identity Center to a request for a role, from its service model, and those of proxies.
#[test]
fn every_refusal_of_a_role_has_its_own_message() {
    let sandbox = Sandbox::start();
    sign_in(&sandbox);
    let role = "you have no role sandbox in account 123456789012 of IAM Identity Center";
    let correct = "correct `sso_role_name` and `sso_account_id` of profile sso, or ask for the role; signing in again \
                   does not help";
    let again = "sign in again: `aws sso login --profile sso`";
    let not_aws = "check AWS_ENDPOINT_URL and the proxy: the answer may not be from AWS";
    let throttled =
        "AWS throttles portal.sso:GetRoleCredentials: there were too many calls; wait a minute and try again";
    let failed = "portal.sso:GetRoleCredentials failed with";
    let malformed =
        "cannot understand the answer to portal.sso:GetRoleCredentials: it is not the JSON that was expected";
    for (status, body, error, hint) in [
        (
            403,
            r#"{"message":"No access","__type":"com.amazonaws.switchboard.portal#ForbiddenException"}"#,
            role,
            correct,
        ),
        (
            403,
            r#"{"Message":"No access","message":"No access","__type":"ForbiddenException"}"#,
            role,
            correct,
        ),
        (404, r#"{"message":"Account not found","__type":"ResourceNotFoundException"}"#, role, correct),
        (
            401,
            r#"{"message":"Session token not found or invalid","__type":"UnauthorizedException"}"#,
            "the AWS sign-in of profile sso is not valid any more",
            again,
        ),
        (429, r#"{"message":"HTTP 429 Unknown Code","__type":"TooManyRequestsException"}"#, throttled, ""),
        (
            400,
            r#"{"message":"Bad role","__type":"InvalidRequestException"}"#,
            &format!("{failed} InvalidRequestException: Bad role"),
            "",
        ),
        (403, "<html>blocked</html>", &format!("{failed} status 403: it gave no reason"), ""),
        (200, "<html>Welcome to the hotel</html>", malformed, not_aws),
    ] {
        let portal = impostor(move |_| (status, body.to_owned()));
        let mut command = ssh_ec2(&sandbox);
        command.env("AWS_ENDPOINT_URL_SSO", format!("http://{portal}"));
        let ended = run(&mut alone(&sandbox, &command)).status(1);
        let hints = [hint];
        assert_eq!(ended.stderr, told(error, if hint.is_empty() { &[] } else { &hints }), "{body}");
    }
}

/// A temporary refusal does not concern the sign-in.
#[test]
fn a_refresh_that_fails_for_a_moment_is_no_expired_sign_in() {
    let sandbox = Sandbox::start();
    sign_in(&sandbox);
    let mut expired = read(&token(&sandbox));
    expired["expiresAt"] = json!("2020-01-01T00:00:00Z");
    fs::write(token(&sandbox), expired.to_string()).unwrap();
    let again = "sign in again: `aws sso login --profile sso`";
    for (status, body, error, hint) in [
        (
            400,
            r#"{"error":"invalid_grant","__type":"InvalidGrantException"}"#,
            "the AWS sign-in of profile sso has expired",
            again,
        ),
        (
            400,
            r#"{"error":"slow_down","__type":"TooManyRequestsException"}"#,
            "AWS throttles oidc:CreateToken: there were too many calls; wait a minute and try again",
            "",
        ),
        (
            500,
            r#"{"error":"server_error","error_description":"Broken.","__type":"InternalServerException"}"#,
            "oidc:CreateToken failed with InternalServerException: Broken.",
            "",
        ),
        (503, "busy", "oidc:CreateToken failed with status 503: it gave no reason", ""),
    ] {
        let service = impostor(move |_| (status, body.to_owned()));
        let mut command = ssh_ec2(&sandbox);
        command.env("AWS_ENDPOINT_URL_SSO_OIDC", format!("http://{service}"));
        let ended = run(&mut alone(&sandbox, &command)).status(1);
        let hints = [hint];
        assert_eq!(ended.stderr, told(error, if hint.is_empty() { &[] } else { &hints }), "{body}");
    }
}

#[test]
fn a_profile_that_lacks_something_opens_no_browser() {
    for option in ["sso_account_id", "sso_role_name"] {
        let sandbox = Sandbox::start();
        let lines = SETTINGS.lines().filter(|line| !line.starts_with(option));
        fs::write(sandbox.file("profiles"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        let mut terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
        terminal.wait_for(option);
        assert_eq!(terminal.status(), 1);
        assert!(!terminal.screen().contains("Press Enter"), "{}", terminal.screen());
        assert_eq!(calls(&sandbox, "sso-oidc:RegisterClient"), 0);
    }
}

#[test]
fn a_sign_in_that_aws_revokes_is_offered_again() {
    let sandbox = Sandbox::start();
    sign_in(&sandbox);
    let mut revoked = read(&token(&sandbox));
    revoked["accessToken"] = json!("revoked");
    fs::write(token(&sandbox), revoked.to_string()).unwrap();
    let ended = run(&mut alone(&sandbox, &ssh_ec2(&sandbox))).status(1);
    let hint = "sign in again: `aws sso login --profile sso`";
    assert_eq!(ended.stderr, told("the AWS sign-in of profile sso is not valid any more", &[hint]));
    sign_in(&sandbox);
    assert_eq!(calls(&sandbox, "sso-oidc:RegisterClient"), 2);
}

#[test]
fn a_sign_in_that_fails_is_reported_in_words() {
    let sandbox = Sandbox::start();
    let mut unreachable = ssh_ec2(&sandbox);
    unreachable.env("AWS_ENDPOINT_URL_SSO_OIDC", "https://oidc.invalid");
    let mut terminal = Terminal::start(unreachable, 24, 300);
    terminal.wait_for("Press Enter to sign in");
    terminal.type_in("\r");
    terminal.wait_for("error: cannot sign in with IAM Identity Center: cannot reach oidc.invalid: ");
    terminal.wait_for("hint: check the region and the network; set HTTPS_PROXY if this network has a proxy");
    assert_eq!(terminal.status(), 1);
    for shape in ["{", "Some(", "DispatchFailure", "ConnectorError"] {
        assert!(!terminal.screen().contains(shape), "{}", terminal.screen());
    }
}

/// The proxy fails, neither the sign-in nor the network.
#[test]
fn a_proxy_that_fails_is_named_at_the_sign_in() {
    let sandbox = Sandbox::start();
    let refusing = listen(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 407 X\r\n\r\n");
    });
    let error = format!("the proxy http://{refusing} answered 407 (Proxy Authentication Required)");
    let hint = "put the proxy's user and password into HTTPS_PROXY: `http://user:password@host:port`";
    let through_proxy = |service: &str| {
        let mut command = ssh_ec2(&sandbox);
        command.env("HTTPS_PROXY", format!("http://{refusing}"));
        command.env(format!("AWS_ENDPOINT_URL_{service}"), "https://idc.invalid");
        command
    };
    let mut terminal = Terminal::start(through_proxy("SSO_OIDC"), 24, 300);
    terminal.wait_for("Press Enter to sign in");
    terminal.type_in("\r");
    let place = "cannot sign in with IAM Identity Center: cannot reach idc.invalid: ";
    terminal.wait_for(&format!("error: {place}{error}"));
    terminal.wait_for(&format!("hint: {hint}"));
    terminal.wait_for("#http-proxy");
    assert_eq!(terminal.status(), 1);
    sign_in(&sandbox);
    let ended = run(&mut alone(&sandbox, &through_proxy("SSO"))).status(1);
    assert_eq!(ended.stderr, told(&format!("cannot reach idc.invalid: {error}"), &[hint]));
    assert_eq!(ended.links, ["http-proxy"]);
}

/// A file that others could have written is ignored, and its token is not sent.
#[test]
fn a_token_that_others_could_have_written_is_not_used() {
    let sandbox = Sandbox::start();
    sign_in(&sandbox);
    fs::set_permissions(token(&sandbox), fs::Permissions::from_mode(0o666)).unwrap();
    let before = calls(&sandbox, "sso:GetRoleCredentials");
    let ended = run(&mut alone(&sandbox, &ssh_ec2(&sandbox))).status(1);
    let error = format!(
        "the AWS sign-in of profile sso is not trusted: other users can write to {}",
        token(&sandbox).display()
    );
    assert!(ended.stderr.starts_with(&format!("ssh_ec2: error: {error}\n")), "{ended}");
    assert_eq!(calls(&sandbox, "sso:GetRoleCredentials"), before);
}

#[test]
fn a_session_may_be_repeated_in_the_profile() {
    let sandbox = Sandbox::start();
    let repeated = "sso_start_url = https://sandbox.awsapps.com/start\nsso_region = us-east-1\n";
    fs::write(sandbox.file("profiles"), format!("{SETTINGS}{repeated}")).unwrap();
    sign_in(&sandbox);
}

#[test]
fn nobody_signs_in_for_a_profile_that_cannot_be_used() {
    let unusable = [
        (
            "sso_start_url = https://other.awsapps.com/start\n",
            "profile sso and its sso-session s differ in sso_start_url",
            "remove sso_start_url from the profile",
        ),
        (
            "[profile sso2]\n",
            "profile sso signs in with IAM Identity Center, but lacks sso_role_name",
            "add sso_role_name to the profile or its `sso-session`",
        ),
    ];
    for (at, (more, error, hint)) in unusable.into_iter().enumerate() {
        let sandbox = Sandbox::start();
        let settings =
            if at == 0 { SETTINGS.to_owned() } else { SETTINGS.replace("sso_role_name = sandbox\n", "") };
        fs::write(sandbox.file("profiles"), format!("{settings}{more}")).unwrap();
        let mut terminal = Terminal::start(ssh_ec2(&sandbox), 24, 200);
        terminal.wait_for(error);
        terminal.wait_for(hint);
        assert_eq!(terminal.status(), 1);
        assert!(!terminal.screen().contains("Press Enter"), "{}", terminal.screen());
        assert!(!terminal.screen().contains("sso login"), "{}", terminal.screen());
        assert_eq!(sandbox.region.calls().len(), 0);
    }
}
