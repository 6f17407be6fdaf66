//! The running loop: a channel between a websocket and the two streams of ssh.
//!
//! One task, one owner, no queue between tasks. Each pass tries every door without waiting at any, until none
//! moves; then the loop sleeps until one can. A closed door is all the backpressure there is: input is not read
//! while the channel's window is full, and the websocket is not read while ssh does not take what came.
//!
//! The loop does not know AWS. What a lost websocket needs comes from a closure, and why to stop from a future.

mod liveness;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Buf, Bytes};
use futures_util::{Sink, Stream};
use ssm_channel::{Channel, Closed, Draft, Event, MessageId, Origin, Outgoing, Side, SsmAgentVersion};
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_tungstenite::tungstenite::Message;

use self::liveness::Liveness;
use crate::net::websocket::WebSocket;
use crate::road::stdio::{self, Input, Output};

/// A websocket and the token that opens a channel on it.
pub struct Attachment<T> {
    /// Connected, nothing sent yet.
    pub socket: WebSocket,
    /// What the first message presents.
    pub token: T,
}

/// A future that gets another websocket, or says why there can be none.
pub type Resume<'a, T, E> = Pin<Box<dyn Future<Output = Result<Attachment<T>, E>> + 'a>>;

/// Something that a user may want to know while the tunnel runs.
#[derive(Debug, Eq, PartialEq)]
pub enum Notice {
    /// The session is open.
    Ready {
        /// As the handshake told.
        agent_version: Option<SsmAgentVersion>,
        /// The administrator's text, often empty.
        customer_message: String,
    },
    /// The first bytes came back; they are sshd's greeting.
    FirstBytes(Bytes),
    /// The websocket is lost; a new one is being made.
    Lost,
    /// It has been lost for a while.
    StillLost,
    /// There is a new one.
    Resumed,
    /// Nothing has come back since the session opened.
    NothingAnswers,
    /// Nothing has come from the SSM agent since the session was started.
    NothingComes,
    /// Nothing comes from the SSM agent any more, although something waits for its answer.
    FallenSilent,
    /// Standard error of a command, or why it could not be started.
    ErrorOutput(Bytes),
}

/// How a tunnel ended.
#[derive(Debug)]
pub enum End<S, E> {
    /// The channel ended by itself.
    Closed(Closed),
    /// ssh closed its end, and everything was delivered.
    InputEnded,
    /// ssh does not read any more.
    OutputBroken,
    /// Reading from ssh failed.
    InputBroken(io::Error),
    /// `stop` said so.
    Stopped(S),
    /// No new websocket could be had.
    Lost(E),
}

/// What went through a tunnel, and how it ended.
#[derive(Debug)]
pub struct Outcome<S, E> {
    /// Why it ended.
    pub end: End<S, E>,
    /// Bytes from the instance.
    pub received: u64,
}

/// The client's side of a session that was just started.
///
/// # Errors
/// When the system gives no random bytes.
pub fn client_channel() -> Result<Channel, getrandom::Error> {
    let mut random = [0; 24];
    getrandom::fill(&mut random)?;
    let mut id: [u8; 16] = std::array::from_fn(|at| random[at]);
    let seed: [u8; 8] = std::array::from_fn(|at| random[16 + at]);
    // A UUID of version 4.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let origin = Origin { seed: u64::from_le_bytes(seed), unix_time, now: std::time::Instant::now() };
    Ok(Channel::new(Side::Client { client_id: MessageId::from_bytes(id).to_string() }, origin))
}

/// Carries bytes until one of the ends of [`End`]. Whatever the end, the peer was asked to end the session if it
/// could be asked; the API is the caller's.
pub async fn run<'a, T, S, E>(
    channel: Channel,
    first: Attachment<T>,
    local: (Input, Output),
    stop: impl Future<Output = S>,
    resume: impl FnMut() -> Resume<'a, T, E>,
    notice: impl FnMut(Notice),
) -> Outcome<S, E>
where
    T: AsRef<str> + 'a,
    E: 'a,
{
    let now = Instant::now();
    let mut tunnel = Tunnel {
        channel,
        link: Link::Down { resuming: Box::pin(std::future::pending()), since: now, told: true },
        resume,
        notice,
        input: local.0,
        output: local.1,
        draft: Draft::with_capacity(DRAFT_ALLOCATION),
        outbox: VecDeque::new(),
        received: 0,
        state: State::Running,
        end: None,
        timer: Box::pin(sleep_until(now)),
        started_at: now,
        ready_at: None,
        told_silence: false,
        told_delay: false,
        told_stop: false,
        excused_at: now,
        progress_at: now,
        fruitless: 0,
    };
    tunnel.attach(now, first);
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
    if let Link::Up { socket, .. } = &mut tunnel.link {
        // The service learns from the API; this only spares it a broken connection.
        let _ = timeout(CLOSE_TIMEOUT, (**socket).close(None)).await;
    }
    Outcome { end, received: tunnel.received }
}

struct Tunnel<'a, T, S, E, R, N> {
    channel: Channel,
    link: Link<'a, T, E>,
    resume: R,
    notice: N,
    input: Input,
    output: Output,
    draft: Draft,
    /// Taken from the channel, being written to ssh.
    outbox: VecDeque<Bytes>,
    received: u64,
    state: State,
    /// Decided, but not reached yet.
    end: Option<End<S, E>>,
    timer: Pin<Box<Sleep>>,
    started_at: Instant,
    ready_at: Option<Instant>,
    told_silence: bool,
    told_delay: bool,
    told_stop: bool,
    /// The last time that ssh took so little that nothing was read from the websocket.
    excused_at: Instant,
    /// When bytes last went to ssh.
    progress_at: Instant,
    /// How many websockets in a row were lost before a message came.
    fruitless: u32,
}

enum Link<'a, T, E> {
    Up { socket: Box<WebSocket>, unflushed: bool, liveness: Liveness },
    Down { resuming: Resume<'a, T, E>, since: Instant, told: bool },
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    Running,
    /// ssh closed its end; what it sent is delivered and what comes back is relayed, for a while.
    InputEnded {
        since: Instant,
    },
    /// The peer was asked to end the session.
    Ending,
    /// The channel is closed; ssh gets what is left.
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
    /// Tries every door until none moves.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End<S, E>> {
        loop {
            let now = Instant::now();
            if let Link::Up { liveness, .. } = &mut self.link {
                liveness.observe(now, SystemTime::now());
            }
            // First, since it may open a door.
            self.channel.handle_timeout(now.into_std());
            let mut moved = self.poll_link(cx, now);
            moved |= self.poll_net_in(cx, now);
            moved |= self.poll_events(now);
            moved |= self.poll_local_in(cx, now);
            moved |= self.poll_net_out(cx, now);
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
                (self.outbox.is_empty() && self.channel.backlog() == 0) || now >= until
            }
        }
    }

    /// Begins the end: delivers what ssh wrote before, and asks the peer to end the session.
    fn finish(&mut self, cx: &mut Context<'_>, end: End<S, E>) {
        let now = Instant::now();
        if matches!(self.state, State::Ending | State::Draining { .. }) {
            return;
        }
        // ssh's parting message is in the pipe when its signal comes.
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

    // ---- the doors ----

    /// The way to a new websocket, while there is none.
    fn poll_link(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Link::Down { resuming, since, told } = &mut self.link else { return false };
        if matches!(self.state, State::Ending | State::Draining { .. }) {
            return false;
        }
        if !*told && now >= *since + TELL_LOST_AFTER {
            *told = true;
            (self.notice)(Notice::StillLost);
        }
        match resuming.as_mut().poll(cx) {
            Poll::Pending => false,
            Poll::Ready(Ok(attachment)) => {
                (self.notice)(Notice::Resumed);
                self.attach(now, attachment);
                true
            }
            Poll::Ready(Err(error)) => {
                self.end.get_or_insert(End::Lost(error));
                false
            }
        }
    }

    fn attach(&mut self, now: Instant, attachment: Attachment<T>) {
        self.channel.attach(now.into_std(), attachment.token.as_ref());
        self.fruitless = self.fruitless.saturating_add(1);
        self.link = Link::Up {
            socket: Box::new(attachment.socket),
            unflushed: false,
            liveness: Liveness::new(now, SystemTime::now()),
        };
    }

    fn lose_link(&mut self, now: Instant, why: &dyn std::fmt::Display) {
        tracing::debug!(%why, "websocket lost");
        self.channel.handle_closed(now.into_std());
        // After the end nobody has to be told.
        let told = self.channel.is_closed();
        self.link = Link::Down { resuming: Box::pin(std::future::pending()), since: now, told };
    }

    fn poll_net_in(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let mut received = 0;
        while received < RECEIVE_BATCH && self.channel.backlog() < BACKLOG_LIMIT {
            let Link::Up { socket, unflushed, liveness } = &mut self.link else { break };
            match Pin::new(socket.as_mut()).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => {
                    moved = true;
                    liveness.heard(now);
                    received += FRAME_COST + message.len();
                    match message {
                        Message::Binary(record) => {
                            self.fruitless = 0;
                            if let Err(error) = self.channel.handle_message(now.into_std(), record) {
                                tracing::warn!(%error, "a message from the gateway was dropped");
                            }
                        }
                        // The library has an answer ready; it leaves with the next flush.
                        Message::Ping(_) | Message::Close(_) => *unflushed = true,
                        Message::Pong(_) => liveness.answered(),
                        Message::Text(_) | Message::Frame(_) => {}
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.lose_link(now, &error);
                    return true;
                }
                Poll::Ready(None) => {
                    self.lose_link(now, &"closed by the gateway");
                    return true;
                }
            }
        }
        moved
    }

    fn poll_net_out(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        match self.try_net_out(cx, now) {
            Ok(moved) => moved,
            Err(error) => {
                self.lose_link(now, &error);
                true
            }
        }
    }

    /// Feeds everything that is ready, then flushes once.
    fn try_net_out(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
    ) -> Result<bool, tokio_tungstenite::tungstenite::Error> {
        let Link::Up { socket, unflushed, liveness } = &mut self.link else { return Ok(false) };
        let mut socket = Pin::new(socket.as_mut());
        let mut moved = false;
        while socket.as_mut().poll_ready(cx)?.is_ready() {
            let message = if liveness.take_ping(now) {
                Message::Ping(Bytes::new())
            } else {
                match self.channel.poll_transmit(now.into_std()) {
                    Some(Outgoing::Open(text)) => Message::text(text),
                    Some(Outgoing::Record(record)) => Message::Binary(record),
                    None => break,
                }
            };
            socket.as_mut().start_send(message)?;
            *unflushed = true;
            moved = true;
        }
        if *unflushed && socket.poll_flush(cx)?.is_ready() {
            *unflushed = false;
        }
        Ok(moved)
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
                    self.ready_at = Some(now);
                    (self.notice)(Notice::Ready { agent_version, customer_message });
                }
                Event::NeedsResume => {
                    (self.notice)(Notice::Lost);
                    let resuming = after(delay(self.fruitless), (self.resume)());
                    self.link = Link::Down { resuming, since: now, told: false };
                }
                Event::ExitStatus(status) => tracing::debug!(status, "the command has ended"),
                Event::Flag(flag) => tracing::debug!(?flag, "the SSM agent set a flag"),
                Event::Closed(reason) => {
                    let asked = self.state == State::Ending;
                    self.end.get_or_insert(End::Closed(reason));
                    if !asked {
                        self.state = State::Draining { until: now + DRAIN_TIMEOUT };
                    }
                }
            }
        }
        moved
    }

    fn poll_local_in(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        while self.state == State::Running && self.channel.send_capacity() > 0 {
            let limit = self.channel.payload_limit();
            match stdio::poll_read(&mut self.input, cx, &mut self.draft.room(limit)) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => {
                    tracing::debug!("ssh closed its end");
                    self.state = State::InputEnded { since: now };
                    moved = true;
                }
                Poll::Ready(Ok(_)) => {
                    moved = true;
                    if self.channel.send(now.into_std(), &mut self.draft).is_err() {
                        // Checked above; a draft that is not taken stays and grows the next message.
                        break;
                    }
                }
                Poll::Ready(Err(error)) => {
                    self.begin_end(now, End::InputBroken(error));
                    return true;
                }
            }
        }
        moved
    }

    fn poll_local_out(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        loop {
            while self.outbox.len() < SLICES
                && let Some(bytes) = self.channel.read()
            {
                if self.received == 0 {
                    (self.notice)(Notice::FirstBytes(bytes.clone()));
                }
                self.received += bytes.len() as u64;
                self.outbox.push_back(bytes);
            }
            if self.outbox.is_empty() {
                return moved;
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            for (slice, bytes) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(bytes);
            }
            match stdio::poll_write(&mut self.output, cx, &slices[..self.outbox.len()]) {
                Poll::Pending => return moved,
                Poll::Ready(Ok(written)) if written > 0 => {
                    moved = true;
                    self.progress_at = now;
                    self.forget_written(written);
                }
                // ssh is gone: whatever still comes has no reader.
                Poll::Ready(_) => {
                    self.outbox.clear();
                    while self.channel.read().is_some() {}
                    if !matches!(self.state, State::Ending | State::Draining { .. }) {
                        self.begin_end(now, End::OutputBroken);
                    }
                    return true;
                }
            }
        }
    }

    fn forget_written(&mut self, mut written: usize) {
        while let Some(front) = self.outbox.front_mut() {
            if written < front.len() {
                front.advance(written);
                return;
            }
            written -= front.len();
            self.outbox.pop_front();
        }
    }

    // ---- time ----

    fn poll_deadline(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if let Link::Up { liveness, .. } = &mut self.link {
            if self.channel.backlog() >= BACKLOG_LIMIT {
                liveness.excuse(now);
                self.excused_at = now;
            } else if now >= liveness.dead_at() {
                self.lose_link(now, &"the gateway is silent");
                return true;
            }
        }
        if self.nothing_answers_at().is_some_and(|at| now >= at) {
            self.told_silence = true;
            (self.notice)(Notice::NothingAnswers);
        }
        if self.nothing_comes_at().is_some_and(|at| now >= at) {
            self.told_delay = true;
            (self.notice)(Notice::NothingComes);
        }
        if self.fallen_silent_at().is_some_and(|at| now >= at) {
            self.told_stop = true;
            (self.notice)(Notice::FallenSilent);
        }
        if self.lingers_until().is_some_and(|until| now >= until) {
            self.begin_end(now, End::InputEnded);
            return true;
        }
        let Some(next) = self.next_deadline() else { return false };
        if self.timer.deadline() != next {
            self.timer.as_mut().reset(next);
        }
        self.timer.as_mut().poll(cx).is_ready()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let link = match &self.link {
            Link::Up { liveness, .. } => Some(liveness.next_deadline()),
            Link::Down { since, told: false, .. } => Some(*since + TELL_LOST_AFTER),
            Link::Down { .. } => None,
        };
        let drained = match self.state {
            State::Draining { until } => Some(until),
            _ => None,
        };
        let channel = self.channel.poll_timeout().map(Instant::from_std);
        let told = self.nothing_answers_at().into_iter().chain(self.nothing_comes_at());
        let told = told.chain(self.fallen_silent_at());
        [link, drained, channel, self.lingers_until()].into_iter().flatten().chain(told).min()
    }

    /// The SSM agent says nothing when the port refuses it; ssh's banner then stays unacknowledged.
    fn nothing_answers_at(&self) -> Option<Instant> {
        if self.told_silence || self.received > 0 {
            return None;
        }
        Some(self.ready_at? + TELL_SILENCE_AFTER)
    }

    fn nothing_comes_at(&self) -> Option<Instant> {
        let waits = !self.told_delay && self.ready_at.is_none() && self.state == State::Running;
        waits.then(|| self.started_at + TELL_SILENCE_AFTER)
    }

    /// When a session worker dies, the websocket stays open and the gateway still answers pings. The SSM
    /// agent reports it after a minute.
    fn fallen_silent_at(&self) -> Option<Instant> {
        let runs = matches!(self.state, State::Running | State::InputEnded { .. });
        if self.told_stop || self.received == 0 || !runs || matches!(self.link, Link::Down { .. }) {
            return None;
        }
        let silent_since = Instant::from_std(self.channel.silent_since()?);
        Some(silent_since.max(self.excused_at) + TELL_SILENCE_AFTER)
    }

    /// How long to go on after ssh closed its end. There is no half-close in the protocol: the session stays whole
    /// until what ssh sent is acknowledged, and then for as long as bytes come back.
    fn lingers_until(&self) -> Option<Instant> {
        let State::InputEnded { since } = self.state else { return None };
        let quiet_since = since.max(self.progress_at);
        let linger = quiet_since + LINGER;
        if self.channel.unacknowledged() > 0 { Some(linger.max(since + DRAIN_TIMEOUT)) } else { Some(linger) }
    }
}

/// How long to wait before another websocket, when so many in a row brought no message. A gateway that takes
/// an upgrade and then closes the websocket, as one does with a token that it does not accept, would
/// otherwise be asked for another as fast as it answers.
fn delay(fruitless: u32) -> Duration {
    let Some(doublings) = fruitless.checked_sub(1) else { return Duration::ZERO };
    2_u32.checked_pow(doublings).map_or(MAX_DELAY, |factor| FIRST_DELAY.saturating_mul(factor).min(MAX_DELAY))
}

fn after<'a, T: 'a, E: 'a>(delay: Duration, resuming: Resume<'a, T, E>) -> Resume<'a, T, E> {
    if delay.is_zero() {
        return resuming;
    }
    Box::pin(async move {
        sleep(delay).await;
        resuming.await
    })
}

/// Bytes for ssh that wait in the channel before the websocket is no longer read. Generous, since acknowledgements
/// come through the same door. Not reading is the only brake that loses no time: an SSM agent repeats what was
/// not acknowledged at ten messages a second.
const BACKLOG_LIMIT: usize = 2 * 1024 * 1024;
/// Several reads share one allocation.
const DRAFT_ALLOCATION: usize = 128 * 1024;
/// Bytes read in one pass. Enough for one flush of acknowledgements to serve many messages, and few enough that they
/// are still in the processor's cache when they go to ssh.
const RECEIVE_BATCH: usize = 128 * 1024;
/// A frame without content takes time, too.
const FRAME_COST: usize = 128;
/// Pieces for one write. The SSM agent sends 1 KiB at a time, a pipe takes 64 KiB.
const SLICES: usize = 64;
/// Shorter losses go unnoticed; a line on stderr would disturb a full-screen program.
const TELL_LOST_AFTER: Duration = Duration::from_secs(3);
/// sshd sends its banner at once, and an SSM agent acknowledges each message.
const TELL_SILENCE_AFTER: Duration = Duration::from_secs(5);
/// For what was sent to be acknowledged, and for ssh to take what was received.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Some programs close their end early and go on reading.
const LINGER: Duration = Duration::from_secs(5);
/// The pause after the first websocket that brought no message; it doubles with each further one, up to
/// [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// For a close frame that nobody waits for.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
