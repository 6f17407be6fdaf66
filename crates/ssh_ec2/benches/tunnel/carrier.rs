//! A client that carries bytes between two pipes and a port of an instance: ssh_ec2, or another one for
//! comparison.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::limit::rate;
use crate::region::{INSTANCE, Region};
use crate::{BULK, MEBIBYTE, PATIENCE};

/// As much as a pipe holds, and more than the largest message.
pub(crate) const PIECE: usize = 64 * 1024;

pub(crate) struct Carrier {
    pub(crate) name: &'static str,
    kind: Kind,
    /// Bytes that it can carry in a few seconds, up and down.
    pub(crate) bulk: (usize, usize),
    directory: TempDir,
}

enum Kind {
    Ours,
    /// The aws CLI, which starts AWS's session-manager-plugin.
    Plugin(PathBuf),
    /// `benches/aws-ssm-bridge` of the repository.
    Bridge(PathBuf),
}

/// One transfer.
#[derive(Clone, Copy)]
pub(crate) struct Run {
    /// MiB/s.
    pub(crate) rate: f64,
    /// CPU seconds of the carrier's process for each GiB.
    pub(crate) cpu: f64,
    /// Its peak memory, in MiB.
    pub(crate) memory: f64,
}

impl Carrier {
    pub(crate) fn ours() -> Self {
        Self::new("ssh_ec2", Kind::Ours, (BULK, BULK))
    }

    /// ssh_ec2, and the other clients that are in `PATH`.
    pub(crate) fn found() -> Vec<Self> {
        let mut carriers = vec![Self::ours()];
        if let (Some(aws), Some(_)) = (find("aws"), find("session-manager-plugin")) {
            carriers.push(Self::new(
                "aws and session-manager-plugin",
                Kind::Plugin(aws),
                (2 * MEBIBYTE, 128 * MEBIBYTE),
            ));
        }
        if let Some(program) = find("aws-ssm-bridge-pipe") {
            carriers.push(Self::new(
                "aws-ssm-bridge",
                Kind::Bridge(program),
                (128 * MEBIBYTE, 128 * MEBIBYTE),
            ));
        }
        carriers
    }

    fn new(name: &'static str, kind: Kind, bulk: (usize, usize)) -> Self {
        Self { name, kind, bulk, directory: TempDir::new().unwrap() }
    }

    pub(crate) fn connect(&self, region: &Region) -> Duration {
        let server = Server::start(|mut stream| {
            stream.write_all(b"x").unwrap();
            // Returns when the client has received it.
            let _ = stream.read(&mut [0]);
        });
        let started = Instant::now();
        let mut process = self.spawn(region, server.port);
        process.skip_greeting();
        process.read_exact(1);
        let time = started.elapsed();
        process.stop();
        time
    }

    pub(crate) fn keystrokes(&self, region: &Region, count: usize) -> Vec<Duration> {
        let server = Server::start(|mut stream| {
            let mut byte = [0];
            while stream.read(&mut byte).is_ok_and(|length| length > 0) {
                stream.write_all(&byte).unwrap();
            }
        });
        let mut process = self.spawn(region, server.port);
        process.skip_greeting();
        let mut stroke = || {
            let started = Instant::now();
            process.stdin.as_mut().unwrap().write_all(b"x").unwrap();
            process.read_exact(1);
            started.elapsed()
        };
        stroke();
        let times = (0..count).map(|_| stroke()).collect();
        process.stop();
        times
    }

    /// Sends bytes to the instance, in messages of `payload` bytes if the client has an option for it; `None`
    /// if they did not arrive.
    pub(crate) fn up(&self, region: &Region, bytes: usize, payload: usize) -> Option<Run> {
        let (reached, marks) = mpsc::channel();
        let warm = warm_up(bytes);
        let server = Server::start(move |mut stream| {
            let mut room = vec![0; PIECE];
            let mut received = 0;
            let mut goals = [warm, bytes].into_iter().peekable();
            while let Some(goal) = goals.peek()
                && let Ok(length @ 1..) = stream.read(&mut room)
            {
                received += length;
                if received >= *goal {
                    goals.next();
                    let _ = reached.send(Instant::now());
                }
            }
            // The connection closes after the measurement.
            let _ = stream.read(&mut room);
        });
        let mut process = self.spawn_with(region, server.port, payload);
        let mut stdin = process.stdin.take().unwrap();
        let writer = thread::spawn(move || {
            write(&mut stdin, bytes);
            stdin
        });
        let run = process.measure(bytes - warm, || marks.recv_timeout(PATIENCE).ok());
        process.stop();
        let _ = writer.join();
        run
    }

    /// Receives bytes from the instance; `None` if they did not arrive.
    pub(crate) fn down(&self, region: &Region, bytes: usize) -> Option<Run> {
        let server = Server::start(move |mut stream| {
            write(&mut stream, bytes);
            let _ = stream.read(&mut [0]);
        });
        let mut process = self.spawn(region, server.port);
        process.skip_greeting();
        let warm = warm_up(bytes);
        let mut stdout = process.stdout.take().unwrap();
        let (reached, marks) = mpsc::channel();
        let reader = thread::spawn(move || {
            let mut room = vec![0; PIECE];
            let mut received = 0;
            for goal in [warm, bytes] {
                while received < goal
                    && let Ok(length @ 1..) = stdout.read(&mut room)
                {
                    received += length;
                }
                if received >= goal {
                    let _ = reached.send(Instant::now());
                }
            }
        });
        let run = process.measure(bytes - warm, || marks.recv_timeout(PATIENCE).ok());
        process.stop();
        let _ = reader.join();
        run
    }

    /// Starts an upload that goes on until it is stopped.
    pub(crate) fn load(&self, region: &Region, bytes: usize) -> Load {
        let server = Server::start(move |mut stream| {
            let mut room = vec![0; PIECE];
            while stream.read(&mut room).is_ok_and(|length| length > 0) {}
        });
        let mut process = self.spawn(region, server.port);
        let mut stdin = process.stdin.take().unwrap();
        let (stop, stopped) = mpsc::channel::<()>();
        let writer = thread::spawn(move || {
            let piece = vec![b'x'; PIECE];
            while matches!(stopped.try_recv(), Err(mpsc::TryRecvError::Empty)) {
                for _ in 0..bytes / PIECE {
                    if stdin.write_all(&piece).is_err() {
                        return;
                    }
                }
            }
        });
        Load { process, writer, stop }
    }

    fn spawn(&self, region: &Region, port: u16) -> Process {
        self.spawn_with(region, port, PIECE)
    }

    fn spawn_with(&self, region: &Region, port: u16, payload: usize) -> Process {
        let mut command = match &self.kind {
            Kind::Ours => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_ssh_ec2"));
                command.args(["proxy", "ec2-user", INSTANCE, &port.to_string()]);
                command.env("SSH_EC2_DIR", self.directory.path());
                command
            }
            Kind::Plugin(aws) => plugin(aws, port),
            Kind::Bridge(program) => {
                let mut command = Command::new(program);
                command.args([INSTANCE, &port.to_string(), &payload.to_string()]);
                command
            }
        };
        let mut child = region
            .environment_of(&mut command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let group = Pid::from_child(&child);
        Process { child, group, stdin, stdout, greets: matches!(self.kind, Kind::Plugin(_)) }
    }
}

/// The plugin, started by the AWS CLI as users do.
fn plugin(aws: &PathBuf, port: u16) -> Command {
    let parameters = format!("portNumber={port}");
    let mut command = Command::new(aws);
    command.args(["ssm", "start-session", "--document-name", "AWS-StartSSHSession", "--target", INSTANCE]);
    command.args(["--parameters", &parameters]);
    command
}

struct Process {
    child: Child,
    /// Its process group, with its children.
    group: Pid,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    greets: bool,
}

impl Process {
    fn read_exact(&mut self, length: usize) {
        self.stdout.as_mut().unwrap().read_exact(&mut vec![0; length]).unwrap();
    }

    /// Skips the plugin's first line on standard output.
    fn skip_greeting(&mut self) {
        if self.greets {
            let mut lines = 0;
            let mut byte = [0];
            while lines < 2 {
                self.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
                lines += usize::from(byte == *b"\n");
            }
        }
    }

    /// Measures between two marks: the end of the warm-up and the end of the transfer.
    fn measure(&self, bytes: usize, mut mark: impl FnMut() -> Option<Instant>) -> Option<Run> {
        let started = mark()?;
        let cpu = self.cpu();
        let ended = mark()?;
        let cpu = self.cpu() - cpu;
        let gibibytes = bytes as f64 / (1024 * MEBIBYTE) as f64;
        Some(Run {
            rate: rate(bytes, ended - started),
            cpu: cpu.as_secs_f64() / gibibytes,
            memory: self.peak_memory(),
        })
    }

    /// The CPU time of all threads, from the scheduler's statistics in nanoseconds (proc(5)).
    fn cpu(&self) -> Duration {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).unwrap();
        let spent = tasks.filter_map(|task| {
            let text = std::fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            text.split(' ').next()?.parse::<u64>().ok()
        });
        Duration::from_nanos(spent.sum())
    }

    /// In MiB.
    fn peak_memory(&self) -> f64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
    }

    /// The process that carries the bytes: ssh_ec2, or the plugin that the AWS CLI has started.
    fn id(&self) -> u32 {
        let id = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        children.split(' ').next().and_then(|child| child.parse().ok()).unwrap_or(id)
    }

    fn stop(mut self) {
        let _ = rustix::process::kill_process_group(self.group, Signal::KILL);
        let _ = self.child.wait();
    }
}

pub(crate) struct Load {
    process: Process,
    writer: thread::JoinHandle<()>,
    stop: mpsc::Sender<()>,
}

impl Load {
    pub(crate) fn is_running(&self) -> bool {
        !self.writer.is_finished()
    }

    pub(crate) fn stop(self) {
        drop(self.stop);
        self.process.stop();
        let _ = self.writer.join();
    }
}

/// The server on the instance, which accepts one connection.
struct Server {
    port: u16,
}

impl Server {
    fn start(serve: impl FnOnce(TcpStream) + Send + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            stream.set_nodelay(true).unwrap();
            serve(stream);
        });
        Self { port }
    }
}

/// Bytes before the measurement, until the window has grown and the probes are done.
fn warm_up(bytes: usize) -> usize {
    bytes / 16
}

fn write(to: &mut impl Write, bytes: usize) {
    let piece = vec![b'x'; PIECE];
    for _ in 0..bytes / PIECE {
        if to.write_all(&piece).is_err() {
            return;
        }
    }
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|program| program.is_file())
}
