//! A role that STS grants for a token in a file, and a file without a token.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Command;
use std::sync::mpsc;

use crate::errors::fails;
use crate::harness::{HEALTHY, Running, Sandbox};
use crate::impostor::{impostor, listen};

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

#[test]
fn what_aws_says_of_a_token_is_reported_in_words() {
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

/// The token is sent once, to the STS endpoint of the profile, in a request without a signature.
#[test]
fn sts_is_where_the_profile_says() {
    let sandbox = Sandbox::start();
    let token = sandbox.file("token");
    fs::write(&token, "eyJ.eyJ.sig\n").unwrap();
    let token = token.display();
    let (send, requests) = mpsc::channel();
    let address = listen(move |mut stream| {
        send.send(request(&stream)).unwrap();
        let body = "<ErrorResponse><Error><Code>TokenIsOdd</Code></Error></ErrorResponse>";
        let head = format!("HTTP/1.1 400 X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        stream.write_all((head + body).as_bytes()).unwrap();
    });
    for place in [
        format!("services = s\n[services s]\nsts =\n  endpoint_url = http://{address}\n"),
        format!("endpoint_url = http://{address}\n"),
    ] {
        let config = sandbox.file("config");
        let role = format!("role_arn = {ROLE}\nrole_session_name = me\nweb_identity_token_file = {token}\n");
        fs::write(&config, format!("[default]\nregion = us-east-1\n{role}{place}")).unwrap();
        let mut command = without_keys(sandbox.proxy(HEALTHY));
        command.env("AWS_CONFIG_FILE", config).env_remove("AWS_ENDPOINT_URL");
        let ended = Running::start(&mut command).wait().status(1);
        assert!(ended.stderr.contains("credentials of the default profile: TokenIsOdd"), "{place}\n{ended}");
        let request = requests.try_recv().unwrap();
        let role = "RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fsandbox&RoleSessionName=me";
        let form = format!(
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&{role}&WebIdentityToken=eyJ.eyJ.sig%0A"
        );
        assert!(request.starts_with("POST / ") && request.ends_with(&form), "{request}");
        assert!(!request.to_lowercase().contains("\nauthorization:"), "{request}");
        assert!(requests.try_recv().is_err(), "it is asked once");
    }
}

/// The text of one request.
fn request(stream: &TcpStream) -> String {
    let mut reader = BufReader::new(stream);
    let (mut text, mut length) = (String::new(), 0);
    while !text.ends_with("\r\n\r\n") {
        let from = text.len();
        assert_ne!(reader.read_line(&mut text).unwrap(), 0, "{text}");
        if let Some(value) = text[from..].to_lowercase().strip_prefix("content-length: ") {
            length = value.trim().parse().unwrap();
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    text + &String::from_utf8(body).unwrap()
}
