//! A Session Manager session: its record for the API, its token, and a state that tasks can watch.
//!
//! It has no connection. The gateway receives [`SessionInfo`] at its start, watches the state, and admits
//! clients whose token [`Session::take_token`] accepts.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use tokio::sync::watch;

use super::{aws_region::AwsRegion, identity::Caller, random};

/// Whether a session has ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SessionState {
    /// It was started and has not ended, whether or not a client is on its data channel.
    Connected,
    /// It has ended and cannot be resumed.
    Terminated,
}

/// The work of a session on its instance.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Purpose {
    /// It runs this command, without a shell.
    Command(String),
    /// The same with a separate standard error, and the exit status.
    SeparateCommand(String),
    /// It connects to this port.
    Port(u16),
}

/// The public description of a session.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SessionSummary {
    /// The session id, which begins with the caller's role session name.
    pub id: String,
    /// The instance it was started on.
    pub target: String,
    /// The port on that instance; 0 if it runs a command.
    pub port: u16,
    /// The command that it runs, if it has no port.
    pub command: Option<String>,
    /// The caller's reason, if one was given.
    pub reason: Option<String>,
    /// Whether it has ended.
    pub state: SessionState,
    /// When it was started.
    pub started: SystemTime,
    /// When it ended, if it has.
    pub ended: Option<SystemTime>,
    /// How often a client reconnected to its data channel.
    pub resumes: u32,
    /// How many faults were injected into its messages and connections.
    pub faults: u32,
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum TokenError {
    /// The session has ended.
    #[error("the session is already terminated")]
    Terminated,
    /// No session has this id.
    #[error("no session has this id")]
    UnknownSession,
    /// The token is unknown, used, or replaced by a new one.
    #[error("the token is wrong, used or replaced")]
    WrongToken,
    /// The token has expired.
    #[error("the token has expired")]
    ExpiredToken,
}

/// The checked input of StartSession.
#[derive(Clone, Debug)]
pub(crate) struct Opening {
    pub(crate) target: String,
    pub(crate) region: AwsRegion,
    pub(crate) document: String,
    pub(crate) purpose: Purpose,
    pub(crate) reason: Option<String>,
}

/// The output of StartSession and ResumeSession.
#[derive(Clone, Debug)]
pub(crate) struct StreamTicket {
    pub(crate) session_id: String,
    pub(crate) stream_url: String,
    pub(crate) token: String,
}

/// The gateway's view of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionInfo {
    pub(crate) id: String,
    pub(crate) target: String,
    pub(crate) purpose: Purpose,
    /// Changes once, to [`SessionState::Terminated`].
    pub(crate) state: watch::Receiver<SessionState>,
    /// The counter of injected faults.
    pub(crate) faults: FaultCount,
}

/// The number of faults injected into a session; clones share one counter.
#[derive(Clone, Debug, Default)]
pub(crate) struct FaultCount(Arc<AtomicU32>);

impl FaultCount {
    /// Counts one more.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The part of a session that DescribeSessions shows.
#[derive(Clone, Debug)]
pub(crate) struct SessionRecord {
    pub(crate) id: String,
    pub(crate) opening: Opening,
    pub(crate) owner: String,
    pub(crate) started: SystemTime,
    pub(crate) ended: Option<SystemTime>,
    attachments: u32,
    faults: FaultCount,
    /// The reason that its client gets at its end.
    pub(crate) output: String,
}

impl SessionRecord {
    /// Whether a client has ever opened its data channel.
    pub(crate) fn was_attached(&self) -> bool {
        self.attachments > 0
    }

    /// Whether it has ended.
    pub(crate) fn state(&self) -> SessionState {
        if self.ended.is_none() { SessionState::Connected } else { SessionState::Terminated }
    }

    /// Its public description.
    pub(crate) fn summary(&self) -> SessionSummary {
        let (port, command) = match &self.opening.purpose {
            Purpose::Command(command) | Purpose::SeparateCommand(command) => (0, Some(command.clone())),
            Purpose::Port(port) => (*port, None),
        };
        SessionSummary {
            id: self.id.clone(),
            target: self.opening.target.clone(),
            port,
            command,
            reason: self.opening.reason.clone(),
            state: self.state(),
            started: self.started,
            ended: self.ended,
            resumes: self.attachments.saturating_sub(1),
            faults: self.faults.sum(),
        }
    }
}

/// A token, which admits one websocket and expires.
#[derive(Debug)]
struct Token {
    text: String,
    made: SystemTime,
}

/// A session: its record, its secret token and its watched state.
#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) record: SessionRecord,
    token: Option<Token>,
    state: watch::Sender<SessionState>,
}

impl Session {
    /// Starts a session with a fresh id and a fresh token.
    pub(crate) fn start(opening: Opening, caller: &Caller, now: SystemTime) -> io::Result<Self> {
        let mut bytes = [0; 8];
        random(&mut bytes)?;
        // Seventeen digits, the first of them 0, as in instance ids and in the session ids seen in logs.
        let id = format!("{}-0{:016x}", caller.name, u64::from_be_bytes(bytes));
        let record = SessionRecord {
            id,
            opening,
            owner: caller.arn.clone(),
            started: now,
            ended: None,
            attachments: 0,
            faults: FaultCount::default(),
            output: String::new(),
        };
        let state = watch::Sender::new(SessionState::Connected);
        Ok(Self { record, token: Some(fresh_token(now)?), state })
    }

    /// The unused token, if there is one.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_ref().map(|token| token.text.as_str())
    }

    /// Whether it has not ended.
    pub(crate) fn is_connected(&self) -> bool {
        self.record.ended.is_none()
    }

    /// Replaces the token by a fresh one; an ended session gets none.
    pub(crate) fn renew_token(&mut self, now: SystemTime) -> io::Result<()> {
        self.token = if self.is_connected() { Some(fresh_token(now)?) } else { None };
        Ok(())
    }

    /// Consumes the token, which must have been made less than `life` ago.
    pub(crate) fn take_token(
        &mut self,
        token: &str,
        life: Duration,
        now: SystemTime,
    ) -> Result<SessionInfo, TokenError> {
        if !self.is_connected() {
            return Err(TokenError::Terminated);
        }
        let made = match &self.token {
            Some(fresh) if fresh.text == token => fresh.made,
            _ => return Err(TokenError::WrongToken),
        };
        if made + life <= now {
            return Err(TokenError::ExpiredToken);
        }
        self.token = None;
        self.record.attachments += 1;
        Ok(self.info())
    }

    /// The gateway's view of it.
    pub(crate) fn info(&self) -> SessionInfo {
        SessionInfo {
            id: self.record.id.clone(),
            target: self.record.opening.target.clone(),
            purpose: self.record.opening.purpose.clone(),
            state: self.state.subscribe(),
            faults: self.record.faults.clone(),
        }
    }

    /// Ends it; `false` if it had ended already.
    pub(crate) fn terminate(&mut self, now: SystemTime) -> bool {
        if !self.is_connected() {
            return false;
        }
        self.record.ended = Some(now);
        self.token = None;
        self.state.send_replace(SessionState::Terminated);
        true
    }
}

/// Two hundred characters of base64, within the range that the service sends.
fn fresh_token(now: SystemTime) -> io::Result<Token> {
    let mut bytes = [0; 150];
    random(&mut bytes)?;
    Ok(Token { text: STANDARD.encode(bytes), made: now })
}
