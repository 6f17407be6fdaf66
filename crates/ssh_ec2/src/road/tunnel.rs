//! The event loop of a connection: a channel between a websocket and the two streams of ssh.
//!
//! One task, one owner, no queue between tasks. Each pass tries every door without waiting at any, until none
//! moves; then the loop sleeps until one can. A closed door is all the backpressure there is: input is not
//! read while the channel's window is full, and the websocket is not read while ssh does not read what came.
//!
//! The loop does not know AWS. A closure gets another websocket for a lost one, and a future stops the loop.

mod deadlines;
mod link;
mod liveness;
mod pipes;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ssm_channel::{Channel, Event, SsmAgentVersion};
use tokio::time::{Instant, Sleep, sleep_until};

use self::deadlines::Notes;
use self::link::Link;
use self::pipes::{Pipes, Reading, Writing};
use crate::net::websocket::WebSocket;
use crate::road::stdio::{Input, Output};

/// A websocket and the token that opens a channel on it.
pub struct Attachment<T> {
    /// The websocket, on which nothing was sent yet.
    pub socket: WebSocket,
    /// The token for the first message.
    pub token: T,
}

/// A future that gets another websocket, or the reason why there can be none.
pub type Resume<'a, T, E> = Pin<Box<dyn Future<Output = Result<Attachment<T>, E>> + 'a>>;

/// The local end to which the session is joined.
pub enum Local {
    /// One stream each way.
    Pipes {
        /// Bytes for the instance.
        input: Input,
        /// Bytes from the instance.
        output: Output,
    },
}

/// Something that a user may want to know while the tunnel runs.
#[derive(Debug, Eq, PartialEq)]
pub enum Notice {
    /// The SSM agent has completed the handshake.
    Ready {
        /// From the handshake.
        agent_version: Option<SsmAgentVersion>,
        /// The administrator's text, often empty.
        customer_message: String,
    },
    /// The first bytes came back; they are sshd's greeting.
    FirstBytes(Bytes),
    /// The websocket is lost; another one is being opened.
    Lost,
    /// The websocket has been lost for some seconds.
    StillLost,
    /// Another websocket is attached.
    Resumed,
    /// Nothing has come back since the handshake.
    NothingAnswers,
    /// Nothing has come from the SSM agent since the session was started.
    NothingComes,
    /// Nothing comes from the SSM agent any more, although there are messages that it should acknowledge.
    FallenSilent,
    /// Standard error of a command, or the reason why the command could not be started.
    ErrorOutput(Bytes),
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum End<S, E> {
    /// The session ended by itself.
    Closed(Closed),
    /// ssh closed its end, and everything was delivered.
    InputEnded,
    /// Writing to ssh failed, usually because ssh does not read any more.
    OutputBroken(io::Error),
    /// Reading from ssh failed.
    InputBroken(io::Error),
    /// `stop` was ready.
    Stopped(S),
    /// A lost websocket could not be replaced.
    Lost(E),
}

/// How a session ended by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Closed {
    /// The SSM agent or the service ended it.
    ByPeer {
        /// Their text, often empty.
        reason: String,
    },
    /// The SSM agent did not complete the handshake in time.
    NeverReady,
    /// Nothing was acknowledged for minutes.
    NoProgress,
    /// The SSM agent asked for something that this client does not support.
    Refused {
        /// The name of it.
        reason: String,
    },
    /// This side requested the end, and the peer ended the session or did not answer.
    Terminated,
}

impl From<ssm_channel::Closed> for Closed {
    fn from(closed: ssm_channel::Closed) -> Self {
        use ssm_channel::Closed::{ByGateway, HandshakeFailed, HandshakeTimeout, NoProgress, Terminated};
        match closed {
            ByGateway { output: reason } => Self::ByPeer { reason },
            HandshakeFailed { output: reason } => Self::Refused { reason },
            HandshakeTimeout => Self::NeverReady,
            NoProgress => Self::NoProgress,
            Terminated { .. } => Self::Terminated,
        }
    }
}

/// How a tunnel ended, and what was seen before.
#[derive(Debug)]
pub struct Outcome<S, E> {
    /// The first of the possible ends that happened.
    pub end: End<S, E>,
    /// The observations up to the end.
    pub(crate) observed: Observed,
}

impl<S, E> Outcome<S, E> {
    /// The outcome of a tunnel that was stopped before it began.
    pub(crate) fn stopped(reason: S) -> Self {
        Self { end: End::Stopped(reason), observed: Observed::default() }
    }
}

/// What a tunnel has seen of its session.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// When the websocket was open. None if the tunnel never began.
    pub opened_at: Option<Instant>,
    /// When the SSM agent completed the handshake, if it did.
    pub ready_at: Option<Instant>,
    /// From the handshake.
    pub agent_version: Option<SsmAgentVersion>,
    /// When the first bytes came from the instance, if any came.
    pub first_bytes_at: Option<Instant>,
    /// Bytes from the instance.
    pub received: u64,
    /// Whether [`Notice::NothingAnswers`] was given.
    pub is_silence_noted: bool,
}

/// Carries bytes until an [`End`]. In every case the peer was asked to end the session if that was possible;
/// the caller must end it at AWS.
pub async fn run<'a, T, S, E>(
    channel: Channel,
    first: Attachment<T>,
    local: Local,
    stop: impl Future<Output = S>,
    resume: impl FnMut() -> Resume<'a, T, E>,
    notice: impl FnMut(Notice),
) -> Outcome<S, E>
where
    T: AsRef<str> + 'a,
    E: 'a,
{
    let mut tunnel = Tunnel::new(channel, first, local, resume, notice);
    let mut stop = pin!(stop);
    let mut stopped = false;
    let end = poll_fn(|cx| {
        if !stopped && let Poll::Ready(reason) = stop.as_mut().poll(cx) {
            stopped = true;
            tunnel.finish(cx, End::Stopped(reason));
        }
        tunnel.poll(cx)
    })
    .await;
    tunnel.link.close().await;
    Outcome { end, observed: tunnel.observed }
}

struct Tunnel<'a, T, S, E, R, N> {
    channel: Channel,
    link: Link<'a, T, E>,
    resume: R,
    notice: N,
    pipes: Pipes,
    state: State,
    /// The end that was decided but not reached yet.
    end: Option<End<S, E>>,
    observed: Observed,
    notes: Notes,
    timer: Pin<Box<Sleep>>,
    started_at: Instant,
    /// The last time that nothing was read from the websocket because ssh read too slowly.
    excused_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Running,
    /// ssh closed its end. The bytes that it sent are still delivered, and the bytes that come back are
    /// passed to it, for some seconds.
    InputEnded {
        since: Instant,
    },
    /// The peer was asked to end the session.
    Ending,
    /// The channel is closed; ssh gets the remaining bytes.
    Draining {
        until: Instant,
    },
}

impl<'a, T, S, E, R, N> Tunnel<'a, T, S, E, R, N>
where
    T: AsRef<str> + 'a,
    E: 'a,
    R: FnMut() -> Resume<'a, T, E>,
    N: FnMut(Notice),
{
    fn new(mut channel: Channel, first: Attachment<T>, local: Local, resume: R, notice: N) -> Self {
        let now = Instant::now();
        let Local::Pipes { input, output } = local;
        Self {
            link: Link::new(now, &mut channel, first),
            channel,
            resume,
            notice,
            pipes: Pipes::new(now, input, output),
            state: State::Running,
            end: None,
            observed: Observed { opened_at: Some(now), ..Observed::default() },
            notes: Notes::default(),
            timer: Box::pin(sleep_until(now)),
            started_at: now,
            excused_at: now,
        }
    }

    /// Tries every door until none moves.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<S, E>> {
        loop {
            let now = Instant::now();
            self.link.observe(now);
            // Tried first, since it may open a door.
            self.channel.handle_timeout(now.into_std());
            let mut moved = self.poll_resumed(cx, now);
            moved |= self.link.poll_in(cx, now, &mut self.channel);
            moved |= self.poll_events(now);
            moved |= self.poll_local_in(cx, now);
            moved |= self.link.poll_out(cx, now, &mut self.channel);
            moved |= self.poll_local_out(cx, now);
            moved |= self.poll_deadline(cx, now);
            if self.is_over(now) {
                let end = self.end.take().unwrap_or(End::InputEnded);
                return Poll::Ready(end);
            }
            if !moved {
                return Poll::Pending;
            }
        }
    }

    fn is_over(&self, now: Instant) -> bool {
        match self.state {
            State::Running | State::InputEnded { .. } => matches!(self.end, Some(End::Lost(_))),
            State::Ending => self.channel.is_closed(),
            State::Draining { until } => {
                (self.pipes.is_written() && self.channel.backlog() == 0) || now >= until
            }
        }
    }

    fn is_ending(&self) -> bool {
        matches!(self.state, State::Ending | State::Draining { .. })
    }

    /// Begins to end the tunnel: delivers the bytes that ssh wrote before, and asks the peer to end the
    /// session.
    fn finish(&mut self, cx: &mut Context<'_>, end: End<S, E>) {
        let now = Instant::now();
        if self.is_ending() {
            return;
        }
        // ssh writes its disconnect message before it sends its signal, so the message is in the pipe by now.
        if self.state == State::Running {
            while self.poll_local_in(cx, now) && self.state == State::Running {}
        }
        self.begin_end(now, end);
    }

    fn begin_end(&mut self, now: Instant, end: End<S, E>) {
        self.end.get_or_insert(end);
        self.state = State::Ending;
        self.channel.terminate(now.into_std());
    }

    fn poll_resumed(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.is_ending() {
            return false;
        }
        match self.link.poll_resumed(cx, now, &mut self.channel, &mut self.notice) {
            Poll::Pending => false,
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(error)) => {
                self.end.get_or_insert(End::Lost(error));
                false
            }
        }
    }

    fn poll_events(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(bytes) = self.channel.read_error() {
            moved = true;
            (self.notice)(Notice::ErrorOutput(bytes));
        }
        while let Some(event) = self.channel.poll_event() {
            moved = true;
            match event {
                Event::Ready { agent_version, customer_message, .. } => {
                    self.observed.ready_at = Some(now);
                    self.observed.agent_version = agent_version;
                    (self.notice)(Notice::Ready { agent_version, customer_message });
                }
                Event::NeedsResume => {
                    (self.notice)(Notice::Lost);
                    self.link.wait_for(now, (self.resume)());
                }
                Event::ExitStatus(status) => tracing::debug!(status, "the command has ended"),
                Event::Flag(flag) => tracing::debug!(?flag, "the SSM agent set a flag"),
                Event::Closed(closed) => {
                    let asked = self.state == State::Ending;
                    self.end.get_or_insert(End::Closed(closed.into()));
                    if !asked {
                        self.state = State::Draining { until: now + DRAIN_TIMEOUT };
                    }
                }
            }
        }
        moved
    }

    fn poll_local_in(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.state != State::Running {
            return false;
        }
        match self.pipes.poll_in(cx, now, &mut self.channel) {
            Reading::Open { moved } => moved,
            Reading::Ended => {
                tracing::debug!("ssh closed its end");
                self.state = State::InputEnded { since: now };
                true
            }
            Reading::Broken(error) => {
                self.begin_end(now, End::InputBroken(error));
                true
            }
        }
    }

    fn poll_local_out(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Self { pipes, channel, observed, notice, .. } = self;
        match pipes.poll_out(cx, now, channel, observed, notice) {
            Writing::Open { moved } => moved,
            Writing::Broken(error) => {
                if !self.is_ending() {
                    self.begin_end(now, End::OutputBroken(error));
                } else if matches!(self.end, Some(End::InputEnded | End::Closed(Closed::Terminated))) {
                    self.end = Some(End::OutputBroken(error));
                }
                true
            }
        }
    }
}

/// When so many bytes for ssh wait in the channel, the websocket is not read. Generous, since
/// acknowledgements come through the same websocket. Not reading is the only way to slow the SSM agent down
/// that loses no time: messages without an acknowledgement it repeats at ten a second.
const BACKLOG_LIMIT: usize = 2 * 1024 * 1024;
/// How long to wait for acknowledgements of the sent messages, and for ssh to read the received bytes.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
