//! The SSM agent of one session: the instance's side of the data channel, and its connection to the port, or the
//! command that it runs.
//!
//! It behaves as measured of AWS's own: it connects only after the handshake, refuses data until it is connected,
//! says nothing when the port refuses, and waits for its tail to be acknowledged when the server closes. A command
//! runs to its end before any of its output is sent, and has no input. What it
//! does not imitate is the pause of a millisecond after every kilobyte.

use std::{
    collections::VecDeque,
    io,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes, BytesMut};
use serde_json::{Value, json};
use ssm_channel::{
    Channel, Closed, Draft, Event, Flag, Origin, Outgoing, SessionType, Side, SsmAgentVersion,
};

pub(crate) use self::work::Work;
use crate::world::Purpose;

mod work;

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
    work: Option<Work>,
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
    /// What the parent says then.
    refusal: String,
    session_type: &'static str,
    knows_session_type: bool,
    received: u64,
    verdict: Option<Verdict>,
}

impl SsmAgent {
    pub(crate) fn new(
        version: SsmAgentVersion,
        purpose: &Purpose,
        payload_limit: Option<usize>,
        refusal_delay: Duration,
        origin: Origin,
    ) -> Self {
        let (session_type, properties, payload, what) = match purpose {
            Purpose::Command(_) => {
                ("NonInteractiveCommands", Value::Null, Some(COMMAND_PAYLOAD), "run the command".to_owned())
            }
            Purpose::Port(port) => {
                let properties = json!({ "portNumber": port.to_string() });
                ("Port", properties, None, format!("connect to port {port}"))
            }
        };
        let session = SessionType { session_type: session_type.to_owned(), properties };
        let channel = Channel::new(Side::Instance { agent_version: version, session }, origin);
        Self {
            payload_limit: payload_limit.or(payload).unwrap_or_else(|| channel.payload_limit()),
            channel,
            work: None,
            outbox: VecDeque::new(),
            inbox: BytesMut::new(),
            draft: Draft::with_capacity(DRAFT_ALLOCATION),
            draining_until: None,
            refused_at: None,
            refusal_delay,
            refusal: format!("document process failed unexpectedly: unable to {what}"),
            session_type,
            knows_session_type: version.knows_session_type(session_type),
            received: 0,
            verdict: None,
        }
    }

    /// How the session ended, once it has.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Takes the session up. One that SSM agents of its version cannot do never gets as far as a handshake.
    pub(crate) fn attach(&mut self, now: Instant) {
        if self.knows_session_type {
            self.channel.attach(now, "");
        }
    }

    /// Refuses such a session, now that there is a client to be told.
    pub(crate) fn check_session_type(&mut self) {
        if !self.knows_session_type {
            let kind = self.session_type;
            self.verdict.get_or_insert_with(|| {
                Verdict::Failed(format!(
                    "Plugin with name {kind} is not supported by this version of ssm agent, please update to latest \
                     version. Step name: {kind}"
                ))
            });
        }
    }

    /// Ends at once, as the flag and the API demand.
    pub(crate) fn terminate(&mut self) {
        self.work = None;
        self.verdict.get_or_insert(Verdict::Success);
    }

    /// Moves what can be moved between the channel and the connection; true if anything was.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        start: impl FnOnce() -> io::Result<Option<Work>>,
    ) -> bool {
        self.channel.handle_timeout(now);
        let mut moved = self.handle_events(now, start);
        moved |= self.poll_read(cx, now);
        moved |= self.poll_write(cx);
        let drained = self.channel.unacknowledged() == 0;
        if self.draining_until.is_some_and(|until| drained || until <= now) {
            self.terminate();
        }
        if self.refused_at.is_some_and(|at| at + self.refusal_delay <= now) {
            self.verdict.get_or_insert(Verdict::Failed(self.refusal.clone()));
        }
        moved
    }

    /// When [`poll`](Self::poll) has something to do.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let refused = self.refused_at.map(|at| at + self.refusal_delay);
        let work = self.work.as_ref().and_then(Work::deadline);
        [self.channel.poll_timeout(), self.draining_until, refused, work].into_iter().flatten().min()
    }

    fn handle_events(&mut self, now: Instant, start: impl FnOnce() -> io::Result<Option<Work>>) -> bool {
        let mut start = Some(start);
        let mut moved = false;
        while let Some(event) = self.channel.poll_event() {
            moved = true;
            match event {
                Event::Ready { .. } => match start.take().map(|start| start()) {
                    Some(Ok(Some(work))) => {
                        self.work = Some(work);
                        self.channel.accept_data();
                    }
                    Some(Err(error)) => {
                        tracing::error!(%error, "the work of a session could not be started");
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
                Event::Flag(_) | Event::ExitStatus(_) | Event::NeedsResume => {}
            }
        }
        moved
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let mut sent = 0;
        while sent < READ_SIZE && self.draining_until.is_none() && self.channel.send_capacity() > 0 {
            let Some(work) = &mut self.work else { break };
            if self.inbox.is_empty() {
                match work.poll_read(cx, now, &mut self.inbox) {
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
        let Some(work) = &mut self.work else { return false };
        loop {
            while self.outbox.len() < work::SLICES
                && let Some(bytes) = self.channel.read()
            {
                self.outbox.push_back(bytes);
            }
            if self.outbox.is_empty() {
                return moved;
            }
            match work.poll_write(cx, &self.outbox, self.received) {
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

/// In one pass, so that what was read leaves soon.
const READ_SIZE: usize = 128 * 1024;
const DRAFT_ALLOCATION: usize = 256 * 1024;
/// As long as the real one waits for acknowledgements of its tail.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Shells and commands of clients expect no more; port sessions have been seen to take it.
const COMMAND_PAYLOAD: usize = 1024;
