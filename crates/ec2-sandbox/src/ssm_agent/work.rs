//! What a session is for on the instance, as a stream of bytes each way: a connection to a port, or a command.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::hosts::{Command, Connection};

/// A session's work. Dropping it ends it.
pub(crate) enum Work {
    /// Its output comes when it has ended, all at once.
    Command(Command),
    /// To a port.
    Connection(Connection),
    /// A command whose output has been read.
    Done,
}

impl Work {
    /// Appends what it gives to `inbox`; nothing at its end.
    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        inbox: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Command(command) => command.poll_output(cx, now).map_ok(|output| {
                *self = Self::Done;
                inbox.extend_from_slice(&output);
                output.len()
            }),
            Self::Connection(connection) => {
                inbox.reserve(super::READ_SIZE);
                pin!(connection.stream.read_buf(inbox)).poll(cx)
            }
            Self::Done => Poll::Ready(Ok(0)),
        }
    }

    /// Gives it some of `outbox`, of which `received` bytes have gone before; how many it took.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &VecDeque<Bytes>,
        received: u64,
    ) -> Poll<io::Result<usize>> {
        let connection = match self {
            Self::Connection(connection) => connection,
            Self::Command(command) => {
                outbox.iter().for_each(|bytes| command.type_in(bytes));
                return Poll::Ready(Ok(outbox.iter().map(Bytes::len).sum()));
            }
            Self::Done => return Poll::Ready(Ok(outbox.iter().map(Bytes::len).sum())),
        };
        if received < AUTHENTICATION_BYTES {
            connection.refresh_keys();
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        for (slice, bytes) in slices.iter_mut().zip(outbox) {
            *slice = IoSlice::new(bytes);
        }
        let filled = outbox.len().min(SLICES);
        Pin::new(&mut connection.stream).poll_write_vectored(cx, &slices[..filled])
    }

    /// When [`poll_read`](Self::poll_read) has something to do by the clock.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Command(command) => command.deadline(),
            Self::Connection(_) | Self::Done => None,
        }
    }
}

/// Payloads for one write to a server.
pub(super) const SLICES: usize = 64;
/// SSH's key exchange and authentication fit well within; later bytes need no look at the keys.
const AUTHENTICATION_BYTES: u64 = 64 * 1024;
