//! Answers the clients of the key agent's socket, and records what ssh did with the key.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fmt::Display;
use std::rc::Rc;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::protocol::{FRAME_LIMIT, Request, answer, is_signature, refusal};
use super::socket::AgentSocket;
use crate::key::one_time::OneTimeKey;
use crate::system::private_socket::{peer, read_frame};

/// What this proxy's own ssh did with the key, and how many clients of other connections are connected.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    /// How many bytes our ssh had received when it asked for the list of keys.
    offered_at: Cell<Option<u64>>,
    signed: Cell<bool>,
    /// ssh closed the connection on which the key was listed. It keeps that open while it authenticates
    /// (OpenSSH `sshconnect2.c`, `pubkey_cleanup`).
    closed: Cell<bool>,
    /// Our ssh has connected.
    has_come: Cell<bool>,
    guests: Cell<usize>,
    received: Rc<Cell<u64>>,
}

impl Usage {
    /// `received` counts the bytes from sshd that were passed on to ssh.
    pub(crate) fn new(received: Rc<Cell<u64>>) -> Self {
        Self { received, ..Self::default() }
    }

    /// Whether the key was listed to our ssh.
    pub(crate) fn was_listed(&self) -> bool {
        self.offered_at.get().is_some()
    }

    /// Whether our ssh has requested a signature and got it.
    pub(crate) fn has_signed(&self) -> bool {
        self.signed.get()
    }

    /// Whether the ssh of another proxy is connected to this socket. Without the socket its login would fail.
    pub(crate) fn has_guests(&self) -> bool {
        self.guests.get() > 0
    }

    /// Whether our ssh will still connect: it has not yet, and sshd has not sent more bytes than come before
    /// that.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.has_come.get() && self.received.get() < HANDSHAKE
    }

    /// Whether our ssh seems to have authenticated, by this key or in another way. This is concluded from its
    /// requests and from the number of bytes that sshd sent.
    pub(crate) fn is_let_in(&self) -> bool {
        let by_other_means = match self.offered_at.get() {
            Some(_) => self.received_since_offer() >= LITTLE,
            None => self.received.get() >= HANDSHAKE,
        };
        self.signed.get() || self.closed.get() || by_other_means
    }

    fn received_since_offer(&self) -> u64 {
        self.received.get().saturating_sub(self.offered_at.get().unwrap_or_default())
    }
}

/// Serves `key` until dropped, or until `push` fails while our own ssh depends on it. `push` pushes the key
/// unless the instance still has it; it is called before each list of keys and each signature. A `push` that
/// fails after our own ssh has authenticated, or for the ssh of another connection, only refuses the request.
///
/// # Errors
/// Only what `push` fails with.
pub(crate) async fn serve<E: Display>(
    socket: &AgentSocket,
    key: &OneTimeKey,
    usage: &Usage,
    push: impl AsyncFn() -> Result<(), E>,
) -> Result<(), E> {
    let mut connections = FuturesUnordered::new();
    let mut seats: VecDeque<Rc<Seat>> = VecDeque::new();
    loop {
        seats.retain(|seat| Rc::strong_count(seat) > 1 && !seat.has_asked.get());
        tokio::select! {
            stream = socket.accept(), if connections.len() < CONNECTIONS || !seats.is_empty() => {
                if connections.len() >= CONNECTIONS && let Some(seat) = seats.pop_front() {
                    seat.leave.notify_one();
                }
                let seat = Rc::new(Seat::default());
                seats.push_back(Rc::clone(&seat));
                // OpenSSH runs a ProxyCommand through `exec`, so ssh itself is our parent.
                let own = peer(&stream) == Some(std::os::unix::process::parent_id());
                if own {
                    usage.has_come.set(true);
                    socket.end_turn();
                }
                connections.push(converse(socket, stream, seat, key, usage, own, &push));
            }
            Some(done) = connections.next() => done?,
            () = socket.turn_is_overdue() => socket.end_turn(),
        }
    }
}

/// Serves one connection. A protocol error of the peer ends it; a failed push ends the agent if our ssh needs
/// the key.
async fn converse<E: Display>(
    socket: &AgentSocket,
    mut stream: UnixStream,
    seat: Rc<Seat>,
    key: &OneTimeKey,
    usage: &Usage,
    own: bool,
    push: &impl AsyncFn() -> Result<(), E>,
) -> Result<(), E> {
    let _guest = (!own).then(|| Guest::enter(usage));
    let mut forwarded = false;
    let mut was_listed = false;
    while let Some(body) = seat.next_frame(&mut stream).await {
        let request = Request::parse(&body);
        forwarded |= request == Request::BindForwarded;
        let pushed = match request {
            Request::List | Request::Sign { .. } => push().await,
            Request::BindForwarded | Request::Unsupported => Ok(()),
        };
        let frame = if pushed.is_ok() { answer(&request, key) } else { refusal() };
        let written = stream.write_all(&frame).await;
        if let Err(error) = pushed {
            if own && !forwarded && !usage.is_let_in() {
                return Err(error);
            }
            tracing::info!(
                "the key agent refused a request, since the key could not be pushed again: {error}"
            );
            socket.give_up().await;
        } else if own && !forwarded {
            match &request {
                Request::List => {
                    was_listed = true;
                    usage.offered_at.set(Some(usage.received.get()));
                }
                // A request with another key, or for a hash that is not supported, gets no signature.
                Request::Sign { .. } => usage.signed.set(usage.has_signed() || is_signature(&frame)),
                Request::BindForwarded | Request::Unsupported => {}
            }
        }
        if written.is_err() {
            break;
        }
    }
    usage.closed.set(usage.closed.get() || was_listed);
    Ok(())
}

/// One of the [`CONNECTIONS`].
#[derive(Default)]
struct Seat {
    has_asked: Cell<bool>,
    /// Ends a connection that has requested nothing yet, when another one needs its seat.
    leave: Notify,
}

impl Seat {
    async fn next_frame(&self, stream: &mut UnixStream) -> Option<Vec<u8>> {
        let frame = tokio::select! {
            frame = read_frame(stream, FRAME_LIMIT) => frame.ok()?,
            () = self.leave.notified(), if !self.has_asked.get() => None,
        };
        self.has_asked.set(true);
        frame
    }
}

/// Counts as a guest until dropped.
struct Guest<'a>(&'a Usage);

impl<'a> Guest<'a> {
    fn enter(usage: &'a Usage) -> Self {
        usage.guests.set(usage.guests.get() + 1);
        Self(usage)
    }
}

impl Drop for Guest<'_> {
    fn drop(&mut self) {
        self.0.guests.set(self.0.guests.get() - 1);
    }
}

/// The most clients that are served at once. A further one ends a client that has requested nothing yet;
/// without such a client it waits in the socket's backlog. Many connections that start together do not reach
/// this limit, since each proxy points the link at its own socket while its own ssh connects.
const CONNECTIONS: usize = 64;
/// Between the sizes of sshd's replies: a refused key takes 80 bytes; after a successful login OpenSSH's sshd
/// sends its list of host keys, 500 bytes.
const LITTLE: u64 = 600;
/// More bytes than sshd sends before ssh offers a key: its version, two key exchange messages with a
/// post-quantum key and an RSA host key, and a banner of a few screens.
const HANDSHAKE: u64 = 16 * 1024;

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::super::socket::AgentPath;
    use super::*;
    use crate::key::one_time::KeyType;

    #[test]
    fn ssh_is_let_in_by_our_key_or_by_another_way() {
        let received = Rc::new(Cell::new(3000));
        let usage = Usage::new(Rc::clone(&received));
        assert!(usage.is_awaited() && !usage.is_let_in(), "it has not asked yet");
        usage.has_come.set(true);
        usage.offered_at.set(Some(3000));
        received.set(3160);
        assert!(!usage.is_awaited() && !usage.is_let_in(), "refused, or about to sign");
        received.set(3000 + LITTLE);
        assert!(usage.is_let_in(), "by a password, say");
        received.set(3160);
        usage.closed.set(true);
        assert!(usage.is_let_in(), "it needs the agent no more");
        usage.closed.set(false);
        usage.signed.set(true);
        assert!(usage.is_let_in());
        let without_keys = Usage::new(Rc::new(Cell::new(HANDSHAKE)));
        assert!(!without_keys.is_awaited() && without_keys.is_let_in());
    }

    const LIST: [u8; 5] = [0, 0, 0, 1, 11];

    /// Asks for the list of keys, and returns the type of the answer.
    async fn ask(stream: &mut UnixStream) -> u8 {
        stream.write_all(&LIST).await.unwrap();
        let mut body = vec![0; usize::try_from(stream.read_u32().await.unwrap()).unwrap()];
        stream.read_exact(&mut body).await.unwrap();
        body[0]
    }

    struct Scene {
        directory: tempfile::TempDir,
        socket: AgentSocket,
        key: OneTimeKey,
    }

    impl Scene {
        async fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let socket = AgentPath::check(&directory.path().join("agent/link")).unwrap().bind().unwrap();
            Self { directory, socket, key: OneTimeKey::generate(KeyType::Ed25519).unwrap() }
        }

        async fn connect(&self) -> UnixStream {
            UnixStream::connect(self.directory.path().join("agent/link")).await.unwrap()
        }
    }

    /// Sends `requests` as our own ssh or as a guest, where every push fails. Returns the types of the
    /// answers, and whether the agent ends.
    async fn converse_as(scene: &Scene, usage: &Usage, own: bool, requests: &[&[u8]]) -> (Vec<u8>, bool) {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let deny = async || Err::<(), _>("denied");
        let ask = async {
            let mut answers = Vec::new();
            for request in requests {
                ours.write_all(request).await.unwrap();
                answers.push(ours.read_u32().await.unwrap());
                let mut body = vec![0; usize::try_from(answers.pop().unwrap()).unwrap()];
                ours.read_exact(&mut body).await.unwrap();
                answers.push(u32::from(body[0]));
            }
            drop(ours);
            answers.into_iter().map(|first| u8::try_from(first).unwrap()).collect::<Vec<_>>()
        };
        let (answers, served) =
            tokio::join!(ask, converse(&scene.socket, theirs, Rc::default(), &scene.key, usage, own, &deny));
        (answers, served.is_err())
    }

    const REFUSED: u8 = 5;

    #[tokio::test]
    async fn a_failed_push_refuses_the_request_and_ends_the_agent() {
        let scene = Scene::new().await;
        let usage = Usage::default();
        assert_eq!(converse_as(&scene, &usage, true, &[&LIST]).await, (vec![REFUSED], true));
    }

    #[tokio::test]
    async fn a_failed_push_ends_nothing_once_ssh_was_let_in() {
        let scene = Scene::new().await;
        for let_in in [
            (|usage: &Usage| usage.signed.set(true)) as fn(&Usage),
            |usage| usage.closed.set(true),
            |usage| usage.received.set(HANDSHAKE),
        ] {
            let usage = Usage::default();
            let_in(&usage);
            let answers = converse_as(&scene, &usage, true, &[&LIST, &LIST]).await;
            assert_eq!(answers, (vec![REFUSED; 2], false));
        }
    }

    #[tokio::test]
    async fn a_failed_push_for_the_ssh_of_another_connection_ends_nothing() {
        let scene = Scene::new().await;
        let usage = Usage::default();
        let served = converse_as(&scene, &usage, false, &[&LIST, &LIST]).await;
        assert_eq!(served, (vec![REFUSED; 2], false));
        assert!(!usage.has_guests() && !usage.is_let_in());
    }

    /// `ssh -A` asks for the instance, on a connection that it announces as forwarded.
    #[tokio::test]
    async fn a_failed_push_for_a_forwarded_request_ends_nothing() {
        let scene = Scene::new().await;
        let bind = |forwarded: u8| {
            let mut body = vec![27];
            for string in [&b"session-bind@openssh.com"[..], b"host key", b"session", b"signature"] {
                body.extend_from_slice(&u32::try_from(string.len()).unwrap().to_be_bytes());
                body.extend_from_slice(string);
            }
            body.push(forwarded);
            [&u32::try_from(body.len()).unwrap().to_be_bytes()[..], &body].concat()
        };
        let usage = Usage::default();
        let served = converse_as(&scene, &usage, true, &[&bind(1), &LIST]).await;
        assert_eq!(served, (vec![REFUSED; 2], false));
        let served = converse_as(&scene, &usage, true, &[&bind(0), &LIST]).await;
        assert_eq!(served, (vec![REFUSED; 2], true), "this one is ssh's own");
    }

    #[tokio::test]
    async fn no_more_than_a_bound_of_connections_is_taken_at_once() {
        let scene = Scene::new().await;
        let usage = Usage::default();
        let mut serving = Box::pin(serve(&scene.socket, &scene.key, &usage, async || Ok::<_, &str>(())));
        let mut clients = Vec::new();
        for number in 0..CONNECTIONS + 5 {
            let mut client = scene.connect().await;
            if number < CONNECTIONS {
                tokio::select! {
                    answer = ask(&mut client) => assert_eq!(answer, 12),
                    _ = serving.as_mut() => panic!("it goes on"),
                }
            }
            clients.push(client);
        }
        assert_eq!(usage.guests.get(), CONNECTIONS);
        let mut last = clients.pop().unwrap();
        let waiting = clients.split_off(CONNECTIONS);
        drop((clients, waiting));
        tokio::select! {
            answer = ask(&mut last) => assert_eq!(answer, 12, "when others have gone"),
            _ = serving.as_mut() => panic!("it goes on"),
        }
    }
}
