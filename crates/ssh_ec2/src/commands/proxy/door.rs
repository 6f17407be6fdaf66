//! Holds back the instance's bytes until ssh can use its key.
//!
//! ssh asks the key agent, or signs with the user's own key, as soon as the key exchange is over. Without
//! bytes from the instance there is no key exchange. So no byte is passed on until the first push has
//! succeeded and the key agent listens. The push nearly always completes before the session is open.
//!
//! ssh connects to the key agent at the end of the key exchange, or, from OpenSSH 9.6 on, when the server has
//! offered public key authentication (`pubkey_prepare` in `sshconnect2.c`). In both cases it connects after
//! it received a message from the server, and before it sends the next one itself. Several connections share
//! the link to their key agents. So from the last byte of the server's NEWKEYS until ssh has connected, bytes
//! are passed on only while this connection has its turn, which ends with ssh's next message.

use std::cell::{Cell, OnceCell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use tokio::io::AsyncWrite;

use super::Client;
use super::job::Job;
use super::login_watch::{KeyExchange, LoginWatch};
use crate::key::agent::serve::Usage;
use crate::key::agent::socket::AgentSocket;
use crate::road::stdio::{Meter, Output};
use crate::system::private_file::Lock;

/// Holds bytes back until the key can be used.
pub(super) struct Door {
    is_open: Cell<bool>,
    waiting: RefCell<Option<Waker>>,
    socket: OnceCell<AgentSocket>,
    looked_at: Cell<Option<Instant>>,
    client: Client,
    login: Rc<RefCell<LoginWatch>>,
    /// The server's part of the key exchange, of which these bytes have passed.
    server: RefCell<KeyExchange>,
    turn: RefCell<Turn>,
    /// What this proxy's own ssh did with the key.
    pub(super) usage: Usage,
}

enum Turn {
    /// Not requested, or the turn has begun.
    None,
    Waiting(Pin<Box<dyn Future<Output = Option<Lock>>>>),
    /// The lock could not be taken, so the link is changed without it.
    Hopeless,
}

impl Door {
    /// Creates a closed door.
    pub(super) fn new(job: &Job<'_>) -> Self {
        Self::with(job.options.client, Meter::clone(&job.received), Rc::clone(&job.login))
    }

    /// `received` counts the bytes that pass to ssh, and `login` follows the bytes of both sides.
    fn with(client: Client, received: Meter, login: Rc<RefCell<LoginWatch>>) -> Self {
        Self {
            is_open: Cell::default(),
            waiting: RefCell::default(),
            socket: OnceCell::new(),
            looked_at: Cell::default(),
            client,
            login,
            server: RefCell::default(),
            turn: RefCell::new(Turn::None),
            usage: Usage::new(received),
        }
    }

    /// The key agent's socket, once it exists.
    pub(super) fn socket(&self) -> Option<&AgentSocket> {
        self.socket.get()
    }

    /// Opens the door for an ssh that does not use this proxy's key agent.
    pub(super) fn open(&self) {
        self.is_open.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }

    /// Opens the door for an ssh that uses this proxy's key agent on `socket`.
    pub(super) fn open_with(&self, socket: AgentSocket) -> &AgentSocket {
        let socket = self.socket.get_or_init(|| socket);
        self.open();
        socket
    }

    /// Wraps `output`: bytes pass to it only while the door is open.
    pub(super) fn before(self: &Rc<Self>, output: Output) -> Output {
        Box::new(Held { output, door: Rc::clone(self) })
    }

    /// To be called with the bytes that ssh has sent.
    pub(super) fn sent(&self, bytes: &[u8]) {
        self.login.borrow_mut().sent(bytes);
        if let Some(socket) = self.socket() {
            socket.end_turn();
        }
        self.wake();
    }

    /// How many of these bytes may pass.
    fn poll_pass(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<usize> {
        if !self.is_open.get() {
            return self.wait(cx);
        }
        let Some(socket) = self.socket() else { return Poll::Ready(bytes.len()) };
        let login = self.login.borrow();
        if !self.usage.is_awaited() || !login.may_ask() {
            self.keep_link(socket);
            return Poll::Ready(bytes.len());
        }
        match self.server.borrow().before_end(bytes) {
            Some(0) => {}
            None => return Poll::Ready(bytes.len()),
            Some(length) => return Poll::Ready(length),
        }
        // ssh may be asking its user whether to trust the host key; once it sends its own NEWKEYS, that is
        // over. Other programs may send NEWKEYS only after the server did, so they are not waited for.
        if self.client == Client::Ssh && !login.has_ended_key_exchange() {
            return self.wait(cx);
        }
        self.poll_turn(cx, socket).map(|()| bytes.len())
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        self.waiting.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    fn poll_turn(&self, cx: &mut Context<'_>, socket: &AgentSocket) -> Poll<()> {
        let mut turn = self.turn.borrow_mut();
        loop {
            match &mut *turn {
                Turn::None if socket.has_turn() => return Poll::Ready(()),
                Turn::None => *turn = Turn::Waiting(socket.turn()),
                Turn::Waiting(lock) => {
                    let lock = ready!(lock.as_mut().poll(cx));
                    *turn = if lock.is_some() { Turn::None } else { Turn::Hopeless };
                    socket.begin_turn(lock);
                    return Poll::Ready(());
                }
                Turn::Hopeless => {
                    socket.begin_turn(None);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Repairs the link. A program on the instance may use the forwarded agent: then the bytes that pass now
    /// make ssh connect to the link, which may lead to a proxy that was killed or stopped.
    fn keep_link(&self, socket: &AgentSocket) {
        if self.looked_at.get().is_some_and(|at| at.elapsed() < LOOK_INTERVAL) {
            return;
        }
        self.looked_at.set(Some(Instant::now()));
        if let Err(error) = socket.heal_link() {
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
        let passing = ready!(self.door.poll_pass(cx, bytes));
        let written = ready!(Pin::new(&mut self.output).poll_write(cx, &bytes[..passing]))?;
        self.door.server.borrow_mut().follow(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if self.door.usage.is_awaited() {
            return self.poll_write(cx, first);
        }
        ready!(self.door.poll_pass(cx, first));
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

impl Drop for Held {
    /// The lock may have been taken by the future that waits for it; dropping that releases it.
    fn drop(&mut self) {
        self.door.turn.replace(Turn::None);
    }
}

/// How often the link is examined while bytes pass. It takes two system calls.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::future::poll_fn;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::key::agent::socket::AgentPath;

    #[tokio::test]
    async fn nothing_passes_before_the_door_is_open() {
        let door = Rc::new(Door::with(Client::Ssh, Meter::default(), Rc::default()));
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

    /// NEWKEYS, followed by the first encrypted bytes.
    const SERVER: &[u8] = b"SSH-2.0-x\r\n\0\0\0\x0c\x0a\x15\0\0\0\0\0\0\0\0\0\0rest";

    struct Scene {
        directory: tempfile::TempDir,
        door: Rc<Door>,
    }

    impl Scene {
        fn new(client: Client) -> Self {
            let directory = tempfile::tempdir().unwrap();
            let door = Rc::new(Door::with(client, Meter::default(), Rc::default()));
            door.open_with(AgentPath::check(&directory.path().join("agent/link")).unwrap().bind().unwrap());
            Self { directory, door }
        }

        /// Holds the lock of the turns, as another connection would.
        fn another(&self) -> File {
            let agent = self.directory.path().join("agent");
            let mut sockets = std::fs::read_dir(agent).unwrap().map(|entry| entry.unwrap().path());
            let socket = sockets.find(|path| !path.is_symlink()).unwrap();
            let lock = crate::system::private_file::open(&socket.with_extension("turn")).unwrap();
            lock.lock().unwrap();
            lock
        }
    }

    async fn is_pending<T>(mut future: Pin<&mut impl Future<Output = T>>) -> bool {
        poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
    }

    #[tokio::test]
    async fn ssh_connects_to_the_key_agent_in_its_turn() {
        for client in [Client::Ssh, Client::Other] {
            let scene = Scene::new(client);
            let (ours, mut ssh) = tokio::io::duplex(256);
            let mut output = scene.door.before(Box::new(ours));
            let another = scene.another();
            let mut write = Box::pin(output.write_all(SERVER));
            let mut early = vec![0; SERVER.len() - "rest".len() - 1];
            tokio::select! {
                biased;
                _ = write.as_mut() => panic!("it is the turn of another connection"),
                read = ssh.read_exact(&mut early) => drop(read.unwrap()),
            }
            assert_eq!(early, SERVER[..early.len()]);
            if client == Client::Ssh {
                drop(another);
                assert!(is_pending(write.as_mut()).await && !scene.door.socket().unwrap().has_turn());
                scene.door.sent(SERVER.split_last_chunk::<4>().unwrap().0);
            } else {
                assert!(is_pending(write.as_mut()).await);
                drop(another);
            }
            write.await.unwrap();
            assert!(scene.door.socket().unwrap().has_turn());
            // Newer versions of ssh do not connect right after the key exchange.
            scene.door.sent(b"service");
            assert!(!scene.door.socket().unwrap().has_turn());
            let another = scene.another();
            let mut write = Box::pin(output.write_all(b"failure"));
            assert!(is_pending(write.as_mut()).await);
            drop(another);
            write.await.unwrap();
            assert!(scene.door.socket().unwrap().has_turn());
        }
    }

    #[tokio::test]
    async fn a_connection_that_ends_before_its_turn_gives_way() {
        let scene = Scene::new(Client::Other);
        let (ours, _ssh) = tokio::io::duplex(256);
        let mut output = scene.door.before(Box::new(ours));
        let another = scene.another();
        let mut write = Box::pin(output.write_all(SERVER));
        assert!(is_pending(write.as_mut()).await);
        drop(write);
        drop(output);
        drop(another);
        scene.another();
    }
}
