//! Processes and conditions that are waited for until a deadline.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// For every wait without a bound of its own. Generous: a busy machine is not a bug.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// Waits for a condition; fails when the deadline passes. The only place that lets time pass.
pub(crate) fn eventually<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    within(DEADLINE, probe).unwrap_or_else(|| panic!("waited {DEADLINE:?} in vain until {what}"))
}

pub(super) fn within<T>(bound: Duration, mut probe: impl FnMut() -> Option<T>) -> Option<T> {
    let started = Instant::now();
    loop {
        if let Some(value) = probe() {
            return Some(value);
        }
        if started.elapsed() > bound {
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end, without input.
pub(crate) fn run(command: &mut Command) -> Ended {
    run_with_input(command, b"")
}

/// Runs a command to its end, with all of `input`.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Ended {
    let mut running = Running::start(command);
    running.write(input);
    running.finish()
}

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// As in a shell: 128 plus the number of a signal that killed it.
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
    /// The links in its errors; `stderr` is without them.
    pub(crate) links: Vec<String>,
    command: String,
}

impl Ended {
    /// Asserts that the command succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        self.status(0)
    }

    /// Asserts the exit status.
    #[track_caller]
    pub(crate) fn status(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self}");
        self
    }

    /// Standard output as text.
    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let output = String::from_utf8_lossy(&self.stdout[..self.stdout.len().min(2000)]);
        write!(
            f,
            "{}\nended with {} after {:.1?}; standard output:\n{output}\nstandard error:\n{}",
            self.command, self.code, self.took, self.stderr
        )
    }
}

/// A process whose output is collected as it comes. It has a process group of its own, which is killed on
/// drop.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    group: Pid,
    started: Instant,
    command: String,
    stdin: Option<ChildStdin>,
    stdout: Gathered,
    stderr: Gathered,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self::start_with_output(command, Stdio::piped())
    }

    /// The same, with an output that the test passes in and that is not collected.
    pub(crate) fn start_with_output(command: &mut Command, output: Stdio) -> Self {
        Self::start_with(command, Stdio::piped(), output)
    }

    /// The same, with input and output that the test passes in.
    pub(crate) fn start_with(command: &mut Command, input: Stdio, output: Stdio) -> Self {
        command.stdin(input).stdout(output).stderr(Stdio::piped()).process_group(0);
        let started = Instant::now();
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        Self {
            group: pid(child.id()),
            started,
            command: words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            stdin: child.stdin.take(),
            stdout: child.stdout.take().map(Gathered::from).unwrap_or_default(),
            stderr: child.stderr.take().map(Gathered::from).unwrap_or_default(),
            child,
        }
    }

    /// Writes all of it. If nothing reads it, the exit status of the program shows why.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let _ = self.stdin.as_mut().unwrap().write_all(bytes);
    }

    /// Waits until all that was written has been read.
    pub(crate) fn wait_until_read(&self) {
        let stdin = self.stdin.as_ref().unwrap();
        eventually("the input is read", || (rustix::io::ioctl_fionread(stdin).unwrap() == 0).then_some(()));
    }

    pub(crate) fn close_input(&mut self) {
        self.stdin = None;
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    /// Signals the whole process group, as a terminal does.
    pub(crate) fn signal_group(&self, signal: Signal) {
        kill_process_group(self.group, signal).unwrap();
    }

    /// Waits until standard output fulfils a condition.
    pub(crate) fn wait_for_output(&mut self, wanted: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let found = within(DEADLINE, || {
            let output = self.stdout.bytes();
            (wanted(&output) || self.has_ended()).then_some(output)
        });
        match found {
            Some(output) if wanted(&output) => output,
            _ => panic!(
                "{} did not say what it should; standard output: {:?}\nstandard error:\n{}",
                self.command,
                String::from_utf8_lossy(&self.stdout.bytes()),
                self.said()
            ),
        }
    }

    /// Standard error so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.stderr.bytes()).into_owned()
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Ends its input, and waits until it has ended and every process has closed its output.
    pub(crate) fn finish(mut self) -> Ended {
        self.stdin = None;
        self.wait()
    }

    /// The same with its input left open.
    pub(crate) fn wait(&mut self) -> Ended {
        let bound = DEADLINE;
        let ended = within(bound, || {
            let status = self.child.try_wait().unwrap()?;
            (self.stdout.is_whole() && self.stderr.is_whole()).then_some((status, self.started.elapsed()))
        });
        let outcome = |code, took| {
            let (stderr, links) = without_links(&self.said());
            let stdout = self.stdout.bytes();
            Ended { code, stdout, stderr, took, links, command: self.command.clone() }
        };
        match ended {
            Some((status, took)) => {
                outcome(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)), took)
            }
            None => panic!("did not end within {bound:?}: {}", outcome(-1, self.started.elapsed())),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // After an orderly end the number may belong to another group. Processes that are left belong to a
        // failed test.
        if thread::panicking() || !self.has_ended() {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = self.child.wait();
        }
    }
}

/// Removes the links to the troubleshooting page. Each must lead to a heading that exists.
fn without_links(said: &str) -> (String, Vec<String>) {
    let mut links = Vec::new();
    let mut rest = String::new();
    for line in said.split_inclusive('\n') {
        let (text, link) = match line.strip_prefix("ssh_ec2: more: ") {
            Some(link) => ("", Some(link)),
            None if line.starts_with("ssh_ec2: hint: ") => match line.rsplit_once("; more: ") {
                Some((text, link)) => (text, Some(link)),
                None => (line, None),
            },
            None => (line, None),
        };
        rest.push_str(text);
        if let Some(link) = link {
            let anchor = link.trim_end().strip_prefix(TROUBLESHOOTING).unwrap_or_else(|| panic!("{link}"));
            let heading = format!("\n## {anchor}\n");
            assert!(include_str!("../../../../../docs/troubleshooting.md").contains(&heading), "{link}");
            links.push(anchor.to_owned());
            if !text.is_empty() {
                rest.push('\n');
            }
        }
    }
    (rest, links)
}

const TROUBLESHOOTING: &str = "https://github.com/ssh-ec2/ssh_ec2/blob/main/docs/troubleshooting.md#";

/// All bytes that have come out of a pipe, read by a thread.
#[derive(Debug)]
pub(crate) struct Gathered(Arc<Mutex<Output>>);

#[derive(Debug, Default)]
struct Output {
    bytes: Vec<u8>,
    whole: bool,
}

/// For a pipe that something else reads.
impl Default for Gathered {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Output { bytes: Vec::new(), whole: true })))
    }
}

impl Gathered {
    pub(crate) fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let output = Arc::new(Mutex::new(Output::default()));
        let gathered = Self(Arc::clone(&output));
        thread::spawn(move || {
            let mut buffer = vec![0; 256 * 1024];
            loop {
                let read = pipe.read(&mut buffer).unwrap_or(0);
                let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
                output.bytes.extend_from_slice(&buffer[..read]);
                if read == 0 {
                    output.whole = true;
                    return;
                }
            }
        });
        gathered
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).bytes.clone()
    }

    fn is_whole(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).whole
    }
}

/// The processes whose command line fulfils a condition.
pub(crate) fn find_processes(wanted: impl Fn(&[String]) -> bool) -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let ids = entries.filter_map(|name| name.to_str()?.parse::<u32>().ok());
    let words = |id: &u32| -> Option<Vec<String>> {
        let line = fs::read(format!("/proc/{id}/cmdline")).ok()?;
        let words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned());
        Some(words.collect())
    };
    ids.filter(|id| words(id).is_some_and(|words| wanted(&words))).collect()
}

/// Whether one process is a child of another one that still runs.
pub(crate) fn is_child_of(id: u32, parent: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    status.lines().any(|line| line == format!("PPid:\t{parent}"))
}

pub(crate) fn pid(id: u32) -> Pid {
    Pid::from_raw(id.try_into().unwrap()).unwrap()
}
