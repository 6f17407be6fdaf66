//! The ProxyCommand: a session on the instance, bytes between it and ssh, and the key agent beside it.
//!
//! The push of the key and StartSession run side by side. Whatever way this ends, the session that was started is
//! ended at AWS, and the socket is gone. Standard output carries SSH bytes and nothing else.

mod door;
mod host_keys;
mod key;
mod login_watch;
mod plain_host;
mod refusal;
#[path = "../road/resume.rs"]
mod resume;
#[path = "../road/session.rs"]
mod session;
mod verdict;
mod watched;
mod words;

use std::cell::{Cell, RefCell};
use std::ffi::OsString;
use std::future::{Future, poll_fn};
use std::path::PathBuf;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::OnceCell;
use tokio::task::yield_now;
use tokio::time::timeout;

use self::door::Door;
use self::host_keys::HostKeys;
use self::key::{Identity, keep_key_ready};
use self::login_watch::LoginWatch;
pub use self::plain_host::plain_host;
use self::refusal::{Login, explain, leads_nowhere};
use self::session::hold_session;
use self::verdict::judge;
pub use self::words::Words;
use crate::aws::{Aws, Settings};
use crate::commands::signals::{Signal, Signals};
use crate::commands::tell_distrust;
use crate::error::{ExitCode, Failure, PlainHost};
use crate::instances::cache::Cache;
use crate::instances::resolve::{Choice, Resolver, scope};
use crate::key::agent::serve::Usage;
use crate::key::one_time::KeyType;
use crate::net::network::Network;
use crate::road::probe::Interrupt;
use crate::road::stdio::{self, Meter};
use crate::road::tunnel::End;
use crate::ssh::options::SshOptions;
use crate::system::pace::Pace;
use crate::target::{InstanceId, OsUser, Port, Target};
use crate::ui;

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
    /// The type of the one-time key. None means the one that ssh's options take.
    pub key_type: Option<KeyType>,
    /// Where ssh looks for the key agent.
    pub agent_socket: PathBuf,
    /// Where failures are written down, for one who finds out their causes without our help.
    pub report: Option<PathBuf>,
    /// The program at the other end of standard input and output.
    pub client: Client,
    /// The command line of that program, where the system shows it.
    pub ssh: Vec<OsString>,
    /// The host, if that program is an ssh that the user runs and not `ssh_ec2`.
    pub plain_host: Option<PlainHost>,
    /// Keeps `ssh_ec2` waiting until a failure has been explained.
    pub words: Rc<Words>,
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
    /// For sessions that were refused because there were too many.
    session_pace: &'a Pace,
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
    /// Follows ssh's login.
    login: Rc<RefCell<LoginWatch>>,
    /// The public half of the key that is pushed, as a line of `authorized_keys`.
    pushed_key: RefCell<Option<String>>,
    ssh_options: OnceCell<Option<SshOptions>>,
}

impl<'a> Job<'a> {
    fn new(request: &'a Request, instance: InstanceId, [pace, session_pace]: [&'a Pace; 2]) -> Self {
        Self {
            request,
            instance,
            pace,
            session_pace,
            system_user: Cell::new(None),
            stranger: RefCell::default(),
            ready: Cell::default(),
            silence_told: Cell::default(),
            received: Meter::default(),
            login: Rc::default(),
            pushed_key: RefCell::default(),
            ssh_options: OnceCell::new(),
        }
    }

    /// The options of ssh. ssh is asked once; the first caller waits for the answer.
    async fn ssh_options(&self) -> Option<&SshOptions> {
        self.ssh_options.get_or_init(|| SshOptions::of(&self.ssh)).await.as_ref()
    }
}

impl std::ops::Deref for Job<'_> {
    type Target = Options;

    fn deref(&self) -> &Options {
        &self.request.options
    }
}

impl Options {
    /// Reports a failure on standard error and in the report file. Nothing is printed after it. Returns its
    /// exit status.
    fn complain(&self, error: Failure) -> ExitCode {
        let error = match &self.plain_host {
            Some(host) => error.in_plain_ssh(host),
            None => error,
        };
        ui::error(&error);
        self.words.pass_on(&error);
        self.words.done();
        if let Some(file) = &self.report {
            error.write_down(file);
        }
        error.exit_code()
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

/// Runs until ssh or the instance is done.
///
/// # Errors
/// The first thing that keeps ssh from its connection.
pub async fn run(request: &Request, network: &Network, cache: &Cache) -> Result<ExitCode, Failure> {
    let mut signals =
        Signals::new().map_err(|source| Failure::System { action: "handle signals", source })?;
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
    let scope = scope(&aws);
    let paces = [cache.pace(&scope), cache.session_pace(&scope)];
    let job = |instance| Job::new(request, instance, paces.each_ref());
    let error = match connect(&job(found.id.clone()), &aws, network, &mut signals).await {
        Err(error) if leads_nowhere(&error) => error,
        Err(error) => return Err(explain(error, &aws, &found.id).await),
        result => return result,
    };
    // A name may mean another instance by now. ssh has not heard anything yet, and will not notice.
    if found.cached {
        resolver.forget(target, choice).await;
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
        resolver.forget(target, choice).await;
        // What is wrong with the name now says more than what was wrong with the instance.
        let new = resolver.instance(target, choice).await?.id;
        if new != found.id {
            return Err(Failure::Moved { target: target.to_string(), old: found.id, new });
        }
    }
    Err(explain(error, &aws, &found.id).await)
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
        let mut left = pin!(job.words.done_when_left());
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
    // ssh and its user do not wait for the end of a session that they know nothing of.
    let verdict = verdict.or_else(|error| Ok(job.complain(error)));
    job.words.done();
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
    let identity = Identity::check(options)?;
    let door = Rc::new(Door::new(Meter::clone(&options.received)));
    let usage = &door.usage;
    let mut key_ready = pin!(keep_key_ready(options, aws, &identity, &door));
    let ending = Ending::default();
    let stop = ending.watch(signals, key_ready.as_mut());
    let login = Login { job: options, aws, network, usage };
    // At once, while ssh's own message is fresh: the end of the session takes a moment.
    let telling = Cell::new(false);
    let mut tell = pin!(async {
        poll_fn(|_| if ending.ssh_is_done.get() { Poll::Ready(()) } else { Poll::Pending }).await;
        if !ending.is_interrupted.get() && login.has_failed() {
            telling.set(true);
            login.explain().await;
        } else if options.stranger.borrow().is_none() {
            options.words.done();
        }
    });
    let ended = |end: &End<Stop, Failure>| {
        let is_done = matches!(end, End::InputEnded | End::OutputBroken);
        if is_done && !login.has_failed() && options.stranger.borrow().is_none() {
            options.words.done();
        }
    };
    let mut hold = Box::pin(async { hold_session(options, aws, network, &door, pin!(stop), ended).await });
    let mut has_told = false;
    let mut ssh_options = pin!(options.ssh_options());
    let mut has_options = false;
    let outcome = loop {
        tokio::select! {
            biased;
            outcome = hold.as_mut() => break outcome,
            () = tell.as_mut(), if !has_told => has_told = true,
            // Behind StartSession, which does not wait for these.
            _ = ssh_options.as_mut(), if !has_options => has_options = true,
        }
    };
    drop(hold);
    if telling.get() && !has_told {
        tell.await;
    }
    let verdict = match outcome.and_then(|outcome| judge(options, outcome)) {
        Ok(ExitCode::Success) if !telling.get() && login.has_failed() && !interrupted(signals).await => {
            login.explain().await;
            Ok(ExitCode::Failure)
        }
        verdict => verdict,
    };
    let Some(socket) = door.socket() else { return verdict };
    socket.retire().await;
    match ending.key_failed.get() {
        true => verdict,
        false => serve_guests(options, usage, key_ready, verdict).await,
    }
}

/// What asks a tunnel to end from this side.
#[derive(Default)]
struct Ending {
    key_failed: Cell<bool>,
    ssh_is_done: Cell<bool>,
    /// By a signal that was not sent because ssh was done.
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
}

/// Serves the key agent for clients of other connections that have come here, after our own connection is
/// over.
async fn serve_guests(
    options: &Job<'_>,
    usage: &Usage,
    mut key_ready: Pin<&mut impl Future<Output = Failure>>,
    verdict: Result<ExitCode, Failure>,
) -> Result<ExitCode, Failure> {
    // Clients in the socket's backlog are seen once the runtime has asked the system for news.
    for _ in 0..2 {
        yield_now().await;
    }
    let mut guests_gone = pin!(poll_fn(|cx| {
        // First, since it accepts those that have connected.
        let failed = key_ready.as_mut().poll(cx).is_ready();
        if failed || !usage.has_guests() { Poll::Ready(()) } else { Poll::Pending }
    }));
    if timeout(Duration::ZERO, guests_gone.as_mut()).await.is_ok() {
        return verdict;
    }
    // Programs that read our output to its end do not wait for other connections.
    let verdict = verdict.unwrap_or_else(|error| options.complain(error));
    options.words.done();
    stdio::leave().map_err(Failure::Stdio)?;
    // After this time a remaining client is not here for the key.
    let _ = timeout(GUEST_TIMEOUT, guests_gone).await;
    Ok(verdict)
}

/// Whether the user has ended ssh, and wants no explanation. Ctrl-C reaches ssh and this process, so that
/// ssh's end may be noticed before the signal.
async fn interrupted(signals: &mut Signals) -> bool {
    // Signals that have come are known after a turn of the runtime.
    yield_now().await;
    tokio::select! {
        biased;
        signal = signals.next() => signal != Signal::Hangup,
        () = std::future::ready(()) => false,
    }
}

/// For another connection's authentication with our key: as long as a push may take.
const GUEST_TIMEOUT: Duration = Duration::from_secs(30);
