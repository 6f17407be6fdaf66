//! A port or a program that does what a recorded one did, at the recorded times.

use std::{
    collections::VecDeque,
    io::{self, Cursor, Read},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{
    Clock, ONE_WAY,
    cases::{Case, Work},
    recording::Line,
};
use crate::hosts::{Connection, Interrupt, OutputStream, Program, SeparateProgram, Start};

/// The script of a port or program.
pub(super) struct Script {
    work: Work,
    /// What the port or program sends, when, and to which output.
    says: Vec<(Duration, OutputStream, Said)>,
    /// When the program ends.
    until: Duration,
    delivered: Arc<Mutex<Vec<u8>>>,
}

#[derive(Clone, Debug)]
enum Said {
    Data(Vec<u8>),
    Closed,
    Reset,
}

impl Script {
    /// Makes the script: the port sends each recorded message with output on its own.
    pub(super) fn new(case: &Case, outputs: &[&Line]) -> Self {
        let first = |number| outputs.iter().find(|line| line.number == number);
        let count = outputs.iter().map(|line| line.number + 1).max().unwrap_or_default();
        let mut says = Vec::new();
        let mut before = Duration::MAX;
        let mut ends = None;
        // From the last to the first, since messages may be reordered.
        for number in (0..count).rev() {
            let Some(line) = first(number) else {
                says.push((before, OutputStream::Output, Said::Data(vec![b'?'; 1024])));
                continue;
            };
            before = before.min(line.at.saturating_sub(EARLIER));
            let stream = match line.payload_type {
                OUTPUT => OutputStream::Output,
                ERROR_OUTPUT => OutputStream::Error,
                EXIT_STATUS => {
                    // Not much earlier, or the client's messages until then would find the program gone.
                    ends = Some(line.at.saturating_sub(ONE_WAY));
                    continue;
                }
                _ => continue,
            };
            let data = case.prints.map_or_else(|| line.payload().to_vec(), <[u8]>::to_vec);
            says.push((case.said_at(number).unwrap_or(before), stream, Said::Data(data)));
        }
        says.reverse();
        let last = says.last().map(|(at, ..)| *at).unwrap_or_default();
        match case.work {
            Work::Closes => says.push((last + EARLIER, OutputStream::Output, Said::Closed)),
            Work::Resets(at) => says.push((at, OutputStream::Output, Said::Reset)),
            _ => {}
        }
        let until = match case.work {
            Work::Separate { .. } => ends.unwrap_or(FOR_EVER),
            _ => says.first().map_or(case.until, |(at, ..)| *at),
        };
        Self { work: case.work.clone(), says, until, delivered: Arc::default() }
    }

    /// The time of the next event.
    pub(super) fn next_after(&self, now: Instant, start: Instant) -> Option<Instant> {
        let says = self.says.iter().map(|(at, ..)| start + *at);
        let work = match self.work {
            Work::Prints { .. } | Work::Separate { .. } => Some(start + self.until),
            Work::Stalls { until, .. } => Some(start + until),
            _ => None,
        };
        says.chain(work).filter(|at| *at > now).min()
    }

    /// Whether the reader of the websocket blocks for ever.
    pub(super) fn is_never_read(&self) -> bool {
        !matches!(self.work, Work::Stalls { .. } | Work::Interrupted { .. } | Work::Separate { .. })
    }

    /// The bytes that the server received.
    pub(super) fn delivered(&self) -> Vec<u8> {
        self.delivered.lock().unwrap().clone()
    }

    pub(super) fn start(&self, clock: &Clock, start: Instant) -> Start {
        let scripted = || Scripted {
            clock: clock.clone(),
            says: self.says.iter().map(|(at, _, said)| (start + *at, said.clone())).collect(),
            delivered: Arc::clone(&self.delivered),
            stalls: match self.work {
                Work::Stalls { after, until } => Some((after, start + until)),
                _ => None,
            },
        };
        match &self.work {
            Work::Talks | Work::Closes | Work::Resets(_) | Work::Stalls { .. } => {
                Start::Connected(Box::new(Connection::new(Box::new(scripted()))))
            }
            Work::Refuses => Start::Refused,
            Work::Prints { output } => Start::Running(Box::new(Printing {
                clock: clock.clone(),
                until: start + self.until,
                output: output.clone(),
                interrupted: None,
            })),
            Work::Interrupted { output } => Start::Running(Box::new(Printing {
                clock: clock.clone(),
                until: start + FOR_EVER,
                output: output.clone(),
                interrupted: Some(Duration::from_millis(30)),
            })),
            Work::Blank => Start::Blank,
            Work::Unparsable(reason) => Start::Unparsable(reason),
            Work::Separate { status } => Start::RunningSeparate(Box::new(Separate {
                clock: clock.clone(),
                says: self
                    .says
                    .iter()
                    .map(|(at, stream, said)| (start + *at, *stream, said.clone()))
                    .collect(),
                until: start + self.until,
                status: *status,
            })),
            Work::NotStarted(text, separate) => {
                Start::NotStarted { text: (*text).to_owned(), separate: *separate }
            }
        }
    }
}

/// A server at the other end of a connection.
pub(super) struct Scripted {
    clock: Clock,
    says: VecDeque<(Instant, Said)>,
    delivered: Arc<Mutex<Vec<u8>>>,
    /// It reads so many bytes, and then no more until this time.
    stalls: Option<(usize, Instant)>,
}

impl AsyncRead for Scripted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.clock.now();
        let Some((_, said)) = self.says.pop_front_if(|(at, _)| *at <= now) else { return Poll::Pending };
        match said {
            Said::Data(data) => {
                // One read for each recorded message, so that the agent sends it as one message again.
                room.put_slice(&data);
                Poll::Ready(Ok(()))
            }
            Said::Closed => Poll::Ready(Ok(())),
            Said::Reset => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
        }
    }
}

impl AsyncWrite for Scripted {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut delivered = self.delivered.lock().unwrap();
        if let Some((after, until)) = self.stalls
            && delivered.len() >= after
            && self.clock.now() < until
        {
            return Poll::Pending;
        }
        delivered.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A program that ends at a time, or some time after an interrupt.
struct Printing {
    clock: Clock,
    until: Instant,
    output: Vec<u8>,
    interrupted: Option<Duration>,
}

impl Program for Printing {
    fn poll_end(&mut self, _: &mut Context<'_>) -> Poll<io::Result<Box<dyn Read + Send>>> {
        if self.clock.now() < self.until {
            return Poll::Pending;
        }
        Poll::Ready(Ok(Box::new(Cursor::new(self.output.clone()))))
    }

    fn interrupt(&mut self, _: Interrupt) {
        if let Some(after) = self.interrupted {
            self.until = self.clock.now() + after;
        }
    }
}

/// A program with separate outputs, which end when it does.
struct Separate {
    clock: Clock,
    says: Vec<(Instant, OutputStream, Said)>,
    until: Instant,
    status: i32,
}

impl SeparateProgram for Separate {
    fn poll_read(
        &mut self,
        _: &mut Context<'_>,
        stream: OutputStream,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let now = self.clock.now();
        let next = self.says.iter().position(|(at, from, _)| *from == stream && *at <= now);
        if let Some((.., Said::Data(data))) = next.map(|next| self.says.remove(next)) {
            room.put_slice(&data);
            return Poll::Ready(Ok(()));
        }
        if now < self.until { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    fn poll_exit(&mut self, _: &mut Context<'_>) -> Poll<io::Result<i32>> {
        if self.clock.now() < self.until { Poll::Pending } else { Poll::Ready(Ok(self.status)) }
    }

    fn interrupt(&mut self, _: Interrupt) {}
}

const OUTPUT: u32 = 1;
const ERROR_OUTPUT: u32 = 11;
const EXIT_STATUS: u32 = 12;
/// A message reaches the gateway later than the SSM agent reads it.
const EARLIER: Duration = Duration::from_millis(5);
const FOR_EVER: Duration = Duration::from_secs(3600);
