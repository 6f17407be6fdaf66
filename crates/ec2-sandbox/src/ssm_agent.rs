//! The SSM agent of one session: the instance's side of the data channel, and its connection to the port, or
//! the command that it runs.
//!
//! It behaves like AWS's own, delays included. It connects only after the handshake, refuses data until it is
//! connected, and stops reading the websocket while the server does not read. A refused port crashes its
//! worker process, which is noticed after a minute. When the server closes the connection, it waits until the
//! last messages are acknowledged. Output leaves at 1,024 bytes a millisecond. A command runs to its end
//! before any of its output is sent, and has no input.

use std::{
    task::Context,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};
use ssm_channel::{MessageError, Origin, PayloadType, SessionType, SsmAgentVersion};

use self::{
    data_channel::{DataChannel, Event},
    separate::Separate,
    work::Work,
};
use crate::{hosts::Start, world::Purpose};

mod data_channel;
mod handshake;
mod pieces;
mod send_list;
mod separate;
#[cfg(test)]
mod tests;
mod work;

/// How a session ended on the instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// The server or the client ended it.
    Success,
    /// It failed, and the client gets this text.
    Failed(String),
}

/// The delays of an SSM agent and the size of its messages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// The most bytes in a message.
    pub(crate) payload: usize,
    /// The pause after each message of output.
    pub(crate) pace: Duration,
    /// How long until a crash of the worker process is noticed.
    pub(crate) refusal_delay: Duration,
    /// How long it waits before it reports that a program cannot be started.
    pub(crate) error_delay: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { payload: PAYLOAD, pace: PACE, refusal_delay: REFUSAL_DELAY, error_delay: ERROR_DELAY }
    }
}

pub(crate) struct SsmAgent {
    channel: DataChannel,
    behaviour: Behaviour,
    work: Option<Work>,
    /// How many bytes of the channel's input are written to the server.
    written: usize,
    received: u64,
    next_output: Option<Instant>,
    /// When the port will be connected.
    connects_at: Option<Instant>,
    failing: Option<Failing>,
    ending: Option<Ending>,
    crashed_at: Option<Instant>,
    session_type: &'static str,
    knows_session_type: bool,
    verdict: Option<Verdict>,
}

/// A command that could not be started, to be reported later.
struct Failing {
    at: Instant,
    error_output: String,
    output: String,
}

/// The end of the session: when the last messages are acknowledged, or at a time limit.
struct Ending {
    earliest: Instant,
    until: Instant,
    verdict: Verdict,
}

impl SsmAgent {
    pub(crate) fn new(
        version: SsmAgentVersion,
        purpose: &Purpose,
        behaviour: Behaviour,
        origin: Origin,
    ) -> Self {
        let (session_type, properties) = match purpose {
            Purpose::Command(_) | Purpose::SeparateCommand(_) => ("NonInteractiveCommands", Value::Null),
            Purpose::Port(port) => (PORT, json!({ "portNumber": port.to_string() })),
        };
        let session = SessionType { session_type: session_type.to_owned(), properties };
        Self {
            channel: DataChannel::new(version, session, origin),
            behaviour,
            work: None,
            written: 0,
            received: 0,
            next_output: None,
            connects_at: None,
            failing: None,
            ending: None,
            crashed_at: None,
            session_type,
            knows_session_type: version.knows_session_type(session_type),
            verdict: None,
        }
    }

    /// How the session ended, once it has.
    pub(crate) fn verdict(&self) -> Option<&Verdict> {
        self.verdict.as_ref()
    }

    /// Joins the session. If this version does not support the session's type, no handshake begins.
    pub(crate) fn start(&mut self, now: Instant) {
        if self.knows_session_type {
            self.channel.start(now);
        }
    }

    /// Its websocket is lost and replaced.
    pub(crate) fn reconnect(&mut self) {
        self.channel.reconnect();
    }

    /// Ends a session whose type this version does not support, once a client is there to receive the reason.
    pub(crate) fn check_session_type(&mut self) {
        if !self.knows_session_type {
            let kind = self.session_type;
            self.end(Verdict::Failed(format!(
                "Plugin with name {kind} is not supported by this version of ssm agent, please update to latest \
                 version. Step name: {kind}"
            )));
        }
    }

    /// Ends at once, because TerminateSession was called. The gateway sends the client `channel_closed`.
    pub(crate) fn terminate(&mut self) {
        self.end(Verdict::Success);
    }

    fn end(&mut self, verdict: Verdict) {
        self.work = None;
        self.verdict.get_or_insert(verdict);
    }

    /// Ends when everything is acknowledged, or after [`TAIL_TIME`].
    fn end_after_tail(&mut self, now: Instant, verdict: Verdict) {
        self.work = None;
        let (earliest, until) = (now + CLOSING_TIME, now + TAIL_TIME);
        self.ending.get_or_insert(Ending { earliest, until, verdict });
    }

    /// Whether it reads the next message: not while the server reads none, nor after an interrupt until the
    /// command has ended.
    pub(crate) fn is_reading(&self) -> bool {
        self.channel.is_reading()
    }

    /// A message from the gateway.
    ///
    /// # Errors
    /// The message cannot be read.
    pub(crate) fn receive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        record: Bytes,
    ) -> Result<(), MessageError> {
        self.channel.handle_message(now, record)?;
        self.poll_input(cx, now);
        Ok(())
    }

    /// The next message for the gateway.
    pub(crate) fn next_record(&mut self) -> Option<Bytes> {
        self.channel.poll_transmit()
    }

    /// Moves bytes between the channel and the work, and handles what is due; true if anything happened.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>, now: Instant, start: impl FnOnce() -> Start) -> bool {
        self.channel.handle_timeout(now);
        let mut moved = self.handle_events(now, start);
        if self.connects_at.take_if(|at| *at <= now).is_some() {
            self.channel.connect();
            moved = true;
        }
        moved |= self.poll_program(cx);
        moved |= self.poll_separate(cx, now);
        moved |= self.poll_input(cx, now);
        moved |= self.poll_output(cx, now);
        moved | self.run_schedule(now)
    }

    /// When to call [`poll`](Self::poll) next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let crash = self.crashed_at.map(|at| at + self.behaviour.refusal_delay);
        let failing = self.failing.as_ref().map(|failing| failing.at);
        let drained = self.channel.is_drained();
        let ending = self.ending.as_ref().map(|it| if drained { it.earliest } else { it.until });
        // All else that holds output back ends with a message.
        let output = self.next_output.filter(|_| self.channel.is_active());
        let timers = [self.channel.poll_timeout(), crash, failing, ending, self.connects_at, output];
        timers.into_iter().flatten().min()
    }

    fn run_schedule(&mut self, now: Instant) -> bool {
        if let Some(failing) = self.failing.take_if(|failing| failing.at <= now) {
            self.channel.send(now, PayloadType::ErrorOutput, failing.error_output.as_bytes());
            self.end_after_tail(now, Verdict::Failed(failing.output));
            return true;
        }
        let drained = self.channel.is_drained();
        if let Some(ending) = self.ending.take_if(|it| drained && it.earliest <= now || it.until <= now) {
            self.end(ending.verdict);
        }
        if self.crashed_at.is_some_and(|at| at + self.behaviour.refusal_delay <= now) {
            self.end(Verdict::Failed(WORKER_CRASHED.to_owned()));
        }
        false
    }

    fn handle_events(&mut self, now: Instant, start: impl FnOnce() -> Start) -> bool {
        let mut start = Some(start);
        let mut moved = false;
        while let Some(event) = self.channel.poll_event() {
            moved = true;
            match event {
                Event::Ready => {
                    if let Some(start) = start.take() {
                        self.begin(now, start());
                    }
                }
                Event::HandshakeFailed(output) => self.end_after_tail(now, Verdict::Failed(output)),
                // Only sessions to ports look at flags.
                Event::Flag(DISCONNECT_TO_PORT) if self.session_type == PORT => {
                    self.end(Verdict::Failed(String::new()));
                }
                Event::Flag(TERMINATE_SESSION) if self.session_type == PORT => {
                    self.end_after_tail(now, Verdict::Success);
                }
                Event::Flag(_) => {}
            }
        }
        moved
    }

    /// Its worker process dies.
    pub(crate) fn crash(&mut self, now: Instant) {
        self.channel.crash();
        self.work = None;
        self.crashed_at = Some(now);
    }

    fn begin(&mut self, now: Instant, start: Start) {
        let mut fail = |after, error_output: String, output| {
            self.failing = Some(Failing { at: now + after, error_output, output });
        };
        match start {
            Start::Connected(connection) => {
                self.work = Some(Work::Connection { connection, inbox: BytesMut::new() });
                self.connects_at = Some(now + DIAL_TIME);
                return;
            }
            Start::Refused => return self.crash(now),
            Start::Running(program) => self.work = Some(Work::Program(program)),
            Start::RunningSeparate(program) => self.work = Some(Work::Separate(Separate::new(program))),
            Start::Blank => fail(BLANK_DELAY, String::new(), BLANK.to_owned()),
            Start::Unparsable(reason) => {
                let text = format!("Unable to start command: Failed to parse commands input: {reason}\n\n");
                fail(3 * self.behaviour.error_delay, text.clone(), format!("{}{text}", handshake::ERROR));
            }
            Start::NotStarted { text, separate } => {
                fail(self.behaviour.error_delay, text, String::new());
                if separate {
                    self.send_exit_status(now, 1);
                }
            }
        }
        self.channel.connect();
    }
}

const PORT: &str = "Port";
const DISCONNECT_TO_PORT: u32 = 1;
const TERMINATE_SESSION: u32 = 2;
/// `StreamDataPayloadSize` in `agent/session/config/config.go`.
const PAYLOAD: usize = 1024;
/// It sleeps for a millisecond after each read.
const PACE: Duration = Duration::from_millis(1);
/// A crash of the worker is noticed when its channel to the parent process times out.
const REFUSAL_DELAY: Duration = Duration::from_secs(60);
/// It sleeps for a second before it sends the error of a command, and for two more if the command could not
/// be parsed.
const ERROR_DELAY: Duration = Duration::from_secs(1);
/// Enough for the client's first messages to be acknowledged.
const BLANK_DELAY: Duration = Duration::from_millis(10);
/// The time from the end of the handshake to an open connection to the port. Data that arrives meanwhile is
/// refused.
const DIAL_TIME: Duration = Duration::from_millis(3);
/// The least time that it takes to end.
const CLOSING_TIME: Duration = Duration::from_millis(10);
/// How long it waits for acknowledgements at the end of a session.
const TAIL_TIME: Duration = Duration::from_secs(2);
const BLANK: &str = "Commands cannot be empty for session type NonInteractiveCommands";
const WORKER_CRASHED: &str = "document process failed unexpectedly: ipc messaging received timeout signal , check \
                              [ssm-document-worker]/[ssm-session-worker] log for crash reason";
