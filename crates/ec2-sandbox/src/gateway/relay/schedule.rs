//! Events of a session that happen at a time: the requested faults, and the end of an idle session.

use std::{
    future::Future,
    pin::Pin,
    task::Context,
    time::{Duration, Instant},
};

use futures_util::Sink;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::Relay;
use crate::gateway::record::gateway_record;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Loss {
    Close,
    Reset,
    TooLarge,
}

impl Relay {
    pub(super) fn run_schedule(&mut self, now: Instant) -> bool {
        let mut moved = false;
        if due(&mut self.attaches_at, now, None) {
            self.agent_attached = true;
            self.agent.start(now);
            moved = true;
        }
        if due(&mut self.next_agent_cut, now, self.faults.cut_agent_every) && self.agent_attached {
            self.to_agent.clear();
            self.agent.reconnect();
            self.agent_returns = Some(now + AGENT_AWAY);
            self.info.faults.add();
            self.publish_to_client("pause_publication", now);
            moved = true;
        }
        if due(&mut self.agent_returns, now, None) {
            self.publish_to_client("start_publication", now);
            moved = true;
        }
        if due(&mut self.crashes_at, now, None) {
            self.info.faults.add();
            self.agent.crash(now);
            moved = true;
        }
        if self.idles_at <= now {
            tracing::debug!(session = self.info.id, "the session is idle");
            self.agent.terminate();
            moved = true;
        }
        if due(&mut self.next_pause, now, self.faults.pause_every) {
            self.info.faults.add();
            self.publish_to_client("pause_publication", now);
            self.pause_ends = Some(now + PAUSE);
            moved = true;
        }
        if due(&mut self.pause_ends, now, None) {
            self.publish_to_client("start_publication", now);
            moved = true;
        }
        moved | self.run_losses(now)
    }

    fn run_losses(&mut self, now: Instant) -> bool {
        let close = due(&mut self.next_close, now, self.faults.close_every);
        let reset = due(&mut self.next_reset, now, self.faults.reset_every);
        if (close || reset) && self.client.is_some() && self.losing.is_none() {
            let loss = if reset { Loss::Reset } else { Loss::Close };
            self.to_client.swallow(self.faults.lose_tail);
            self.to_agent.swallow(self.faults.lose_tail);
            self.losing = Some((loss, now + TAIL_TIME));
        }
        let swallowed = self.to_client.has_swallowed() && self.to_agent.has_swallowed();
        match self.losing {
            Some((loss, until)) if swallowed || until <= now => {
                self.losing = None;
                self.lose(loss, now);
                true
            }
            _ => close || reset,
        }
    }

    pub(super) fn lose(&mut self, loss: Loss, now: Instant) {
        let Some(client) = &mut self.client else { return };
        self.info.faults.add();
        match loss {
            Loss::Close | Loss::TooLarge => {
                let frame = match loss {
                    Loss::TooLarge => CloseFrame { code: CloseCode::Size, reason: "too large".into() },
                    _ => CloseFrame { code: CloseCode::Normal, reason: "Bye".into() },
                };
                let _ = Pin::new(&mut client.socket).start_send(Message::Close(Some(frame)));
                client.unflushed = true;
                client.closing = true;
                self.to_client.clear();
            }
            Loss::Reset => {
                if let Err(error) = client.socket.get_ref().set_zero_linger() {
                    tracing::debug!(%error, "a connection is closed instead of reset");
                }
                self.lose_client();
                self.publish_to_agent("pause_publication", now);
            }
        }
    }

    pub(super) fn lose_client(&mut self) {
        self.client = None;
        self.to_client.clear();
    }

    pub(super) fn publish_to_agent(&mut self, message_type: &str, now: Instant) {
        if self.agent_attached {
            self.to_agent.push_own(now, gateway_record(message_type, b"", self.world.now()));
        }
    }

    pub(super) fn publish_to_client(&mut self, message_type: &str, now: Instant) {
        if self.client.is_some() {
            self.to_client.push_own(now, gateway_record(message_type, b"", self.world.now()));
        }
    }

    /// Arms the timer; true when it has already fired.
    pub(super) fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let arrivals = [self.to_client.next_arrival(), self.to_agent.next_arrival()];
        let schedule = [
            self.attaches_at,
            self.agent_returns,
            Some(self.idles_at),
            self.next_close,
            self.next_reset,
            self.next_agent_cut,
            self.next_pause,
            self.pause_ends,
            self.crashes_at,
            self.losing.map(|(_, until)| until),
        ];
        let agent = self.agent.next_deadline().filter(|_| self.agent_attached);
        let now = Instant::now();
        // An arrival that is already due waits for room, not for time.
        let future = arrivals.into_iter().flatten().filter(|at| *at > now);
        let Some(next) = future.chain(schedule.into_iter().flatten()).chain(agent).min() else {
            return false;
        };
        if self.timer.deadline() != next.into() {
            self.timer.as_mut().reset(next.into());
        }
        self.timer.as_mut().poll(cx).is_ready()
    }
}

/// Whether `at` has come. Then it is set to the next time, if the event repeats.
fn due(at: &mut Option<Instant>, now: Instant, every: Option<Duration>) -> bool {
    let is_due = at.is_some_and(|at| at <= now);
    if is_due {
        *at = every.map(|every| now + every);
    }
    is_due
}

/// A real one was back within 3 to 12 ms.
const AGENT_AWAY: Duration = Duration::from_millis(10);
/// How long publication is held back.
const PAUSE: Duration = Duration::from_millis(500);
/// The end of the wait for messages to lose, when fewer are sent.
const TAIL_TIME: Duration = Duration::from_millis(200);
