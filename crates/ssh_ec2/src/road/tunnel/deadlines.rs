//! The tunnel's timers: notes for the user, and the end after ssh's input has ended.

use std::task::Context;
use std::time::Duration;

use tokio::time::Instant;

use super::{BACKLOG_LIMIT, DRAIN_TIMEOUT, End, Notice, Resume, State, Tunnel};

/// The notes that were printed, since each is printed once.
#[derive(Default)]
pub(super) struct Notes {
    no_beginning: bool,
    no_more: bool,
}

impl<'a, T, S, E, R, N> Tunnel<'a, T, S, E, R, N>
where
    T: AsRef<str> + 'a,
    E: 'a,
    R: FnMut() -> Resume<'a, T, E>,
    N: FnMut(Notice),
{
    pub(super) fn poll_deadline(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        if self.channel.backlog() >= BACKLOG_LIMIT && !self.link.is_down() {
            self.link.excuse(now);
            self.excused_at = now;
        } else if self.link.drop_if_dead(now, &mut self.channel) {
            return true;
        }
        self.note_silence(now);
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

    fn note_silence(&mut self, now: Instant) {
        if self.nothing_answers_at().is_some_and(|at| now >= at) {
            self.observed.is_silence_noted = true;
            (self.notice)(Notice::NothingAnswers);
        }
        if self.nothing_comes_at().is_some_and(|at| now >= at) {
            self.notes.no_beginning = true;
            (self.notice)(Notice::NothingComes);
        }
        if self.fallen_silent_at().is_some_and(|at| now >= at) {
            self.notes.no_more = true;
            (self.notice)(Notice::FallenSilent);
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let drained = match self.state {
            State::Draining { until } => Some(until),
            _ => None,
        };
        let deadlines = [
            self.link.next_deadline(),
            drained,
            self.channel.poll_timeout().map(Instant::from_std),
            self.lingers_until(),
            self.nothing_answers_at(),
            self.nothing_comes_at(),
            self.fallen_silent_at(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// The SSM agent sends nothing when the port refuses its connection; ssh's banner then stays
    /// unacknowledged.
    fn nothing_answers_at(&self) -> Option<Instant> {
        if self.observed.is_silence_noted || self.observed.received > 0 {
            return None;
        }
        Some(self.observed.ready_at? + NOTE_SILENCE_AFTER)
    }

    fn nothing_comes_at(&self) -> Option<Instant> {
        let waits =
            !self.notes.no_beginning && self.observed.ready_at.is_none() && self.state == State::Running;
        waits.then(|| self.started_at + NOTE_SILENCE_AFTER)
    }

    /// When a session worker dies, the websocket stays open and the gateway still answers pings. The SSM
    /// agent reports it after a minute.
    fn fallen_silent_at(&self) -> Option<Instant> {
        let runs = matches!(self.state, State::Running | State::InputEnded { .. });
        if self.notes.no_more || self.observed.received == 0 || !runs || self.link.is_down() {
            return None;
        }
        let silent_since = Instant::from_std(self.channel.silent_since()?);
        Some(silent_since.max(self.excused_at) + NOTE_SILENCE_AFTER)
    }

    /// How long to continue after ssh closed its end. The protocol has no half-close, so the session stays
    /// open until all bytes from ssh are acknowledged, and then as long as bytes come back.
    fn lingers_until(&self) -> Option<Instant> {
        let State::InputEnded { since } = self.state else { return None };
        let quiet_since = since.max(self.pipes.progress_at());
        let linger = quiet_since + LINGER;
        if self.channel.unacknowledged() > 0 { Some(linger.max(since + DRAIN_TIMEOUT)) } else { Some(linger) }
    }
}

/// After this silence a note is printed: sshd sends its banner at once, and an SSM agent acknowledges each
/// message.
const NOTE_SILENCE_AFTER: Duration = Duration::from_secs(5);
/// How long to wait for further bytes after ssh closed its end: some programs close it early and continue to
/// read.
const LINGER: Duration = Duration::from_secs(5);
