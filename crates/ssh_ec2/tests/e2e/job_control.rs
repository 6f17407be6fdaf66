//! `ssh_ec2` in the place of ssh: stopped, resumed, put in the background, interrupted and killed, it behaves
//! like ssh. Where possible, a test does the same to both and compares the results.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use rustix::process::Signal;

use crate::harness::{
    Running, Sandbox, Terminal, binary, eventually, find_processes, is_child_of, is_root, pid, run,
    with_each_server,
};

with_each_server!(
    a_shell_controls_it_as_it_controls_ssh,
    a_shell_controls_its_terminal_session_as_that_of_ssh,
    a_terminal_that_is_closed_leaves_nothing,
    nothing_outlives_a_wrapper_that_was_killed,
);

/// bash on a terminal, which runs `ssh` or `ssh_ec2`.
struct Shell<'a> {
    terminal: Terminal,
    program: &'a str,
    marks: usize,
}

impl<'a> Shell<'a> {
    fn start(sandbox: &Sandbox, program: &'a str) -> Self {
        let mut bash = sandbox.command("bash");
        bash.args(["--norc", "--noprofile", "-i"]).env("PS1", "$ ").env("HISTFILE", "");
        let mut shell = Self { terminal: Terminal::start(bash, 40, 200), program, marks: 0 };
        shell.line(&format!("alias p='{}'", shell.command()));
        shell
    }

    fn line(&mut self, text: &str) {
        self.terminal.type_in(&format!("{text}\n"));
    }

    /// The value of a bash expression. Waits for the prompt first, since ssh reads ahead as well.
    fn value(&mut self, word: &str) -> String {
        self.terminal.wait_until("ends with a prompt", |screen| screen.ends_with("$ "));
        self.marks += 1;
        let end = format!(">{}\r\n", self.marks);
        // Bash echoes the typed line with quotes, so only the result has this end.
        self.line(&format!("echo \"<\"{word}\">\"{}", self.marks));
        self.terminal.wait_for(&end);
        let screen = self.terminal.screen();
        let before = &screen[..screen.find(&end).unwrap()];
        before[before.rfind('<').unwrap() + 1..].replace(&self.command(), "PROGRAM")
    }

    /// The command behind the shell function `p`.
    fn command(&self) -> String {
        format!("{} -o LogLevel=ERROR", self.program)
    }

    /// Resumes the job and waits until bash prints its command.
    fn resume(&mut self, how: &str) {
        let command = self.command();
        let before = self.terminal.screen().matches(&command).count();
        self.line(how);
        self.terminal.wait_until("has the resumed job", |screen| screen.matches(&command).count() > before);
    }

    fn status(&mut self) -> String {
        self.value("$?")
    }

    fn jobs(&mut self) -> String {
        self.value("\"$(jobs)\"")
    }
}

/// Runs the same script with ssh and with `ssh_ec2`, and compares the results.
fn compare(sandbox: &Sandbox, found: impl Fn(&mut Shell<'_>, &str) -> Vec<String>) -> Vec<String> {
    let target = sandbox.target();
    let [plain, ours] = ["ssh", "ssh_ec2"].map(|program| {
        let found = found(&mut Shell::start(sandbox, program), &target);
        sandbox.assert_tidy();
        found
    });
    assert_eq!(ours, plain);
    ours
}

fn a_shell_controls_it_as_it_controls_ssh(sandbox: &Sandbox) {
    let go = sandbox.file("go").display().to_string();
    let found = compare(sandbox, |shell, target| {
        let mut found = Vec::new();
        // Stopped, looked at, resumed.
        shell.line(&format!("p -T {target} 'echo be\"\"gun 1; cat; echo over; exit 7'"));
        shell.terminal.wait_for("begun 1");
        shell.terminal.type_in("\x1a");
        shell.terminal.wait_for("Stopped");
        found.extend([shell.status(), shell.jobs()]);
        shell.resume("fg");
        shell.line("wo\"\"rd");
        shell.terminal.wait_for("wo\"\"rd\r\nwo\"\"rd");
        shell.terminal.type_in("\x04");
        shell.terminal.wait_for("over");
        found.push(shell.status());
        // Stopped, and resumed in the background.
        shell.line(&format!("p -n -T {target} 'echo be\"\"gun 2; while ! [ -e {go} ]; do :; done; exit 5'"));
        shell.terminal.wait_for("begun 2");
        shell.terminal.type_in("\x1a");
        found.extend([shell.status(), shell.jobs()]);
        shell.resume("bg");
        shell.line(&format!("touch {go}; wait %%"));
        found.push(shell.status());
        fs::remove_file(sandbox.file("go")).unwrap();
        // Ctrl-C.
        shell.line(&format!("p -T {target} 'echo be\"\"gun 3; cat'"));
        shell.terminal.wait_for("begun 3");
        shell.terminal.type_in("\x03");
        found.push(shell.status());
        // The key that quits.
        shell.line(&format!("p -T {target} 'echo be\"\"gun 4; cat'"));
        shell.terminal.wait_for("begun 4");
        shell.terminal.type_in("\x1c");
        found.push(shell.status());
        // In the background from the start, until it is killed.
        shell.line(&format!("p -n -T {target} 'echo be\"\"gun 5; exec tail -f /dev/null' &"));
        shell.terminal.wait_for("begun 5");
        shell.line("");
        found.push(shell.jobs());
        shell.line("kill -TERM %%; wait %%");
        found.push(shell.status());
        // In the background, and reading from the terminal.
        shell.line(&format!("p -T {target} 'echo be\"\"gun 6; cat' &"));
        shell.terminal.wait_for("begun 6");
        let before = shell.terminal.screen().matches("Stopped").count();
        eventually("bash says that it is stopped", || {
            shell.line("");
            (shell.terminal.screen().matches("Stopped").count() > before).then_some(())
        });
        found.push(shell.jobs());
        shell.resume("fg");
        shell.line("more");
        shell.terminal.wait_for("more\r\nmore");
        shell.terminal.type_in("\x04");
        found.push(shell.status());
        found
    });
    assert_eq!(found[0], "148", "SIGTSTP: {found:?}");
    assert_eq!(found[2], "7", "{found:?}");
}

fn a_shell_controls_its_terminal_session_as_that_of_ssh(sandbox: &Sandbox) {
    sandbox.assert_that_terminals_can_be_had();
    let found = compare(sandbox, |shell, target| {
        let mut found = Vec::new();
        shell.line(&format!("p -t {target} 'echo be\"\"gun 1; while read x; do stty size; done; exit 3'"));
        shell.terminal.wait_for("begun 1");
        shell.terminal.resize(33, 133);
        eventually("the new size arrives", || {
            shell.line("");
            shell.terminal.screen().contains("33 133").then_some(())
        });
        // ssh stops itself, and nothing else gets the signal.
        shell.terminal.type_in("\n~\x1a");
        shell.terminal.wait_for("Stopped");
        found.extend([shell.status(), shell.jobs()]);
        shell.resume("fg");
        shell.terminal.resize(35, 135);
        eventually("the size that it got meanwhile arrives", || {
            shell.line("");
            shell.terminal.screen().contains("35 135").then_some(())
        });
        shell.terminal.type_in("\x04");
        found.push(shell.status());
        // The remote program gets Ctrl-C.
        shell.line(&format!("p -t {target} 'echo be\"\"gun 2; exec cat'"));
        shell.terminal.wait_for("begun 2");
        shell.terminal.type_in("\x03");
        found.push(shell.status());
        found
    });
    assert_eq!(found[0], "148", "SIGTSTP: {found:?}");
    assert_eq!(found[2], "3", "{found:?}");
}

fn a_terminal_that_is_closed_leaves_nothing(sandbox: &Sandbox) {
    sandbox.assert_that_terminals_can_be_had();
    for shell in ["", "bash -c "] {
        let mark = sandbox.file("mark");
        let line = format!("ssh_ec2 -t {} 'touch {}; exec cat'", sandbox.target(), mark.display());
        let mut command = sandbox.command("sh");
        match shell {
            // Only the session leader gets the signal.
            "" => command.args(["-c", &format!("exec {line}")]),
            _ => command.args(["-c", &format!("{line}; true")]),
        };
        let (pty, end) = pty_process::blocking::open().unwrap();
        let mut child = pty_process::blocking::Command::from(command).spawn(end).unwrap();
        eventually("the session begins", || mark.exists().then_some(()));
        drop(pty);
        eventually("the program in the terminal ends", || child.try_wait().unwrap());
        sandbox.assert_tidy();
        fs::remove_file(&mark).unwrap();
    }
}

fn nothing_outlives_a_wrapper_that_was_killed(sandbox: &Sandbox) {
    let mut wrapper = Running::start(sandbox.ssh_ec2().args(["-T", &sandbox.target(), "echo begun; cat"]));
    wrapper.wait_for_output(|output| output == b"begun\n");
    let ssh = ssh_below(wrapper.id());
    wrapper.signal(Signal::KILL);
    // With its input left open: else ssh may end by that, before the system has ended `ssh_ec2`.
    assert_eq!(wrapper.wait().code, 137);
    eventually("ssh ends", || (!Path::new(&format!("/proc/{ssh}")).exists()).then_some(()));
    sandbox.assert_tidy();
}

/// The only child of `ssh_ec2`.
pub(crate) fn ssh_below(wrapper: u32) -> u32 {
    let [ssh] = find_processes(|words| words.first().is_some_and(|word| Path::new(word).ends_with("ssh")))
        .into_iter()
        .filter(|id| is_child_of(*id, wrapper))
        .collect::<Vec<_>>()[..]
    else {
        panic!("{wrapper} has no ssh, or several")
    };
    ssh
}

#[test]
fn a_signal_for_it_alone_has_the_effect_that_it_has_on_ssh() {
    let sandbox = Sandbox::start();
    let codes = |program: &str| {
        [Signal::HUP, Signal::INT, Signal::TERM, Signal::USR1, Signal::USR2, Signal::ALARM, Signal::QUIT].map(
            |signal| {
                let mut command = sandbox.command(program);
                command.args(["-q", "-T", &sandbox.target(), "echo begun; cat"]);
                let mut running = Running::start(&mut command);
                running.wait_for_output(|output| output == b"begun\n");
                running.signal(signal);
                let code = running.wait().code;
                (signal, code)
            },
        )
    };
    assert_eq!(codes("ssh_ec2"), codes("ssh"));
    sandbox.assert_tidy();
}

#[test]
fn a_sigcont_for_it_alone_continues_ssh_as_well() {
    let sandbox = Sandbox::start();
    let mut wrapper =
        Running::start(sandbox.ssh_ec2().args(["-q", "-T", &sandbox.target(), "echo begun; cat"]));
    wrapper.wait_for_output(|output| output == b"begun\n");
    let ssh = ssh_below(wrapper.id());
    let state = |id: u32| fs::read_to_string(format!("/proc/{id}/stat")).unwrap().contains(") T ");
    rustix::process::kill_process(pid(ssh), Signal::TSTP).unwrap();
    eventually("both are stopped", || (state(ssh) && state(wrapper.id())).then_some(()));
    wrapper.signal(Signal::CONT);
    wrapper.write(b"word\n");
    wrapper.wait_for_output(|output| output == b"begun\nword\n");
    wrapper.finish().success();
    sandbox.assert_tidy();
}

#[test]
fn a_program_that_was_killed_kills_it() {
    let sandbox = Sandbox::start();
    let mut wrapper =
        Running::start(sandbox.ssh_ec2().args(["-q", "-T", &sandbox.target(), "echo begun; cat"]));
    wrapper.wait_for_output(|output| output == b"begun\n");
    rustix::process::kill_process(pid(ssh_below(wrapper.id())), Signal::KILL).unwrap();
    assert_eq!(wrapper.wait().code, 137);
    sandbox.assert_tidy();
}

#[test]
fn ssh_inherits_what_is_ignored_and_open() {
    let sandbox = Sandbox::start();
    let seen = |program: &str| {
        let mut shell = sandbox.command("bash");
        let line = format!(
            "trap '' INT QUIT HUP USR1; umask 027; exec {program} -q -T {} 'echo begun; cat' 7<{}",
            sandbox.target(),
            sandbox.directory().join("known_hosts").display(),
        );
        fs::write(sandbox.directory().join("known_hosts"), "").unwrap();
        let mut running = Running::start(shell.args(["-c", &line]));
        running.wait_for_output(|output| output == b"begun\n");
        let ssh = if program == "ssh" { running.id() } else { ssh_below(running.id()) };
        let status = fs::read_to_string(format!("/proc/{ssh}/status")).unwrap();
        let of = |field: &str| status.lines().find(|line| line.starts_with(field)).map(str::to_owned);
        let environment = fs::read(format!("/proc/{ssh}/environ")).unwrap();
        let mut variables: Vec<_> = environment.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        variables.sort();
        let found = (
            of("SigIgn"),
            of("SigBlk"),
            of("Umask"),
            variables,
            fs::read_link(format!("/proc/{ssh}/cwd")).unwrap(),
        );
        running.signal(Signal::HUP);
        running.signal(Signal::INT);
        running.signal(Signal::USR1);
        running.write(b"alive\n");
        running.wait_for_output(|output| output.ends_with(b"alive\n"));
        running.finish().success();
        found
    };
    let (ours, plain) = (seen("ssh_ec2"), seen("ssh"));
    assert_eq!(ours, plain);
}

#[test]
fn a_child_whose_parent_has_ended_does_not_start_the_program() {
    let sandbox = Sandbox::start();
    let ended = run(sandbox.ssh_ec2().args(["__child", "1", "echo", "in"])).status(1);
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn as_the_first_process_it_ends_sessions_and_explains() {
    let sandbox = Sandbox::start();
    let first = |words: &[&str]| {
        let mut command = sandbox.command("unshare");
        // In a user namespace ssh as root fails: root lacks rights there.
        command.args(if is_root() { &[][..] } else { &["--user", "--map-current-user"] });
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]);
        command.arg(binary()).args(words);
        command
    };
    run(&mut first(&["-q", &sandbox.target(), "exit 7"])).status(7);
    sandbox.assert_tidy();
    let log = sandbox.file("log");
    let mut refused = first(&["-q", &format!("ghost@{}", crate::harness::HEALTHY), "true"]);
    let status = refused.stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(255));
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("there is no user `ghost`"), "{said}");
    sandbox.assert_tidy();
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut running = Running::start(&mut first(&["-q", "-T", &sandbox.target(), "echo begun; cat"]));
        running.wait_for_output(|output| output == b"begun\n");
        let inner = find_processes(|words| words.first().is_some_and(|word| Path::new(word) == binary()));
        let inner: Vec<_> = inner.into_iter().filter(|id| is_child_of(*id, running.id())).collect();
        let [inner] = inner[..] else { panic!("{inner:?}") };
        rustix::process::kill_process(pid(inner), signal).unwrap();
        running.wait();
        sandbox.assert_tidy();
    }
    let mut stopped = Running::start(&mut first(&["-q", "-T", &sandbox.target(), "kill -KILL $$"]));
    stopped.wait();
    sandbox.assert_tidy();
}
