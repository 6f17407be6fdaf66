//! The byte stream under an SSH session, with a way to cut it.
//!
//! russh runs a session in a task of its own that cannot be aborted from outside. Dropping the [`Cut`]
//! makes the stream report its end in both directions, and the session ends by itself.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::sync::oneshot;

/// Keeps a [`Transport`] connected for as long as it lives.
pub(super) struct Cut(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<()>);

/// A buffered stream that ends when its [`Cut`] is dropped.
pub(super) struct Transport<S> {
    // russh reads the length of each packet by itself; the buffer makes that one call, not two.
    stream: BufReader<S>,
    cut: oneshot::Receiver<()>,
}

impl<S: AsyncRead> Transport<S> {
    pub(super) fn new(stream: S) -> (Cut, Self) {
        let (sender, cut) = oneshot::channel();
        (Cut(sender), Self { stream: BufReader::with_capacity(READ_BUFFER, stream), cut })
    }
}

impl<S> Transport<S> {
    fn poll_cut(&mut self, context: &mut Context<'_>) -> Poll<()> {
        // A receiver must not be polled again once it has fired.
        if self.cut.is_terminated() || Pin::new(&mut self.cut).poll(context).is_ready() {
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Transport<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.poll_cut(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Transport<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.poll_cut(context).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

const READ_BUFFER: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn dropped_cut_ends_both_directions() {
        let (near, _far) = tokio::io::duplex(16);
        let (cut, mut transport) = Transport::new(near);
        let reader = tokio::spawn(async move {
            let read = transport.read(&mut [0; 8]).await.unwrap();
            (read, transport.write(b"x").await.unwrap_err().kind())
        });
        tokio::task::yield_now().await;
        drop(cut);
        assert_eq!(reader.await.unwrap(), (0, io::ErrorKind::BrokenPipe));
    }
}
