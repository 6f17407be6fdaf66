//! Standard input and output as ssh gives them to its proxy: two private pipes, used without blocking.
//!
//! Anything else than a pipe (a terminal, a file, a socket shared with somebody) keeps its mode, and is read and
//! written by tokio's threads. Nothing else in the program touches standard output.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BufMut;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest};
use tokio::net::unix::pipe;

/// Where bytes for the instance come from.
pub type Input = Box<dyn AsyncRead + Unpin>;
/// Where bytes from the instance go.
pub type Output = Box<dyn AsyncWrite + Unpin>;

/// Standard input and standard output.
///
/// # Errors
/// When a descriptor is closed.
pub fn standard() -> io::Result<(Input, Output)> {
    let input: Input = match own_pipe(io::stdin())? {
        Some(descriptor) => Box::new(pipe::Receiver::from_owned_fd(widen(descriptor))?),
        None => Box::new(tokio::io::stdin()),
    };
    let output: Output = match own_pipe(io::stdout())? {
        Some(descriptor) => Box::new(pipe::Sender::from_owned_fd(widen(descriptor))?),
        None => Box::new(tokio::io::stdout()),
    };
    Ok((input, output))
}

/// How many bytes went somewhere.
pub type Meter = Rc<Cell<u64>>;

/// The same output, whose bytes are counted.
pub fn metered(output: Output, meter: Meter) -> Output {
    Box::new(Metered { output, meter })
}

struct Metered {
    output: Output,
    meter: Meter,
}

impl Metered {
    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(length)) = written {
            self.meter.set(self.meter.get() + *length as u64);
        }
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.output).poll_write(cx, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.output).poll_write_vectored(cx, slices);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.output.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.output).poll_shutdown(cx)
    }
}

/// Waits until nobody reads standard output any more; for ever where that cannot be seen.
pub async fn output_abandoned() {
    if let Ok(Some(descriptor)) = own_pipe(io::stdout())
        && let Ok(sender) = pipe::Sender::from_owned_fd(descriptor)
        && sender.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

/// Whether there is standard input that was not read.
pub fn has_unread() -> bool {
    rustix::io::ioctl_fionread(io::stdin()).is_ok_and(|length| length > 0)
}

/// A pipe that holds no more than one large message makes ssh and us take turns.
fn widen(descriptor: OwnedFd) -> OwnedFd {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(&descriptor, PIPE_SIZE) {
        tracing::debug!(%error, "a pipe keeps its size");
    }
    descriptor
}

fn own_pipe(stream: impl AsFd) -> io::Result<Option<OwnedFd>> {
    let file = File::from(stream.as_fd().try_clone_to_owned()?);
    Ok(file.metadata()?.file_type().is_fifo().then(|| file.into()))
}

/// Reads into `room` what is there. `Ready(Ok(0))` is the end, or a full `room`.
pub(crate) fn poll_read(
    input: &mut Input,
    cx: &mut Context<'_>,
    room: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    // The future holds no state: it may be dropped when it is not ready.
    pin!(input.read_buf(room)).poll(cx)
}

/// Writes from the front of `slices`, and flushes what a thread would hold back.
pub(crate) fn poll_write(
    output: &mut Output,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    Pin::new(output).poll_write_vectored(cx, slices)
}

/// Two of the largest messages. Twice Linux's default, so that 250 sessions still leave a user pipes of the usual size:
/// beyond 16,384 pages in all, new ones get a single page (`pipe-user-pages-soft`, pipe(7)).
#[cfg(target_os = "linux")]
const PIPE_SIZE: usize = 128 * 1024;

/// Gives back standard input, output and error, so that whoever reads them to the end is not kept waiting.
///
/// # Errors
/// When there is no `/dev/null`.
pub fn leave() -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}
