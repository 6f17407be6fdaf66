//! Port and socket forwarding, both ways.
//!
//! Each direction of a forwarded connection ends on its own; the other one goes on to its end. The server
//! listens on loopback only, whatever address the client requests, like sshd without `GatewayPorts`.

use std::future::Future;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;

use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{Channel, ChannelOpenFailure};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::oneshot;

use super::exec::{feed, send_output};
use super::inbox::{self, Backlog};
use super::jobs::Jobs;

/// Serves a `direct-tcpip` channel.
pub(super) async fn connect_tcp(
    host: String,
    port: u16,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    backlog: Arc<Backlog>,
) {
    let connecting = async {
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    };
    accept(connecting, channel, reply, backlog).await;
}

/// Serves a `direct-streamlocal@openssh.com` channel.
pub(super) async fn connect_unix(
    path: PathBuf,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    backlog: Arc<Backlog>,
) {
    accept(UnixStream::connect(path), channel, reply, backlog).await;
}

async fn accept<S: AsyncRead + AsyncWrite>(
    connecting: impl Future<Output = io::Result<S>>,
    channel: Channel<Msg>,
    reply: ChannelOpenHandle,
    backlog: Arc<Backlog>,
) {
    match connecting.await {
        Ok(stream) => {
            reply.accept().await;
            relay(channel, stream, backlog).await;
        }
        Err(error) => {
            tracing::debug!(%error, "cannot forward");
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
        }
    }
}

/// A listening port. Dropping this closes it.
pub(super) struct Listening(#[expect(dead_code, reason = "held for its drop")] oneshot::Sender<()>);

/// Listens for a `tcpip-forward` request. Returns the port, which the system chooses for port 0.
pub(super) async fn listen(
    address: &str,
    port: u16,
    handle: Handle,
    jobs: Jobs,
    backlog: Arc<Backlog>,
) -> io::Result<(u16, Listening)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let port = listener.local_addr()?.port();
    let (listening, mut stopped) = oneshot::channel();
    let address = address.to_owned();
    jobs.clone().start(async move {
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                _ = &mut stopped => return,
            };
            // Like sshd, only log a failed accept: it concerns a single connection.
            match accepted {
                Ok((stream, peer)) => {
                    let (handle, address, backlog) = (handle.clone(), address.clone(), Arc::clone(&backlog));
                    jobs.start(async move {
                        let (host, peer_port) = (peer.ip().to_string(), peer.port().into());
                        let opened =
                            handle.channel_open_forwarded_tcpip(address, port.into(), host, peer_port);
                        match opened.await {
                            Ok(channel) => relay(channel, stream, backlog).await,
                            Err(error) => tracing::debug!(%error, "client refuses a forwarded connection"),
                        }
                    });
                }
                Err(error) => tracing::debug!(%error, "cannot accept a connection to forward"),
            }
        }
    });
    Ok((port, Listening(listening)))
}

/// Copies both ways until both directions have ended.
async fn relay(channel: Channel<Msg>, stream: impl AsyncRead + AsyncWrite, backlog: Arc<Backlog>) {
    let (incoming, channel) = channel.split();
    let (mut intake, inbox) = inbox::open(channel.id(), incoming, backlog);
    let (source, sink) = tokio::io::split(stream);
    let mut upward = pin!(feed(inbox, sink));
    let mut downward = pin!(async {
        send_output(source, &channel, None).await?;
        channel.eof().await
    });
    let mut closed = pin!(intake.closed());

    // A client that closes the channel receives no more, but the data that it has sent must still arrive.
    let (mut up, mut down, mut open) = (true, true, true);
    while up || (down && open) {
        tokio::select! {
            () = &mut upward, if up => up = false,
            _ = &mut downward, if down && open => down = false,
            () = &mut closed, if open => open = false,
        }
    }
    if open {
        let _ = channel.close().await;
    }
}
