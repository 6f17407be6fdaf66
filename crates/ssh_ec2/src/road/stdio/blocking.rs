//! Terminals, files and devices. A thread of the runtime does each read and write, since epoll does not
//! support all of these, and a terminal may block in the middle of a write.

use std::fs::File;
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::{JoinHandle, spawn_blocking};

pub(super) struct Reader {
    file: Arc<File>,
    call: Option<JoinHandle<io::Result<Vec<u8>>>>,
    /// Bytes that were read and did not fit into the caller's buffer yet.
    left: Bytes,
}

impl Reader {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self { file: Arc::new(descriptor.into()), call: None, left: Bytes::new() }
    }
}

impl AsyncRead for Reader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { file, call, left } = &mut *self;
        if left.is_empty() {
            let file = Arc::clone(file);
            *left = ready!(poll_call(call, cx, || move || read(&file)))?.into();
        }
        room.put_slice(&left.split_to(left.len().min(room.remaining())));
        Poll::Ready(Ok(()))
    }
}

/// Reports bytes as written only after the write, since bytes that a thread has yet to write are lost if the
/// process ends.
pub(super) struct Writer {
    file: Arc<File>,
    call: Option<JoinHandle<io::Result<usize>>>,
}

impl Writer {
    pub(super) fn new(descriptor: OwnedFd) -> Self {
        Self { file: Arc::new(descriptor.into()), call: None }
    }
}

impl AsyncWrite for Writer {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { file, call } = &mut *self;
        poll_call(call, cx, || {
            let file = Arc::clone(file);
            let mut bytes = Vec::new();
            for slice in slices {
                bytes.extend_from_slice(&slice[..slice.len().min(LIMIT - bytes.len())]);
            }
            move || write(&file, &bytes)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Polls the call under way; if there is none, starts the one that `make` returns.
fn poll_call<T: Send + 'static, C: FnOnce() -> io::Result<T> + Send + 'static>(
    call: &mut Option<JoinHandle<io::Result<T>>>,
    cx: &mut Context<'_>,
    make: impl FnOnce() -> C,
) -> Poll<io::Result<T>> {
    let running = call.get_or_insert_with(|| spawn_blocking(make()));
    let outcome = ready!(Pin::new(running).poll(cx));
    *call = None;
    Poll::Ready(outcome.unwrap_or_else(|error| Err(io::Error::other(error))))
}

fn read(mut file: &File) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; LIMIT];
    let length = loop {
        match file.read(&mut bytes) {
            // The terminal was hung up. Treated as the end of input, so that bytes under way still arrive.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) && is_device(file) => break 0,
            Err(error) => wait(file, PollFlags::IN, error)?,
            Ok(length) => break length,
        }
    };
    bytes.truncate(length);
    Ok(bytes)
}

fn write(mut file: &File, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match file.write(bytes) {
            // The terminal was hung up.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) && is_device(file) => {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            Err(error) => wait(file, PollFlags::OUT, error)?,
            written => return written,
        }
    }
}

fn is_device(file: &File) -> bool {
    file.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// Waits for a file that the caller has made non-blocking.
fn wait(file: &File, what: PollFlags, error: io::Error) -> io::Result<()> {
    match error.kind() {
        io::ErrorKind::Interrupted => Ok(()),
        io::ErrorKind::WouldBlock => {
            poll(&mut [PollFd::new(file, what)], None)?;
            Ok(())
        }
        _ => Err(error),
    }
}

/// The most bytes of a read or write; more than a terminal transfers at once.
const LIMIT: usize = 64 * 1024;
