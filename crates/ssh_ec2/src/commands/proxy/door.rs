//! Holds back the instance's bytes until ssh can use its key.
//!
//! ssh asks the key agent, or signs with a key of the user's, as soon as the key exchange is over. Without a
//! byte from the instance there is no key exchange. So none is passed on until the first push has succeeded
//! and the key agent listens. The push is nearly always faster than the session.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use crate::key::agent::serve::Usage;
use crate::key::agent::socket::AgentSocket;
use crate::road::stdio::{Meter, Output};

/// Closed until the key can be used.
pub(super) struct Door {
    is_open: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    socket: OnceCell<AgentSocket>,
    looked_at: Cell<Option<Instant>>,
    /// What our ssh did with the key.
    pub(super) usage: Usage,
}

impl Door {
    /// Makes a closed one. `received` counts the bytes that pass.
    pub(super) fn new(received: Meter) -> Self {
        Self {
            is_open: Cell::default(),
            waiting: RefCell::default(),
            socket: OnceCell::new(),
            looked_at: Cell::default(),
            usage: Usage::new(received),
        }
    }

    /// The key agent's socket, once there is one.
    pub(super) fn socket(&self) -> Option<&AgentSocket> {
        self.socket.get()
    }

    /// Opens the door where ssh does not use our key agent.
    pub(super) fn open(&self) {
        self.is_open.set(true);
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Opens the door for an ssh that asks our key agent on `socket`.
    pub(super) fn open_with(&self, socket: AgentSocket) -> &AgentSocket {
        let socket = self.socket.get_or_init(|| socket);
        self.open();
        socket
    }

    /// An output that passes bytes to `output` while the door is open.
    pub(super) fn before(self: &Rc<Self>, output: Output) -> Output {
        Box::new(Held { output, door: Rc::clone(self) })
    }

    fn poll_pass(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_open.get() {
            self.waiting.replace(Some(cx.waker().clone()));
            return Poll::Pending;
        }
        if let Some(socket) = self.socket() {
            self.lead_ssh_to(socket);
        }
        Poll::Ready(())
    }

    /// The bytes that pass now may make ssh ask the key agent: for itself while it authenticates, and later
    /// for the instance, to which it forwards its agent. Another proxy may have taken the link and been
    /// killed or stopped.
    fn lead_ssh_to(&self, socket: &AgentSocket) {
        let led = if self.usage.is_awaited() {
            socket.take_link()
        } else if self.looked_at.get().is_none_or(|at| at.elapsed() >= LOOK_INTERVAL) {
            self.looked_at.set(Some(Instant::now()));
            socket.heal_link()
        } else {
            Ok(())
        };
        if let Err(error) = led {
            tracing::debug!(%error, "ssh may not find the key agent");
        }
    }
}

struct Held {
    output: Output,
    door: Rc<Door>,
}

impl AsyncWrite for Held {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        std::task::ready!(self.door.poll_pass(cx));
        Pin::new(&mut self.output).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        std::task::ready!(self.door.poll_pass(cx));
        Pin::new(&mut self.output).poll_write_vectored(cx, slices)
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

/// Two system calls a second while bytes come.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn nothing_passes_before_the_door_is_open() {
        let door = Rc::new(Door::new(Meter::default()));
        let (ours, mut ssh) = tokio::io::duplex(64);
        let mut output = door.before(Box::new(ours));
        let mut write = Box::pin(output.write_all(b"SSH-2.0-"));
        let early = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx).is_ready())).await;
        assert!(!early);
        let (written, ()) = tokio::join!(write, async { door.open() });
        written.unwrap();
        let mut bytes = [0; 8];
        ssh.read_exact(&mut bytes).await.unwrap();
        assert_eq!(&bytes, b"SSH-2.0-");
    }
}
