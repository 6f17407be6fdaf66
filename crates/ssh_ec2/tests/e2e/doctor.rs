//! Broken set-ups, one a row: `ssh_ec2 doctor` names the layer and the cause, and plain ssh shows the same
//! cause in at most three lines from ssh_ec2.

mod login;
mod well;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use rustix::process::Signal;
use serde_json::Value;

use crate::harness::{
    ABSENT, HEALTHY, NO_INSTANCE_CONNECT, PORT_CLOSED, PUSH_DENIED, Running, SSM_AGENT_OFFLINE, START_DENIED,
    STOPPED, Sandbox, eventually, run, wait_until_runnable,
};

/// One broken set-up.
struct Row {
    faults: &'static [&'static str],
    /// Without `[USER@]`; plain ssh gets it as well.
    target: &'static str,
    user: &'static str,
    /// Breaks the sandbox and the environment of the commands.
    breaks: fn(&Sandbox, &mut Command),
    layer: &'static str,
    cause: &'static str,
    plain: Plain,
}

/// The output of plain ssh.
#[derive(Clone, Copy)]
enum Plain {
    /// An error that contains this.
    Error(&'static str),
    /// An error with one more line for each instance that matches.
    List(&'static str),
    /// Nothing from ssh_ec2, which ssh does not run.
    Nothing,
    /// A note, before the error.
    Note(&'static str),
}

/// A row about the working instance; plain ssh shows the cause in the same words.
const fn row(layer: &'static str, cause: &'static str) -> Row {
    Row {
        faults: &[],
        target: HEALTHY,
        user: "ec2-user",
        breaks: |_, _| {},
        layer,
        cause,
        plain: Plain::Error(cause),
    }
}

impl Row {
    const fn on(self, target: &'static str) -> Self {
        Self { target, ..self }
    }

    const fn with(self, faults: &'static [&'static str]) -> Self {
        Self { faults, ..self }
    }

    const fn for_user(self, user: &'static str) -> Self {
        Self { user, ..self }
    }

    const fn where_(self, breaks: fn(&Sandbox, &mut Command)) -> Self {
        Self { breaks, ..self }
    }

    const fn plainly(self, words: &'static str) -> Self {
        Self { plain: Plain::Error(words), ..self }
    }

    /// ssh itself fails before it runs ssh_ec2.
    const fn before_us(self) -> Self {
        Self { plain: Plain::Nothing, ..self }
    }

    const fn with_note(self, words: &'static str) -> Self {
        Self { plain: Plain::Note(words), ..self }
    }

    const fn with_list(self, words: &'static str) -> Self {
        Self { plain: Plain::List(words), ..self }
    }

    fn check(&self) {
        let sandbox = Sandbox::with_faults(self.faults);
        let target = format!("{}@{}", self.user, self.target);
        let mut doctor = sandbox.ssh_ec2();
        doctor.args(["doctor", "--json", &target]);
        (self.breaks)(&sandbox, &mut doctor);
        let ended = run(&mut doctor).status(1);
        let report: Value = serde_json::from_str(ended.text()).unwrap();
        assert_eq!(report["healthy"], false, "{ended}");
        let checks = report["checks"].as_array().unwrap();
        let (last, before) = checks.split_last().unwrap();
        assert_eq!((&last["verdict"], &last["layer"]), (&"broken".into(), &self.layer.into()), "{ended}");
        let fact = last["fact"].as_str().unwrap();
        assert!(fact.contains(self.cause), "{:?} is not in {ended}", self.cause);
        let hinted = last["hints"].as_array().is_some_and(|hints| !hints.is_empty());
        assert!(hinted || fact.ends_with("try again"), "{ended}");
        assert!(before.iter().all(|check| check["verdict"] != "broken"), "{ended}");
        sandbox.assert_tidy();
        if !matches!(self.plain, Plain::Nothing) {
            self.check_plain(&sandbox, &target);
        }
    }

    fn check_plain(&self, sandbox: &Sandbox, target: &str) {
        let mut ssh = sandbox.ssh(target);
        ssh.args(["-n", "true"]);
        (self.breaks)(sandbox, &mut ssh);
        let mut running = Running::start(&mut ssh);
        if let Plain::Note(words) = self.plain {
            eventually("it is noted", || running.said().contains(words).then_some(()));
            running.signal(Signal::TERM);
        }
        let ended = running.wait();
        let ended = if matches!(self.plain, Plain::Note(_)) { ended } else { ended.status(255) };
        let ours: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("ssh_ec2: ")).collect();
        let (words, most) = match self.plain {
            Plain::List(words) => (words, 4),
            Plain::Error(words) | Plain::Note(words) => (words, 3),
            Plain::Nothing => unreachable!("the caller looks at this first"),
        };
        assert!((1..=most).contains(&ours.len()) && ended.links.len() <= 1, "{ended}");
        assert!(ours.join("\n").contains(words), "{words:?} is not in {ended}");
        assert_eq!(ended.text(), "");
        sandbox.assert_tidy();
    }
}

fn check(rows: &[Row]) {
    for row in rows {
        row.check();
    }
}

/// Puts lines in front of ssh's configuration, as a `Host *` above the Include line would.
fn first(sandbox: &Sandbox, lines: &str) {
    let path = sandbox.directory().join("ssh_config");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("Host *\n{lines}\n{text}")).unwrap();
    // The doctor expects the blocks in this file.
    fs::write(sandbox.directory().join("config"), text).unwrap();
}

/// Another ssh, the only one in PATH.
fn other_ssh(sandbox: &Sandbox, command: &mut Command, script: Option<&str>) {
    let bin = sandbox.file("bin");
    fs::create_dir(&bin).unwrap();
    if let Some(script) = script {
        fs::write(bin.join("ssh"), format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
        wait_until_runnable(&bin.join("ssh"));
    }
    command.env("PATH", bin);
}

#[test]
fn the_client() {
    check(&[
        row("ssh", "cannot run ssh: No such file or directory")
            .where_(|sandbox, command| other_ssh(sandbox, command, None))
            .before_us(),
        row("ssh", "ssh is OpenSSH 8.4, but checking host keys needs 8.5 or later")
            .where_(|sandbox, command| other_ssh(sandbox, command, Some("echo OpenSSH_8.4p1 >&2")))
            .before_us(),
        row("ssh-config", "PubkeyAuthentication is off")
            .where_(|sandbox, _| first(sandbox, "PubkeyAuthentication no"))
            .before_us(),
        row("ssh-config", "PreferredAuthentications leaves out publickey")
            .where_(|sandbox, _| first(sandbox, "PreferredAuthentications password"))
            .before_us(),
        row("ssh-config", "ssh does not accept its configuration: ")
            .where_(|sandbox, _| first(sandbox, "Frobnicate yes"))
            .before_us(),
    ]);
}

#[test]
fn credentials() {
    check(&[
        row("credentials", "there are no AWS credentials for the default profile").where_(|_, command| {
            command.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
        }),
        row("credentials", "no AWS profile is named nobody").where_(|_, command| {
            command.env("AWS_PROFILE", "nobody");
        }),
        row("credentials", "cannot read the AWS configuration").where_(|sandbox, command| {
            let file = sandbox.file("aws_config");
            fs::write(&file, "[profile\n").unwrap();
            command.env("AWS_CONFIG_FILE", file);
        }),
        row("credentials", "AWS did not accept the signature of ").where_(|_, command| {
            command.env("AWS_SECRET_ACCESS_KEY", "wrong");
        }),
        row("credentials", "AWS does not know the access key of the environment").where_(|_, command| {
            command.env("AWS_ACCESS_KEY_ID", "ASIAUNKNOWN");
        }),
        row("credentials", "the AWS credentials of the environment have expired").where_(|sandbox, _| {
            sandbox.region.expire_credentials();
        }),
    ]);
}

#[test]
fn the_region() {
    check(&[
        row("region", "no AWS region is set").where_(|_, command| {
            command.env_remove("AWS_REGION").env_remove("AWS_DEFAULT_REGION");
        }),
        row("region", "\"a/b\" is not the name of a region").where_(|_, command| {
            command.env("AWS_REGION", "a/b");
        }),
    ]);
}

#[test]
fn endpoints() {
    check(&[
        row("endpoints", "ssm: cannot connect to 127.0.0.1 at 127.0.0.1:1: Connection refused")
            .where_(|_, command| {
                command.env("AWS_ENDPOINT_URL_SSM", "http://127.0.0.1:1");
            })
            .plainly("cannot reach 127.0.0.1: "),
        row("endpoints", "ec2-instance-connect: cannot connect to 127.0.0.1")
            .where_(|_, command| {
                command.env("AWS_ENDPOINT_URL_EC2_INSTANCE_CONNECT", "http://127.0.0.1:1");
            })
            .plainly("cannot reach 127.0.0.1: "),
        row("endpoints", "ssm: cannot find the address of ssm.us-east-1.invalid")
            .where_(|_, command| {
                command.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.invalid");
            })
            .plainly("cannot reach ssm.us-east-1.invalid: "),
        row("endpoints", "ssm: cannot make an encrypted connection to 127.0.0.1")
            .where_(|sandbox, command| {
                let endpoint = sandbox.region.endpoint().replace("http", "https");
                command.env("AWS_ENDPOINT_URL_SSM", endpoint);
            })
            .plainly("cannot reach 127.0.0.1: "),
        row(
            "endpoints",
            "ssm: the proxy http://127.0.0.1:1 cannot be reached: cannot connect to 127.0.0.1 at 127.0.0.1:1",
        )
        .where_(|_, command| {
            command.env("AWS_ENDPOINT_URL_SSM", "https://ssm.us-east-1.invalid");
            command.env("HTTPS_PROXY", "http://127.0.0.1:1");
        })
        .plainly("cannot reach ssm.us-east-1.invalid: the proxy http://127.0.0.1:1 cannot be reached: "),
        row("endpoints", "the endpoint configured for SSM is not a URL").where_(|_, command| {
            command.env("AWS_ENDPOINT_URL_SSM", "nowhere");
        }),
        row("endpoints", "is not encrypted, and 192.0.2.1 is not this machine").where_(|_, command| {
            command.env("AWS_ENDPOINT_URL_SSM", "http://192.0.2.1");
        }),
    ]);
}

#[test]
fn the_instance() {
    check(&[
        row("instance", "no instance of this account in us-east-1 has the id i-0ffff000000000001").on(ABSENT),
        row("instance", "has the id i-0decaf0000000000a; eu-west-1 has one").on("i-0decaf0000000000a"),
        row("instance", "i-0dead000000000001 is stopped").on(STOPPED),
        row("instance", "i-0dead000000000012 is terminated").on("i-0dead000000000012"),
        row("instance", "i-0dead00000000001b is pending").on("i-0dead00000000001b"),
        row("instance", "no instance in us-east-1 is named `nobody`").on("nobody.ec2"),
        row("instance", "2 running instances are named `worker`")
            .on("worker.ec2")
            .with_list("2 running instances are named `worker`"),
    ]);
}

#[test]
fn session_manager() {
    check(&[
        row("session-manager", "is running, but Session Manager last heard from it 3 days ago")
            .on(SSM_AGENT_OFFLINE),
        row("instance-profile", "Session Manager has never heard from it; it has no instance profile")
            .on("i-0dead000000000013"),
        row("session-manager", "is running, but Session Manager has never heard from it")
            .on("i-0dead000000000014"),
        row("session-manager", "i-0dead00000000001e started 4")
            .on("i-0dead00000000001e")
            .plainly("its SSM agent registers within a few minutes"),
        row("session-manager", "is 2.3.50.0, but connections to ports need 2.3.672.0 or later")
            .on("i-0dead000000000015"),
        row("session-manager", "i-0dead000000000002 is not connected to Session Manager")
            .on(SSM_AGENT_OFFLINE)
            .with(&["deny=ssm:DescribeInstanceInformation", "deny=ec2:DescribeInstances"])
            .plainly("is not connected to Session Manager"),
    ]);
}

#[test]
fn permissions() {
    check(&[
        row("permissions", "is not authorized to perform: ec2-instance-connect:SendSSHPublicKey")
            .on(PUSH_DENIED),
        row("permissions", "is not authorized to perform: ssm:StartSession").on(START_DENIED),
        row("permissions", "document/AWS-StartSSHSession")
            .with(&["deny=ssm:StartSession@AWS-StartSSHSession"]),
        row("permissions", "AWS refused ec2:DescribeInstances")
            .on("web-1.ec2")
            .with(&["deny=ec2:DescribeInstances"]),
    ]);
}

#[test]
fn the_key_and_the_tunnel() {
    check(&[
        row("key-push", "AWS throttles ec2-instance-connect:SendSSHPublicKey")
            .with(&["throttle=SendSSHPublicKey:0.001/1"])
            .where_(|sandbox, _| {
                let key = sandbox.home().join(".ssh/id_ed25519");
                if !key.exists() {
                    sandbox.key_pair(key, "ed25519");
                    run(sandbox.ssh_ec2().args(["ec2-user", HEALTHY, "--send-key-only"])).success();
                }
            }),
        row("tunnel", "refused the websocket with status 403").with(&["refuse-upgrade"]),
        row("tunnel", "cannot connect to 127.0.0.1 at 127.0.0.1:1").with(&["stream-url=ws://127.0.0.1:1"]),
    ]);
}

/// A test of its own, since it takes long.
#[test]
fn the_silent_agent() {
    check(&[row("tunnel", "and the SSM agent of i-0dead000000000016 sent nothing within 10 seconds")
        .on("i-0dead000000000016")
        .with_note("nothing comes from the SSM agent of i-0dead000000000016; the worker process")]);
}

#[test]
fn sshd() {
    check(&[
        row("sshd", "nothing answered on port 22 of i-0dead000000000004")
            .on(PORT_CLOSED)
            .plainly("nothing answered on port 22 of i-0dead000000000004"),
        row("sshd", "answers, but not as an SSH server: \"HTTP/1.1 400 Bad Request\"")
            .on("i-0dead000000000017"),
    ]);
}

#[test]
fn the_host_key() {
    check(&[
        row("host-key", "i-0dead00000000001d presents the host key ED25519 SHA256:")
            .on("i-0dead00000000001d"),
        row("host-key", "other users can write to ").where_(|sandbox, _| {
            let file = sandbox.directory().join("known_hosts");
            fs::write(&file, "").unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
        }),
    ]);
}

#[test]
fn the_login() {
    check(&[
        row("login", "i-0dead000000000003 does not have EC2 Instance Connect").on(NO_INSTANCE_CONNECT),
        row("login", "there is no user `ghost` on i-0decaf00000000001").for_user("ghost"),
        row("login", "the clock of i-0dead000000000018 is 10 minutes ahead").on("i-0dead000000000018"),
        row("login", "has EC2 Instance Connect, but its sshd does not ask it for keys")
            .on("i-0dead000000000019"),
        row("login", "refused the one-time key for the user `ec2-user`")
            .on("i-0dead00000000001a")
            .plainly("SELinux is enforcing there, and may keep sshd from asking for keys"),
        row("login", "refused the one-time key for the user `ec2-user`")
            .on(NO_INSTANCE_CONNECT)
            .with(&["deny=ssm:StartSession@AWS-StartNonInteractiveCommand"]),
    ]);
}
