//! A role for whoever has a token in a file, and a file that has none.

use std::fs;
use std::process::Command;

use crate::errors::fails;
use crate::harness::{HEALTHY, Sandbox};

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
