//! The exact error messages: one message, its hints, and an exit code. Standard output stays empty.

use std::process::Command;

use crate::harness::{
    ABSENT, END_DENIED, HEALTHY, NO_INSTANCE_CONNECT, PORT_CLOSED, PUSH_DENIED, Running, SSM_AGENT_OFFLINE,
    START_DENIED, STOPPED, Sandbox, THROTTLED, THROTTLED_FOR_EVER, eventually, run,
};
use crate::impostor::impostor;

/// Runs a command, whose input stays open, until it fails. Compares all of its standard error.
#[track_caller]
pub(crate) fn fails(command: &mut Command, code: i32, error: &str, hints: &[&str]) {
    let ended = Running::start(command).wait().status(code);
    assert_eq!(ended.stderr, told(error, hints), "{ended}");
    assert_eq!(ended.text(), "", "{ended}");
}

pub(crate) fn told(error: &str, hints: &[&str]) -> String {
    let hints = match hints {
        [] => String::new(),
        hints => format!("ssh_ec2: hint: {}\n", hints.join("; ")),
    };
    format!("ssh_ec2: error: {error}\n{hints}")
}

// ---- names ----

const INSTANCE_HINT: &str =
    "instance ids look like `i-0a1b2c3d4e5f60718` (8 or 17 hexadecimal digits) or `mi-…`";
const USER_HINT: &str = "use 1 to 32 letters, digits and `_ . @ - $`, a letter, digit or `_` first, not digits alone; for example `ec2-user` or `ubuntu`";

#[test]
fn a_bad_target_is_named() {
    let sandbox = Sandbox::start();
    let error = "\"tag:x\" is not a valid target";
    let hint = "use an instance id, a Name tag, `tag:KEY=VALUE`, an address, a DNS name or `asg:GROUP`";
    fails(sandbox.ssh_ec2().arg("ec2-user@tag:x"), 2, error, &[hint]);
    fails(&mut sandbox.proxy("tag:x"), 2, error, &[hint]);
    fails(
        sandbox.ssh_ec2().args(["ec2-user@i-0A1B2C3D", "ls"]),
        2,
        "\"i-0A1B2C3D\" is not an instance id",
        &[INSTANCE_HINT],
    );
}

#[test]
fn a_bad_user_is_named() {
    let sandbox = Sandbox::start();
    let error = "\"a b\" is not a user name that EC2 Instance Connect accepts";
    fails(sandbox.ssh_ec2().args(["a b", HEALTHY]), 2, error, &[USER_HINT]);
    fails(sandbox.ssh_ec2().args(["a b", HEALTHY, "--send-key-only"]), 2, error, &[USER_HINT]);
    fails(sandbox.ssh_ec2().args(["proxy", "a b", HEALTHY, "22"]), 2, error, &[USER_HINT]);
}

/// No key is pushed to a managed node, so the API's rule for names does not apply.
#[test]
fn a_managed_node_has_users_of_other_names() {
    let sandbox = Sandbox::start();
    let node = "mi-0decaf00000000001";
    let hint = "use 1 to 255 letters, digits and `_ . @ - $ + \\`, with no `-` first and no `\\` last; for example \
                `alice` or `alice@corp.example`";
    fails(sandbox.ssh_ec2().args(["proxy", "a b", node, "22"]), 2, "\"a b\" is not a login name", &[hint]);
    // The region has no managed node. This error shows that the name was accepted.
    for user in ["firstname.lastname@corp.example.com", "CORP\\alice", "alice+ssh"] {
        let ended = run(sandbox.ssh_ec2().args(["proxy", user, node, "22"])).status(1);
        let error = format!("ssh_ec2: error: instance {node} is not connected to Session Manager");
        assert!(ended.stderr.starts_with(&error), "{ended}");
    }
}

#[test]
fn a_bad_port_is_named() {
    let sandbox = Sandbox::start();
    let hint = "ports are the numbers 1 to 65535; sshd listens on 22";
    fails(sandbox.ssh_ec2().args(["proxy", "me", HEALTHY, "0"]), 2, "\"0\" is not a port number", &[hint]);
}

#[test]
fn nothing_to_do_shows_the_usage() {
    let sandbox = Sandbox::start();
    let ended = run(&mut sandbox.ssh_ec2()).status(2);
    assert_eq!(
        ended.stderr,
        "Usage: ssh_ec2 [OPTIONS] [SSH OPTIONS] [USER@]TARGET [COMMAND …]\n       \
         ssh_ec2 [OPTIONS] USER INSTANCE [--send-key-only]\n       \
         ssh_ec2 [--profile NAME]… [--all-regions] [SSH OPTIONS]\n       \
         ssh_ec2 [OPTIONS] scp|sftp|rsync ARGUMENT…\n       \
         ssh_ec2 list [NAME] [--tag KEY=VALUE] [--all-regions] [--json]\n       \
         ssh_ec2 config [--install | --uninstall] [--suffix SUFFIX]\n       \
         ssh_ec2 doctor [[USER@]TARGET] [--all] [--json]\n       \
         ssh_ec2 known-hosts [--forget | --trust KEY] TARGET\n       \
         ssh_ec2 known-hosts --list\n       \
         ssh_ec2 policy [--with FEATURE,…] [--user NAME] [--tag KEY=VALUE] [--terraform]\n       \
         ssh_ec2 completions bash|zsh|fish\n       \
         ssh_ec2 proxy USER HOST PORT\n       \
         ssh_ec2 sandbox [COMMAND …]\n\n\
         `ssh_ec2 --help` says more.\n"
    );
    assert_eq!(ended.text(), "");
}

#[test]
fn a_wrong_command_line_is_explained() {
    let sandbox = Sandbox::start();
    let help = "`ssh_ec2 --help` shows how to call it";
    for (words, error) in [
        (&["--frobnicate", HEALTHY][..], "there is no option `--frobnicate`"),
        (&["-z", HEALTHY], "ssh has no option \"-z\""),
        (&["-p"], "the ssh option `-p` needs a value"),
        (&["--profile"], "the option `--profile` needs a value"),
        (&["-v"], "there is no destination"),
        (&[HEALTHY, "--send-key-only"], "`--send-key-only` needs a user and an instance id"),
        (
            &["sandbox", "--fault", "explode", "true"],
            "\"explode\" is not a fault of the local region; `ssh_ec2 sandbox --fault help` lists them",
        ),
        (&["sandbox", "--latency", "soon", "true"], "\"soon\" is no time; write 50ms, 2s or 1m"),
    ] {
        fails(sandbox.ssh_ec2().args(words), 2, error, &[help]);
    }
}

#[test]
fn our_options_behind_a_copying_program_are_a_mistake() {
    let sandbox = Sandbox::start();
    let help = "`ssh_ec2 --help` shows how to call it";
    for (words, error) in [
        (
            &["scp", "--region", "us-east-1", "web-1:f", "."][..],
            "`--region` is an option of ssh_ec2, and goes in front of scp: `ssh_ec2 --region … scp …`",
        ),
        (
            &["rsync", "-a", "web-1:f", ".", "--profile=x"],
            "`--profile` is an option of ssh_ec2, and goes in front of rsync: `ssh_ec2 --profile … rsync …`",
        ),
        (
            &["rsync", "-a", "web-1::module", "."],
            "\"web-1::module\" is a module of rsync's daemon, which is not reached through ssh; write TARGET:PATH",
        ),
        (
            &["rsync", "rsync://web-1/module", "."],
            "\"rsync://web-1/module\" is a module of rsync's daemon, which is not reached through ssh; write TARGET:PATH",
        ),
    ] {
        fails(sandbox.ssh_ec2().args(words), 2, error, &[help]);
    }
    for program in ["scp", "sftp", "rsync"] {
        let ended = run(sandbox.ssh_ec2().args([program, "--help"])).success();
        assert!(ended.text().starts_with(&format!("Usage: ssh_ec2 [OPTIONS] {program} ")), "{ended}");
        assert!(ended.text().contains(&format!("Options of ssh_ec2 go in front of `{program}`")), "{ended}");
    }
}

/// Editors run the ssh that they are configured with, with these options.
#[test]
fn ssh_answers_its_version_and_algorithms() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh_ec2().arg("-V")).success();
    assert_eq!(ended.text(), concat!("ssh_ec2 ", env!("CARGO_PKG_VERSION"), "\n"));
    assert!(ended.stderr.starts_with("OpenSSH_"), "{ended}");
    let ended = run(sandbox.ssh_ec2().args(["-Q", "key"])).success();
    assert_eq!(ended.stdout, run(sandbox.command("ssh").args(["-Q", "key"])).success().stdout);
    assert!(ended.text().contains("ssh-ed25519"), "{ended}");
    let version = run(sandbox.ssh_ec2().arg("--version")).success();
    assert_eq!(
        (version.text(), version.stderr.as_str()),
        (concat!("ssh_ec2 ", env!("CARGO_PKG_VERSION"), "\n"), "")
    );
}

#[test]
fn output_that_cannot_be_written_is_an_error_of_standard_output() {
    let sandbox = Sandbox::start();
    let error = "cannot write to standard output: No space left on device (os error 28)";
    let hint = "free disk space, or redirect standard output elsewhere";
    for words in [
        &["list"][..],
        &["list", "--json"],
        &["--help"],
        &["list", "--help"],
        &["scp", "--help"],
        &["-V"],
        &["config"],
        &["policy"],
        &["doctor"],
        &["known-hosts", HEALTHY],
        &["completions", "bash"],
        &["--dry-run", "ec2-user@i-0decaf00000000001"],
        &["sandbox", "--fault", "help"],
    ] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
        let mut running = Running::start_with_output(sandbox.ssh_ec2().args(words), full.into());
        let ended = running.wait().status(1);
        assert_eq!(ended.stderr, told(error, &[hint]), "{ended}");
    }
}

/// What the hint proposes works: a connection makes the key known.
#[test]
fn a_host_key_that_is_not_known_is_kept_from_the_first_connection() {
    let sandbox = Sandbox::with_faults(&[
        "deny=ec2:GetConsoleOutput",
        "deny=ssm:StartSession@AWS-StartNonInteractiveCommand",
    ]);
    let hint = format!(
        "connect once: if AWS lists no key, the one that sshd presents is accepted and kept; or add a key \
         yourself: `ssh_ec2 known-hosts --trust KEY {HEALTHY}`"
    );
    let known_hosts = || {
        let mut command = sandbox.ssh_ec2();
        command.args(["known-hosts", HEALTHY]);
        command
    };
    fails(&mut known_hosts(), 1, &format!("no host key of {HEALTHY} is known"), &[&hint]);
    run(sandbox.ssh(&sandbox.target()).arg("true")).success();
    run(&mut known_hosts()).success();
}

#[test]
fn a_command_that_the_sandbox_cannot_run_is_named() {
    let sandbox = Sandbox::start();
    fails(
        sandbox.ssh_ec2().args(["sandbox", "no-such-program"]),
        127,
        "cannot run no-such-program: No such file or directory (os error 2)",
        &["check that no-such-program is installed and in PATH"],
    );
}

// ---- credentials and region ----

const ENVIRONMENT_HINT: &str = "renew AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN together, AWS_CREDENTIAL_EXPIRATION too if it is set, or unset them to use a profile";
const REGION_HINT: &str = "name the region with `--region`, AWS_REGION, or `region` in the profile";

/// The proxy for an instance that works, with some variables unset and others set.
fn proxy_with(sandbox: &Sandbox, unset: &[&str], set: &[(&str, &str)]) -> Command {
    let mut proxy = sandbox.proxy(HEALTHY);
    for name in unset {
        proxy.env_remove(name);
    }
    proxy.envs(set.iter().copied());
    proxy
}

#[test]
fn missing_credentials_are_reported() {
    let sandbox = Sandbox::start();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    fails(
        &mut proxy_with(&sandbox, &keys, &[]),
        1,
        "there are no AWS credentials for the default profile",
        &[
            "sign in with `aws configure sso` or `aws login`, or name a profile with `--profile` or AWS_PROFILE",
        ],
    );
}

/// The SDK's own provider makes the request.
#[test]
fn a_container_endpoint_that_fails_is_reported_without_the_sdks_wrappers() {
    let sandbox = Sandbox::start();
    let keys = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    for (status, body, words) in [
        (500, "{}", "Non-success status from HTTP credential provider: status 500"),
        (403, "no", "Non-success status from HTTP credential provider: status 403"),
        (200, "{}", "Expected field `AccessKeyId` in response but it was missing"),
    ] {
        let endpoint = format!("http://{}/", impostor(move |_| (status, body.to_owned())));
        let mut proxy = proxy_with(&sandbox, &keys, &[("AWS_CONTAINER_CREDENTIALS_FULL_URI", &endpoint)]);
        let error = format!("cannot get the AWS credentials of the default profile: {words}");
        let hint = "sign in with `aws configure sso` or `aws login`, or name a profile with `--profile` or AWS_PROFILE";
        fails(&mut proxy, 1, &error, &[hint]);
    }
}

#[test]
fn expired_credentials_are_reported() {
    let sandbox = Sandbox::start();
    sandbox.region.expire_credentials();
    let error = "the AWS credentials of the environment have expired";
    fails(&mut sandbox.proxy(HEALTHY), 1, error, &[ENVIRONMENT_HINT]);
}

#[test]
fn unknown_credentials_are_reported() {
    let sandbox = Sandbox::start();
    let error = "AWS does not know the access key of the environment";
    let set = [("AWS_ACCESS_KEY_ID", "ASIAXXXXXXXXXXXXXXXX")];
    fails(&mut proxy_with(&sandbox, &[], &set), 1, error, &[ENVIRONMENT_HINT]);
}

#[test]
fn a_wrong_secret_is_reported() {
    let sandbox = Sandbox::start();
    let ended = Running::start(&mut proxy_with(&sandbox, &[], &[("AWS_SECRET_ACCESS_KEY", "wrong")])).wait();
    let (first, hint) =
        ended.status(1).stderr.split_once('\n').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    assert!(
        first.starts_with("ssh_ec2: error: AWS did not accept the signature of ssm:StartSession: "),
        "{first}"
    );
    assert_eq!(
        hint,
        "ssh_ec2: hint: check this machine's clock, and that the secret key belongs to the access key\n"
    );
}

#[test]
fn a_missing_region_is_reported() {
    let sandbox = Sandbox::start();
    let mut proxy = proxy_with(&sandbox, &["AWS_REGION", "AWS_DEFAULT_REGION"], &[]);
    fails(&mut proxy, 1, "no AWS region is set", &[REGION_HINT]);
}

#[test]
fn a_bad_region_is_named() {
    let sandbox = Sandbox::start();
    let mut proxy = sandbox.proxy(HEALTHY);
    fails(proxy.args(["--region", "a/b"]), 1, "\"a/b\" is not the name of a region", &[REGION_HINT]);
}

#[test]
fn an_unknown_profile_is_named() {
    let sandbox = Sandbox::start();
    let mut proxy = sandbox.proxy(HEALTHY);
    let hint = "`aws configure list-profiles` lists the profiles";
    fails(proxy.args(["--profile", "nobody"]), 1, "no AWS profile is named nobody", &[hint]);
}

#[test]
fn an_endpoint_that_cannot_be_used_is_reported() {
    let sandbox = Sandbox::start();
    let with = |url| proxy_with(&sandbox, &[], &[("AWS_ENDPOINT_URL_SSM", url)]);
    fails(
        &mut with("http://192.0.2.1"),
        1,
        "the endpoint configured for SSM is not encrypted, and 192.0.2.1 is not this machine",
        &["use an `https` endpoint"],
    );
    fails(
        &mut with("nowhere"),
        1,
        "the endpoint configured for SSM is not a URL",
        &["correct AWS_ENDPOINT_URL or `endpoint_url`; it looks like `https://host`"],
    );
}

// ---- the instance ----

fn denied(action: &str, instance: &str) -> String {
    format!(
        "AWS refused {action} on {instance}: User: arn:aws:sts::123456789012:assumed-role/sandbox/you is not \
         authorized to perform: {action} on resource: arn:aws:ec2:us-east-1:123456789012:instance/{instance} \
         because no identity-based policy allows the {action} action"
    )
}

#[test]
fn a_denied_session_names_the_action() {
    let sandbox = Sandbox::start();
    fails(
        &mut sandbox.proxy(START_DENIED),
        1,
        &denied("ssm:StartSession", START_DENIED),
        &["the caller needs ssm:StartSession on the instance and on the session document"],
    );
    assert!(sandbox.region.sessions().is_empty());
    sandbox.assert_tidy();
}

#[test]
fn a_denied_push_names_the_action_and_ends_the_session() {
    let sandbox = Sandbox::start();
    let action = "ec2-instance-connect:SendSSHPublicKey";
    let error = denied(action, PUSH_DENIED);
    let hints = [
        "the caller needs ec2-instance-connect:SendSSHPublicKey on the instance",
        "policies often restrict this action by `ec2:osuser`; try another user",
    ];
    fails(&mut sandbox.proxy(PUSH_DENIED), 1, &error, &hints);
    sandbox.assert_tidy();
}

#[test]
fn a_caller_who_may_not_end_sessions_notices_nothing() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh(&sandbox.at(END_DENIED)).arg("echo in")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    sandbox.assert_tidy();
}

#[test]
fn a_caller_who_may_not_resume_learns_it_when_the_websocket_is_lost() {
    let sandbox = Sandbox::with_faults(&["reset=300ms"]);
    let mut proxy = Running::start(&mut sandbox.proxy(END_DENIED));
    let ended = proxy.wait().status(1);
    let session = sandbox.session().id;
    let action = "ssm:ResumeSession";
    assert!(
        ended.stderr.starts_with(&format!("ssh_ec2: error: AWS refused {action} on {session}: User: ")),
        "{ended}"
    );
    assert!(ended.stderr.ends_with(&format!("\nssh_ec2: hint: the caller needs {action}\n")), "{ended}");
    assert_eq!(ended.stderr.lines().count(), 2, "{ended}");
}

#[test]
fn the_reason_for_an_unreachable_instance_is_reported() {
    let sandbox = Sandbox::start();
    let told = |instance: &str, error: &str, hint: &str| {
        fails(&mut sandbox.proxy(instance), 1, &format!("{instance} {error}"), &[hint]);
    };
    let start = format!("start it: `aws ec2 start-instances --instance-ids {STOPPED}`");
    told(STOPPED, "is stopped", &start);
    told(
        SSM_AGENT_OFFLINE,
        "is running, but Session Manager last heard from it 3 days ago",
        "restart its SSM agent, or reboot it: an agent that was denied credentials sleeps for up to 30 minutes; and check that it reaches ssm.us-east-1 and ssmmessages.us-east-1 on port 443",
    );
    let sleeps = "an agent that was denied credentials sleeps for up to 30 minutes";
    told(
        "i-0dead000000000013",
        "is running, but Session Manager has never heard from it; it has no instance profile",
        &format!(
            "give it an instance profile with AmazonSSMManagedInstanceCore, unless the account has Default Host Management; \
             then restart its SSM agent, or reboot it: {sleeps}; and check that it reaches ssm.us-east-1 on port 443"
        ),
    );
    told(
        "i-0dead000000000014",
        "is running, but Session Manager has never heard from it",
        &format!(
            "check that its profile has AmazonSSMManagedInstanceCore; if the profile was added after the start, restart the SSM agent, or \
             reboot: {sleeps}; check that it runs, and reaches ssm.us-east-1 on port 443"
        ),
    );
    fails(
        &mut sandbox.proxy(ABSENT),
        1,
        &format!("no instance of this account in us-east-1 has the id {ABSENT}"),
        &["check the id, and the account of the credentials: `aws sts get-caller-identity`"],
    );
    let elsewhere = "i-0decaf0000000000a";
    fails(
        &mut sandbox.proxy(elsewhere),
        1,
        &format!("no instance of this account in us-east-1 has the id {elsewhere}; eu-west-1 has one"),
        &["add `--region eu-west-1`"],
    );
    assert!(sandbox.region.sessions().is_empty());
}

#[test]
fn without_describe_permission_the_words_of_session_manager_are_shown() {
    let sandbox =
        Sandbox::with_faults(&["deny=ec2:DescribeInstances", "deny=ssm:DescribeInstanceInformation"]);
    for instance in [STOPPED, SSM_AGENT_OFFLINE, ABSENT] {
        let start = format!(
            "start {instance} if it is stopped; its region must be us-east-1, its account that of the credentials"
        );
        fails(
            &mut sandbox.proxy(instance),
            1,
            &format!(
                "instance {instance} is not connected to Session Manager in us-east-1 (TargetNotConnected)"
            ),
            &[
                &start,
                "give its instance profile AmazonSSMManagedInstanceCore, and check that its SSM agent runs and reaches ssmmessages.us-east-1 on port 443",
            ],
        );
    }
}

#[test]
fn throttling_is_waited_out() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh(&sandbox.at(THROTTLED)).arg("echo in")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
}

#[test]
fn throttling_without_end_is_reported() {
    let sandbox = Sandbox::start();
    let ended = Running::start(&mut sandbox.proxy(THROTTLED_FOR_EVER)).wait().status(1);
    let note = "AWS may be slow, or refuse so many calls (waiting, Ctrl-C ends)";
    let error = "AWS throttles ssm:StartSession: there were too many calls; wait a minute and try again";
    assert_eq!(
        ended.stderr,
        format!(
            "ssh_ec2: Session Manager has not started a session on {THROTTLED_FOR_EVER} yet; {note}\nssh_ec2: error: {error}\n"
        ),
        "{ended}"
    );
}

#[test]
fn a_refused_key_is_reported() {
    let sandbox = Sandbox::with_faults(&["deny=ssm:StartSession@AWS-StartNonInteractiveCommand"]);
    let ended = run(sandbox.ssh(&sandbox.at(NO_INSTANCE_CONNECT)).arg("true")).status(255);
    let ours = told(
        &format!("{NO_INSTANCE_CONNECT} refused the one-time key for the user `ec2-user`"),
        &[
            "check that the user `ec2-user` exists there; images have ubuntu, admin, rocky, centos, fedora, bitnami",
            "check that the package ec2-instance-connect is installed on the instance, and that its clock is right",
            "an sshd in FIPS mode, or with PubkeyAcceptedAlgorithms of its own, may accept no Ed25519 keys: use a one-time RSA key: `ssh_ec2 --key-type rsa config --install`",
        ],
    );
    let theirs = format!("ec2-user@{NO_INSTANCE_CONNECT}: Permission denied (publickey).\r\n");
    assert_eq!(ended.stderr, theirs + &ours, "{ended}");
    sandbox.assert_tidy();
}

#[test]
fn a_closed_port_is_reported() {
    let sandbox = Sandbox::with_faults(&["port-refusal=500ms"]);
    fails(
        &mut sandbox.proxy(PORT_CLOSED),
        1,
        &format!(
            "nothing answered on port 22 of {PORT_CLOSED}: document process failed unexpectedly: ipc messaging \
             received timeout signal , check [ssm-document-worker]/[ssm-session-worker] log for crash reason"
        ),
        &["start sshd on the instance, or give the port it listens on: `ssh -p PORT …` (tried 22)"],
    );
}

#[test]
fn a_session_that_did_not_begin_is_no_closed_port() {
    // The calls that would find the cause are denied.
    let sandbox =
        Sandbox::with_faults(&["deny=ssm:DescribeInstanceInformation", "deny=ec2:DescribeInstances"]);
    let ended = run(&mut sandbox.proxy("i-0dead000000000015"));
    let told = "could not be started: Plugin with name Port is not supported by this version of ssm agent";
    assert!(ended.stderr.contains(told), "{ended}");
    assert!(!ended.stderr.contains("nothing answered"), "{ended}");
}

#[test]
fn a_port_that_stays_silent_is_reported_while_it_is_waited_for() {
    let sandbox = Sandbox::with_faults(&["port-refusal=1m"]);
    let proxy = Running::start(&mut sandbox.proxy(PORT_CLOSED));
    let note = format!(
        "ssh_ec2: {PORT_CLOSED} does not answer on port 22 yet; is sshd running there? (waiting, Ctrl-C ends)\n"
    );
    eventually("the silence is told", || (proxy.said() == note).then_some(()));
}

// ---- the websocket ----

const REFUSED: &str = "127.0.0.1 refused the websocket with status 403: the upgrade is refused, as asked for";
const REFUSED_HINTS: [&str; 2] = [
    "check this machine's clock, and that the credentials have not expired: the upgrade is signed with both",
    "the caller needs ssmmessages:OpenDataChannel on its own sessions",
];

#[test]
fn a_refused_websocket_is_reported() {
    let sandbox = Sandbox::with_faults(&["refuse-upgrade"]);
    fails(&mut sandbox.proxy(HEALTHY), 1, REFUSED, &REFUSED_HINTS);
    sandbox.assert_tidy();
}

#[test]
fn a_refused_resumption_is_reported() {
    let sandbox = Sandbox::with_faults(&["reset=300ms", "refuse-resume"]);
    let ended = Running::start(&mut sandbox.proxy(HEALTHY)).wait().status(1);
    assert_eq!(ended.stderr, told(REFUSED, &REFUSED_HINTS));
    sandbox.assert_tidy();
}

#[test]
fn a_refusal_that_is_looked_into_leaves_nothing_behind() {
    let faults = "slow-attach=4s";
    let sandbox = Sandbox::with_faults(&[faults]);
    let ended = run(sandbox.ssh(&sandbox.at(NO_INSTANCE_CONNECT)).arg("true")).status(255);
    assert!(ended.stderr.contains(" refused the one-time key for the user `ec2-user`\n"), "{ended}");
    sandbox.assert_tidy();
}

#[test]
fn a_refusal_is_reported_once_however_slow_aws_is() {
    let latency = std::time::Duration::from_millis(3500);
    let sandbox = Sandbox::with(ec2_sandbox::Options { latency, ..ec2_sandbox::Options::default() });
    let ended = run(sandbox.ssh(&sandbox.at(NO_INSTANCE_CONNECT)).arg("true")).status(255);
    let told = ended.stderr.matches(" refused the one-time key for the user `ec2-user`\n").count();
    assert_eq!((told, ended.links.len()), (1, 1), "{ended}");
    sandbox.assert_tidy();
}
