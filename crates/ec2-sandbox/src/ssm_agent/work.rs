//! The work of a session, a connection or a program, and the bytes between it and the data channel.

use std::{
    io::{self, Read as _},
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf, BufMut, BytesMut};
use ssm_channel::PayloadType;
use tokio::io::{AsyncReadExt as _, AsyncWrite as _};

use super::{
    Behaviour, PORT, SsmAgent, Verdict,
    pieces::Pieces,
    separate::{Exit, Separate},
};
use crate::hosts::{Connection, Interrupt, Program};

pub(super) enum Work {
    Connection { connection: Box<Connection>, inbox: BytesMut },
    Program(Box<dyn Program>),
    Output { output: Box<dyn io::Read + Send>, pieces: Pieces },
    Separate(Separate),
}

impl Work {
    fn interrupt(&mut self, key: Interrupt) {
        match self {
            Self::Program(program) => program.interrupt(key),
            Self::Separate(separate) => separate.interrupt(key),
            Self::Connection { .. } | Self::Output { .. } => {}
        }
    }
}

impl SsmAgent {
    /// Notices the end of a program.
    pub(super) fn poll_program(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(Work::Program(program)) = &mut self.work else { return false };
        match program.poll_end(cx) {
            Poll::Pending => return false,
            Poll::Ready(Ok(output)) => self.work = Some(Work::Output { output, pieces: Pieces::default() }),
            Poll::Ready(Err(error)) => self.fail(&error),
        }
        true
    }

    /// Sends what a program with separate outputs prints, and how it ended.
    pub(super) fn poll_separate(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(Work::Separate(separate)) = &mut self.work else { return false };
        let exit = separate.poll(cx, now, &mut self.channel, self.behaviour.payload);
        let Poll::Ready(Exit { status, failed }) = exit else { return false };
        if !self.channel.is_paused() {
            self.send_exit_status(now, status);
        }
        let verdict = if failed { Verdict::Failed(String::new()) } else { Verdict::Success };
        // The reader continues after the program has ended.
        self.end_after_tail(now, verdict);
        true
    }

    pub(super) fn send_exit_status(&mut self, now: Instant, status: i32) {
        self.channel.send(now, PayloadType::ExitStatus, format!("EXIT_CODE: {status}").as_bytes());
    }

    /// Fails like AWS's SSM agent, which reports no reason.
    fn fail(&mut self, error: &io::Error) {
        tracing::debug!(%error, "the work of a session failed");
        self.end(Verdict::Failed(String::new()));
    }

    /// Writes the channel's input to the work.
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        while let Some(input) = self.channel.input() {
            match &mut self.work {
                Some(Work::Connection { connection, .. }) => {
                    if self.received < AUTHENTICATION_BYTES {
                        connection.refresh_keys();
                    }
                    let rest = input.get(self.written..).unwrap_or_default();
                    let taken = if rest.is_empty() {
                        Poll::Ready(Ok(0))
                    } else {
                        Pin::new(&mut connection.stream).poll_write(cx, rest)
                    };
                    match taken {
                        Poll::Pending => return moved,
                        Poll::Ready(Ok(written)) if written > 0 || rest.is_empty() => {
                            self.written += written;
                            self.received += written as u64;
                            if self.written < input.len() {
                                continue;
                            }
                            self.channel.input_taken(now);
                        }
                        Poll::Ready(_) => self.channel.input_failed(),
                    }
                }
                Some(work @ (Work::Program(_) | Work::Separate(_))) => {
                    let keys: Vec<_> = input.iter().copied().filter_map(Interrupt::of).collect();
                    if !keys.is_empty() {
                        if self.written == 0 {
                            keys.into_iter().for_each(|key| work.interrupt(key));
                        }
                        // The reader blocks until the program's end.
                        self.written = input.len();
                        return moved;
                    }
                    self.channel.input_taken(now);
                }
                None if self.session_type == PORT => self.channel.input_failed(),
                Some(Work::Output { .. }) | None => self.channel.input_taken(now),
            }
            self.written = 0;
            moved = true;
        }
        moved
    }

    /// Sends the output of the work.
    pub(super) fn poll_output(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let mut moved = false;
        let mut sent = 0;
        while sent < BATCH && self.channel.is_active() && self.next_output.is_none_or(|at| at <= now) {
            self.next_output = None;
            let payload = match self.read(cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(payload))) => payload,
                Poll::Ready(Ok(None)) => {
                    self.end_after_tail(now, Verdict::Success);
                    return true;
                }
                Poll::Ready(Err(error)) => {
                    self.fail(&error);
                    return true;
                }
            };
            moved = true;
            sent += payload.len();
            self.channel.send(now, PayloadType::Output, &payload);
            if !self.behaviour.pace.is_zero() {
                self.next_output = Some(now + self.behaviour.pace);
            }
        }
        moved
    }

    /// The payload of the next message; none at the end.
    fn read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Option<Vec<u8>>>> {
        let Behaviour { payload, pace, .. } = self.behaviour;
        match &mut self.work {
            Some(Work::Connection { connection, inbox }) => {
                if inbox.is_empty() {
                    // Without pauses between messages it can read more at a time.
                    let length = if pace.is_zero() { payload.max(BATCH) } else { payload };
                    let Poll::Ready(()) = poll_read(cx, connection, inbox, length)? else {
                        return Poll::Pending;
                    };
                }
                let length = payload.min(inbox.len());
                let piece = inbox.get(..length).map(<[u8]>::to_vec).filter(|piece| !piece.is_empty());
                inbox.advance(length);
                Poll::Ready(Ok(piece))
            }
            Some(Work::Output { output, pieces }) => {
                let mut piece = vec![0; payload];
                let length = output.read(&mut piece)?;
                piece.truncate(length);
                Poll::Ready(Ok(if length == 0 { None } else { Some(pieces.cut(&piece)) }))
            }
            Some(Work::Program(_) | Work::Separate(_)) | None => Poll::Pending,
        }
    }
}

/// Appends at most `length` bytes of the connection to `inbox`; none at its end.
fn poll_read(
    cx: &mut Context<'_>,
    connection: &mut Connection,
    inbox: &mut BytesMut,
    length: usize,
) -> Poll<io::Result<()>> {
    inbox.reserve(length);
    let mut room = inbox.limit(length);
    pin!(connection.stream.read_buf(&mut room)).poll(cx).map_ok(|_| ())
}

/// The most bytes that are read in one pass, so that they are sent soon.
const BATCH: usize = 128 * 1024;
/// More than SSH's key exchange and authentication need; after these bytes the keys are not updated.
const AUTHENTICATION_BYTES: u64 = 64 * 1024;
