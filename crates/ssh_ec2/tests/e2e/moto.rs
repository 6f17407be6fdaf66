//! Against moto, an independent emulator of AWS: ssh_ec2 finds what the aws CLI finds.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;

use serde_json::Value;

use crate::harness::{Ended, Sandbox, binary, files_below, run};

/// A moto server, and a workspace whose programs find it and nothing else.
struct Moto {
    sandbox: Sandbox,
    server: Child,
    endpoint: String,
}

impl Moto {
    fn start() -> Self {
        let sandbox = Sandbox::start();
        let mut command = sandbox.plain_command("moto_server");
        let mut server = command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stderr.take().unwrap()).lines().map(Result::unwrap);
        let endpoint =
            lines.find_map(|line| line.split_once("Running on ").map(|(_, url)| url.trim().to_owned()));
        // It logs every request, and would block on a full pipe.
        thread::spawn(move || lines.for_each(drop));
        Self { sandbox, server, endpoint: endpoint.unwrap() }
    }

    fn prepared(&self, mut command: Command) -> Command {
        command.env("AWS_ENDPOINT_URL", &self.endpoint);
        command
    }

    fn aws(&self, words: &[&str]) -> Ended {
        let mut aws = self.prepared(self.sandbox.command("aws"));
        run(aws.args(["--output", "text"]).args(words)).success()
    }

    fn ssh_ec2(&self, words: &[&str]) -> Ended {
        run(self.prepared(self.sandbox.ssh_ec2()).args(words))
    }

    /// Starts instances and returns their ids.
    fn launch(&self, count: &str, tags: &str) -> Vec<String> {
        let tags = format!("ResourceType=instance,Tags=[{tags}]");
        let words = ["ec2", "run-instances", "--image-id", "ami-12c6146b", "--count", count];
        let started = self.aws(
            &[&words[..], &["--tag-specifications", &tags, "--query", "Instances[].InstanceId"]].concat(),
        );
        started.text().split_whitespace().map(str::to_owned).collect()
    }

    /// The ids that the aws CLI finds with a filter, and those that `ssh_ec2 list` prints.
    fn both(&self, filter: &str, words: &[&str]) -> (Vec<String>, Vec<String>) {
        let query = "Reservations[].Instances[].InstanceId";
        let theirs = self.aws(&["ec2", "describe-instances", "--filters", filter, "--query", query]);
        let mut theirs: Vec<_> = theirs.text().split_whitespace().map(str::to_owned).collect();
        let ours = self.ssh_ec2(&[&["list", "--all", "--json"], words].concat()).success();
        let ours: Value = serde_json::from_str(ours.text()).unwrap();
        let mut ours: Vec<_> =
            ours.as_array().unwrap().iter().map(|found| found["id"].as_str().unwrap().to_owned()).collect();
        theirs.sort();
        ours.sort();
        (theirs, ours)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

#[test]
fn instances_are_those_that_the_aws_cli_finds() {
    let moto = Moto::start();
    let web = moto.launch("1", "{Key=Name,Value=web-1},{Key=Team,Value=blue & <green>}");
    moto.launch("2", "{Key=Name,Value=worker}");
    for (filter, words) in [
        ("Name=tag:Name,Values=w*", &["w*"][..]),
        ("Name=tag:Name,Values=worker", &["worker"]),
        ("Name=tag:Team,Values=blue & <green>", &["--tag", "Team=blue & <green>"]),
        ("Name=tag-key,Values=Team", &["--tag", "Team"]),
        ("Name=tag:Name,Values=nobody", &["nobody"]),
    ] {
        let (theirs, ours) = moto.both(filter, words);
        assert_eq!(theirs, ours, "{filter}");
    }

    let dry = moto.ssh_ec2(&["--dry-run", "web-1"]).success();
    assert!(dry.text().contains(&format!("-o HostName={} ", web[0])), "{dry}");
    let address =
        "Reservations[].Instances[].[PrivateIpAddress,PublicIpAddress,PrivateDnsName,PublicDnsName]";
    let words = ["ec2", "describe-instances", "--instance-ids", &web[0], "--query", address];
    for form in moto.aws(&words).text().split_whitespace() {
        let dry = moto.ssh_ec2(&["--dry-run", &format!("me@{form}")]).success();
        assert!(dry.text().contains(&format!("-o HostName={} ", web[0])), "{form}: {dry}");
    }
    let several = moto.ssh_ec2(&["--dry-run", "worker"]).status(2);
    assert!(several.stderr.contains("2 running instances are named `worker`"), "{several}");
    moto.aws(&["ec2", "stop-instances", "--instance-ids", &web[0]]);
    let stopped = moto.ssh_ec2(&["--dry-run", "tag:Name=web-1"]).status(1);
    assert!(stopped.stderr.contains(&format!("{}, tagged `Name=web-1`, is stopped", web[0])), "{stopped}");
}

#[test]
fn every_page_is_read() {
    let moto = Moto::start();
    // One more than a page holds.
    moto.launch("1001", "{Key=Name,Value=fleet}");
    let (theirs, ours) = moto.both("Name=tag:Name,Values=fleet", &["fleet"]);
    assert_eq!((theirs.len(), ours.len()), (1001, 1001));
    assert_eq!(theirs, ours);
}

#[test]
fn a_key_is_pushed() {
    let moto = Moto::start();
    let key = moto.sandbox.key_pair(moto.sandbox.file("key"), "ed25519");
    let pushed = moto.ssh_ec2(&[
        "ec2-user",
        "i-0a1b2c3d4e5f60718",
        "--send-key-only",
        "--key-file",
        key.to_str().unwrap(),
    ]);
    pushed.success();
}

#[test]
fn a_role_is_assumed_once_for_us_and_for_the_aws_cli() {
    let moto = Moto::start();
    let profiles = moto.sandbox.file("profiles");
    let text = "[profile base]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = x\n\
                [profile role]\nregion = us-east-1\nsource_profile = base\nrole_session_name = both\n\
                role_arn = arn:aws:iam::123456789012:role/web\nexternal_id = partner\nduration_seconds = 1800\n";
    std::fs::write(&profiles, text).unwrap();
    let prepared = |program: &str, words: &[&str]| {
        let mut command = moto.prepared(moto.sandbox.command(program));
        command.env("AWS_CONFIG_FILE", &profiles).args(words);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            command.env_remove(name);
        }
        command
    };
    let cache = moto.sandbox.home().join(".aws/cli/cache");
    let entries = || {
        let files = files_below(&cache)
            .into_iter()
            .filter(|file| file.extension().is_some_and(|name| name == "json"));
        files.map(|file| std::fs::read_to_string(cache.join(file)).unwrap()).collect::<Vec<_>>()
    };
    let list = ["list", "--profile", "role"];
    run(&mut prepared(&binary().display().to_string(), &list)).success();
    let ours = entries();
    assert_eq!(ours.len(), 1);
    let caller = ["--profile", "role", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"];
    let arn = run(&mut prepared("aws", &caller)).success();
    assert_eq!(arn.text(), "arn:aws:sts::123456789012:assumed-role/web/both\n");
    assert_eq!(entries(), ours, "it took our entry, and made none");
    // And the other way round.
    std::fs::remove_dir_all(&cache).unwrap();
    run(&mut prepared("aws", &caller)).success();
    let theirs = entries();
    assert_eq!(theirs.len(), 1);
    run(&mut prepared(&binary().display().to_string(), &list)).success();
    assert_eq!(entries(), theirs);
}
