//! The ProxyCommand: a session on the instance, bytes between it and ssh, and the key agent beside it.
//!
//! The push of the key and StartSession run side by side. Whatever way this ends, the session that was started is
//! ended at AWS, and the socket is gone. Standard output carries SSH bytes and nothing else.

mod host_keys;
mod resume;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, pending, poll_fn};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::{Duration, Instant};

use ssm_channel::Closed;
use tokio::time::{sleep, timeout};

use self::host_keys::HostKeys;
use self::resume::Resumer;
use crate::agent::socket::{AgentSocket, Usage, serve};
use crate::aws::{Aws, AwsError, SessionTicket, Settings, StartSession};
use crate::cache::Cache;
use crate::commands::send_key::read_public_key;
use crate::commands::signals::{Signal, Signals};
use crate::commands::tell_distrust;
use crate::diagnosis::{self, Refusal};
use crate::error::{ExitCode, Failure};
use crate::key::{KeyError, OneTimeKey};
use crate::login;
use crate::network::{Network, one_line};
use crate::pace::Pace;
use crate::probe::{Interrupt, Prober};
use crate::push::Push;
use crate::resolve::{Choice, Resolver, scope};
use crate::stdio::{self, Meter};
use crate::target::{InstanceId, OsUser, Port, Target};
use crate::tunnel::{self, End, Notice, Outcome};
use crate::ui;
use crate::websocket::{Prepared, prepare};

/// What to connect, and how.
#[derive(Clone, Debug)]
pub struct Request {
    /// The instance.
    pub target: Target,
    /// What to do when several match.
    pub choice: Choice,
    /// The name that an instance was found by before, when ssh was started.
    pub found_by: Option<Target>,
    /// Where known-hosts looks for this proxy.
    pub sockets: PathBuf,
    /// The rest.
    pub options: Options,
}

/// How to connect to an instance.
#[derive(Clone, Debug)]
pub struct Options {
    /// The login name, for the key.
    pub user: OsUser,
    /// sshd's port.
    pub port: Port,
    /// Profile and region.
    pub settings: Settings,
    /// Why, for the session's record at AWS.
    pub reason: Option<String>,
    /// A public key of the user's own to push instead of a one-time key.
    pub key_file: Option<PathBuf>,
    /// Where ssh looks for the key agent.
    pub agent_socket: PathBuf,
    /// Where failures are written down, for one who finds out their causes without our help.
    pub report: Option<PathBuf>,
    /// Who is at the other end of standard input and output.
    pub client: Client,
}

/// What the bytes are for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Client {
    /// Something that may speak to any port.
    Other,
    /// ssh, which speaks to sshd.
    Ssh,
}

/// The work, once it is known which instance it is for.
struct Job<'a> {
    request: &'a Request,
    instance: InstanceId,
    /// For pushes.
    pace: &'a Pace,
    /// The user of the system that sshd says it runs on.
    system_user: Cell<Option<&'static str>>,
    /// What was said first, where sshd should have greeted.
    stranger: RefCell<Option<String>>,
    /// Whether the SSM agent has completed the handshake.
    ready: Cell<bool>,
    /// Whether it was said that nothing answers.
    silence_told: Cell<bool>,
    /// Bytes from the instance.
    received: Meter,
}

impl std::ops::Deref for Job<'_> {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.request.options
    }
}

impl Options {
    /// Says what went wrong, in all places.
    fn complain(&self, error: &Failure) {
        ui::error(error);
        if let Some(file) = &self.report {
            error.write_down(file);
        }
    }
}

/// Why a tunnel is stopped from this side.
#[derive(Debug)]
enum Stop {
    /// ssh is done, or gone, or somebody ended us.
    Asked,
    /// The key is of no use.
    Failed(Failure),
}

/// The key that ssh will offer.
enum Identity {
    /// Whatever the user has: nothing can be pushed to a managed node.
    Any,
    /// The user's own, as a public line.
    Own(String),
    /// Ours.
    OneTime(Box<OneTimeKey>, AgentSocket),
}

/// Runs until ssh or the instance is done.
///
/// # Errors
/// The first thing that keeps ssh from its connection.
pub async fn run(request: &Request, network: &Network, cache: &Cache) -> Result<ExitCode, Failure> {
    let mut signals = Signals::new().map_err(Failure::Stdio)?;
    let aws = Aws::load(&request.options.settings, network).await?;
    tracing::info!("the region is {}", aws.region());
    let resolver = Resolver::new(&aws, cache);
    let (target, choice) = (&request.target, request.choice);
    // First, since a question to the user can be given up, and starting a session cannot.
    let found = async {
        aws.sign_in().await.inspect_err(|_| tell_distrust(Some(&aws), cache))?;
        Ok::<_, Failure>(resolver.instance(target, choice).await?)
    };
    let found = tokio::select! {
        found = found => found?,
        signal = signals.next() => {
            tracing::info!("ending: {signal}");
            return Ok(ExitCode::Interrupted);
        }
    };
    tell_distrust(Some(&aws), cache);
    let pace = cache.pace(&scope(&aws));
    let job = |instance| Job {
        request,
        instance,
        pace: &pace,
        system_user: Cell::new(None),
        stranger: RefCell::default(),
        ready: Cell::default(),
        silence_told: Cell::default(),
        received: Meter::default(),
    };
    let error = match connect(&job(found.id.clone()), &aws, network, &mut signals).await {
        Err(error) if leads_nowhere(&error) => error,
        Err(error) => return Err(explain(error, &aws, &found.id).await),
        result => return result,
    };
    // A name may mean another instance by now. ssh has not heard anything yet, and will not notice.
    if found.cached {
        resolver.forget(target, choice);
        let anew = resolver.instance(target, choice).await?;
        if anew.id != found.id {
            tracing::info!("{target} is {} now, and no longer {}", anew.id, found.id);
            let result = connect(&job(anew.id.clone()), &aws, network, &mut signals).await;
            return match result {
                Err(error) => Err(explain(error, &aws, &anew.id).await),
                result => result,
            };
        }
    }
    if let Some(target) = &request.found_by {
        resolver.forget(target, choice);
        // What is wrong with the name now says more than what was wrong with the instance.
        let new = resolver.instance(target, choice).await?.id;
        if new != found.id {
            return Err(Failure::Moved { target: target.to_string(), old: found.id, new });
        }
    }
    Err(explain(error, &aws, &found.id).await)
}

/// Turns a bare refusal into its cause, if that is found in a moment.
async fn explain(error: Failure, aws: &Aws, instance: &InstanceId) -> Failure {
    let silent = matches!(
        error,
        Failure::ChannelRefused { .. } | Failure::HandshakeTimeout { .. } | Failure::NothingAnswered { .. }
    );
    if !silent && !leads_nowhere(&error) {
        return error;
    }
    match timeout(DIAGNOSIS_TIMEOUT, diagnosis::of_reach(aws, instance)).await {
        Ok(Some(cause)) => cause.into(),
        _ => error,
    }
}

/// Whether the instance is not, or no longer, one that can be connected to.
fn leads_nowhere(error: &Failure) -> bool {
    use AwsError::{InstanceNotFound, InstanceNotRunning, TargetNotConnected};
    let Failure::Aws(error) = error else { return false };
    matches!(error, InstanceNotFound { .. } | InstanceNotRunning { .. } | TargetNotConnected { .. })
}

/// Connects to one instance, and answers known-hosts meanwhile.
async fn connect(
    job: &Job<'_>,
    aws: &Aws,
    network: &Network,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let interrupt = Interrupt::default();
    let host_keys = HostKeys::new(job.request, &job.instance, aws, network, &interrupt);
    let mut serving = pin!(host_keys.serve(&job.request.sockets));
    let verdict = {
        let mut tunnel = Box::pin(connect_tunnel(job, aws, network, signals));
        tokio::select! {
            biased;
            verdict = tunnel.as_mut() => verdict,
            never = serving.as_mut() => match never {},
        }
    };
    if !interrupt.is_open() {
        return verdict;
    }
    // ssh and its user do not wait for the end of a session that they know nothing of.
    let verdict = verdict.or_else(|error| {
        job.complain(&error);
        Ok::<_, Failure>(error.exit_code())
    });
    stdio::leave().map_err(Failure::Stdio)?;
    host_keys.end(serving, signals).await;
    verdict
}

async fn connect_tunnel(
    options: &Job<'_>,
    aws: &Aws,
    network: &Network,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let identity = Identity::prepare(options)?;
    let usage = Usage::new(Meter::clone(&options.received));
    let mut key_ready = pin!(keep_key_ready(options, aws, &identity, &usage));
    let key_failed = Cell::new(false);
    let ssh_is_done = Cell::new(false);
    let stop = async {
        tokio::select! {
            signal = signals.next() => {
                tracing::info!("ending: {signal}");
                // Whoever sends another one wants no explanation.
                ssh_is_done.set(matches!(signal, Signal::Hangup));
                Stop::Asked
            }
            () = stdio::output_abandoned() => {
                ssh_is_done.set(true);
                Stop::Asked
            }
            error = key_ready.as_mut() => {
                key_failed.set(true);
                Stop::Failed(error)
            }
        }
    };
    // Said at once, while ssh's own complaint is fresh: the end of the session takes a moment.
    let telling = Cell::new(false);
    let mut tell = pin!(async {
        poll_fn(|_| if ssh_is_done.get() { Poll::Ready(()) } else { Poll::Pending }).await;
        if usage.was_refused() {
            telling.set(true);
            tell_refusal(options, aws, network).await;
        }
    });
    let mut hold = Box::pin(async { hold_session(options, aws, network, pin!(stop)).await });
    let mut has_told = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = hold.as_mut() => break outcome,
            () = tell.as_mut(), if !has_told => has_told = true,
        }
    };
    drop(hold);
    if telling.get() && !has_told {
        tell.await;
    }
    let verdict = match outcome.and_then(|outcome| judge(options, outcome)) {
        Ok(ExitCode::Success) if usage.was_refused() && !telling.get() => {
            tell_refusal(options, aws, network).await;
            Ok(ExitCode::Failure)
        }
        verdict => verdict,
    };
    let (Identity::OneTime(_, socket), false) = (&identity, key_failed.get()) else { return verdict };
    socket.retire();
    let mut guests_gone = pin!(poll_fn(|cx| {
        // First, since it lets in who has knocked.
        let failed = key_ready.as_mut().poll(cx).is_ready();
        if failed || !usage.has_guests() { Poll::Ready(()) } else { Poll::Pending }
    }));
    if timeout(Duration::ZERO, guests_gone.as_mut()).await.is_ok() {
        return verdict;
    }
    // All is said, and nobody who reads to our end shall wait for others.
    let verdict = verdict.or_else(|error| {
        options.complain(&error);
        Ok::<_, Failure>(error.exit_code())
    })?;
    stdio::leave().map_err(Failure::Stdio)?;
    // Whoever stays longer waits for something else than a key.
    let _ = timeout(GUEST_TIMEOUT, guests_gone).await;
    Ok(verdict)
}

/// Says why sshd did not want the key, as far as that can be told in a moment. What was asked for that is ended in good
/// order, which may take longer.
async fn tell_refusal(options: &Job<'_>, aws: &Aws, network: &Network) {
    let (instance, user) = (&options.instance, &options.user);
    let interrupt = Interrupt::default();
    let prober = Prober { aws, network, instance, reason: "", interrupt: &interrupt };
    let mut asked = pin!(async {
        match options.report {
            // Whoever reads that looks longer.
            Some(_) => Refusal::default(),
            None => diagnosis::of_refusal(prober, user, DIAGNOSIS_TIMEOUT).await,
        }
    });
    let looked = timeout(DIAGNOSIS_TIMEOUT, asked.as_mut()).await;
    let is_late = looked.is_err();
    let Refusal { cause, is_enforcing } = looked.unwrap_or_default();
    options.complain(&match cause {
        Some(cause) => cause.into(),
        None => Failure::KeyRefused {
            instance: instance.clone(),
            user: user.clone(),
            system_user: options.system_user.get(),
            is_enforcing,
        },
    });
    if is_late {
        // What is being started can only be ended once it has. Nobody who reads to our end shall wait for that.
        interrupt.ask();
        let _ = stdio::leave();
        asked.await;
    }
}

impl Identity {
    fn prepare(options: &Job<'_>) -> Result<Self, Failure> {
        if options.instance.is_managed_node() {
            return Ok(Self::Any);
        }
        if let Some(path) = &options.key_file {
            return Ok(Self::Own(read_public_key(path)?));
        }
        Ok(Self::OneTime(Box::new(OneTimeKey::generate()?), AgentSocket::bind(&options.agent_socket)?))
    }
}

/// Pushes the key and serves the key agent. Ends only by failing.
async fn keep_key_ready(options: &Job<'_>, aws: &Aws, identity: &Identity, usage: &Usage) -> Failure {
    let public_line = match identity {
        Identity::Any => return pending().await,
        Identity::Own(line) => line.clone(),
        Identity::OneTime(key, _) => key.public_line(),
    };
    let push = Push::new(aws, &options.instance, &options.user, public_line, options.pace.clone());
    let serve_key = async {
        match identity {
            Identity::OneTime(key, socket) => serve(socket, key, usage, async || push.ensure().await).await,
            _ => pending().await,
        }
    };
    match tokio::try_join!(push.ensure(), serve_key) {
        Ok(_) => pending().await,
        Err(error) => error.into(),
    }
}

/// Starts a session, carries it, and ends it at AWS.
async fn hold_session(
    options: &Job<'_>,
    aws: &Aws,
    network: &Network,
    mut stop: Pin<&mut impl Future<Output = Stop>>,
) -> Result<Outcome<Stop, Failure>, Failure> {
    let parameters = BTreeMap::from([("portNumber".to_owned(), vec![options.port.to_string()])]);
    let request = StartSession {
        target: options.instance.clone(),
        document_name: SESSION_DOCUMENT.into(),
        parameters,
        reason: options.reason.clone(),
    };
    let started = Instant::now();
    let mut start = pin!(aws.start_session(&request));
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
            reason = stop.as_mut(), if stopped.is_none() => stopped = Some(reason),
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
            Some(prepared) => prepared,
            // Still under way: worth waiting for only if it leads where it should.
            None if expected => early.await,
            None => None,
        }
    };
    tracing::info!("started session {} in {:.0?}", ticket.session_id, started.elapsed());
    let resumer = Resumer::new(options, aws, network, &ticket);
    let outcome = match stopped {
        Some(reason) => Ok(Outcome { end: End::Stopped(reason), received: 0 }),
        None => carry(options, ticket, &resumer, prepared, stop).await,
    };
    let ended_by_service = matches!(&outcome, Ok(Outcome { end: End::Closed(Closed::ByGateway { .. }), .. }));
    if !ended_by_service {
        // Best effort: a caller without ssm:TerminateSession leaves it to the flag that the tunnel sent.
        match timeout(TERMINATE_TIMEOUT, aws.terminate_session(resumer.session_id())).await {
            Ok(Ok(_)) => tracing::info!("ended the session at AWS"),
            Ok(Err(error)) => tracing::info!("the session could not be ended at AWS: {error}"),
            Err(_) => tracing::info!("AWS did not confirm the session's end in time"),
        }
    }
    outcome
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
    mut stop: Pin<&mut impl Future<Output = Stop>>,
) -> Result<Outcome<Stop, Failure>, Failure> {
    let (input, output) = stdio::standard().map_err(Failure::Stdio)?;
    let local = (input, stdio::metered(output, Meter::clone(&options.received)));
    let first = tokio::select! {
        first = async { resumer.attach(ticket, prepared.await).await } => first?,
        reason = stop.as_mut() => return Ok(Outcome { end: End::Stopped(reason), received: 0 }),
    };
    let channel = tunnel::client_channel().map_err(KeyError::from)?;
    let resume = || -> tunnel::Resume<'_, _, Failure> { Box::pin(resumer.resume(resume::LIMIT)) };
    let mut told = false;
    let started = Instant::now();
    let notice = |notice| tell(options, notice, started, &mut told);
    Ok(tunnel::run(channel, first, local, stop, resume, notice).await)
}

fn tell(options: &Job<'_>, notice: Notice, started: Instant, told: &mut bool) {
    let (instance, port) = (&options.instance, options.port);
    match notice {
        Notice::Ready { agent_version, customer_message } => {
            options.ready.set(true);
            let version = agent_version.map_or_else(|| "unknown".into(), |version| version.to_string());
            tracing::info!("channel open after {:.0?}; SSM agent {version}", started.elapsed());
            if !customer_message.is_empty() {
                ui::note(&ui::shorten(&customer_message, WORDS_WIDTH));
            }
        }
        Notice::FirstBytes(greeting) => {
            tracing::info!("first bytes from {instance} after {:.0?}", started.elapsed());
            options.system_user.set(greeting_line(&greeting).and_then(login::of_banner));
            // Lines of another kind may stand in front of it (RFC 4253, section 4.2), but there is one.
            if options.client == Client::Ssh && !greeting.windows(4).any(|bytes| bytes == b"SSH-") {
                let line = String::from_utf8_lossy(&greeting);
                let line = ui::shorten(&ui::sanitise(line.lines().next().unwrap_or_default()), 60);
                options.stranger.replace(Some(line));
            }
        }
        // Sessions to ports have none.
        Notice::ErrorOutput(_) => {}
        Notice::Lost => tracing::info!("the connection was lost; resuming"),
        Notice::StillLost => {
            *told = true;
            ui::note(&format!("the connection to {instance} is lost; resuming it, no byte is lost"));
        }
        Notice::Resumed => {
            tracing::info!("resumed");
            if std::mem::take(told) {
                ui::note(&format!("the connection to {instance} is back"));
            }
        }
        Notice::NotTakenUp => ui::note(&format!(
            "the SSM agent of {instance} has not taken the session up yet; is it running? (waiting, Ctrl-C ends)"
        )),
        Notice::NothingAnswers => {
            options.silence_told.set(true);
            ui::note(&format!(
                "{instance} does not answer on port {port} yet; is sshd running there? (waiting, Ctrl-C ends)"
            ));
        }
    }
}

/// The first line of sshd's greeting.
fn greeting_line(bytes: &[u8]) -> Option<&str> {
    let line = bytes.split(|byte| matches!(byte, b'\r' | b'\n')).next()?;
    std::str::from_utf8(line).ok().filter(|line| line.starts_with("SSH-"))
}

/// What the end means to ssh.
fn judge(options: &Job<'_>, outcome: Outcome<Stop, Failure>) -> Result<ExitCode, Failure> {
    let instance = options.instance.clone();
    let words = |output: &str| ui::shorten(&ui::sanitise(&one_line(output)), WORDS_WIDTH);
    if let Some(greeting) = options.stranger.take()
        && outcome.received < KEY_EXCHANGE_LENGTH
    {
        let port = options.port;
        return Err(match login::is_turned_away(&greeting) {
            true => Failure::SshdBusy { instance, port, greeting },
            false => Failure::NotSsh { instance, port, greeting },
        });
    }
    match outcome.end {
        End::InputEnded | End::OutputBroken | End::Closed(Closed::Terminated { .. }) => Ok(ExitCode::Success),
        End::Stopped(Stop::Asked) => Ok(ExitCode::Interrupted),
        End::Stopped(Stop::Failed(error)) | End::Lost(error) => Err(error),
        End::InputBroken(error) => Err(Failure::Stdio(error)),
        // The SSM agent gave the session up before it tried the port.
        End::Closed(Closed::ByGateway { output }) if !options.ready.get() && !output.is_empty() => {
            Err(Failure::ChannelRefused { instance, output: words(&output) })
        }
        End::Closed(Closed::ByGateway { output }) if outcome.received == 0 => {
            let (port, told) = (options.port, options.silence_told.get());
            Err(Failure::NothingAnswered { instance, port, output: words(&output), told })
        }
        End::Closed(Closed::ByGateway { output }) if output.is_empty() => Ok(ExitCode::Success),
        End::Closed(Closed::ByGateway { output }) => {
            Err(Failure::SessionEnded { instance, output: words(&output) })
        }
        End::Closed(Closed::HandshakeTimeout) => Err(Failure::HandshakeTimeout { instance }),
        End::Closed(Closed::HandshakeFailed { output }) => {
            Err(Failure::ChannelRefused { instance, output: words(&output) })
        }
        End::Closed(Closed::NoProgress) => Err(Failure::NoProgress { instance }),
    }
}

/// The document for a plain byte stream to a TCP port of the instance.
const SESSION_DOCUMENT: &str = "AWS-StartSSHSession";
/// For another connection's authentication with our key: as long as a push may take.
const GUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Of what an administrator, the service or the SSM agent say; they mean to write a sentence.
const WORDS_WIDTH: usize = 1000;
/// Fewer bytes than any key exchange has.
const KEY_EXCHANGE_LENGTH: u64 = 512;
/// StartSession takes a second or two.
const TELL_WAIT_AFTER: Duration = Duration::from_secs(5);
/// For finding out why, while somebody waits.
const DIAGNOSIS_TIMEOUT: Duration = Duration::from_secs(2);
/// For a call that nobody waits for any more.
const TERMINATE_TIMEOUT: Duration = Duration::from_secs(2);
