//! Of the processes of one connection only the proxy talks to AWS; known-hosts asks it over a private socket.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustix::process::{Signal, kill_process};

use crate::harness::{
    Ended, HEALTHY, Running, Sandbox, eventually, files_below, pid, run, run_with_input, wait_until_runnable,
};
use crate::impostor::{impostor, listen};

/// Presents another key than AWS lists.
const IMPOSTOR: &str = "i-0dead00000000001d";
/// Its console has no keys.
const NO_CONSOLE: &str = "i-0decaf00000000008";
const NO_FILES: &str = "deny=ssm:StartSession@AWS-StartNonInteractiveCommand";
const KEY: &str = "ssh-ed25519:AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";
const EMPTY: &str = "<GetConsoleOutputResponse><output/></GetConsoleOutputResponse>";

/// A program that prints the region's credentials and logs each run.
struct Counted {
    config: PathBuf,
    runs: PathBuf,
}

impl Counted {
    fn new(sandbox: &Sandbox) -> Self {
        let (config, runs) = (sandbox.file("aws_config"), sandbox.file("runs"));
        let script = sandbox.file("credentials");
        let variables = sandbox.region.environment();
        let key = |name: &str| {
            let found = variables.iter().find(|(found, _)| found == name);
            found.unwrap().1.clone()
        };
        let json = format!(
            r#"{{"Version": 1, "AccessKeyId": "{}", "SecretAccessKey": "{}", "SessionToken": "{}"}}"#,
            key("AWS_ACCESS_KEY_ID"),
            key("AWS_SECRET_ACCESS_KEY"),
            key("AWS_SESSION_TOKEN")
        );
        let text = format!("#!/bin/sh\n[ \"$1\" = -V ] && exit\necho >> {}\necho '{json}'\n", runs.display());
        write_script(&script, &text);
        fs::write(&config, format!("[default]\ncredential_process = {}\n", script.display())).unwrap();
        Self { config, runs }
    }

    /// How often the program runs until a command has succeeded.
    #[track_caller]
    fn count(&self, command: &mut Command) -> usize {
        self.count_with_input(command, b"")
    }

    #[track_caller]
    fn count_with_input(&self, command: &mut Command, input: &[u8]) -> usize {
        let _ = fs::remove_file(&self.runs);
        for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
            command.env_remove(name);
        }
        run_with_input(command.env("AWS_CONFIG_FILE", &self.config), input).success();
        fs::read_to_string(&self.runs).unwrap_or_default().lines().count()
    }
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    wait_until_runnable(path);
}

fn forget_all(sandbox: &Sandbox) {
    let _ = fs::remove_file(sandbox.directory().join("known_hosts"));
    let _ = fs::remove_dir_all(sandbox.directory().join("cache"));
}

#[test]
fn credentials_are_fetched_once_for_a_connection() {
    let sandbox = Sandbox::start();
    let counted = Counted::new(&sandbox);
    let file = sandbox.file("f");
    fs::write(&file, "x").unwrap();
    let name = format!("{}@web-1.ec2", sandbox.user());
    let remote = |target: &str| format!("{target}:{}", sandbox.file("g").display());
    let ssh = |target: &str| {
        let mut command = sandbox.ssh(target);
        command.arg("true");
        command
    };
    let tool = |program: &str, words: &[&str]| {
        let mut command = sandbox.command(program);
        command.arg("-q").args(words).arg(&file).arg(remote(&sandbox.target()));
        command
    };
    for (what, mut command) in [
        ("ssh to an id", ssh(&sandbox.target())),
        ("ssh to a name", ssh(&name)),
        ("ssh to keys in sshd's files", ssh(&sandbox.at(NO_CONSOLE))),
        ("scp", tool("scp", &[])),
        ("rsync", tool("rsync", &["-a"])),
    ] {
        forget_all(&sandbox);
        assert_eq!(counted.count(&mut command), 1, "{what}, first connection");
        assert_eq!(counted.count(&mut command), 1, "{what}, later connection");
    }
    forget_all(&sandbox);
    let mut sftp = sandbox.command("sftp");
    sftp.args(["-q", "-b", "-", &sandbox.target()]);
    assert_eq!(counted.count_with_input(&mut sftp, b"pwd\n"), 1, "sftp");
    sandbox.assert_tidy();
}

#[test]
fn the_wrapper_adds_a_run_at_most_and_none_for_an_id_with_a_user() {
    let sandbox = Sandbox::start();
    let counted = Counted::new(&sandbox);
    for (target, runs) in [(sandbox.target(), 1), (HEALTHY.to_owned(), 2), ("web-1".to_owned(), 2)] {
        forget_all(&sandbox);
        for when in ["first", "later"] {
            let mut command = sandbox.ssh_ec2();
            assert_eq!(counted.count(command.args([&target, "true"])), runs, "{target}, {when} connection");
        }
    }
    let mut scp = sandbox.ssh_ec2();
    let there = format!("{}:{}", sandbox.target(), sandbox.file("g").display());
    fs::write(sandbox.file("f"), "x").unwrap();
    assert_eq!(counted.count(scp.args(["scp", "-q"]).arg(sandbox.file("f")).arg(there)), 1, "scp");
    sandbox.assert_tidy();
}

#[test]
fn a_shared_connection_fetches_credentials_once_for_all_its_sessions() {
    let sandbox = Sandbox::start();
    let counted = Counted::new(&sandbox);
    let shared = |words: &[&str]| {
        let mut command = sandbox.command("ssh");
        command.args(["-o", "LogLevel=ERROR", "-o", "ControlPath=/tmp/ssh_ec2-%C"]).args(words);
        command.arg(sandbox.target());
        command
    };
    // The master stays in the background and must not inherit the pipes, which are read to their end.
    let mut master =
        shared(&["-o", "ControlMaster=yes", "-o", "ControlPersist=60", "-fNT", "-E", "/dev/null"]);
    assert_eq!(counted.count(&mut master), 1, "the master");
    assert_eq!(counted.count(shared(&[]).arg("true")), 0, "a session of it");
    run(&mut shared(&["-O", "exit"])).success();
    sandbox.assert_tidy();
}

#[test]
fn a_proxy_that_ssh_does_not_run_itself_is_no_help_and_no_harm() {
    let sandbox = Sandbox::start();
    let counted = Counted::new(&sandbox);
    let script = sandbox.file("wrapped");
    write_script(&script, "#!/bin/sh\n[ \"$1\" = -V ] && exit\nssh_ec2 proxy \"$@\" | cat\n");
    let wrapped = |instance: &str| {
        let mut command = sandbox.command("ssh");
        command.arg("-o").arg(format!("ProxyCommand={} %r %h %p", script.display()));
        command.args(["-o", "LogLevel=ERROR", &sandbox.at(instance), "true"]);
        command
    };
    assert_eq!(counted.count(&mut wrapped(HEALTHY)), 2, "known-hosts asks AWS itself");
    assert_eq!(counted.count(&mut wrapped(HEALTHY)), 1, "what is known needs no credentials");
    let ended = run(&mut wrapped(IMPOSTOR)).status(255);
    assert!(ended.stderr.contains(&format!("error: {IMPOSTOR} presents the host key ")), "{ended}");
    sandbox.assert_tidy();
}

/// ssh to a host without a known key, whose keys AWS does not list, with another EC2 endpoint.
fn through(sandbox: &Sandbox, ec2: &str) -> Command {
    let mut command = sandbox.ssh(&sandbox.at(IMPOSTOR));
    command.env("AWS_ENDPOINT_URL_EC2", format!("http://{ec2}"));
    command
}

#[test]
fn each_ssh_asks_its_own_proxy_although_connections_share_a_key_agent() {
    let sandbox = Sandbox::with_faults(&[NO_FILES]);
    let asked = [(); 2].map(|()| Arc::new(AtomicUsize::new(0)));
    let count = |of: usize| asked[of].load(Ordering::Relaxed);
    let ec2 = |of: usize, status: u16, body: &'static str| {
        let asked = Arc::clone(&asked[of]);
        impostor(move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            (status, body.to_owned())
        })
    };
    let mut first = Running::start(through(&sandbox, &ec2(0, 200, EMPTY)).arg("echo in; cat"));
    first.wait_for_output(|output| output == b"in\n");
    assert_eq!(count(0), 2, "as kept, and as it is now; once for both questions");
    forget_all(&sandbox);
    let refused = run(through(&sandbox, &ec2(1, 500, "")).arg("echo in")).status(255);
    assert!(refused.stderr.contains(" cannot be checked: ") && refused.text().is_empty(), "{refused}");
    assert_eq!((count(0), count(1) > 0), (2, true));
    let linked = sandbox.agent_socket(&sandbox.at(IMPOSTOR));
    assert!(fs::symlink_metadata(linked).unwrap().is_symlink());
    first.finish().success();
    sandbox.assert_tidy();
}

/// A proxy that is a child of this process, as known-hosts will be.
fn proxy(sandbox: &Sandbox, instance: &str, ec2: Option<&str>) -> (Running, PathBuf) {
    let mut command = sandbox.proxy(instance);
    if let Some(ec2) = ec2 {
        command.env("AWS_ENDPOINT_URL_EC2", format!("http://{ec2}"));
    }
    let mut proxy = Running::start(&mut command);
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    let own = format!(".{}", std::process::id());
    let is_its_socket = |file: &PathBuf| {
        let name = file.file_name().unwrap().to_str().unwrap();
        name.starts_with(".host-keys.") && name.ends_with(&own)
    };
    let socket = files_below(&sandbox.sockets()).into_iter().find(is_its_socket);
    (proxy, socket.unwrap())
}

fn known_hosts(sandbox: &Sandbox, instance: &str) -> Running {
    let mut command = sandbox.ssh_ec2();
    command.args(["known-hosts", "--host", "x", "--presented", KEY, instance]);
    // known-hosts itself cannot reach AWS in this environment.
    command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:1").env("AWS_EC2_METADATA_DISABLED", "true");
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"] {
        command.env_remove(name);
    }
    Running::start(&mut command)
}

fn is_unchecked(ended: &Ended, cause: &str) {
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("ssh_ec2: error: ")).collect();
    assert!(lines.len() == 1 && lines[0].contains(" cannot be checked: "), "{ended}");
    assert!(lines[0].contains(cause) && ended.text().is_empty() && ended.code == 1, "{ended}");
}

#[test]
fn the_tunnel_goes_on_while_a_question_waits_and_ends_without_its_answer() {
    let sandbox = Sandbox::with_faults(&[NO_FILES]);
    let is_asked = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&is_asked);
    let silent = listen(move |mut stream| {
        if stream.read(&mut [0; 1]).is_ok_and(|read| read > 0) {
            flag.store(true, Ordering::Relaxed);
        }
        while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {}
    });
    let (mut proxy, _) = proxy(&sandbox, HEALTHY, Some(&silent));
    let mut asking = known_hosts(&sandbox, HEALTHY);
    eventually("the proxy asks EC2", || is_asked.load(Ordering::Relaxed).then_some(()));
    let before = proxy.wait_for_output(|_| true).len();
    proxy.write(b"SSH-2.0-test\r\n");
    proxy.wait_for_output(|output| output.len() > before);
    assert!(!asking.has_ended());
    proxy.finish().success();
    is_unchecked(&asking.wait(), "the ssh_ec2 proxy of this connection ended before it answered");
    sandbox.assert_tidy();
}

#[test]
fn a_session_that_reads_keys_is_ended_with_the_connection() {
    let sandbox = Sandbox::with_faults(&["slow-attach=3s"]);
    let (proxy, _) = proxy(&sandbox, NO_CONSOLE, None);
    let mut asking = known_hosts(&sandbox, NO_CONSOLE);
    sandbox.wait_for_sessions(2);
    proxy.finish().success();
    assert_eq!(asking.wait().code, 1);
    sandbox.assert_tidy();
}

/// Ctrl-C, a closed terminal and `timeout` end ssh and signal the proxy, in any order and more than once.
#[test]
fn a_session_that_reads_keys_is_ended_whatever_signals_come_with_the_end() {
    let sandbox = Sandbox::with_faults(&["slow-attach=3s"]);
    let mut sessions = 0;
    for signals in
        [&[Signal::INT][..], &[Signal::TERM], &[Signal::HUP], &[Signal::HUP, Signal::TERM, Signal::INT]]
    {
        let (mut proxy, _) = proxy(&sandbox, NO_CONSOLE, None);
        let mut asking = known_hosts(&sandbox, NO_CONSOLE);
        sessions += 2;
        sandbox.wait_for_sessions(sessions);
        // The stopped proxy sees all of these at once when it continues.
        proxy.signal(Signal::STOP);
        proxy.close_input();
        signals.iter().for_each(|signal| proxy.signal(*signal));
        proxy.signal(Signal::CONT);
        proxy.wait();
        assert_eq!(asking.wait().code, 1);
        sandbox.assert_tidy();
        // Without this call AWS would end the session much later.
        let calls = sandbox.region.calls();
        let ended = calls.iter().filter(|call| call.action == "ssm:TerminateSession").count();
        assert_eq!(ended, sessions, "{signals:?}");
    }
}

#[test]
fn a_proxy_that_was_killed_is_no_answer_and_leaves_nothing_for_long() {
    let sandbox = Sandbox::with_faults(&[NO_FILES]);
    let silent = listen(|mut stream| while stream.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {});
    let (mut killed, socket) = proxy(&sandbox, HEALTHY, Some(&silent));
    killed.signal(Signal::STOP);
    let mut asking = known_hosts(&sandbox, HEALTHY);
    let path = socket.display().to_string();
    let is_connected = || {
        // The socket that listens, and one for a connection that waits to be accepted.
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        (sockets.lines().filter(|line| line.ends_with(&path)).count() > 1).then_some(())
    };
    eventually("known-hosts has connected", is_connected);
    kill_process(pid(killed.id()), Signal::KILL).unwrap();
    killed.wait().status(137);
    is_unchecked(&asking.wait(), "the ssh_ec2 proxy of this connection ");
    assert!(socket.exists(), "nobody could remove it");
    // Nothing listens on the socket, so known-hosts loads AWS itself.
    let alone = known_hosts(&sandbox, HEALTHY).wait();
    assert!(!alone.stderr.contains("proxy of this connection"), "{alone}");
    let (again, _) = proxy(&sandbox, HEALTHY, None);
    again.finish().success();
    assert!(!socket.exists());
}

#[test]
fn the_socket_is_private_and_answers_nobody_else() {
    let sandbox = Sandbox::start();
    let (running, socket) = proxy(&sandbox, HEALTHY, None);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&sandbox.sockets()), mode(&socket)), (0o700, 0o600));
    // This process is the parent of the proxy; the proxy answers only its siblings.
    let asked = br#"{"connection":{"target":"i-0decaf00000000001","choice":"unique","profile":null,"region":null},"matter":"Instance"}"#;
    let mut stream = UnixStream::connect(&socket).unwrap();
    // The proxy may have closed the connection before the request.
    let _ = stream.write_all(&[&u32::try_from(asked.len()).unwrap().to_be_bytes()[..], asked].concat());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    assert_eq!(answer, b"");
    // The proxy refuses requests for another instance; known-hosts then asks AWS, without credentials here.
    let other = known_hosts(&sandbox, IMPOSTOR).wait();
    assert_eq!(other.text(), "", "{other}");
    assert!(!other.stderr.contains("proxy of this connection"), "{other}");
    running.finish().success();
    assert_eq!(files_below(&sandbox.sockets()), Vec::<PathBuf>::new());
}

#[test]
fn known_hosts_needs_neither_credentials_nor_aws_beside_its_proxy() {
    let sandbox = Sandbox::start();
    let (running, _) = proxy(&sandbox, NO_CONSOLE, None);
    let ended = known_hosts(&sandbox, NO_CONSOLE).wait().status(1);
    // The presented key is made up, and AWS lists another one to the proxy.
    assert!(ended.stderr.contains(&format!("error: {NO_CONSOLE} presents the host key ED25519 ")), "{ended}");
    assert!(ended.stderr.contains(", from its own files, read through Session Manager on "), "{ended}");
    running.finish().success();
    sandbox.assert_tidy();
}
