//! A command with separate outputs, which are sent while it runs, and its exit status.
//!
//! The SSM agent has mistakes here (`agent/session/shell/shell.go`), which are kept. The reader of an output
//! checks before each read whether the channel is paused; if it is, it stops for ever, and later output is
//! lost although the exit status is sent. After an interrupt that status is 1. Both readers must reach the
//! end, so a background process keeps the session open as long as it has the outputs open.

use std::{
    task::{Context, Poll},
    time::Instant,
};

use ssm_channel::PayloadType;
use tokio::io::ReadBuf;

use crate::hosts::{Interrupt, OutputStream, SeparateProgram};

use super::{data_channel::DataChannel, pieces::Pieces};

pub(super) struct Separate {
    program: Box<dyn SeparateProgram>,
    pumps: [Pump; 2],
    interrupted: bool,
}

struct Pump {
    stream: OutputStream,
    pieces: Pieces,
    state: State,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// About to check whether the channel is paused.
    Looking,
    /// In a read, which a pause does not end.
    Reading,
    Ended,
    Failed,
}

/// How it ended.
pub(super) struct Exit {
    pub(super) status: i32,
    /// Whether an output was not read to its end.
    pub(super) failed: bool,
}

impl Separate {
    pub(super) fn new(program: Box<dyn SeparateProgram>) -> Self {
        let pump = |stream| Pump { stream, pieces: Pieces::default(), state: State::Looking };
        let pumps = [pump(OutputStream::Output), pump(OutputStream::Error)];
        Self { program, pumps, interrupted: false }
    }

    pub(super) fn interrupt(&mut self, key: Interrupt) {
        self.interrupted = true;
        self.program.interrupt(key);
    }

    /// Sends the program's output, in messages of at most `payload` bytes plus an incomplete character from
    /// before. Ready at the program's end.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        channel: &mut DataChannel,
        payload: usize,
    ) -> Poll<Exit> {
        for pump in &mut self.pumps {
            pump.poll(cx, now, &mut *self.program, channel, payload);
        }
        if !self.pumps.iter().all(|pump| matches!(pump.state, State::Ended | State::Failed)) {
            return Poll::Pending;
        }
        let Poll::Ready(status) = self.program.poll_exit(cx) else { return Poll::Pending };
        let failed = self.interrupted || self.pumps.iter().any(|pump| pump.state == State::Failed);
        // After an interrupt two threads wait for the program, and the other one gets its status.
        let status = if self.interrupted { 1 } else { status.unwrap_or(1) };
        Poll::Ready(Exit { status, failed })
    }
}

impl Pump {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        program: &mut dyn SeparateProgram,
        channel: &mut DataChannel,
        payload: usize,
    ) {
        let payload_type = match self.stream {
            OutputStream::Output => PayloadType::Output,
            OutputStream::Error => PayloadType::ErrorOutput,
        };
        let mut buffer = vec![0; payload];
        while channel.has_room() {
            match self.state {
                State::Looking if channel.is_paused() => self.state = State::Failed,
                State::Looking => self.state = State::Reading,
                State::Ended | State::Failed => return,
                State::Reading => {}
            }
            if self.state != State::Reading {
                return;
            }
            let mut room = ReadBuf::new(&mut buffer);
            match program.poll_read(cx, self.stream, &mut room) {
                Poll::Pending => return,
                Poll::Ready(Ok(())) if room.filled().is_empty() => self.state = State::Ended,
                Poll::Ready(Ok(())) => {
                    channel.send(now, payload_type, &self.pieces.cut(room.filled()));
                    self.state = State::Looking;
                }
                Poll::Ready(Err(_)) => self.state = State::Failed,
            }
        }
    }
}
