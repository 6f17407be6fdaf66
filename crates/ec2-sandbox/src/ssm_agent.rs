//! The SSM agent of one session: the instance's side of the data channel, and its connection to the port.
//!
//! It behaves as measured of AWS's own: it connects only after the handshake, refuses data until it is connected,
//! says nothing when the port refuses, and waits for its tail to be acknowledged when the server closes. What it
//! does not imitate is the pause of a millisecond after every kilobyte.

use std::{
    collections::VecDeque,
    future::Future,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use serde_json::json;
use ssm_channel::{
    Channel, Closed, Draft, Event, Flag, Origin, Outgoing, SessionType, Side, SsmAgentVersion,
};
use tokio::io::{AsyncReadExt, AsyncWrite};

use crate::hosts::Connection;

/// What became of a session on the instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The server or the client ended it.
    Success,
    /// It failed, and the client is told this.
    Failed(String),
}

pub(crate) struct SsmAgent {
    pub(crate) channel: Channel,
    connection: Option<Connection>,
    /// Received and not written to the server yet.
    outbox: VecDeque<Bytes>,
    /// Read from the server and not sent yet. Many messages to a read, since the real one's thousand reads a second
    /// are no part of what is measured here.
    inbox: BytesMut,
    draft: Draft,
    payload_limit: usize,
    /// When the server closed: the time allowed for the tail.
    draining_until: Option<Instant>,
    /// When the parent of a crashed worker notices.
    refused_at: Option<Instant>,
    refusal_delay: Duration,
    port: u16,
    received: u64,
    verdict: Option<Verdict>,
}

impl SsmAgent {
    pub(crate) fn new(
        version: SsmAgentVersion,
        port: u16,
        payload_limit: Option<usize>,
        refusal_delay: Duration,
        origin: Origin,
    ) -> Self {
        let session = SessionType {
            session_type: "Port".to_owned(),
            properties: json!({ "portNumber": port.to_string() }),
        };
        let channel = Channel::new(Side::Instance { agent_version: version, session }, origin);
        Self {
            payload_limit: payload_limit.unwrap_or_else(|| channel.payload_limit()),
            channel,
            connection: None,
            outbox: VecDeque::new(),
            inbox: BytesMut::new(),
            draft: Draft::with_capacity(DRAFT_ALLOCATION),
            draining_until: None,
            refused_at: None,
            refusal_delay,
            port,
            received: 0,
            verdict: None,
        }
    }

    /// How the session ended, once it has.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Ends at once, as the flag and the API demand.
    pub(crate) fn terminate(&mut self) {
        self.connection = None;
        self.verdict.get_or_insert(Verdict::Success);
    }

    /// Moves what can be moved between the channel and the connection; true if anything was.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        connect: impl FnOnce() -> io::Result<Option<Connection>>,
    ) -> bool {
        self.channel.handle_timeout(now);
        let mut moved = self.handle_events(now, connect);
        moved |= self.poll_read(cx, now);
        moved |= self.poll_write(cx);
        let drained = self.channel.unacknowledged() == 0;
        if self.draining_until.is_some_and(|until| drained || until <= now) {
            self.terminate();
        }
        if self.refused_at.is_some_and(|at| at + self.refusal_delay <= now) {
            self.verdict.get_or_insert(Verdict::Failed(format!(
                "document process failed unexpectedly: unable to connect to port {}",
                self.port
            )));
        }
        moved
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let refused = self.refused_at.map(|at| at + self.refusal_delay);
        [self.channel.poll_timeout(), self.draining_until, refused].into_iter().flatten().min()
    }

    fn handle_events(
        &mut self,
        now: Instant,
        connect: impl FnOnce() -> io::Result<Option<Connection>>,
    ) -> bool {
        let mut connect = Some(connect);
        let mut moved = false;
        while let Some(event) = self.channel.poll_event() {
            moved = true;
            match event {
                Event::Ready { .. } => match connect.take().map(|connect| connect()) {
                    Some(Ok(Some(connection))) => {
                        self.connection = Some(connection);
                        self.channel.accept_data();
                    }
                    Some(Err(error)) => {
                        tracing::error!(%error, "the ssh server of an instance could not be started");
                        self.refused_at = Some(now);
                    }
                    Some(Ok(None)) | None => self.refused_at = Some(now),
                },
                Event::Flag(Flag::TerminateSession) => self.terminate(),
                Event::Closed(Closed::HandshakeFailed { output }) => {
                    self.verdict.get_or_insert(Verdict::Failed(output));
                }
                Event::Closed(Closed::HandshakeTimeout) => {
                    let output = "handshake timed out; please ensure that you have the latest version of the session manager plugin";
                    self.verdict.get_or_insert(Verdict::Failed(output.to_owned()));
                }
                Event::Closed(_) => self.terminate(),
                Event::Flag(_) | Event::NeedsResume => {}
            }
        }
        moved
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let mut sent = 0;
        while sent < READ_SIZE && self.draining_until.is_none() && self.channel.send_capacity() > 0 {
            let Some(connection) = &mut self.connection else { break };
            if self.inbox.is_empty() {
                self.inbox.reserve(READ_SIZE);
                match pin!(connection.stream.read_buf(&mut self.inbox)).poll(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok(length)) if length > 0 => {}
                    // The real one ends on a half-close, too.
                    Poll::Ready(_) => self.draining_until = Some(now + DRAIN_TIMEOUT),
                }
            }
            moved = true;
            let length = self.payload_limit.min(self.inbox.len());
            self.draft.push(&self.inbox[..length]);
            self.inbox.advance(length);
            sent += length;
            // The capacity was checked above.
            let _ = self.channel.send(now, &mut self.draft);
        }
        moved
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        let Some(connection) = &mut self.connection else { return false };
        loop {
            while self.outbox.len() < SLICES
                && let Some(bytes) = self.channel.read()
            {
                self.outbox.push_back(bytes);
            }
            if self.outbox.is_empty() {
                return moved;
            }
            if self.received < AUTHENTICATION_BYTES {
                connection.refresh_keys();
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            for (slice, bytes) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(bytes);
            }
            let slices = &slices[..self.outbox.len()];
            match Pin::new(&mut connection.stream).poll_write_vectored(cx, slices) {
                Poll::Ready(Ok(written)) if written > 0 => {
                    moved = true;
                    self.received += written as u64;
                    forget_written(&mut self.outbox, written);
                }
                Poll::Ready(_) | Poll::Pending => return moved,
            }
        }
    }
}

fn forget_written(outbox: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = outbox.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        outbox.pop_front();
    }
}

/// The next record of the SSM agent for the gateway.
pub(crate) fn next_record(channel: &mut Channel, now: Instant) -> Option<Bytes> {
    match channel.poll_transmit(now)? {
        Outgoing::Record(record) => Some(record),
        // The instance's side opens nothing by text: it is attached inside the gateway.
        Outgoing::Open(_) => None,
    }
}

/// Payloads for one write to the server.
const SLICES: usize = 64;
/// In one pass, so that what was read leaves soon.
const READ_SIZE: usize = 128 * 1024;
const DRAFT_ALLOCATION: usize = 256 * 1024;
/// As long as the real one waits for acknowledgements of its tail.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// SSH's key exchange and authentication fit well within; later bytes need no look at the keys.
const AUTHENTICATION_BYTES: u64 = 64 * 1024;
