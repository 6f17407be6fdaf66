//! Which credentials a connection uses, for the files and environments that users have: those that the AWS
//! CLI would use, or an error.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use crate::errors::{fails, told};
use crate::harness::{HEALTHY, Sandbox, run};

const KEYS: [(&str, &str); 3] = [
    ("AWS_ACCESS_KEY_ID", "aws_access_key_id"),
    ("AWS_SECRET_ACCESS_KEY", "aws_secret_access_key"),
    ("AWS_SESSION_TOKEN", "aws_session_token"),
];

/// The region's keys as lines of a profile.
fn keys(sandbox: &Sandbox) -> String {
    let environment = sandbox.region.environment();
    let value = |name: &str| &environment.iter().find(|(found, _)| found == name).unwrap().1;
    KEYS.iter().map(|(variable, option)| format!("{option} = {}\n", value(variable))).collect()
}

/// A command whose credentials and region come from these files alone.
fn with_files(sandbox: &Sandbox, config: &str, credentials: &str, words: &[&str]) -> Command {
    let mut command = sandbox.ssh_ec2();
    for (variable, text) in [("AWS_CONFIG_FILE", config), ("AWS_SHARED_CREDENTIALS_FILE", credentials)] {
        let file = sandbox.file(variable);
        fs::write(&file, text.replace("KEYS\n", &keys(sandbox))).unwrap();
        command.env(variable, file);
    }
    for (variable, _) in KEYS {
        command.env_remove(variable);
    }
    command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION").args(words);
    command
}

/// The instance metadata service answers, and `aws` with the same settings connects to it.
#[track_caller]
fn both_connect(sandbox: &Sandbox, config: &str, credentials: &str, profile: Option<&str>) {
    let option: Vec<_> = profile.into_iter().flat_map(|name| ["--profile", name]).collect();
    let target = sandbox.target();
    let words = [&option[..], &["-q", &target, "echo in"]].concat();
    let mut ours = with_files(sandbox, config, credentials, &words);
    assert_eq!(run(&mut ours).success().text(), "in\n", "{config}\n{credentials}");
    let mut theirs = sandbox.command("aws");
    for (name, value) in ours.get_envs() {
        match value {
            Some(value) => theirs.env(name, value),
            None => theirs.env_remove(name),
        };
    }
    run(theirs.args(&option).args(["sts", "get-caller-identity"])).success();
}

/// ssh fails after our message.
#[track_caller]
fn refuses(command: &mut Command, error: &str, hint: &str) {
    let ended = run(command).status(255);
    assert!(ended.stderr.contains(&told(error, &[hint])), "{ended}");
}

#[test]
fn keys_that_cannot_be_used_are_refused_before_a_call() {
    let sandbox = Sandbox::start();
    let renew = "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN together, \
                 AWS_CREDENTIAL_EXPIRATION too if it is set, or unset them to use a profile";
    let unset = "renew the keys in the environment, or unset AWS_CREDENTIAL_EXPIRATION";
    let no_time = "AWS_CREDENTIAL_EXPIRATION is \"soon\", which is not a time with an offset from UTC";
    let line_end = "cannot get the AWS credentials of the environment: the access key id has a line end or another \
                    character that no request can have";
    for (variable, value, error, hint) in [
        (
            "AWS_CREDENTIAL_EXPIRATION",
            "2020-01-01T00:00:00Z",
            "the AWS credentials of the environment have expired",
            renew,
        ),
        ("AWS_CREDENTIAL_EXPIRATION", "soon", no_time, unset),
        ("AWS_ACCESS_KEY_ID", "AKID\nmore", line_end, renew),
    ] {
        fails(sandbox.proxy(HEALTHY).env(variable, value), 1, error, &[hint]);
    }
    assert!(sandbox.region.calls().is_empty(), "{:?}", sandbox.region.calls());
}

/// The keys of the environment or of `[default]` would belong to another identity.
#[test]
fn a_file_in_the_home_directory_of_another_user_is_not_passed_over() {
    let sandbox = Sandbox::start();
    for variable in ["AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"] {
        let error = "the path `~you/.aws/of-you` begins in the home directory of another user";
        let mut command = sandbox.proxy(HEALTHY);
        fails(
            command.env(variable, "~you/.aws/of-you"),
            1,
            error,
            &["write the whole path into the variable"],
        );
    }
}

#[test]
fn a_file_that_is_too_long_is_refused() {
    let sandbox = Sandbox::start();
    let file = sandbox.file("endless");
    fs::File::create(&file).unwrap().set_len(1 << 40).unwrap();
    let error = format!("cannot read the AWS configuration in {}: it is longer than 16 MiB", file.display());
    let hint =
        "make the file readable, or point AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE at another one";
    fails(sandbox.proxy(HEALTHY).env("AWS_SHARED_CREDENTIALS_FILE", file), 1, &error, &[hint]);
}

#[test]
fn indented_files_are_read_like_any() {
    let sandbox = Sandbox::start();
    let indent = |text: &str| text.replace("KEYS\n", &keys(&sandbox)).replace('\n', "\n  ");
    let keys = indent("[default]\nregion = us-east-1\nKEYS\n");
    both_connect(&sandbox, &keys, "", None);
    // Another profile, and the credentials file.
    let config = "[profile other]\n  region = x\n  output = json\n[default]\nregion = us-east-1\n";
    both_connect(&sandbox, config, &indent("[default]\nKEYS\n"), None);
    // Nothing in the file is needed.
    let mut command = sandbox.ssh_ec2();
    let file = sandbox.file("indented");
    fs::write(&file, &keys).unwrap();
    command.env("AWS_CONFIG_FILE", file).args(["-q", &sandbox.target(), "echo in"]);
    assert_eq!(run(&mut command).success().text(), "in\n");
}

#[test]
fn text_after_a_header_is_left_aside() {
    let sandbox = Sandbox::start();
    let config = "[profile x] /* note */\noutput = json\n[default] # mine\nregion = us-east-1\nKEYS\n";
    both_connect(&sandbox, config, "", None);
}

#[test]
fn profiles_have_any_name() {
    let sandbox = Sandbox::start();
    for (config, credentials, name) in [
        ("[profile \"My Co\"]\nregion = us-east-1\nKEYS\n", "", "My Co"),
        ("[profile 'My Co']\nregion = us-east-1\nKEYS\n", "", "My Co"),
        ("[profile münchen]\nregion = us-east-1\nKEYS\n", "", "münchen"),
        ("", "[Foo Bar]\nregion = us-east-1\nKEYS\n", "Foo Bar"),
    ] {
        both_connect(&sandbox, config, credentials, Some(name));
    }
}

#[test]
fn a_header_that_lacks_a_word_is_shown() {
    let sandbox = Sandbox::start();
    let config = sandbox.file("AWS_CONFIG_FILE").display().to_string();
    let error = format!(
        "no AWS profile is named foo; {config} has such a section, but its header lacks the word `profile`"
    );
    refuses(
        &mut with_files(
            &sandbox,
            "[foo]\nregion = us-east-1\n",
            "",
            &["--profile", "foo", &sandbox.target()],
        ),
        &error,
        "write `[profile foo]` instead",
    );
}

#[test]
fn the_default_profile_has_two_variables() {
    let sandbox = Sandbox::start();
    let config = "[default]\nregion = eu-west-1\n[profile prod]\nregion = us-east-1\nKEYS\n";
    let connect = || with_files(&sandbox, config, "", &["-q", &sandbox.target(), "echo in"]);
    let ended = run(connect().env("AWS_DEFAULT_PROFILE", "prod")).success();
    assert_eq!(ended.text(), "in\n", "{ended}");
    let mut both = connect();
    both.env("AWS_DEFAULT_PROFILE", "prod").env("AWS_PROFILE", "default");
    refuses(
        &mut both,
        "AWS_PROFILE is default, and AWS_DEFAULT_PROFILE is prod",
        "unset one of the two, or name the profile with `--profile`",
    );
    let ended = run(connect().env("AWS_DEFAULT_PROFILE", "prod").env("AWS_PROFILE", "prod")).success();
    assert_eq!(ended.text(), "in\n", "{ended}");
}

#[test]
fn half_a_key_is_an_error_for_the_connection_and_the_doctor() {
    let sandbox = Sandbox::start();
    let config = "[default]\nregion = us-east-1\nKEYS\n";
    let error = "there is only half of an access key in the environment: AWS_SECRET_ACCESS_KEY is missing";
    let hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together, or unset both to use a profile";
    let mut connect = with_files(&sandbox, config, "", &[&sandbox.target(), "echo in"]);
    refuses(connect.env("AWS_ACCESS_KEY_ID", "AKIAOTHER"), error, hint);
    let mut doctor = with_files(&sandbox, config, "", &["doctor", &sandbox.target()]);
    let ended = run(doctor.env("AWS_ACCESS_KEY_ID", "AKIAOTHER")).status(1);
    assert!(ended.text().contains(error), "{ended}");
    assert!(!ended.text().contains("from the environment"), "{ended}");
    assert_eq!(sandbox.region.calls().len(), 0, "AWS was asked as somebody else");
}

#[test]
fn a_profile_brings_its_region_unless_the_environment_has_one() {
    let sandbox = Sandbox::start();
    let config = "[profile here]\nregion = us-east-1\nKEYS\n[profile there]\nregion = eu-west-1\nKEYS\n";
    let connect = |profile| {
        with_files(&sandbox, config, "", &["--profile", profile, "-q", &sandbox.target(), "echo in"])
    };
    run(&mut connect("here")).success();
    run(connect("there").env("AWS_REGION", "us-east-1")).success();
    let ended = run(connect("here").env("AWS_REGION", "eu-west-1")).status(255);
    assert!(ended.stderr.contains("eu-west-1"), "{ended}");
    // AWS_DEFAULT_REGION comes after AWS_REGION, and before the profile.
    run(connect("there").env("AWS_DEFAULT_REGION", "us-east-1")).success();
    run(connect("there").env("AWS_DEFAULT_REGION", "eu-west-1").env("AWS_REGION", "us-east-1")).success();
}

#[test]
fn a_role_never_falls_back_to_the_machine() {
    let sandbox = Sandbox::start();
    let machine = Machine::start(&keys(&sandbox));
    let connect = |config: &str, profile: &[&str]| {
        let target = sandbox.target();
        let words = [profile, &["-q", &target, "echo in"]].concat();
        let mut command = with_files(&sandbox, config, "[keyless]\nregion = us-east-1\n", &words);
        command
            .env_remove("AWS_EC2_METADATA_DISABLED")
            .env("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", machine.address));
        command
    };
    let role = "[profile c]\nregion = us-east-1\nrole_arn = arn:aws:iam::123456789012:role/x\n";
    for (source, error) in [
        ("source_profile = gone", "profile c has the `source_profile` gone, which does not exist"),
        ("source_profile = keyless", "profile c has the `source_profile` keyless, which has no credentials"),
        ("source_profile = c", "profile c has the `source_profile` c, which leads back to it"),
        ("", "profile c has a `role_arn`, but neither `source_profile` nor `credential_source`"),
        (
            "credential_source = environment",
            "`credential_source` of profile c is environment, which is not a valid value",
        ),
        (
            "credential_source = Environment",
            "`credential_source` of profile c is Environment, which has no credentials here",
        ),
    ] {
        let config = format!("{role}{source}\n");
        for by_option in [true, false] {
            let option: &[&str] = if by_option { &["--profile", "c"] } else { &[] };
            let mut command = connect(&config, option);
            if !by_option {
                command.env("AWS_PROFILE", "c");
            }
            let ended = run(&mut command).status(255);
            assert!(ended.stderr.starts_with(&format!("ssh_ec2: error: {error}\n")), "{ended}");
        }
    }
    assert_eq!(machine.requests(), Vec::<String>::new(), "the machine was asked");
    // The metadata service would have answered.
    let ended = run(&mut connect("[default]\nregion = us-east-1\n", &[])).success();
    assert_eq!(ended.text(), "in\n", "{ended}");
    assert!(!machine.requests().is_empty());
}

#[test]
fn services_are_named_as_the_cli_names_them() {
    let sandbox = Sandbox::start();
    let endpoint = sandbox.region.endpoint();
    let services = |name: &str| {
        let lines =
            ["ssm", "ec2", "sts", name].map(|name| format!("{name} =\n  endpoint_url = {endpoint}\n"));
        format!("[default]\nregion = us-east-1\nservices = s\nKEYS\n[services s]\n{}", lines.concat())
    };
    let connect = |config: &str| {
        let mut command = with_files(&sandbox, config, "", &["-q", &sandbox.target(), "echo in"]);
        command.env_remove("AWS_ENDPOINT_URL");
        command
    };
    let ended = run(&mut connect(&services("ec2_instance_connect"))).success();
    assert_eq!(ended.text(), "in\n", "{ended}");
    refuses(
        &mut connect("[default]\nregion = us-east-1\nservices = gone\nKEYS\n"),
        "profile default has `services = gone`, and there is no such section",
        "add a section `[services gone]` to the config file, or remove `services`",
    );
}

/// A metadata service on loopback, with the region's credentials.
struct Machine {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Machine {
    fn start(keys: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let machine = Self { address: listener.local_addr().unwrap(), requests: Arc::default() };
        let (requests, keys) = (Arc::clone(&machine.requests), keys.to_owned());
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming() {
                serve(client.unwrap(), &keys, &requests);
            }
        });
        machine
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

fn serve(mut client: TcpStream, keys: &str, requests: &Mutex<Vec<String>>) {
    let mut lines = BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    requests.lock().unwrap().push(request.clone());
    let value = |option: &str| {
        let line = keys.lines().find(|line| line.starts_with(option)).unwrap();
        line.rsplit_once(" = ").unwrap().1.to_owned()
    };
    let body = match request.split(' ').nth(1).unwrap() {
        "/latest/api/token" => "token".to_owned(),
        path if path.ends_with("/role") => format!(
            r#"{{"Code":"Success","Type":"AWS-HMAC","LastUpdated":"2026-01-01T00:00:00Z","AccessKeyId":"{}","SecretAccessKey":"{}","Token":"{}","Expiration":"2199-01-01T00:00:00Z"}}"#,
            value("aws_access_key_id"),
            value("aws_secret_access_key"),
            value("aws_session_token"),
        ),
        path if path.contains("/security-credentials") => "role".to_owned(),
        _ => String::new(),
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nx-aws-ec2-metadata-token-ttl-seconds: 21600\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        body.len()
    );
    // The client may have cancelled.
    let _ = client.write_all((head + &body).as_bytes());
}
