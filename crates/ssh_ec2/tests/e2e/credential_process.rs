//! A profile with a `credential_process`: the arguments and files that the program gets, what is shown of its
//! output, and the messages when it fails.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Signal, kill_process};

use crate::errors::{fails, told};
use crate::harness::{
    HEALTHY, Running, Sandbox, Terminal, binary, eventually, find_processes, pid, run, run_with_input,
    wait_until_runnable,
};

const KEYS: [&str; 3] = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
const HINT: &str = "run the `credential_process` of the profile by hand to see what it says";
const CORRECT: &str =
    "correct `credential_process` in the profile: no shell runs it, so `~` and `$HOME` stay as they are";

/// A program that runs `lines`, and then prints the region's credentials.
pub(crate) fn program(sandbox: &Sandbox, lines: &str) -> PathBuf {
    let environment = sandbox.region.environment();
    let value = |name: &str| &environment.iter().find(|(found, _)| found == name).unwrap().1;
    let [id, secret, token] = KEYS.map(value);
    let json = format!(
        r#"{{"Version":1,"AccessKeyId":"{id}","SecretAccessKey":"{secret}","SessionToken":"{token}","Expiration":"2199-01-01T00:00:00Z"}}"#
    );
    script(sandbox, &format!("case \"$1\" in -V) exit; esac\n{lines}\nprintf '%s\\n' '{json}'\n"))
}

/// A program that is this script.
fn script(sandbox: &Sandbox, lines: &str) -> PathBuf {
    let path = sandbox.file("program");
    fs::write(&path, format!("#!/bin/sh\n{lines}")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    wait_until_runnable(&path);
    path
}

/// Makes `process` the only source of credentials of the command.
pub(crate) fn with_process(sandbox: &Sandbox, mut command: Command, process: &str) -> Command {
    let config = sandbox.file("config");
    fs::write(&config, format!("[default]\nregion = us-east-1\ncredential_process = {process}\n")).unwrap();
    for name in KEYS {
        command.env_remove(name);
    }
    command.env("AWS_CONFIG_FILE", config);
    command
}

/// The same command in a session of its own, so that it has no terminal even if the test has one.
pub(crate) fn alone(sandbox: &Sandbox, command: &Command) -> Command {
    sandbox.behind(&["setsid", "--wait"], command)
}

fn plain_ssh(sandbox: &Sandbox, remote: &str) -> Command {
    let mut ssh = sandbox.ssh(&sandbox.target());
    ssh.arg(remote);
    ssh
}

fn wrapper(sandbox: &Sandbox, remote: &str) -> Command {
    let mut wrapper = sandbox.ssh_ec2();
    wrapper.args(["-q", &sandbox.target(), remote]);
    wrapper
}

#[test]
fn the_program_reads_none_of_the_bytes_of_ssh() {
    for way in [plain_ssh, wrapper] {
        let sandbox = Sandbox::start();
        let read = sandbox.file("read");
        let process = program(&sandbox, &format!("cat >> {}", read.display()));
        let command = with_process(&sandbox, way(&sandbox, "cat"), &process.display().to_string());
        let ended = run_with_input(&mut alone(&sandbox, &command), b"a\nb\n").success();
        assert_eq!(ended.text(), "a\nb\n", "the remote command gets all of the input");
        assert_eq!(fs::read_to_string(read).unwrap(), "", "the program gets none of it");
        sandbox.assert_tidy();
    }
}

#[test]
fn the_program_can_ask_at_the_terminal() {
    for way in [plain_ssh, wrapper] {
        let sandbox = Sandbox::start();
        let lines = "if ! [ -e asked ]; then printf 'PIN: ' >&2; read pin; echo \"$pin\" >asked; fi";
        let process = program(&sandbox, lines);
        let command = with_process(&sandbox, way(&sandbox, "echo in"), &process.display().to_string());
        let mut terminal = Terminal::start(command, 24, 200);
        terminal.wait_for("PIN: ");
        terminal.type_in("1234\r");
        terminal.wait_for("in\r\n");
        assert_eq!(terminal.status(), 0, "{}", terminal.screen());
        assert_eq!(fs::read_to_string(sandbox.file("asked")).unwrap(), "1234\n");
        sandbox.assert_tidy();
    }
}

#[test]
fn in_batch_mode_the_program_has_no_terminal_to_read_from() {
    let sandbox = Sandbox::start();
    let process = program(&sandbox, "cat >read");
    let mut command = sandbox.ssh_ec2();
    command.args(["--batch", "-q", &sandbox.target(), "echo in"]);
    let command = with_process(&sandbox, command, &process.display().to_string());
    let mut terminal = Terminal::start(command, 24, 200);
    terminal.wait_for("in\r\n");
    assert_eq!(terminal.status(), 0);
    assert_eq!(fs::read_to_string(sandbox.file("read")).unwrap(), "");
}

#[test]
fn what_the_program_says_is_shown_while_it_runs() {
    let sandbox = Sandbox::start();
    let lines = "echo 'touch the key' >&2; while ! [ -e touched ]; do sleep 0.02; done";
    let process = program(&sandbox, lines);
    let command = with_process(&sandbox, sandbox.proxy(HEALTHY), &process.display().to_string());
    let mut running = Running::start(&mut alone(&sandbox, &command));
    eventually("the program is heard", || running.said().contains("touch the key\n").then_some(()));
    assert!(!running.has_ended());
    fs::write(sandbox.file("touched"), "").unwrap();
    running.wait_for_output(|output| output.starts_with(b"SSH-2.0-"));
    drop(running);
}

/// A program that waits until it is ended, with a child of its own; and a function that counts both.
fn waiting_program(sandbox: &Sandbox) -> (String, impl Fn() -> usize + use<>) {
    static NUMBER: AtomicUsize = AtomicUsize::new(1);
    // The unusual duration identifies this `sleep` among all processes.
    let time = format!("86{}.{}", 100 + NUMBER.fetch_add(1, Ordering::Relaxed), std::process::id());
    let process = program(sandbox, &format!("sh -c 'sleep {time}; :'; :"));
    // The shells have the duration in their command lines as well.
    let count = move || find_processes(|words| words.iter().any(|word| word.contains(&time))).len();
    (process.display().to_string(), count)
}

#[test]
fn an_ended_command_leaves_no_program_behind() {
    let ways: [fn(&Sandbox) -> Command; 5] = [
        |sandbox| sandbox.proxy(HEALTHY),
        // The program runs while the name is looked up; after that the process is ssh.
        |sandbox| {
            let mut by_name = sandbox.ssh_ec2();
            by_name.args(["web-1", "true"]);
            by_name
        },
        |sandbox| {
            let mut list = sandbox.ssh_ec2();
            list.arg("list");
            list
        },
        |sandbox| {
            let mut doctor = sandbox.ssh_ec2();
            doctor.args(["doctor", HEALTHY]);
            doctor
        },
        |sandbox| {
            let mut known_hosts = sandbox.ssh_ec2();
            known_hosts.args(["known-hosts", HEALTHY]);
            known_hosts
        },
    ];
    for way in ways {
        for signal in [Signal::TERM, Signal::HUP] {
            let sandbox = Sandbox::start();
            let (process, count) = waiting_program(&sandbox);
            let mut running = Running::start(&mut with_process(&sandbox, way(&sandbox), &process));
            // The signal comes as soon as the program has been started.
            eventually("the program runs", || (count() > 0).then_some(()));
            running.signal(signal);
            eventually("the command ends", || running.has_ended().then_some(()));
            eventually("the program ends", || (count() == 0).then_some(()));
            assert_eq!(running.wait().code, 130);
        }
    }
}

/// A stopped process gets no signal but SIGKILL before it goes on.
#[test]
fn a_stopped_program_is_ended_as_well() {
    let sandbox = Sandbox::start();
    let process = program(&sandbox, "kill -STOP $$");
    let mut running =
        Running::start(&mut with_process(&sandbox, sandbox.proxy(HEALTHY), &process.display().to_string()));
    let script = process.display().to_string();
    let states = || {
        let found = find_processes(|words| words.get(1).is_some_and(|word| *word == script));
        let stat = |id| fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        found.into_iter().map(stat).collect::<Vec<_>>()
    };
    eventually("the program stops", || states().iter().any(|stat| stat.contains(") T ")).then_some(()));
    running.signal(Signal::TERM);
    eventually("the proxy ends", || running.has_ended().then_some(()));
    eventually("the program ends", || states().is_empty().then_some(()));
}

/// For example an agent that keeps something unlocked for an hour and has inherited the program's pipes.
#[test]
fn what_the_program_leaves_running_is_not_waited_for() {
    let sandbox = Sandbox::start();
    let mark = format!("86399.{}", std::process::id());
    let process = program(&sandbox, &format!("sleep {mark} &"));
    let command = with_process(&sandbox, sandbox.proxy(HEALTHY), &process.display().to_string());
    let mut running = Running::start(&mut alone(&sandbox, &command));
    running.wait_for_output(|output| output.starts_with(b"SSH-2.0-"));
    let left = find_processes(|words| words.get(1).is_some_and(|word| *word == mark));
    assert_eq!(left.len(), 1);
    kill_process(pid(left[0]), Signal::KILL).unwrap();
}

#[test]
fn a_hangup_that_is_ignored_stays_ignored() {
    let sandbox = Sandbox::start();
    let process = program(&sandbox, "echo waiting >&2; while ! [ -e go ]; do sleep 0.02; done");
    let mut shell = sandbox.command("sh");
    shell.args(["-c", "trap '' HUP; exec \"$0\" -q web-1 'echo in'"]).arg(binary());
    let running = Running::start(&mut with_process(&sandbox, shell, &process.display().to_string()));
    eventually("the program runs", || running.said().contains("waiting").then_some(()));
    running.signal(Signal::HUP);
    fs::write(sandbox.file("go"), "").unwrap();
    assert_eq!(running.finish().success().text(), "in\n");
}

/// The arguments of the line, split as the AWS CLI splits them: it runs no shell.
#[test]
fn the_program_gets_the_words_that_the_aws_cli_gives_it() {
    let sandbox = Sandbox::start();
    let process = program(&sandbox, "printf '<%s>' \"$@\" >>words; echo >>words");
    let words = r#"a "b  \"c\" \$d" 'e\ f' $HOME ~ *; '' g\ h"#;
    let process = format!("{} {words}", process.display());
    let caller = ["sts", "get-caller-identity"];
    let mut cli = sandbox.command("aws");
    cli.args(caller);
    run(&mut with_process(&sandbox, cli, &process)).success();
    run(&mut with_process(&sandbox, wrapper(&sandbox, "true"), &process)).success();
    let written = fs::read_to_string(sandbox.file("words")).unwrap();
    let lines: Vec<_> = written.lines().collect();
    assert_eq!(lines[0], r#"<a><b  "c" \$d><e\ f><$HOME><~><*;><><g h>"#);
    assert!(lines.len() > 1 && lines.iter().all(|line| *line == lines[0]), "{lines:?}");
}

#[test]
fn a_program_that_fails_is_named_with_what_it_said() {
    let sandbox = Sandbox::start();
    let process = script(&sandbox, "echo first >&2; echo 'no card in the reader' >&2; exit 3\n");
    let command =
        with_process(&sandbox, sandbox.proxy(HEALTHY), &format!("{} --pin 4711", process.display()));
    let ended = Running::start(&mut alone(&sandbox, &command)).wait().status(1);
    let error = format!(
        "cannot get the AWS credentials of the default profile: {} ended with exit status 3: no card in the reader",
        process.display()
    );
    assert_eq!(ended.stderr, format!("first\nno card in the reader\n{}", told(&error, &[HINT])));
}

#[test]
fn what_is_wrong_with_the_answer_is_said_and_the_answer_is_not_shown() {
    let keys = r#""AccessKeyId":"AKIASHOWN","SecretAccessKey":"hidden""#;
    let printed = |json: &str| format!("printf '%s' '{json}'\n");
    let cases = [
        (printed("hidden"), "printed no JSON".to_owned()),
        ("exit 0\n".to_owned(), "printed no JSON".to_owned()),
        (printed(r#"["hidden"]"#), "printed JSON that is not an object".to_owned()),
        (printed(&format!("{{{keys}}}")), "printed no Version; it must be 1".to_owned()),
        (
            printed(&format!("{{\"Version\":2,{keys}}}")),
            "printed credentials of Version 2; it must be 1".to_owned(),
        ),
        (
            printed(r#"{"Version":1,"AccessKeyId":"AKIASHOWN","SessionToken":"hidden"}"#),
            "printed no SecretAccessKey".to_owned(),
        ),
        (printed(r#"{"Version":1,"SecretAccessKey":"hidden"}"#), "printed no AccessKeyId".to_owned()),
        (
            printed(&format!("{{\"Version\":1,{keys},\"Expiration\":\"soon\"}}")),
            "printed an Expiration that is not a time: soon".to_owned(),
        ),
        (
            printed(&format!("{{\"Version\":1,{keys},\"Expiration\":\"2020-01-01T00:00:00Z\"}}")),
            "printed credentials that expired at 2020-01-01T00:00:00Z".to_owned(),
        ),
    ];
    let sandbox = Sandbox::start();
    for (lines, fact) in cases {
        let process = script(&sandbox, &lines);
        let command =
            with_process(&sandbox, sandbox.proxy(HEALTHY), &format!("{} hidden", process.display()));
        let error =
            format!("cannot get the AWS credentials of the default profile: {} {fact}", process.display());
        fails(&mut alone(&sandbox, &command), 1, &error, &[HINT]);
    }
}

#[test]
fn a_program_that_cannot_be_run_is_named() {
    let sandbox = Sandbox::start();
    let plain = sandbox.file("plain");
    fs::write(&plain, "").unwrap();
    let cases = [
        ("/nonexistent/p hidden".to_owned(), "cannot find the program /nonexistent/p".to_owned()),
        (
            "no-such-program-anywhere hidden".to_owned(),
            "cannot find the program no-such-program-anywhere".to_owned(),
        ),
        (
            plain.display().to_string(),
            format!("cannot run {}: Permission denied (os error 13)", plain.display()),
        ),
        ("p \"hidden".to_owned(), "`credential_process` has a quotation mark that is not closed".to_owned()),
        ("p hidden\\".to_owned(), "`credential_process` ends in a backslash".to_owned()),
    ];
    for (process, fact) in cases {
        let command = with_process(&sandbox, sandbox.proxy(HEALTHY), &process);
        let error = format!("cannot get the AWS credentials of the default profile: {fact}");
        fails(&mut alone(&sandbox, &command), 1, &error, &[CORRECT]);
    }
}

/// The most verbose log says that the program ran, without its arguments and its output.
#[test]
fn no_log_has_the_arguments_or_the_answer() {
    let sandbox = Sandbox::start();
    let process = program(&sandbox, "");
    let mut command = sandbox.command(&binary().display().to_string());
    command.args(["-vv", &sandbox.target(), "echo in"]);
    let command = with_process(&sandbox, command, &format!("{} --pin 47114711", process.display()));
    let ended = run(&mut alone(&sandbox, &command)).success();
    assert!(ended.stderr.contains(&format!("running {} for credentials", process.display())), "{ended}");
    let environment = sandbox.region.environment();
    let secrets = environment.iter().filter(|(name, _)| KEYS[1..].contains(&name.as_str()));
    for secret in secrets.map(|(_, value)| value.as_str()).chain(["47114711"]) {
        assert!(!ended.stderr.contains(secret), "{secret} is in {ended}");
    }
}
