//! A role that STS grants for a token in a file, and a file without a token.

use std::fs;
use std::process::Command;

use crate::errors::fails;
use crate::harness::{HEALTHY, Running, Sandbox};
use crate::impostor::impostor;

const ROLE: &str = "arn:aws:iam::123456789012:role/sandbox";

fn without_keys(mut command: Command) -> Command {
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    command
}

#[test]
fn a_file_without_a_token_is_named_with_the_reason() {
    let sandbox = Sandbox::start();
    let (empty, directory) = (sandbox.file("empty"), sandbox.file("directory"));
    fs::write(&empty, "\n").unwrap();
    fs::create_dir(&directory).unwrap();
    let cases = [
        (sandbox.file("absent"), "No such file or directory (os error 2)"),
        (empty, "it is empty"),
        (directory, "Is a directory (os error 21)"),
    ];
    for (file, reason) in cases {
        let file = file.display();
        let config = sandbox.file("config");
        let text =
            format!("[default]\nregion = us-east-1\nrole_arn = {ROLE}\nweb_identity_token_file = {file}\n");
        fs::write(&config, text).unwrap();
        let error = format!("cannot use the web identity token in {file}: {reason}");
        let hint = format!(
            "see why {file} has no token, or correct `web_identity_token_file` or AWS_WEB_IDENTITY_TOKEN_FILE, which \
             names it"
        );
        let mut command = without_keys(sandbox.proxy(HEALTHY));
        fails(command.env("AWS_CONFIG_FILE", config), 1, &error, &[&hint]);
        let mut command = without_keys(sandbox.proxy(HEALTHY));
        command.env("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_string()).env("AWS_ROLE_ARN", ROLE);
        fails(&mut command, 1, &error, &[&hint]);
    }
    assert!(sandbox.region.calls().is_empty(), "{:?}", sandbox.region.calls());
}

/// What AWS says comes through the SDK, whose errors are in the form of Rust's `Debug` for codes that it does
/// not know.
#[test]
fn what_aws_says_of_a_token_is_told_in_words() {
    let sandbox = Sandbox::start();
    let token = sandbox.file("token");
    fs::write(&token, "eyJ.eyJ.sig\n").unwrap();
    let address = impostor(|_| {
        let error = "<Code>TokenIsOdd</Code><Message>The token is odd</Message>";
        (400, format!("<ErrorResponse><Error><Type>Sender</Type>{error}</Error></ErrorResponse>"))
    });
    let mut command = without_keys(sandbox.proxy(HEALTHY));
    command.env("AWS_WEB_IDENTITY_TOKEN_FILE", &token).env("AWS_ROLE_ARN", ROLE);
    command.env("AWS_ENDPOINT_URL_STS", format!("http://{address}"));
    let ended = Running::start(&mut command).wait().status(1);
    let error = "cannot get the AWS credentials of the default profile: TokenIsOdd: The token is odd";
    assert!(ended.stderr.starts_with(&format!("ssh_ec2: error: {error}\n")), "{ended}");
}
