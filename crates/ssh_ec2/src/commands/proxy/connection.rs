//! A connection to one instance: the session, the key and the requests of known-hosts, concurrently.

use std::cell::Cell;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::timeout;

use super::door::Door;
use super::host_keys::HostKeys;
use super::job::Job;
use super::key::{Identity, keep_key_ready};
use super::refusal::Login;
use super::session::hold_session;
use super::verdict::judge;
use super::{End, Outcome, Stop};
use crate::aws::Aws;
use crate::commands::signals::{Signal, Signals};
use crate::error::{ExitCode, Failure};
use crate::key::agent::serve::Usage;
use crate::net::network::Network;
use crate::road::probe::Interrupt;
use crate::road::stdio;

/// Connects to one instance, and serves the requests of known-hosts meanwhile.
pub(super) async fn connect(
    job: &Job<'_>,
    aws: &Aws,
    network: &Network,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let words = &job.options.words;
    let interrupt = Interrupt::default();
    let host_keys = HostKeys::new(job.request, &job.instance, aws, network, &interrupt);
    let mut serving = pin!(host_keys.serve(&job.request.sockets));
    let verdict = {
        let mut left = pin!(words.done_when_left());
        let mut tunnel = Box::pin(connect_tunnel(job, aws, network, signals));
        tokio::select! {
            biased;
            verdict = tunnel.as_mut() => verdict,
            never = serving.as_mut() => match never {},
            never = left.as_mut() => match never {},
        }
    };
    if !interrupt.is_open() {
        return verdict;
    }
    // The session was never used, so ssh and its user need not wait for its end.
    let verdict = verdict.or_else(|error| Ok(job.options.complain(error)));
    words.done();
    stdio::leave().map_err(Failure::Stdio)?;
    host_keys.end(serving, signals).await;
    verdict
}

async fn connect_tunnel(
    job: &Job<'_>,
    aws: &Aws,
    network: &Network,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let identity = Identity::check(job)?;
    let door = Rc::new(Door::new(job));
    let usage = &door.usage;
    let mut key_ready = pin!(keep_key_ready(job, aws, &identity, &door));
    let login = Login { job, aws, network, usage };
    let ending = Ending::default();
    let stop = ending.watch(signals, key_ready.as_mut());
    let (outcome, is_explained) = carry_and_explain(&login, &door, &ending, stop).await;
    let verdict = match outcome.and_then(|outcome| judge(job, outcome)) {
        Ok(ExitCode::Success) if !is_explained && login.has_failed() && !interrupted(signals).await => {
            login.explain().await;
            Ok(ExitCode::Failure)
        }
        verdict => verdict,
    };
    let Some(socket) = door.socket() else { return verdict };
    socket.retire().await;
    match ending.key_failed.get() {
        true => verdict,
        false => serve_guests(job, usage, key_ready, verdict).await,
    }
}

/// Holds the session. When ssh ends because its login failed, the failure is explained before the session is
/// ended, which takes a moment, so that the explanation comes right after ssh's own message. Returns whether
/// a failure was explained.
async fn carry_and_explain(
    login: &Login<'_>,
    door: &Rc<Door>,
    ending: &Ending,
    stop: impl Future<Output = Stop>,
) -> (Result<Outcome, Failure>, bool) {
    let job = login.job;
    let needs_words = || login.has_failed() || job.foreign_greeting().is_some();
    let is_explained = Cell::new(false);
    let mut explaining = pin!(async {
        ending.ssh_is_done().await;
        if !ending.is_interrupted.get() && login.has_failed() {
            is_explained.set(true);
            login.explain().await;
        } else if job.foreign_greeting().is_none() {
            job.options.words.done();
        }
    });
    let ended = |end: &End| {
        let is_done = match end {
            End::OutputBroken(error) => stdio::reader_is_gone(error),
            end => matches!(end, End::InputEnded),
        };
        if is_done && !needs_words() {
            job.options.words.done();
        }
    };
    // Boxed, so that it can be dropped before the explanation continues: the tunnel owns standard input and
    // output.
    let mut session = Box::pin(async { hold_session(login, door, pin!(stop), ended).await });
    let mut has_explained = false;
    let mut ssh_options = pin!(job.ssh_options());
    let mut has_options = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = session.as_mut() => break outcome,
            () = explaining.as_mut(), if !has_explained => has_explained = true,
            // Polled after StartSession, which is not to wait for these.
            _ = ssh_options.as_mut(), if !has_options => has_options = true,
        }
    };
    drop(session);
    if is_explained.get() && !has_explained {
        explaining.await;
    }
    (outcome, is_explained.get())
}

/// Why this process ends a tunnel.
#[derive(Default)]
struct Ending {
    key_failed: Cell<bool>,
    ssh_is_done: Cell<bool>,
    /// By a signal that was sent for another reason than ssh's end.
    is_interrupted: Cell<bool>,
}

impl Ending {
    async fn watch(&self, signals: &mut Signals, key_ready: Pin<&mut impl Future<Output = Failure>>) -> Stop {
        tokio::select! {
            biased;
            signal = signals.next() => {
                tracing::info!("ending: {signal}");
                self.is_interrupted.set(signal != Signal::Hangup || interrupted(signals).await);
            }
            () = stdio::output_abandoned() => self.is_interrupted.set(interrupted(signals).await),
            error = key_ready => {
                self.key_failed.set(true);
                return Stop::Failed(error);
            }
        }
        self.ssh_is_done.set(true);
        Stop::Asked
    }

    /// Must be polled again after each poll of [`watch`](Self::watch).
    async fn ssh_is_done(&self) {
        poll_fn(|_| if self.ssh_is_done.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    }
}

/// Serves the key agent after this connection is over, for the clients of other connections that have
/// connected to it.
async fn serve_guests(
    job: &Job<'_>,
    usage: &Usage,
    mut key_ready: Pin<&mut impl Future<Output = Failure>>,
    verdict: Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    // The runtime must poll the socket before it sees the clients in the backlog.
    for _ in 0..2 {
        yield_now().await;
    }
    let mut guests_gone = pin!(poll_fn(|cx| {
        // Polled first, since it accepts the clients that have connected.
        let failed = key_ready.as_mut().poll(cx).is_ready();
        if failed || !usage.has_guests() { Poll::Ready(()) } else { Poll::Pending }
    }));
    if timeout(Duration::ZERO, guests_gone.as_mut()).await.is_ok() {
        return verdict;
    }
    // Closed, since programs that read the output to its end must not wait for other connections.
    let verdict = verdict.unwrap_or_else(|error| job.options.complain(error));
    job.options.words.done();
    stdio::leave().map_err(Failure::Stdio)?;
    // After this time a remaining client is not here for the key.
    let _ = timeout(GUEST_TIMEOUT, guests_gone).await;
    Ok(verdict)
}

/// Whether the user has ended ssh and needs no explanation. Ctrl-C reaches both ssh and this process, so this
/// process may notice ssh's end before its own signal.
async fn interrupted(signals: &mut Signals) -> bool {
    // The runtime delivers signals that have come when it polls again.
    yield_now().await;
    tokio::select! {
        biased;
        signal = signals.next() => signal != Signal::Hangup,
        () = ready(()) => false,
    }
}

/// How long another connection may authenticate with the key of this one: as long as a push may take.
const GUEST_TIMEOUT: Duration = Duration::from_secs(30);
