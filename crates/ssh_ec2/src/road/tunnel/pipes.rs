//! The tunnel's side towards ssh: one stream of bytes each way.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use ssm_channel::{Channel, Draft};
use tokio::time::Instant;

use super::{Notice, Observed};
use crate::road::stdio::{self, Input, Output};

pub(super) struct Pipes {
    input: Input,
    output: Output,
    draft: Draft,
    /// Bytes from the channel that are being written to ssh.
    outbox: VecDeque<Bytes>,
    /// When bytes last went to ssh.
    progress_at: Instant,
}

/// The result of reading from ssh.
pub(super) enum Reading {
    Open { moved: bool },
    Ended,
    Broken(io::Error),
}

/// The result of writing to ssh.
pub(super) enum Writing {
    Open { moved: bool },
    Broken(io::Error),
}

impl Pipes {
    pub(super) fn new(now: Instant, input: Input, output: Output) -> Self {
        let draft = Draft::with_capacity(DRAFT_ALLOCATION);
        Self { input, output, draft, outbox: VecDeque::new(), progress_at: now }
    }

    /// Passes the bytes that ssh has written to the channel, while the channel's window has room.
    pub(super) fn poll_in(&mut self, cx: &mut Context<'_>, now: Instant, channel: &mut Channel) -> Reading {
        let mut moved = false;
        while channel.send_capacity() > 0 {
            let limit = channel.payload_limit();
            match stdio::poll_read(&mut self.input, cx, &mut self.draft.room(limit)) {
                Poll::Pending => break,
                Poll::Ready(Ok(0)) => return Reading::Ended,
                Poll::Ready(Ok(_)) => {
                    moved = true;
                    if channel.send(now.into_std(), &mut self.draft).is_err() {
                        // The window was checked above; a draft that is not sent becomes part of the next
                        // message.
                        break;
                    }
                }
                Poll::Ready(Err(error)) => return Reading::Broken(error),
            }
        }
        Reading::Open { moved }
    }

    /// Writes the bytes of the channel to ssh, while ssh reads.
    pub(super) fn poll_out(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        channel: &mut Channel,
        observed: &mut Observed,
        notice: &mut impl FnMut(Notice),
    ) -> Writing {
        let mut moved = false;
        loop {
            while self.outbox.len() < SLICES
                && let Some(bytes) = channel.read()
            {
                if observed.first_bytes_at.is_none() {
                    observed.first_bytes_at = Some(now);
                    notice(Notice::FirstBytes(bytes.clone()));
                }
                observed.received += bytes.len() as u64;
                self.outbox.push_back(bytes);
            }
            if self.outbox.is_empty() {
                return Writing::Open { moved };
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            for (slice, bytes) in slices.iter_mut().zip(&self.outbox) {
                *slice = IoSlice::new(bytes);
            }
            match stdio::poll_write(&mut self.output, cx, &slices[..self.outbox.len()]) {
                Poll::Pending => return Writing::Open { moved },
                Poll::Ready(Ok(written)) if written > 0 => {
                    moved = true;
                    self.progress_at = now;
                    self.forget_written(written);
                }
                // The bytes that still come have no reader.
                Poll::Ready(written) => {
                    self.outbox.clear();
                    while channel.read().is_some() {}
                    return Writing::Broken(written.err().unwrap_or_else(|| io::ErrorKind::WriteZero.into()));
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

    /// Whether all bytes that were taken from the channel are written to ssh.
    pub(super) fn is_written(&self) -> bool {
        self.outbox.is_empty()
    }

    pub(super) fn progress_at(&self) -> Instant {
        self.progress_at
    }
}

/// The size of the buffer for reads; several reads share one.
const DRAFT_ALLOCATION: usize = 128 * 1024;
/// The most pieces in one write. The SSM agent sends 1 KiB at a time, a pipe takes 64 KiB.
const SLICES: usize = 64;
