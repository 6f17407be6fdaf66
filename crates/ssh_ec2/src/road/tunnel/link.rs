//! The tunnel's side towards the gateway: a websocket, or the wait for another one.

use std::fmt::Display;
use std::future::pending;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{Sink, Stream};
use ssm_channel::{Channel, Outgoing};
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::liveness::Liveness;
use super::{Attachment, BACKLOG_LIMIT, Notice, Resume};
use crate::net::websocket::WebSocket;

pub(super) struct Link<'a, T, E> {
    state: State<'a, T, E>,
    /// How many websockets in a row were lost before any message came.
    fruitless: u32,
}

enum State<'a, T, E> {
    Up(Up),
    Down { resuming: Resume<'a, T, E>, since: Instant, is_noted: bool },
}

struct Up {
    socket: Box<WebSocket>,
    unflushed: bool,
    liveness: Liveness,
}

impl<'a, T: AsRef<str> + 'a, E: 'a> Link<'a, T, E> {
    /// Opens the channel on a first websocket.
    pub(super) fn new(now: Instant, channel: &mut Channel, first: Attachment<T>) -> Self {
        let state = State::Down { resuming: Box::pin(pending()), since: now, is_noted: true };
        let mut link = Self { state, fruitless: 0 };
        link.attach(now, channel, first);
        link
    }

    fn attach(&mut self, now: Instant, channel: &mut Channel, attachment: Attachment<T>) {
        channel.attach(now.into_std(), attachment.token.as_ref());
        self.fruitless = self.fruitless.saturating_add(1);
        self.state = State::Up(Up {
            socket: Box::new(attachment.socket),
            unflushed: false,
            liveness: Liveness::new(now, SystemTime::now()),
        });
    }

    fn lose(&mut self, now: Instant, channel: &mut Channel, why: &dyn Display) {
        tracing::debug!(%why, "websocket lost");
        channel.handle_closed(now.into_std());
        // After the end of the channel a lost websocket is expected.
        let is_noted = channel.is_closed();
        self.state = State::Down { resuming: Box::pin(pending()), since: now, is_noted };
    }

    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Waits for the websocket that `resuming` gets, after a pause if the last ones brought no message.
    pub(super) fn wait_for(&mut self, now: Instant, resuming: Resume<'a, T, E>) {
        let resuming = after(delay(self.fruitless), resuming);
        self.state = State::Down { resuming, since: now, is_noted: false };
    }

    /// Attaches another websocket as soon as there is one.
    pub(super) fn poll_resumed(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        channel: &mut Channel,
        notice: &mut impl FnMut(Notice),
    ) -> Poll<Result<(), E>> {
        let State::Down { resuming, since, is_noted } = &mut self.state else { return Poll::Pending };
        if !*is_noted && now >= *since + NOTE_LOSS_AFTER {
            *is_noted = true;
            notice(Notice::StillLost);
        }
        resuming.as_mut().poll(cx).map_ok(|attachment| {
            notice(Notice::Resumed);
            self.attach(now, channel, attachment);
        })
    }

    /// Passes the messages that have come to the channel, up to a limit. True if there was one.
    pub(super) fn poll_in(&mut self, cx: &mut Context<'_>, now: Instant, channel: &mut Channel) -> bool {
        let mut moved = false;
        let mut received = 0;
        while received < RECEIVE_BATCH && channel.backlog() < BACKLOG_LIMIT {
            let State::Up(Up { socket, unflushed, liveness }) = &mut self.state else { break };
            match Pin::new(socket.as_mut()).poll_next(cx) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(message))) => {
                    moved = true;
                    liveness.heard(now);
                    received += FRAME_COST + message.len();
                    match message {
                        Message::Binary(record) => {
                            self.fruitless = 0;
                            if let Err(error) = channel.handle_message(now.into_std(), record) {
                                tracing::warn!(%error, "a message from the gateway was dropped");
                            }
                        }
                        // The library has queued the answer; it leaves with the next flush.
                        Message::Ping(_) | Message::Close(_) => *unflushed = true,
                        Message::Pong(_) => liveness.answered(),
                        Message::Text(_) | Message::Frame(_) => {}
                    }
                }
                Poll::Ready(Some(Err(error))) => {
                    self.lose(now, channel, &error);
                    return true;
                }
                Poll::Ready(None) => {
                    self.lose(now, channel, &"closed by the gateway");
                    return true;
                }
            }
        }
        moved
    }

    /// Sends the messages that the channel has. True if there was one.
    pub(super) fn poll_out(&mut self, cx: &mut Context<'_>, now: Instant, channel: &mut Channel) -> bool {
        let State::Up(up) = &mut self.state else { return false };
        up.send(cx, now, channel).unwrap_or_else(|error| {
            self.lose(now, channel, &error);
            true
        })
    }

    /// Compares the clocks, to notice that the computer was asleep.
    pub(super) fn observe(&mut self, now: Instant) {
        if let State::Up(Up { liveness, .. }) = &mut self.state {
            liveness.observe(now, SystemTime::now());
        }
    }

    /// Restarts the timeout for silence: the websocket is not read now, so no bytes can come.
    pub(super) fn excuse(&mut self, now: Instant) {
        if let State::Up(Up { liveness, .. }) = &mut self.state {
            liveness.excuse(now);
        }
    }

    /// Drops the websocket if the gateway has been silent for too long. True if it did.
    pub(super) fn drop_if_dead(&mut self, now: Instant, channel: &mut Channel) -> bool {
        let is_dead = matches!(&self.state, State::Up(up) if now >= up.liveness.dead_at());
        if is_dead {
            self.lose(now, channel, &"the gateway is silent");
        }
        is_dead
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Up(up) => Some(up.liveness.next_deadline()),
            State::Down { since, is_noted: false, .. } => Some(*since + NOTE_LOSS_AFTER),
            State::Down { .. } => None,
        }
    }

    /// Closes the websocket. The service learns of the end from the API; this only spares it a broken
    /// connection.
    pub(super) async fn close(&mut self) {
        if let State::Up(up) = &mut self.state {
            let _ = timeout(CLOSE_TIMEOUT, (*up.socket).close(None)).await;
        }
    }
}

impl Up {
    /// Queues all messages that are ready, then flushes once.
    fn send(&mut self, cx: &mut Context<'_>, now: Instant, channel: &mut Channel) -> Result<bool, Error> {
        let mut socket = Pin::new(self.socket.as_mut());
        let mut moved = false;
        while socket.as_mut().poll_ready(cx)?.is_ready() {
            let message = if self.liveness.take_ping(now) {
                Message::Ping(Bytes::new())
            } else {
                match channel.poll_transmit(now.into_std()) {
                    Some(Outgoing::Open(text)) => Message::text(text),
                    Some(Outgoing::Record(record)) => Message::Binary(record),
                    None => break,
                }
            };
            socket.as_mut().start_send(message)?;
            self.unflushed = true;
            moved = true;
        }
        if self.unflushed && socket.poll_flush(cx)?.is_ready() {
            self.unflushed = false;
        }
        Ok(moved)
    }
}

/// How long to wait before the next websocket, after `fruitless` ones in a row brought no message. A gateway
/// that rejects a token accepts the upgrade and then closes the websocket; without a pause, attempts would
/// follow as fast as it answers.
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

/// The most bytes that are read in one pass. Enough for one flush of acknowledgements to serve many messages,
/// and few enough that they are still in the processor's cache when they go to ssh.
const RECEIVE_BATCH: usize = 128 * 1024;
/// The bytes that a frame counts for beside its content, since handling it takes time, too.
const FRAME_COST: usize = 128;
/// Shorter losses are not reported: a line on stderr would disturb a full-screen program.
const NOTE_LOSS_AFTER: Duration = Duration::from_secs(3);
/// The pause after the first websocket that brought no message; it doubles with each further one, up to
/// [`MAX_DELAY`].
const FIRST_DELAY: Duration = Duration::from_millis(100);
const MAX_DELAY: Duration = Duration::from_secs(5);
/// How long to wait for sending a close frame, on which nothing depends.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(200);
