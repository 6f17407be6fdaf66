//! Short sessions of our own: what a command on the instance prints, or what a port of it says first.
//!
//! Nothing but that is asked. A port is told that a client of SSH is here, since other servers than sshd wait for a word
//! before they say theirs; then the session ends. Whatever way it goes the session is ended at AWS. For
//! that reason [`ask`] must not be dropped half-way: it has a bound of its own, and an [`Interrupt`].

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ssm_channel::{Closed, SsmAgentVersion};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::aws::{Aws, AwsError, SessionId, StartSession, Token};
use crate::key::one_time::KeyError;
use crate::net::network::Network;
use crate::net::websocket::{DialError, StreamUrl, dial};
use crate::road::tunnel::{self, Attachment, End, Notice};
use crate::system::explain::{Anchor, Explain};
use crate::system::text::one_line;
use crate::target::{InstanceId, Port};

/// What to hear.
#[derive(Clone, Copy, Debug)]
pub enum Question<'a> {
    /// The first line that a port says.
    Port(Port),
    /// All that a shell script prints.
    Script(&'a str),
}

/// The wish that a question be given up.
#[derive(Debug, Default)]
pub struct Interrupt {
    asked: Cell<bool>,
    open: Cell<bool>,
}

impl Interrupt {
    /// Wishes it. Whoever asks has then to be polled, and ends what is open.
    pub fn ask(&self) {
        self.asked.set(true);
    }

    /// Whether it was wished.
    pub fn is_asked(&self) -> bool {
        self.asked.get()
    }

    /// Whether a session is open, or is being started.
    pub fn is_open(&self) -> bool {
        self.open.get()
    }
}

/// What was heard, and when since the question.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The session, which has ended.
    pub session: SessionId,
    /// Where it was.
    pub stream_url: StreamUrl,
    /// At most [`OUTPUT_LIMIT`] bytes.
    pub output: Vec<u8>,
    /// When StartSession had answered.
    pub started: Duration,
    /// When the websocket was open.
    pub opened: Duration,
    /// When the SSM agent had taken the session up.
    pub ready: Option<Duration>,
    /// When the first bytes came.
    pub heard: Option<Duration>,
    /// As the SSM agent told it.
    pub agent_version: Option<SsmAgentVersion>,
    /// Why the session ended, if it ended by itself.
    pub closed: Option<Closed>,
}

/// The question could not be asked.
#[derive(Debug, Error)]
pub enum ProbeError {
    /// A call to AWS.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The websocket.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It was wished.
    #[error("interrupted")]
    Interrupted,
    /// Randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The time was over before there was a connection.
    #[error("the session on {instance} did not open in time")]
    Late {
        /// The target.
        instance: InstanceId,
    },
    /// The script did not run: its shell could not be started, or the session failed.
    #[error("the SSM agent of {instance} could not run a command: {words}")]
    NotRun {
        /// The target.
        instance: InstanceId,
        /// What the SSM agent reported, on one line.
        words: String,
    },
    /// The websocket was lost, which is not mended for so short a session.
    #[error("the websocket of the session on {instance} was lost")]
    Lost {
        /// The target.
        instance: InstanceId,
    },
}

impl Explain for ProbeError {
    fn hints(&self) -> Vec<String> {
        match self {
            Self::Aws(error) => error.hints(),
            Self::Dial(error) => error.hints(),
            Self::Interrupted => Vec::new(),
            Self::Key(error) => error.hints(),
            Self::NotRun { instance, .. } => {
                vec![format!("see that {instance} has a shell, `sh`, and that its SSM agent is up to date")]
            }
            Self::Late { .. } | Self::Lost { .. } => vec![
                "see that nothing between here and ssmmessages on port 443 holds websockets up: a proxy, a firewall".into(),
            ],
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        match self {
            Self::Aws(error) => error.anchor(),
            Self::Dial(error) => error.anchor(),
            Self::Interrupted => None,
            Self::Key(error) => error.anchor(),
            Self::NotRun { .. } => Some(Anchor::SessionRefused),
            Self::Late { .. } | Self::Lost { .. } => Some(Anchor::ConnectionLost),
        }
    }
}

/// Who asks whom.
#[derive(Clone, Copy, Debug)]
pub struct Prober<'a> {
    /// The account.
    pub aws: &'a Aws,
    /// For the websocket.
    pub network: &'a Network,
    /// The target.
    pub instance: &'a InstanceId,
    /// For Session Manager's records.
    pub reason: &'a str,
    /// To give it up.
    pub interrupt: &'a Interrupt,
}

/// Asks, and hears for at most `limit` since now; a port has less time than that once there is a way to it. What was
/// started is ended afterwards, which takes a little longer.
///
/// # Errors
/// [`ProbeError`]. That nothing was heard is none.
pub async fn ask(prober: Prober<'_>, question: Question<'_>, limit: Duration) -> Result<Answer, ProbeError> {
    prober.interrupt.open.set(true);
    let answer = ask_within(prober, question, limit).await;
    prober.interrupt.open.set(false);
    if prober.interrupt.is_asked() { Err(ProbeError::Interrupted) } else { answer }
}

async fn ask_within(
    prober: Prober<'_>,
    question: Question<'_>,
    limit: Duration,
) -> Result<Answer, ProbeError> {
    let Prober { aws, network, instance, reason, interrupt } = prober;
    let asked = Instant::now();
    let deadline = asked + limit;
    let ticket = aws.start_session(&question.session(instance, reason)).await?;
    let started = asked.elapsed();
    let session = ticket.session_id.clone();
    let given_up = || poll_fn(|_| if interrupt.is_asked() { Poll::Ready(()) } else { Poll::Pending });
    let heard = async {
        let open = async {
            let headers = aws.sign_upgrade(&ticket.stream_url).await?;
            Ok::<_, ProbeError>(dial(&ticket.stream_url, headers, network, None).await?)
        };
        let late = || ProbeError::Late { instance: instance.clone() };
        let socket = tokio::select! {
            opened = timeout_at(deadline, open) => opened.map_err(|_| late())??,
            () = given_up() => return Err(late()),
        };
        let opened = asked.elapsed();
        let first = Attachment { socket, token: ticket.token };
        let heard = hear(instance, question, first, asked, deadline, interrupt).await?;
        if let (Question::Script(_), Some(words)) = (question, heard.failure()) {
            return Err(ProbeError::NotRun { instance: instance.clone(), words });
        }
        Ok(Answer {
            session: session.clone(),
            stream_url: ticket.stream_url.clone(),
            output: heard.output,
            started,
            opened,
            ready: heard.ready,
            heard: heard.heard,
            agent_version: heard.agent_version,
            closed: heard.closed,
        })
    };
    let answer = heard.await;
    let closed = |answer: &Answer| matches!(answer.closed, Some(Closed::ByGateway { .. }));
    if !answer.as_ref().is_ok_and(closed)
        && let Err(error) = timeout(TERMINATE_TIMEOUT, aws.terminate_session(&session)).await
    {
        tracing::info!("AWS did not confirm the session's end in time: {error}");
    }
    answer
}

impl Question<'_> {
    fn session(self, instance: &InstanceId, reason: &str) -> StartSession {
        let (document, parameter, value) = match self {
            Self::Port(port) => (PORT_DOCUMENT, "portNumber", port.to_string()),
            Self::Script(script) => (COMMAND_DOCUMENT, "command", shell_command(script)),
        };
        StartSession {
            target: instance.clone(),
            document_name: document.into(),
            parameters: BTreeMap::from([(parameter.to_owned(), vec![value])]),
            reason: Some(reason.to_owned()),
        }
    }

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

/// What came over the websocket.
struct Heard {
    output: Vec<u8>,
    error_output: Vec<u8>,
    ready: Option<Duration>,
    heard: Option<Duration>,
    agent_version: Option<SsmAgentVersion>,
    closed: Option<Closed>,
}

impl Heard {
    /// Why a command was not run. The SSM agent reports a program that it cannot start as error output, and
    /// then ends the session like any other; most else it reports when the session ends, with no output
    /// before.
    fn failure(&self) -> Option<String> {
        let words = match &self.closed {
            _ if !self.error_output.is_empty() => String::from_utf8_lossy(&self.error_output),
            Some(Closed::ByGateway { output }) if self.output.is_empty() => output.as_str().into(),
            _ => return None,
        };
        let line = one_line(&words);
        (!line.is_empty()).then_some(line)
    }
}

async fn hear(
    instance: &InstanceId,
    question: Question<'_>,
    first: Attachment<Token>,
    asked: Instant,
    deadline: Instant,
    interrupt: &Interrupt,
) -> Result<Heard, ProbeError> {
    let channel = tunnel::client_channel().map_err(KeyError::from)?;
    let output = Rc::new(RefCell::new(Vec::new()));
    let error_output = RefCell::new(Vec::new());
    let (ready, heard, agent_version) = (Cell::new(None), Cell::new(None), Cell::new(None));
    let mut late = pin!(sleep_until(deadline));
    let mut was_ready = false;
    let stop = poll_fn(|cx| {
        if interrupt.is_asked() || question.is_answered_by(&output.borrow()) {
            return Poll::Ready(());
        }
        if matches!(question, Question::Port(_)) && ready.get().is_some() && !was_ready {
            was_ready = true;
            let greeting_due = Instant::now() + GREETING_TIMEOUT;
            if greeting_due < late.deadline() {
                late.as_mut().reset(greeting_due);
            }
        }
        late.as_mut().poll(cx)
    });
    let resume = || -> tunnel::Resume<'_, Token, ProbeError> {
        Box::pin(async { Err(ProbeError::Lost { instance: instance.clone() }) })
    };
    let notice = |notice| match notice {
        Notice::Ready { agent_version: version, .. } => {
            ready.set(Some(asked.elapsed()));
            agent_version.set(version);
        }
        Notice::FirstBytes(_) => heard.set(Some(asked.elapsed())),
        Notice::ErrorOutput(bytes) => {
            let mut taken = error_output.borrow_mut();
            let room = OUTPUT_LIMIT.saturating_sub(taken.len());
            taken.extend_from_slice(&bytes[..bytes.len().min(room)]);
        }
        _ => {}
    };
    let word = match question {
        Question::Port(_) => IDENTIFICATION.as_bytes(),
        Question::Script(_) => b"",
    };
    let local = (Box::new(word.chain(Silence)) as _, Box::new(Collector { taken: Rc::clone(&output) }) as _);
    let outcome = tunnel::run(channel, first, local, stop, resume, notice).await;
    let closed = match outcome.end {
        End::Closed(closed) => Some(closed),
        End::Lost(error) => return Err(error),
        End::InputEnded | End::InputBroken(_) | End::OutputBroken | End::Stopped(()) => None,
    };
    Ok(Heard {
        output: output.take(),
        error_output: error_output.take(),
        ready: ready.get(),
        heard: heard.get(),
        agent_version: agent_version.get(),
        closed,
    })
}

/// Has nothing to say, and does not end.
struct Silence;

impl AsyncRead for Silence {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }
}

/// Keeps what comes.
struct Collector {
    taken: Rc<RefCell<Vec<u8>>>,
}

impl AsyncWrite for Collector {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut taken = self.taken.borrow_mut();
        let room = OUTPUT_LIMIT.saturating_sub(taken.len());
        taken.extend_from_slice(&bytes[..bytes.len().min(room)]);
        // It may be enough now, which is looked at when the tunnel is polled.
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

/// As RFC 4253 wants it, section 4.2.
const IDENTIFICATION: &str = concat!("SSH-2.0-ssh_ec2_", env!("CARGO_PKG_VERSION"), "\r\n");
/// Enough for host keys and for a handful of facts.
pub const OUTPUT_LIMIT: usize = 64 * 1024;
/// sshd's greeting has at most 255 bytes; others may say more before a line's end.
const LINE_LIMIT: usize = 1024;
/// Runs one command, as the user that the account's preferences say, and gives back what it printed.
pub const COMMAND_DOCUMENT: &str = "AWS-StartNonInteractiveCommand";
/// A plain byte stream to a TCP port of the instance.
pub const PORT_DOCUMENT: &str = "AWS-StartSSHSession";
/// What has a port speaks at once, if it is one that speaks.
const GREETING_TIMEOUT: Duration = Duration::from_secs(6);
/// For a call that nobody waits for any more.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
