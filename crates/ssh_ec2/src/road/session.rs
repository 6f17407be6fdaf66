//! The session that carries the bytes: started, attached, and ended at AWS.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use ssm_channel::Closed;
use tokio::time::{sleep, timeout};

use super::door::Door;
use super::resume::{self, Resumer};
use super::verdict::tell;
use super::watched::watched;
use super::{Failure, Job, Stop};
use crate::aws::{Aws, AwsError, SessionTicket, StartSession};
use crate::key::one_time::KeyError;
use crate::net::network::Network;
use crate::net::websocket::{Prepared, prepare};
use crate::road::stdio::{self, Meter};
use crate::road::tunnel::{self, End, Outcome};
use crate::ui;

/// Starts a session, carries it, and ends it at AWS. `ended` is called with the end of the
/// tunnel, before the session is ended at AWS.
pub(super) async fn hold_session(
    options: &Job<'_>,
    aws: &Aws,
    network: &Network,
    door: &Rc<Door>,
    mut stop: Pin<&mut impl Future<Output = Stop>>,
    ended: impl FnOnce(&End<Stop, Failure>),
) -> Result<Outcome<Stop, Failure>, Failure> {
    let request = request(options);
    let started = Instant::now();
    let queue = Queue::default();
    let mut start = pin!(start_in_turn(aws, &request, options, &queue));
    // The gateway's name, TCP and TLS need nothing from StartSession, which takes longer.
    let mut early = pin!(connect_early(aws, network));
    let mut prepared = None;
    let mut stopped = None;
    let mut patience = pin!(sleep(TELL_WAIT_AFTER));
    let mut told = false;
    // Never abandoned half-way: AWS may have started the session already, and then it must be ended.
    let ticket = loop {
        tokio::select! {
            ticket = &mut start => break ticket?,
            reason = stop.as_mut(), if stopped.is_none() => {
                if queue.waits.get() {
                    return Ok(Outcome { end: End::Stopped(reason), received: 0 });
                }
                queue.is_left.set(true);
                stopped = Some(reason);
            }
            done = early.as_mut(), if prepared.is_none() => prepared = Some(done),
            () = patience.as_mut(), if !told => {
                told = true;
                ui::note(&format!(
                    "Session Manager has not started a session on {} yet; AWS may be slow, or refuse so many calls (waiting, Ctrl-C ends)",
                    options.instance
                ));
            }
        }
    };
    let expected = aws.message_gateway().is_some_and(|gateway| gateway.host() == ticket.stream_url.host());
    let prepared = async {
        match prepared {
            // The gateway may have closed an older one by now.
            Some(prepared) => prepared.filter(|_| started.elapsed() < PREPARED_LIFE),
            // Still under way: worth waiting for only if it leads where it should.
            None if expected => early.await,
            None => None,
        }
    };
    tracing::info!("started session {} in {:.0?}", ticket.session_id, started.elapsed());
    let resumer = Resumer::new(options, aws, network, &ticket);
    let outcome = match stopped {
        Some(reason) => Ok(Outcome { end: End::Stopped(reason), received: 0 }),
        None => carry(options, ticket, &resumer, prepared, door, stop).await,
    };
    if let Ok(outcome) = &outcome {
        ended(&outcome.end);
    }
    let ended_by_service = matches!(&outcome, Ok(Outcome { end: End::Closed(Closed::ByGateway { .. }), .. }));
    if !ended_by_service {
        terminate(aws, &resumer).await;
    }
    outcome
}

/// A place in the queue of the connections to which Session Manager has refused a session, since too many
/// were started.
#[derive(Default)]
struct Queue {
    /// Whether the connection is waiting for its turn, so that nothing is being started.
    waits: Cell<bool>,
    /// Whether it does not want a session any more.
    is_left: Cell<bool>,
}

/// Calls StartSession, and waits for a turn where AWS throttles it: calls that all repeat by themselves would
/// go on being refused.
async fn start_in_turn(
    aws: &Aws,
    request: &StartSession,
    options: &Job<'_>,
    queue: &Queue,
) -> Result<SessionTicket, AwsError> {
    let began = Instant::now();
    loop {
        match aws.start_session(request).await {
            Err(AwsError::Throttled { .. }) if began.elapsed() < QUEUE_TIMEOUT && !queue.is_left.get() => {
                queue.waits.set(true);
                options.session_pace.turn().await;
                queue.waits.set(false);
            }
            result => return result,
        }
    }
}

fn request(options: &Job<'_>) -> StartSession {
    StartSession {
        target: options.instance.clone(),
        document_name: SESSION_DOCUMENT.into(),
        parameters: BTreeMap::from([("portNumber".to_owned(), vec![options.port.to_string()])]),
        reason: options.reason.clone(),
    }
}

/// Best effort: a caller without ssm:TerminateSession leaves it to the flag that the tunnel sent.
async fn terminate(aws: &Aws, resumer: &Resumer<'_>) {
    match timeout(TERMINATE_TIMEOUT, aws.terminate_session(resumer.session_id())).await {
        Ok(Ok(_)) => tracing::info!("ended the session at AWS"),
        Ok(Err(error)) => tracing::info!("the session could not be ended at AWS: {error}"),
        Err(_) => tracing::info!("AWS did not confirm the session's end in time"),
    }
}

/// Best effort: what goes wrong here goes wrong again, and is reported, when the websocket is dialled.
async fn connect_early(aws: &Aws, network: &Network) -> Option<Prepared> {
    prepare(&aws.message_gateway()?, network).await.ok()
}

async fn carry(
    options: &Job<'_>,
    ticket: SessionTicket,
    resumer: &Resumer<'_>,
    prepared: impl Future<Output = Option<Prepared>>,
    door: &Rc<Door>,
    mut stop: Pin<&mut impl Future<Output = Stop>>,
) -> Result<Outcome<Stop, Failure>, Failure> {
    let (input, output) = stdio::standard().map_err(Failure::Stdio)?;
    let input = watched(input, Rc::clone(&options.login));
    let (received, login) = (Meter::clone(&options.received), Rc::clone(&options.login));
    let observed = stdio::observed(output, move |length| {
        received.set(received.get() + length as u64);
        login.borrow_mut().received(length);
    });
    let output = door.before(observed);
    let first = tokio::select! {
        first = async { resumer.attach(ticket, prepared.await).await } => first?,
        reason = stop.as_mut() => return Ok(Outcome { end: End::Stopped(reason), received: 0 }),
    };
    let channel = tunnel::client_channel().map_err(KeyError::from)?;
    let resume = || -> tunnel::Resume<'_, _, Failure> { Box::pin(resumer.resume(resume::LIMIT)) };
    let mut told = false;
    let started = Instant::now();
    let notice = |notice| tell(options, notice, started, &mut told);
    Ok(tunnel::run(channel, first, (input, output), stop, resume, notice).await)
}

/// The document for a plain byte stream to a TCP port of the instance.
const SESSION_DOCUMENT: &str = "AWS-StartSSHSession";
/// StartSession takes a second or two.
const TELL_WAIT_AFTER: Duration = Duration::from_secs(5);
/// After the end of ssh.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
/// For a turn in the queue. A hundred connections at once are through in 40 seconds.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
/// For a connection to the gateway on which nothing has been sent.
const PREPARED_LIFE: Duration = Duration::from_secs(10);
