//! A command that a session runs on an instance: one program, without a shell, with its output in a file,
//! like the SSM agent runs it.
//!
//! It runs on this machine, as the user who started the region: there is no root. When a session ends early,
//! the program is killed, but not the programs that it has started.

use std::{
    fs::{self, File},
    future::Future,
    io::{self, Read},
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    pin::{Pin, pin},
    process::Stdio,
    task::{Context, Poll},
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncRead, ReadBuf},
    process::{Child, ChildStderr, ChildStdout},
};

use super::{Interrupt, OutputStream, Program, SeparateProgram};

/// The environment that a command runs in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Environment<'a> {
    /// HOME; the file with the output is there as well.
    pub(super) home: &'a Path,
    /// PATH.
    pub(super) path: &'a str,
}

/// A running command.
#[derive(Debug)]
pub(crate) struct Command {
    child: Child,
    output: File,
}

impl Command {
    /// Starts the program that is the first of `words`, with the environment variables that the SSM agent
    /// sets.
    ///
    /// # Errors
    /// Why it could not be started, with the text of Go's `os/exec`.
    pub(super) fn spawn(words: &[String], environment: Environment<'_>) -> Result<Self, String> {
        let output = tempfile::tempfile_in(environment.home).map_err(|error| error.to_string())?;
        let [stdout, stderr] = [output.try_clone(), output.try_clone()]
            .map(|file| file.map(Stdio::from).map_err(|error| error.to_string()));
        let child = start(words, environment, [stdout?, stderr?])?;
        Ok(Self { child, output })
    }
}

/// A running command with separate outputs.
#[derive(Debug)]
pub(crate) struct SeparateCommand {
    child: Child,
    stdout: ChildStdout,
    stderr: ChildStderr,
}

impl SeparateCommand {
    /// The same as [`Command::spawn`].
    ///
    /// # Errors
    /// The same.
    pub(super) fn spawn(words: &[String], environment: Environment<'_>) -> Result<Self, String> {
        let mut child = start(words, environment, [Stdio::piped(), Stdio::piped()])?;
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = pipes.ok_or("exec: no pipes")?;
        Ok(Self { child, stdout, stderr })
    }
}

impl SeparateProgram for SeparateCommand {
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: OutputStream,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match stream {
            OutputStream::Output => Pin::new(&mut self.stdout).poll_read(cx, room),
            OutputStream::Error => Pin::new(&mut self.stderr).poll_read(cx, room),
        }
    }

    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<i32>> {
        pin!(self.child.wait()).poll(cx).map_ok(|status| status.code().unwrap_or(-1))
    }

    fn interrupt(&mut self, key: Interrupt) {
        interrupt(&self.child, key);
    }
}

/// Starts the program that is the first of `words`, with these outputs.
fn start(
    words: &[String],
    environment: Environment<'_>,
    [stdout, stderr]: [Stdio; 2],
) -> Result<Child, String> {
    let Environment { home, path } = environment;
    let (name, arguments) = words.split_first().ok_or("exec: no command")?;
    let program =
        find(name, path).ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))?;
    tokio::process::Command::new(&program)
        .arg0(name)
        .args(arguments)
        .env_clear()
        .env("PATH", path)
        .env("HOME", home)
        .env("TERM", "xterm-256color")
        .env("LANG", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("fork/exec {}: {}", program.display(), reason(&error)))
}

/// Signals the program itself, and nothing that it has started.
fn interrupt(child: &Child, key: Interrupt) {
    let signal = match key {
        Interrupt::Int => Signal::INT,
        Interrupt::Quit => Signal::QUIT,
    };
    let id = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
    if let Some(id) = id {
        // It fails only if the program has ended, which needs no signal.
        let _ = kill_process(id, signal);
    }
}

impl Program for Command {
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn Read + Send>>> {
        let Poll::Ready(status) = pin!(self.child.wait()).poll(cx) else { return Poll::Pending };
        Poll::Ready(status.and_then(|_| {
            let file = self.output.try_clone()?;
            Ok(Box::new(Output { file, read: 0 }) as Box<dyn Read + Send>)
        }))
    }

    fn interrupt(&mut self, key: Interrupt) {
        interrupt(&self.child, key);
    }
}

/// The output of a command. It has its own read position, since a background process of the command may still
/// write at the position of the shared file description.
struct Output {
    file: File,
    read: u64,
}

impl Read for Output {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read_at(room, self.read)?;
        self.read += length as u64;
        Ok(length)
    }
}

/// Finds the program `name` in PATH. A name with a slash is a path.
fn find(name: &str, path: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(name.into());
    }
    let files = path.split(':').map(|directory| Path::new(directory).join(name));
    files.into_iter().find(|file| {
        fs::metadata(file).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    })
}

/// The text that Go has for a system error.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ if error.raw_os_error() == Some(EXEC_FORMAT) => "exec format error".to_owned(),
        _ => error.to_string(),
    }
}

/// ENOEXEC: neither a binary nor a script with an interpreter.
const EXEC_FORMAT: i32 = 8;

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, io::Write as _, time::Duration};

    use tempfile::TempDir;

    use super::*;

    fn spawn(home: &Path, words: &[&str]) -> Result<Command, String> {
        let words: Vec<_> = words.iter().map(|word| (*word).to_owned()).collect();
        Command::spawn(&words, Environment { home, path: "/usr/bin:/bin" })
    }

    fn start(words: &[&str]) -> (TempDir, Command) {
        let home = tempfile::tempdir().unwrap();
        let command = spawn(home.path(), words).unwrap();
        (home, command)
    }

    async fn output(command: &mut Command) -> String {
        let mut output = String::new();
        poll_fn(|cx| command.poll_end(cx)).await.unwrap().read_to_string(&mut output).unwrap();
        output
    }

    #[tokio::test]
    async fn both_outputs_come_in_order_and_nothing_is_inherited() {
        let script = "pwd; env | sort | grep -v '^_='; echo out; echo err >&2; cat; exit 3";
        let (home, mut command) = start(&["sh", "-c", script]);
        let expected = format!(
            "/\nHOME={}\nLANG=C.UTF-8\nPATH=/usr/bin:/bin\nPWD=/\nTERM=xterm-256color\nout\nerr\n",
            home.path().display()
        );
        assert_eq!(output(&mut command).await, expected);
    }

    #[tokio::test]
    async fn outputs_can_be_told_apart() {
        let home = tempfile::tempdir().unwrap();
        let words = ["sh", "-c", "echo out; echo err >&2; exit 3"].map(str::to_owned);
        let environment = Environment { home: home.path(), path: "/usr/bin:/bin" };
        let mut command = SeparateCommand::spawn(&words, environment).unwrap();
        for (stream, expected) in [(OutputStream::Error, "err\n"), (OutputStream::Output, "out\n")] {
            let mut read = Vec::new();
            loop {
                let mut buffer = [0; 16];
                let mut room = ReadBuf::new(&mut buffer);
                poll_fn(|cx| command.poll_read(cx, stream, &mut room)).await.unwrap();
                if room.filled().is_empty() {
                    break;
                }
                read.extend_from_slice(room.filled());
            }
            assert_eq!(String::from_utf8(read).unwrap(), expected);
        }
        assert_eq!(poll_fn(|cx| command.poll_exit(cx)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn there_is_no_shell() {
        let (_home, mut command) = start(&["echo", "$HOME", "*", ";", "echo"]);
        assert_eq!(output(&mut command).await, "$HOME * ; echo\n");
    }

    #[test]
    fn what_cannot_be_started_is_refused_in_gos_words() {
        let home = tempfile::tempdir().unwrap();
        let script = home.path().join("script");
        // Written by another process: a program that another test starts meanwhile would inherit this
        // process's descriptor, and the script could not be run (ETXTBSY).
        let write = "echo no interpreter >$0; chmod 700 $0";
        let mut shell = std::process::Command::new("sh");
        assert!(shell.args(["-c", write]).arg(&script).status().unwrap().success());
        let script = script.to_str().unwrap();
        for (name, refusal) in [
            ("for", "exec: \"for\": executable file not found in $PATH".to_owned()),
            ("/etc/passwd", "fork/exec /etc/passwd: permission denied".to_owned()),
            ("/etc", "fork/exec /etc: permission denied".to_owned()),
            ("./there-is-none", "fork/exec ./there-is-none: no such file or directory".to_owned()),
            (script, format!("fork/exec {script}: exec format error")),
        ] {
            assert_eq!(spawn(home.path(), &[name]).unwrap_err(), refusal);
        }
    }

    #[tokio::test]
    async fn an_interrupt_is_typed() {
        // A shell that waits for a program handles its trap only after that program has ended.
        let home = tempfile::tempdir().unwrap();
        let ready = home.path().join("p");
        let busy = format!(
            "trap 'echo interrupted; exit' INT; mkfifo {0}; : >{0}; while :; do :; done",
            ready.display()
        );
        let mut command = spawn(home.path(), &["sh", "-c", &busy]).unwrap();
        let opened = tokio::task::spawn_blocking(move || {
            while File::open(&ready).is_err() {
                std::thread::yield_now();
            }
        });
        opened.await.unwrap();
        command.interrupt(Interrupt::Int);
        assert_eq!(output(&mut command).await, "interrupted\n");
    }

    #[tokio::test]
    async fn what_a_program_has_started_outlives_it() {
        let home = tempfile::tempdir().unwrap();
        let [fifo, started, done] = ["fifo", "started", "done"].map(|name| home.path().join(name));
        let script = format!(
            "mkfifo {0}; (: >{1}; read word <{0}; echo $word >{2}) & echo left; sleep 600",
            fifo.display(),
            started.display(),
            done.display()
        );
        let mut command = spawn(home.path(), &["sh", "-c", &script]).unwrap();
        // The program must have started the other one before it is killed.
        eventually(|| started.exists()).await;
        command.child.start_kill().unwrap();
        command.child.wait().await.unwrap();
        drop(command);
        // Opened for reading too, so that opening does not wait for a reader: a missing reader fails the test
        // instead of hanging it.
        let mut held = File::options().read(true).write(true).open(fifo).unwrap();
        held.write_all(b"alive\n").unwrap();
        eventually(|| fs::read_to_string(&done).is_ok_and(|word| word == "alive\n")).await;
    }

    async fn eventually(mut condition: impl FnMut() -> bool) {
        let met = async {
            while !condition() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), met).await.unwrap();
    }
}
