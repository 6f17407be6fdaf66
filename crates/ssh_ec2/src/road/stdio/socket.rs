//! One direction of a connected socket, such as libuv, libssh and socat give to a program that they start.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Each call is non-blocking by its own flag, so that the socket keeps its mode.
pub(super) struct Socket(pub(super) AsyncFd<OwnedFd>);

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let length = room.remaining().min(READ_LIMIT);
            let bytes = room.initialize_unfilled_to(length);
            let received = ready.try_io(|socket| Ok(recv(socket, bytes, RecvFlags::DONTWAIT)?.0));
            return Poll::Ready(match received {
                Err(_would_block) => continue,
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => continue,
                // The peer closed before it had read all bytes. This is treated as an ordinary end.
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionReset => Ok(()),
                Ok(Err(error)) => Err(error),
                Ok(Ok(length)) => {
                    room.advance(length);
                    Ok(())
                }
            });
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
            let sent = ready.try_io(|socket| {
                let mut control = SendAncillaryBuffer::default();
                Ok(sendmsg(socket, slices, &mut control, SendFlags::DONTWAIT)?)
            });
            match sent {
                Err(_would_block) => {}
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(sent) => return Poll::Ready(sent),
            }
        }
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

/// The most bytes of a read. The memory is zeroed first, so a larger limit would cost time.
const READ_LIMIT: usize = 64 * 1024;
