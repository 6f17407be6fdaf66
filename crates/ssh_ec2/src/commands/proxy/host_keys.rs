//! Answers the requests of `ssh_ec2 known-hosts`, which the same ssh runs, on a socket of its own.
//!
//! Everything runs in the proxy's one task and waits for nothing but sockets, so that no byte of the tunnel
//! waits for an answer. No request, and no failure here, ends the tunnel: without an answer known-hosts
//! rejects the host key, and without this socket it calls AWS itself.

use std::convert::Infallible;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::timeout;

use super::Request;
use crate::aws::Aws;
use crate::commands::known_hosts::inquiry::{
    Connection, FRAME_LIMIT, Inquiry, Matter, Reply, socket, ssh_of,
};
use crate::commands::known_hosts::sources::Sources;
use crate::commands::signals::Signals;
use crate::error::Failure;
use crate::net::network::Network;
use crate::road::probe::Interrupt;
use crate::ssh::host_key::{HostKey, Source};
use crate::system::explain::Explain as _;
use crate::system::private_socket::{
    DirectoryError, PrivateSocket, is_sibling, make_directory, read_frame, remove_if_there, sweep,
    write_frame,
};
use crate::target::InstanceId;

/// The instance of this proxy, and the sources of its host keys.
pub(super) struct HostKeys<'a> {
    connection: Connection,
    instance: &'a InstanceId,
    sources: Sources<'a>,
    interrupt: &'a Interrupt,
}

impl<'a> HostKeys<'a> {
    pub(super) fn new(
        request: &Request,
        instance: &'a InstanceId,
        aws: &Aws,
        network: &'a Network,
        interrupt: &'a Interrupt,
    ) -> Self {
        let settings = &request.options.settings;
        let (profile, region) = (settings.profile.as_deref(), settings.region.as_deref());
        Self {
            connection: Connection::new(&request.target, request.choice, profile, region),
            instance,
            sources: Sources::new(aws, network, instance, interrupt),
            interrupt,
        }
    }

    /// Answers requests until dropped. It must not be dropped half-way through an answer: see
    /// [`end`](Self::end).
    pub(super) async fn serve(&self, directory: &Path) -> Infallible {
        let socket = match Socket::listen(directory) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::info!("known-hosts has to ask AWS itself: no socket for it: {error}");
                return pending().await;
            }
        };
        loop {
            let mut stream = socket.listener.accept().await;
            if !is_sibling(&stream) {
                tracing::debug!("a process that this ssh did not start asked for host keys");
                continue;
            }
            // One request at a time suffices: ssh runs one known-hosts at a time.
            let asked = timeout(FRAME_TIMEOUT, read_frame(&mut stream, FRAME_LIMIT)).await;
            let Ok(Ok(Some(asked))) = asked else { continue };
            let Ok(inquiry) = serde_json::from_slice(&asked) else { continue };
            let Ok(reply) = serde_json::to_vec(&self.reply(&inquiry).await) else { continue };
            if let Ok(Err(error)) = timeout(FRAME_TIMEOUT, write_frame(&mut stream, &reply)).await {
                tracing::debug!(%error, "known-hosts did not wait for its answer");
            }
        }
    }

    async fn reply(&self, inquiry: &Inquiry) -> Reply {
        if !inquiry.is_about(&self.connection, self.instance) {
            return Reply::Elsewhere;
        }
        match &inquiry.matter {
            Matter::Instance => Reply::Instance(self.instance.to_string()),
            Matter::Keys => match self.sources.ask().await {
                Ok(told) => told.into(),
                Err(Failure::Interrupted) => Reply::Ending,
                Err(error) => Reply::Unknown { why: error.chain(), hints: error.hints() },
            },
            Matter::WhoLists(key) => {
                let listed_by = match HostKey::parse(key) {
                    Some(key) => self.sources.source_of(&key).await,
                    None => None,
                };
                Reply::ListedBy(listed_by.map(Source::word).map(str::to_owned))
            }
        }
    }

    /// Ends the session that was opened for an answer which is not needed any more. A second signal ends the
    /// wait for that.
    pub(super) async fn end(
        &self,
        mut serving: Pin<&mut impl Future<Output = Infallible>>,
        signals: &mut Signals,
    ) {
        self.interrupt.cancel();
        let ended = poll_fn(|cx| match self.interrupt.is_open() && serving.as_mut().poll(cx).is_pending() {
            true if self.interrupt.is_open() => Poll::Pending,
            _ => Poll::Ready(()),
        });
        tokio::select! {
            () = ended => {}
            signal = signals.insisted() => tracing::info!("ending at once: {signal}"),
        }
    }
}

/// The socket, which is removed when this is dropped.
struct Socket {
    listener: PrivateSocket,
    path: PathBuf,
}

impl Socket {
    fn listen(directory: &Path) -> io::Result<Self> {
        make_directory(directory).map_err(|error| match error {
            DirectoryError::Exposed => io::ErrorKind::PermissionDenied.into(),
            DirectoryError::Io(error) => error,
        })?;
        sweep(directory, ssh_of)?;
        let path = socket(directory, parent_id()).ok_or(io::ErrorKind::InvalidFilename)?;
        Ok(Self { listener: PrivateSocket::listen(&path)?, path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        if let Err(error) = remove_if_there(&self.path) {
            tracing::debug!(%error, "the socket for known-hosts could not be removed");
        }
    }
}

/// The time limit of a request or a reply, which have a few bytes.
const FRAME_TIMEOUT: Duration = Duration::from_secs(5);
