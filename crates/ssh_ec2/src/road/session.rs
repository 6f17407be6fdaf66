//! A session of Session Manager, from its start to its end.
//!
//! Every session has the same life: [`Session::start`] calls StartSession; [`Session::carry`] attaches a
//! websocket and carries bytes; [`Session::hold`], inside which `carry` runs, ends the session at AWS on
//! every path. A future that starts or holds a session must not be dropped half-way: nothing else would end
//! the session.

mod resume;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ssm_channel::{Channel, MessageId, Origin, Side};

use crate::aws::{Aws, AwsError, Document, SessionId, StartSession, Token};
use crate::net::network::Network;
use crate::net::websocket::{Prepared, StreamUrl, prepare};
use crate::road::error::RoadError;
use crate::road::tunnel::{self, Closed, End, Local, Notice, Outcome, Resume};
use crate::target::{Port, SessionTarget};

/// What a session is for, which determines its document and the document's parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose<'a> {
    /// A command line, run without a terminal.
    Command(&'a str),
    /// A byte stream to this port of the target.
    Port(Port),
}

impl Purpose<'_> {
    fn document(self) -> Document {
        match self {
            Self::Command(_) => Document::NonInteractiveCommand,
            Self::Port(_) => Document::Ssh,
        }
    }

    fn parameters(self) -> BTreeMap<&'static str, Vec<String>> {
        BTreeMap::from([match self {
            Self::Command(line) => ("command", vec![line.to_owned()]),
            Self::Port(port) => ("portNumber", vec![port.to_string()]),
        }])
    }
}

/// What happens when a websocket cannot be opened or is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Persistence {
    /// The session fails: it is a short one.
    Once,
    /// The session is resumed; attempts continue for minutes.
    Resume,
}

/// A session that was started.
pub(crate) struct Session<'a> {
    aws: &'a Aws,
    network: &'a Network,
    target: SessionTarget,
    id: SessionId,
    /// The URL of the session's last websocket; ResumeSession may return another.
    stream_url: RefCell<StreamUrl>,
    /// The token from StartSession, until the first websocket uses it.
    token: Cell<Option<Token>>,
}

impl<'a> Session<'a> {
    /// Calls StartSession. `reason` is for Session Manager's records.
    ///
    /// # Errors
    ///
    /// [`AwsError`]; then no session is left at AWS.
    pub(crate) async fn start(
        aws: &'a Aws,
        network: &'a Network,
        target: SessionTarget,
        purpose: Purpose<'_>,
        reason: Option<&str>,
    ) -> Result<Self, AwsError> {
        let (document, parameters) = (purpose.document(), purpose.parameters());
        let ticket =
            aws.start_session(&StartSession { target: &target, document, parameters, reason }).await?;
        Ok(Self {
            aws,
            network,
            target,
            id: ticket.session_id,
            stream_url: RefCell::new(ticket.stream_url),
            token: Cell::new(Some(ticket.token)),
        })
    }

    pub(crate) fn id(&self) -> &SessionId {
        &self.id
    }

    pub(crate) fn stream_url(&self) -> StreamUrl {
        self.stream_url.borrow().clone()
    }

    /// Does `work`, which may [`carry`](Self::carry), and then ends the session at AWS, unless the work ended
    /// because the service had ended the session. That takes two seconds at most.
    ///
    /// # Errors
    ///
    /// Those of `work`.
    pub(crate) async fn hold<S, E>(
        self,
        work: impl AsyncFnOnce(&Self) -> Result<Outcome<S, RoadError>, E>,
    ) -> Result<Outcome<S, RoadError>, E> {
        let outcome = work(&self).await;
        let is_over = matches!(&outcome, Ok(Outcome { end: End::Closed(Closed::ByPeer { .. }), .. }));
        if !is_over {
            self.aws.end_session(&self.id).await;
        }
        outcome
    }

    /// Attaches a websocket, on `prepared` if that is a connection, and carries bytes between the session and
    /// `local` until `stop` or another [`End`].
    ///
    /// # Errors
    ///
    /// [`RoadError`] if no websocket could be attached. What happens later is an [`End`].
    pub(crate) async fn carry<S>(
        &self,
        persistence: Persistence,
        prepared: impl Future<Output = Option<Prepared>>,
        local: Local,
        mut stop: Pin<&mut impl Future<Output = S>>,
        notice: impl FnMut(Notice),
    ) -> Result<Outcome<S, RoadError>, RoadError> {
        // Boxed, since otherwise the types of the futures around it nest too deeply for the compiler.
        let attaching = Box::pin(async { self.attach(persistence, prepared.await).await });
        let first = tokio::select! {
            first = attaching => first?,
            reason = stop.as_mut() => return Ok(Outcome::stopped(reason)),
        };
        let channel = client_channel()?;
        let resume = || -> Resume<'_, _, _> { Box::pin(self.resume(persistence)) };
        Ok(tunnel::run(channel, first, local, stop, resume, notice).await)
    }
}

/// The client's side of the channel of a session that was just started.
fn client_channel() -> Result<Channel, RoadError> {
    let mut random = [0; 24];
    getrandom::fill(&mut random).map_err(RoadError::Random)?;
    let mut id: [u8; 16] = std::array::from_fn(|at| random[at]);
    let seed: [u8; 8] = std::array::from_fn(|at| random[16 + at]);
    // A UUID of version 4.
    id[6] = id[6] & 0x0f | 0x40;
    id[8] = id[8] & 0x3f | 0x80;
    let unix_time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let origin = Origin { seed: u64::from_le_bytes(seed), unix_time, now: Instant::now() };
    Ok(Channel::new(Side::Client { client_id: MessageId::from_bytes(id).to_string() }, origin))
}

/// Resolves the message gateway's name and opens TCP and TLS to it during StartSession, which takes longer
/// and is not needed for that. Errors are ignored: they occur again, and are reported, when the websocket is
/// dialled.
pub(crate) struct EarlyDial<'a> {
    gateway: Option<StreamUrl>,
    since: Instant,
    dialling: Pin<Box<dyn Future<Output = Option<Prepared>> + 'a>>,
    /// The result of `dialling`, once it has ended: `Some(None)` if there is no connection.
    dialled: Option<Option<Prepared>>,
}

impl<'a> EarlyDial<'a> {
    /// Prepares the future; connects only when [`proceed`](Self::proceed) is polled.
    pub(crate) fn new(aws: &Aws, network: &'a Network) -> Self {
        let gateway = aws.message_gateway();
        let dialling = dial_early(gateway.clone(), network);
        Self { gateway, since: Instant::now(), dialling: Box::pin(dialling), dialled: None }
    }

    /// Connects, and never returns. Cancel-safe.
    pub(crate) async fn proceed(&mut self) -> Infallible {
        if self.dialled.is_none() {
            self.dialled = Some(self.dialling.as_mut().await);
        }
        pending().await
    }

    /// The connection, if the session can use it.
    pub(crate) async fn connection(self, session: &Session<'_>) -> Option<Prepared> {
        match self.dialled {
            // The gateway may have closed an older connection by now.
            Some(dialled) => dialled.filter(|_| self.since.elapsed() < PREPARED_LIFE),
            None => {
                // Worth waiting for only if it goes to the session's gateway.
                let expected =
                    self.gateway.is_some_and(|url| url.host() == session.stream_url.borrow().host());
                if expected { self.dialling.await } else { None }
            }
        }
    }
}

async fn dial_early(gateway: Option<StreamUrl>, network: &Network) -> Option<Prepared> {
    prepare(&gateway?, network).await.ok()
}

/// How old a connection to the gateway may be when its first request is sent. AWS documents no limit for
/// such a connection. StartSession returns sooner, unless the call is repeated or waits in the queue; then
/// dialling again costs little.
const PREPARED_LIFE: Duration = Duration::from_secs(10);
