//! Standard input and output under the eyes of a [`LoginWatch`].

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::login_watch::LoginWatch;
use crate::stdio::{Input, Output};

/// The same input and output, which `watch` sees.
pub(super) fn watched((input, output): (Input, Output), watch: &Rc<RefCell<LoginWatch>>) -> (Input, Output) {
    let watched_input = Watched { inner: input, watch: Rc::clone(watch) };
    let watched_output = Watched { inner: output, watch: Rc::clone(watch) };
    (Box::new(watched_input), Box::new(watched_output))
}

struct Watched<T> {
    inner: T,
    watch: Rc<RefCell<LoginWatch>>,
}

impl AsyncRead for Watched<Input> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = room.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, room))?;
        self.watch.borrow_mut().sent(&room.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl Watched<Output> {
    fn count(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(length)) = written {
            self.watch.borrow_mut().received(*length);
        }
    }
}

impl AsyncWrite for Watched<Output> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.count(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.count(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
