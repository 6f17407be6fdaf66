//! The session of a connection: starts it, in turn if AWS throttles, and joins standard input and output to
//! it.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::door::Door;
use super::job::Job;
use super::refusal::Login;
use super::verdict::Notices;
use super::watched::watched;
use super::{End, Failure, Outcome, Stop};
use crate::aws::AwsError;
use crate::road::session::{EarlyDial, Persistence, Purpose, Session};
use crate::road::stdio::{self, Meter};
use crate::road::tunnel::Local;
use crate::ui;

/// Starts a session, carries its bytes, and ends it at AWS. `ended` is called when the tunnel has ended,
/// before the session is ended at AWS.
pub(super) async fn hold_session(
    login: &Login<'_>,
    door: &Rc<Door>,
    mut stop: Pin<&mut impl Future<Output = Stop>>,
    ended: impl FnOnce(&End),
) -> Result<Outcome, Failure> {
    let mut early = EarlyDial::new(login.aws, login.network);
    let (session, stopped) = match start(login, &mut early, stop.as_mut()).await? {
        Start::Started(session, stopped) => (session, stopped),
        Start::Left(reason) => return Ok(Outcome::stopped(reason)),
    };
    session
        .hold(async |session| {
            let outcome = match stopped {
                Some(reason) => Ok(Outcome::stopped(reason)),
                None => carry(login.job, session, early, door, stop).await,
            };
            if let Ok(outcome) = &outcome {
                ended(&outcome.end);
            }
            outcome
        })
        .await
}

/// The result of starting a session.
enum Start<'a> {
    /// The session has started. It is not needed if the connection was stopped meanwhile.
    Started(Session<'a>, Option<Stop>),
    /// The connection was stopped, and no session was started.
    Left(Stop),
}

/// Starts a session and connects to its gateway meanwhile. Prints a note if that takes long.
async fn start<'a>(
    login: &Login<'a>,
    early: &mut EarlyDial<'_>,
    mut stop: Pin<&mut impl Future<Output = Stop>>,
) -> Result<Start<'a>, Failure> {
    let began = Instant::now();
    let queue = Queue::default();
    let mut start = pin!(start_in_turn(login, &queue));
    let mut patience = pin!(sleep(NOTE_WAIT_AFTER));
    let mut is_noted = false;
    let mut stopped = None;
    // Must not be dropped half-way: AWS may have started the session already, and then it must be ended.
    loop {
        tokio::select! {
            session = &mut start => {
                let session = session?;
                tracing::info!("started session {} in {:.0?}", session.id(), began.elapsed());
                return Ok(Start::Started(session, stopped));
            }
            reason = stop.as_mut(), if stopped.is_none() => {
                if queue.waits.get() {
                    return Ok(Start::Left(reason));
                }
                queue.is_left.set(true);
                stopped = Some(reason);
            }
            never = early.proceed() => match never {},
            () = patience.as_mut(), if !is_noted => {
                is_noted = true;
                ui::note(&format!(
                    "Session Manager has not started a session on {} yet; AWS may be slow, or refuse so many calls (waiting, Ctrl-C ends)",
                    login.job.instance
                ));
            }
        }
    }
}

/// The wait of a connection whose StartSession was throttled.
#[derive(Default)]
struct Queue {
    /// Whether the connection waits for its turn, so that no call of StartSession is under way.
    waits: Cell<bool>,
    /// Whether the connection does not need a session any more.
    is_left: Cell<bool>,
}

/// Calls StartSession, and waits for a turn if AWS throttles it: if all processes just repeated their calls,
/// AWS would keep refusing them.
async fn start_in_turn<'a>(login: &Login<'a>, queue: &Queue) -> Result<Session<'a>, AwsError> {
    let Login { job, aws, network, .. } = *login;
    let purpose = Purpose::Port(job.options.port);
    let reason = job.options.reason.as_deref();
    let began = Instant::now();
    loop {
        let target = job.instance.clone().into();
        match Session::start(aws, network, target, purpose, reason).await {
            Err(AwsError::Throttled { .. }) if began.elapsed() < QUEUE_TIMEOUT && !queue.is_left.get() => {
                queue.waits.set(true);
                job.session_pace.turn().await;
                queue.waits.set(false);
            }
            result => return result,
        }
    }
}

async fn carry(
    job: &Job<'_>,
    session: &Session<'_>,
    early: EarlyDial<'_>,
    door: &Rc<Door>,
    stop: Pin<&mut impl Future<Output = Stop>>,
) -> Result<Outcome, Failure> {
    let local = pipes(job, door).map_err(Failure::Stdio)?;
    let mut notices = Notices::new(job);
    let notice = |notice| notices.show(notice);
    let connection = early.connection(session);
    Ok(session.carry(Persistence::Resume, connection, local, stop, notice).await?)
}

/// Standard input and output, behind the door, with the login watch on both.
fn pipes(job: &Job<'_>, door: &Rc<Door>) -> io::Result<Local> {
    let (input, output) = stdio::standard()?;
    let input = watched(input, Rc::clone(door));
    let (received, login) = (Meter::clone(&job.received), Rc::clone(&job.login));
    let observed = stdio::observed(output, move |length| {
        received.set(received.get() + length as u64);
        login.borrow_mut().received(length);
    });
    Ok(Local::Pipes { input, output: door.before(observed) })
}

/// After this time a note is printed. StartSession takes a second or two.
const NOTE_WAIT_AFTER: Duration = Duration::from_secs(5);
/// How long to wait for a turn. The sessions of a hundred connections that start together take 40 seconds to
/// start.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(60);
