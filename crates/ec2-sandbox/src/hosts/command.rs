//! A command that a session runs on an instance: to its end, with its output in a file, as the SSM agent does it.
//!
//! It runs on this machine, as whoever started the region. It has a process group of its own, of which nothing is
//! left when it has ended, was running for too long, or was dropped.

use std::{
    fs::File,
    future::Future,
    io::{self, Read, Seek},
    path::Path,
    pin::pin,
    process::Stdio,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Child;

/// A running command.
#[derive(Debug)]
pub(crate) struct Command {
    child: Child,
    /// Its process group, until that is gone.
    group: Option<Pid>,
    output: File,
    /// When it is killed, unless it was already.
    deadline: Option<Instant>,
}

impl Command {
    /// Starts `text` in a shell, in the directory `home`, with programs from `path` and no other variables.
    pub(super) fn spawn(text: &str, home: &Path, path: &str) -> io::Result<Self> {
        let output = tempfile::tempfile_in(home)?;
        let child = tokio::process::Command::new("/bin/sh")
            .args(["-c", text])
            .env_clear()
            .env("PATH", path)
            .env("HOME", home)
            .current_dir(home)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output.try_clone()?)
            .kill_on_drop(true)
            .spawn()?;
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        Ok(Self { child, group, output, deadline: Some(Instant::now() + TIME_LIMIT) })
    }

    /// All that it has printed, once it has ended. Not to be called again after that.
    pub(crate) fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<io::Result<Vec<u8>>> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            self.deadline = None;
            self.signal(Signal::KILL);
        }
        let ended = pin!(self.child.wait()).poll(cx);
        let Poll::Ready(status) = ended else { return Poll::Pending };
        // Its children have let go of nothing: in the background they would go on writing.
        self.signal(Signal::KILL);
        (self.group, self.deadline) = (None, None);
        let mut output = Vec::new();
        let read = status.and_then(|_| {
            self.output.rewind()?;
            (&self.output).take(OUTPUT_LIMIT).read_to_end(&mut output)
        });
        Poll::Ready(read.map(|_| output))
    }

    /// What the client types never reaches it, but two keys interrupt it.
    pub(crate) fn type_in(&self, keys: &[u8]) {
        for key in keys {
            match key {
                0x03 => self.signal(Signal::INT),
                0x1c => self.signal(Signal::QUIT),
                _ => {}
            }
        }
    }

    /// When [`poll_output`](Self::poll_output) has something to do, apart from the end.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The only failure is that the group has gone, which is as good.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Command {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Many times what looking at an instance takes; the real SSM agent waits until the session's own limit.
const TIME_LIMIT: Duration = Duration::from_secs(60);
/// What a session of a minute could carry; it bounds memory.
const OUTPUT_LIMIT: u64 = 16 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tempfile::TempDir;

    use super::*;

    fn start(text: &str) -> (TempDir, Command) {
        let home = tempfile::tempdir().unwrap();
        let command = Command::spawn(text, home.path(), "/usr/bin:/bin").unwrap();
        (home, command)
    }

    async fn output(command: &mut Command) -> String {
        String::from_utf8(poll_fn(|cx| command.poll_output(cx, Instant::now())).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn both_outputs_come_in_order_and_nothing_is_inherited() {
        let (home, mut command) = start("pwd; env | sort | cut -d= -f1; echo out; echo err >&2; cat; exit 3");
        let path = home.path().canonicalize().unwrap();
        assert_eq!(output(&mut command).await, format!("{}\nHOME\nPATH\nPWD\nout\nerr\n", path.display()));
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_gone() {
        let (home, mut command) = start("mkfifo p; exec 3<>p; sleep 600 & echo left");
        assert_eq!(output(&mut command).await, "left\n");
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        let pipe = rustix::fs::open(home.path().join("p"), flags, rustix::fs::Mode::empty()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        // The end of a pipe is seen when nobody can write to it any more.
        while File::from(pipe.try_clone().unwrap()).read(&mut [0]).is_err() {
            assert!(Instant::now() < deadline, "somebody holds the pipe");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn an_interrupt_is_typed() {
        // A shell that was about to start a program would wait for it before it minds the trap.
        let busy = "trap 'echo interrupted; exit' INT; mkfifo p; : >p; while :; do :; done";
        let (home, mut command) = start(busy);
        let ready = home.path().join("p");
        let opened = tokio::task::spawn_blocking(move || {
            while File::open(&ready).is_err() {
                std::thread::yield_now();
            }
        });
        opened.await.unwrap();
        command.type_in(b"no stdin\x03");
        assert_eq!(output(&mut command).await, "interrupted\n");
    }

    #[tokio::test]
    async fn a_command_has_a_minute() {
        let (_home, mut command) = start("echo begun >&2; sleep 600");
        let late = Instant::now() + TIME_LIMIT;
        poll_fn(|cx| command.poll_output(cx, late)).await.unwrap();
        assert_eq!(command.deadline(), None);
    }
}
