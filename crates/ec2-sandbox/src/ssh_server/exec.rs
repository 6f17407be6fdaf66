//! Runs one started process on one session channel.
//!
//! Output is sent before the exit status, and the status before the channel closes. When the client closes
//! the channel first, or the connection ends, the process gets SIGHUP and, if it does not end, is killed.

use std::future::pending;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use bytes::BytesMut;
use pty_process::{OwnedReadPty, OwnedWritePty, Pty};
use russh::server::{Handle, Msg};
use russh::{ChannelMsg, ChannelWriteHalf};
use rustix::process::{Pid, Signal};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::process::Child;
use tokio::time::{sleep, timeout};

use super::inbox::{Inbox, Intake};
use super::process::{self, Family, Registry};

/// A started process that is not connected with its channel yet.
pub(super) struct Process {
    child: Child,
    pty: Option<Pty>,
    family: Family,
    registry: Registry,
}

impl Process {
    /// Owns a process that was just started.
    pub(super) fn adopt(child: Child, pty: Option<Pty>, registry: Registry) -> io::Result<Self> {
        let pid = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let leader = pid.ok_or(io::ErrorKind::NotFound)?;
        let family = if pty.is_some() { Family::Session(leader) } else { Family::Group(leader) };
        registry.adopt(family);
        Ok(Self { child, pty, family, registry })
    }

    /// Connects the process with its channel until both have ended.
    pub(super) async fn run(
        self,
        intake: Intake,
        inbox: Inbox,
        channel: ChannelWriteHalf<Msg>,
        handle: Handle,
    ) {
        let (family, registry) = (self.family, self.registry);
        let mut child = self.child;
        let finished = match self.pty {
            None => run_piped(&mut child, family, intake, inbox, &channel).await,
            Some(pty) => run_terminal(&mut child, pty, family, intake, inbox, &channel).await,
        };
        match finished {
            Ok(Some(status)) => {
                let _ = report(status, &channel, &handle).await;
            }
            Ok(None) => hang_up(&mut child, family).await,
            Err(error) => {
                tracing::debug!(%error, "session ended early");
                hang_up(&mut child, family).await;
                let _ = channel.close().await;
            }
        }
        registry.forget_if_empty(family);
    }
}

/// Returns the exit status, or `None` when the client has closed the channel.
async fn run_piped(
    child: &mut Child,
    family: Family,
    mut intake: Intake,
    inbox: Inbox,
    channel: &ChannelWriteHalf<Msg>,
) -> Result<Option<ExitStatus>, russh::Error> {
    let (Some(stdin), Some(stdout), Some(stderr)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(russh::Error::Inconsistent);
    };
    let output = async {
        let (stdout, stderr, status) = tokio::join!(
            send_output(stdout, channel, None),
            send_output(stderr, channel, STDERR),
            child.wait()
        );
        stdout?;
        stderr?;
        Ok(Some(status?))
    };
    let control = async {
        while let Some(message) = intake.next().await {
            forward_signal(&message, family);
        }
    };
    tokio::select! {
        status = output => status,
        () = control => Ok(None),
        () = then_idle(feed(inbox, stdin)) => Ok(None),
    }
}

async fn run_terminal(
    child: &mut Child,
    pty: Pty,
    family: Family,
    mut intake: Intake,
    inbox: Inbox,
    channel: &ChannelWriteHalf<Msg>,
) -> Result<Option<ExitStatus>, russh::Error> {
    let screen = pty.as_fd().try_clone_to_owned()?;
    let (output, input) = pty.into_split();
    let control = async {
        while let Some(message) = intake.next().await {
            forward_signal(&message, family);
            resize(&message, &screen);
        }
    };
    tokio::select! {
        status = send_screen(output, child, channel) => status.map(Some),
        () = control => Ok(None),
        () = then_idle(feed_terminal(inbox, input)) => Ok(None),
    }
}

/// Sends everything from a source to the client.
pub(super) async fn send_output(
    mut source: impl AsyncRead + Unpin,
    channel: &ChannelWriteHalf<Msg>,
    stream: Option<u32>,
) -> Result<(), russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(OUTPUT_BUFFER);
        // A reset is an end like any other; SSH has no message for it.
        if !matches!(source.read_buf(&mut buffer).await, Ok(length) if length > 0) {
            return Ok(());
        }
        let data = buffer.split().freeze();
        match stream {
            None => channel.data_bytes(data).await?,
            Some(stream) => channel.extended_data_bytes(stream, data).await?,
        }
    }
}

/// Sends the output of a terminal until its process has ended and no more comes.
///
/// Reading a terminal fails at its end, after the last process has closed it. A background job may keep it
/// open for ever, so after the exit of the first process a silence counts as the end too.
async fn send_screen(
    mut screen: OwnedReadPty,
    child: &mut Child,
    channel: &ChannelWriteHalf<Msg>,
) -> Result<ExitStatus, russh::Error> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(OUTPUT_BUFFER);
        let silence = async {
            let _ = child.wait().await;
            sleep(LAST_WORDS).await;
        };
        let more = tokio::select! {
            biased;
            read = screen.read_buf(&mut buffer) => matches!(read, Ok(length) if length > 0),
            () = silence => false,
        };
        if !more {
            return Ok(child.wait().await?);
        }
        channel.data_bytes(buffer.split().freeze()).await?;
    }
}

/// Writes a channel's data to a sink, then closes the sink.
pub(super) async fn feed(inbox: Inbox, mut sink: impl AsyncWrite + Unpin) {
    if pour(inbox, &mut sink).await.is_ok() {
        let _ = sink.shutdown().await;
    }
}

/// Types a channel's data into a terminal, then the end of input.
async fn feed_terminal(inbox: Inbox, mut keyboard: OwnedWritePty) {
    let Ok(last) = pour(inbox, &mut keyboard).await else { return };
    let _ = keyboard.write_all(end_of_input(last)).await;
}

/// Writes a channel's data to a sink. Returns the last byte.
async fn pour(mut inbox: Inbox, sink: &mut (impl AsyncWrite + Unpin)) -> io::Result<Option<u8>> {
    let mut last = None;
    while let Some(chunk) = inbox.next().await {
        // If the process reads no more, the rest is dropped with the inbox.
        sink.write_all(&chunk).await?;
        last = chunk.last().copied().or(last);
    }
    Ok(last)
}

/// The controlling side cannot close a terminal's input, so the end of input must be typed, as control-D. In
/// the middle of a line the first control-D only submits the line.
fn end_of_input(last: Option<u8>) -> &'static [u8] {
    match last {
        None | Some(b'\r' | b'\n') => &[4],
        Some(_) => &[4, 4],
    }
}

/// Waits for ever after the end of input: another future ends the session.
async fn then_idle(feeding: impl Future<Output = ()>) {
    feeding.await;
    pending::<()>().await;
}

fn forward_signal(message: &ChannelMsg, family: Family) {
    let ChannelMsg::Signal { signal } = message else { return };
    if let Some(signal) = process::signal_named(signal) {
        family.signal_leader(signal);
    }
}

fn resize(message: &ChannelMsg, screen: &OwnedFd) {
    let ChannelMsg::WindowChange { col_width, row_height, pix_width, pix_height } = *message else { return };
    let size = super::shell::size(col_width, row_height, pix_width, pix_height);
    if let Err(error) = tcsetwinsize(screen, Winsize::from(size)) {
        tracing::debug!(%error, "cannot resize the terminal");
    }
}

async fn report(
    status: ExitStatus,
    channel: &ChannelWriteHalf<Msg>,
    handle: &Handle,
) -> Result<(), russh::Error> {
    if let Some(number) = status.signal() {
        let name = process::name_of(number);
        let sent = handle
            .exit_signal_request(channel.id(), name, status.core_dumped(), String::new(), String::new())
            .await;
        sent.map_err(|()| russh::Error::SendError)?;
    } else {
        let code = status.code().and_then(|code| u32::try_from(code).ok());
        channel.exit_status(code.unwrap_or(255)).await?;
    }
    channel.eof().await?;
    channel.close().await
}

async fn hang_up(child: &mut Child, family: Family) {
    family.signal(Signal::HUP);
    // A stopped process handles SIGHUP only when it continues.
    family.signal(Signal::CONT);
    let _ = timeout(HANGUP_GRACE, child.wait()).await;
    family.signal(Signal::KILL);
    let _ = child.wait().await;
}

/// How long a process may take to end after SIGHUP.
pub(super) const HANGUP_GRACE: Duration = Duration::from_millis(500);

/// How long the terminal of an ended process must be silent before the channel closes.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The capacity of a Linux pipe, which is twice the size of a packet.
const OUTPUT_BUFFER: usize = 64 * 1024;

/// `SSH_EXTENDED_DATA_STDERR` (RFC 4254, section 5.2).
const STDERR: Option<u32> = Some(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_input_completes_an_open_line() {
        assert_eq!(end_of_input(None), [4]);
        assert_eq!(end_of_input(Some(b'\n')), [4]);
        assert_eq!(end_of_input(Some(b'x')), [4, 4]);
    }
}
