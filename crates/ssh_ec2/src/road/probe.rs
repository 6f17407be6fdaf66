//! Short sessions that read from the instance: the output of a script, or the first line that a port sends.
//!
//! A port gets SSH's identification line, since other servers than sshd wait for a client's line before they
//! send theirs. [`ask`] must not be dropped half-way, or its session stays open at AWS: use its time limit,
//! or an [`Interrupt`].

use std::cell::{Cell, RefCell};
use std::future::{poll_fn, ready};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::aws::{Aws, AwsError, SessionId};
use crate::net::network::Network;
use crate::net::websocket::StreamUrl;
use crate::road::error::{RoadError, WEBSOCKETS_HINT};
use crate::road::session::{Persistence, Purpose, Session};
use crate::road::tunnel::{Closed, End, Local, Notice, Observed, Outcome};
use crate::system::explain::{Anchor, Explain};
use crate::system::text::one_line;
use crate::target::{InstanceId, Port};

/// What a probe reads.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Question<'a> {
    /// The first line that a port sends.
    Port(Port),
    /// All that a shell script prints.
    Script(&'a str),
}

/// Cancels a probe.
#[derive(Debug, Default)]
pub(crate) struct Interrupt {
    cancelled: Cell<bool>,
    open: Cell<bool>,
}

impl Interrupt {
    /// Cancels the probe, which must be polled afterwards to end its session.
    pub(crate) fn cancel(&self) {
        self.cancelled.set(true);
    }

    /// Whether it was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancelled.get()
    }

    /// Whether a session is open, or is being started.
    pub(crate) fn is_open(&self) -> bool {
        self.open.get()
    }
}

/// The result of a probe. Times are measured from the call of [`ask`].
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    /// The id of the session, which has ended.
    pub session: SessionId,
    /// The URL of its websocket.
    pub stream_url: StreamUrl,
    /// The output, at most [`OUTPUT_LIMIT`] bytes.
    pub output: Vec<u8>,
    /// When StartSession had answered.
    pub started: Duration,
    /// When the websocket was open.
    pub opened: Duration,
    /// When the SSM agent had completed the handshake, if it did.
    pub ready: Option<Duration>,
    /// Why the session ended, if it ended by itself.
    pub closed: Option<Closed>,
}

/// A probe failed.
#[derive(Debug, Error)]
pub(crate) enum ProbeError {
    /// It was cancelled.
    #[error("interrupted")]
    Interrupted,
    /// The time limit passed before there was a connection.
    #[error("the session on {instance} did not open in time")]
    Late {
        /// The session's target.
        instance: InstanceId,
    },
    /// The script did not run: its shell could not be started, or the session failed.
    #[error("the SSM agent of {instance} could not run a command: {words}")]
    NotRun {
        /// The session's target.
        instance: InstanceId,
        /// What the SSM agent reported, on one line.
        words: String,
    },
    /// The session could not be started, its websocket could not be opened, or the websocket was lost.
    #[error(transparent)]
    Road(#[from] RoadError),
}

impl From<AwsError> for ProbeError {
    fn from(error: AwsError) -> Self {
        RoadError::Aws(error).into()
    }
}

impl Explain for ProbeError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Interrupted => Vec::new(),
            Self::Late { .. } => vec![WEBSOCKETS_HINT.into()],
            Self::NotRun { instance, .. } => {
                vec![format!("check that {instance} has a shell, `sh`, and that its SSM agent is up to date")]
            }
            Self::Road(error) => error.hints(),
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        match self {
            Self::Interrupted => None,
            Self::Late { .. } => Some(Anchor::ConnectionLost),
            Self::NotRun { .. } => Some(Anchor::SessionRefused),
            Self::Road(error) => error.anchor(),
        }
    }
}

/// What every probe needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Prober<'a> {
    /// Starts and ends the session.
    pub aws: &'a Aws,
    /// Opens the websocket.
    pub network: &'a Network,
    /// The session's target.
    pub instance: &'a InstanceId,
    /// The reason for Session Manager's session history.
    pub reason: &'a str,
    /// Cancels the probe.
    pub interrupt: &'a Interrupt,
}

/// Runs a probe for at most `limit` from now; once there is a connection, a port has six seconds at most.
/// Then ends the session, which takes a little longer.
///
/// # Errors
///
/// [`ProbeError`]. An empty output is not an error.
pub(crate) async fn ask(
    prober: Prober<'_>,
    question: Question<'_>,
    limit: Duration,
) -> Result<Answer, ProbeError> {
    prober.interrupt.open.set(true);
    // Boxed, since otherwise the types of the futures around it nest too deeply for the compiler.
    let answer = Box::pin(ask_within(prober, question, limit)).await;
    prober.interrupt.open.set(false);
    if prober.interrupt.is_cancelled() { Err(ProbeError::Interrupted) } else { answer }
}

async fn ask_within(
    prober: Prober<'_>,
    question: Question<'_>,
    limit: Duration,
) -> Result<Answer, ProbeError> {
    let Prober { aws, network, instance, reason, .. } = prober;
    let asked = Instant::now();
    let target = instance.clone().into();
    let command;
    let purpose = match question {
        Question::Port(port) => Purpose::Port(port),
        Question::Script(script) => {
            command = shell_command(script);
            Purpose::Command(&command)
        }
    };
    let session = Session::start(aws, network, target, purpose, Some(reason)).await?;
    let started = asked.elapsed();
    let (id, stream_url) = (session.id().clone(), session.stream_url());
    let collected = Collected::default();
    let outcome = session
        .hold(async |session| {
            let outcome = collected.collect(session, question, prober.interrupt, asked + limit).await?;
            match failure(&outcome.end, &collected) {
                Some(words) if matches!(question, Question::Script(_)) => {
                    Err(ProbeError::NotRun { instance: instance.clone(), words })
                }
                _ => Ok(outcome),
            }
        })
        .await?;
    let Observed { opened_at, ready_at, .. } = outcome.observed;
    let closed = match outcome.end {
        End::Closed(closed) => Some(closed),
        End::Lost(error) => return Err(error.into()),
        End::InputEnded | End::InputBroken(_) | End::OutputBroken(_) | End::Stopped(()) => None,
    };
    Ok(Answer {
        session: id,
        stream_url,
        output: collected.output.take(),
        started,
        opened: opened_at.ok_or_else(|| ProbeError::Late { instance: instance.clone() })? - asked,
        ready: ready_at.map(|at| at - asked),
        closed,
    })
}

impl Question<'_> {
    fn is_answered_by(self, output: &[u8]) -> bool {
        match self {
            Self::Port(_) => output.contains(&b'\n') || output.len() >= LINE_LIMIT,
            Self::Script(_) => output.len() >= OUTPUT_LIMIT,
        }
    }
}

/// The command line that runs a script. The SSM agent splits it as a shell would and executes the first word
/// itself, so that globs, variables and keywords need a shell of their own
/// (`agent/session/plugins/noninteractivecommands` of amazon-ssm-agent).
fn shell_command(script: &str) -> String {
    format!("sh -c '{}'", script.replace('\'', r"'\''"))
}

/// Why a command was not run. If the SSM agent cannot start a program, it reports that as error output, and
/// then ends the session normally; most other errors it reports when the session ends, with no output before.
fn failure<S, E>(end: &End<S, E>, collected: &Collected) -> Option<String> {
    let (output, error_output) = (collected.output.borrow(), collected.error_output.borrow());
    let words = match end {
        End::Lost(_) => return None,
        _ if !error_output.is_empty() => String::from_utf8_lossy(&error_output),
        End::Closed(Closed::ByPeer { reason }) if output.is_empty() => reason.as_str().into(),
        _ => return None,
    };
    let line = one_line(&words);
    (!line.is_empty()).then_some(line)
}

/// Output and error output of a session, up to [`OUTPUT_LIMIT`] bytes each.
#[derive(Default)]
struct Collected {
    output: Rc<RefCell<Vec<u8>>>,
    error_output: RefCell<Vec<u8>>,
}

impl Collected {
    /// Carries the session until the output is complete, or the time limit has passed.
    async fn collect(
        &self,
        session: &Session<'_>,
        question: Question<'_>,
        interrupt: &Interrupt,
        deadline: Instant,
    ) -> Result<Outcome<(), RoadError>, RoadError> {
        let is_ready = Cell::new(false);
        let mut late = pin!(sleep_until(deadline));
        let mut awaits_greeting = false;
        let stop = pin!(poll_fn(|cx| {
            if interrupt.is_cancelled() || question.is_answered_by(&self.output.borrow()) {
                return Poll::Ready(());
            }
            if matches!(question, Question::Port(_)) && is_ready.get() && !awaits_greeting {
                awaits_greeting = true;
                hasten(late.as_mut(), GREETING_TIMEOUT);
            }
            late.as_mut().poll(cx)
        }));
        let notice = |notice| match notice {
            Notice::Ready { .. } => is_ready.set(true),
            Notice::ErrorOutput(bytes) => keep(&mut self.error_output.borrow_mut(), &bytes),
            _ => {}
        };
        let greeting = match question {
            Question::Port(_) => IDENTIFICATION.as_bytes(),
            Question::Script(_) => b"",
        };
        let output = Box::new(Collector { kept: Rc::clone(&self.output) });
        let local = Local::Pipes { input: Box::new(greeting.chain(Silence)), output };
        session.carry(Persistence::Once, ready(None), local, stop, notice).await
    }
}

/// Lets `sleep` end after `limit` at the latest.
fn hasten(sleep: Pin<&mut Sleep>, limit: Duration) {
    let due = Instant::now() + limit;
    if due < sleep.deadline() {
        sleep.reset(due);
    }
}

fn keep(kept: &mut Vec<u8>, bytes: &[u8]) {
    let room = OUTPUT_LIMIT.saturating_sub(kept.len());
    kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
}

/// An input without bytes and without an end.
struct Silence;

impl AsyncRead for Silence {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// An output that keeps the first [`OUTPUT_LIMIT`] bytes.
struct Collector {
    kept: Rc<RefCell<Vec<u8>>>,
}

impl AsyncWrite for Collector {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        keep(&mut self.kept.borrow_mut(), bytes);
        // The output may be complete now, which `stop` checks when the tunnel is polled again.
        cx.waker().wake_by_ref();
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// The identification line of an SSH client (RFC 4253, section 4.2).
const IDENTIFICATION: &str = concat!("SSH-2.0-ssh_ec2_", env!("CARGO_PKG_VERSION"), "\r\n");
/// Enough for host keys and for a handful of facts.
pub(crate) const OUTPUT_LIMIT: usize = 64 * 1024;
/// The longest first line that is kept. sshd's has at most 255 bytes; other servers may send longer lines.
const LINE_LIMIT: usize = 1024;
/// How long to wait for a port's first line. A server that sends first sends it at once.
const GREETING_TIMEOUT: Duration = Duration::from_secs(6);

#[cfg(test)]
mod tests;
