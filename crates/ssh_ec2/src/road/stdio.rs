//! Standard input and output, of whatever kind the caller set up: pipes, sockets, terminals, files.
//!
//! A caller often shares the open file description behind a descriptor, and with it the mode. So nothing here
//! makes a shared one non-blocking. ssh gives its proxy two pipes; other programs give a pair of sockets.
//! Nothing else in the program touches standard output.

mod blocking;
mod socket;

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::BufMut;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, Interest};
use tokio::net::unix::pipe;

use self::blocking::{Reader, Writer};
use self::socket::Socket;

/// Bytes for the instance.
pub(crate) type Input = Box<dyn AsyncRead + Unpin>;
/// Bytes from the instance.
pub(crate) type Output = Box<dyn AsyncWrite + Unpin>;

/// Standard input and standard output.
///
/// # Errors
///
/// [`io::Error`] if a descriptor is closed.
pub(crate) fn standard() -> io::Result<(Input, Output)> {
    Ok((
        reading(io::stdin().as_fd().try_clone_to_owned()?)?,
        writing(io::stdout().as_fd().try_clone_to_owned()?)?,
    ))
}

fn reading(descriptor: OwnedFd) -> io::Result<Input> {
    Ok(match kind(&descriptor)? {
        Kind::Pipe => {
            widen(&descriptor);
            match reopened(&descriptor).and_then(|path| pipe::OpenOptions::new().open_receiver(path).ok()) {
                Some(receiver) => Box::new(receiver),
                None => Box::new(pipe::Receiver::from_owned_fd(descriptor)?),
            }
        }
        Kind::Socket => Box::new(Socket(watch(descriptor, Interest::READABLE)?)),
        Kind::Other => Box::new(Reader::new(descriptor)),
    })
}

fn writing(descriptor: OwnedFd) -> io::Result<Output> {
    Ok(match kind(&descriptor)? {
        Kind::Pipe => {
            widen(&descriptor);
            match reopened(&descriptor).and_then(|path| pipe::OpenOptions::new().open_sender(path).ok()) {
                Some(sender) => Box::new(sender),
                None => Box::new(pipe::Sender::from_owned_fd(descriptor)?),
            }
        }
        Kind::Socket => Box::new(Socket(watch(descriptor, Interest::WRITABLE)?)),
        Kind::Other => Box::new(Writer::new(descriptor)),
    })
}

#[derive(Clone, Copy)]
enum Kind {
    Pipe,
    Socket,
    /// Terminals, files, devices.
    Other,
}

fn kind(descriptor: &OwnedFd) -> io::Result<Kind> {
    let kind = File::from(descriptor.try_clone()?).metadata()?.file_type();
    Ok(match () {
        () if kind.is_fifo() => Kind::Pipe,
        () if kind.is_socket() => Kind::Socket,
        () => Kind::Other,
    })
}

/// The path by which Linux can open a pipe once more, with a mode of its own. A FIFO with a name is not
/// opened again: a reader that finds no writer there never sees the end (`fifo_open` in Linux's `fs/pipe.c`).
fn reopened(descriptor: &OwnedFd) -> Option<PathBuf> {
    let path = PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
    fs::read_link(&path).ok()?.to_str()?.starts_with("pipe:").then_some(path)
}

/// A count of bytes that several owners share.
pub(crate) type Meter = Rc<Cell<u64>>;

/// The same output. `on_write` is called with the length of each write.
pub(crate) fn observed(output: Output, on_write: impl Fn(usize) + Unpin + 'static) -> Output {
    Box::new(Observed { output, on_write })
}

struct Observed<F> {
    output: Output,
    on_write: F,
}

impl<F: Fn(usize)> Observed<F> {
    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(length)) = written {
            (self.on_write)(*length);
        }
    }
}

impl<F: Fn(usize) + Unpin> AsyncWrite for Observed<F> {
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

/// Waits until standard output has no reader any more; for ever if the system does not show that. A peer that
/// has shut down only its own sending direction still reads.
pub(crate) async fn output_abandoned() {
    // epoll reports these in any case: an error for a pipe without readers, the end of both directions for
    // sockets and terminals. Room for more bytes is not waited for, so that writing does not wake this. epoll
    // rejects regular files, which have no readers to lose.
    if let Ok(output) = io::stdout().as_fd().try_clone_to_owned()
        && let Ok(output) = watch(output, Interest::WRITABLE)
        && output.ready(Interest::READABLE | Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

fn watch(descriptor: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(deprecated, reason = "sound for an OwnedFd, which stays open; what replaces it is unsafe code")]
    AsyncFd::with_interest(descriptor, interest)
}

/// Whether writing failed because no process reads any more. Other failures lose bytes for which a reader
/// waits.
pub(crate) fn reader_is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Whether standard input has bytes that were not read.
pub(crate) fn has_unread() -> bool {
    rustix::io::ioctl_fionread(io::stdin()).is_ok_and(|length| length > 0)
}

/// Whether no process can write to standard input any more, if that is a pipe or a socket.
pub(crate) fn input_is_abandoned() -> bool {
    let input = io::stdin();
    let mut input = [PollFd::new(&input, PollFlags::empty())];
    let asked = poll(&mut input, Some(&Timespec::default()));
    asked.is_ok() && input[0].revents().contains(PollFlags::HUP)
}

/// Whether standard error is `/dev/null`, so that messages on it are lost.
pub(crate) fn error_output_is_null() -> bool {
    let Ok(error_output) = rustix::fs::fstat(io::stderr()) else { return true };
    rustix::fs::stat("/dev/null").is_ok_and(|null| null.st_rdev == error_output.st_rdev)
}

/// A pipe that holds no more than one large message makes ssh and this process take turns.
#[cfg_attr(not(target_os = "linux"), expect(unused_variables, reason = "pipes have one size elsewhere"))]
fn widen(descriptor: &OwnedFd) {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::pipe::fcntl_setpipe_size(descriptor, PIPE_SIZE) {
        tracing::debug!(%error, "a pipe keeps its size");
    }
}

/// Reads the available bytes into `room`. `Ready(Ok(0))` means the end, or that `room` is full.
pub(crate) fn poll_read(
    input: &mut Input,
    cx: &mut Context<'_>,
    room: &mut impl BufMut,
) -> Poll<io::Result<usize>> {
    // The future holds no state: it may be dropped when it is not ready.
    pin!(input.read_buf(room)).poll(cx)
}

/// Writes from the front of `slices`. After `Pending` the next call must begin with the same bytes.
pub(crate) fn poll_write(
    output: &mut Output,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    Pin::new(output).poll_write_vectored(cx, slices)
}

/// Replaces standard input, output and error by `/dev/null`, so that a program that reads them to their end
/// does not wait for this process.
///
/// # Errors
///
/// [`io::Error`] if there is no `/dev/null`.
pub(crate) fn leave() -> io::Result<()> {
    let nothing = File::options().read(true).write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdin(&nothing)?;
    rustix::stdio::dup2_stdout(&nothing)?;
    rustix::stdio::dup2_stderr(&nothing)?;
    Ok(())
}

/// The size of ssh's pipes: two of the largest messages. No more than twice Linux's default, so that 250
/// sessions still leave a user pipes of the usual size: beyond 16,384 pages in all, new ones get a single
/// page (`pipe-user-pages-soft`, pipe(7)).
#[cfg(target_os = "linux")]
const PIPE_SIZE: usize = 128 * 1024;

#[cfg(test)]
mod tests;
