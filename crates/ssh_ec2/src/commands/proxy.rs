//! The ProxyCommand: a session on the instance, the bytes between it and ssh, and the key agent for ssh.
//!
//! The push of the key and StartSession run side by side. On every path the session is ended at AWS and the
//! agent's socket is removed. Standard output carries SSH bytes and nothing else.

mod connection;
mod door;
mod host_keys;
mod job;
mod key;
mod login_watch;
mod plain_host;
mod refusal;
mod session;
mod verdict;
mod watched;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::rc::Rc;

use self::connection::connect;
use self::job::Job;
pub(crate) use self::plain_host::plain_host;
use self::refusal::{explain, leads_nowhere};
pub(crate) use self::words::Words;
use crate::aws::{Aws, Settings};
use crate::commands::signals::Signals;
use crate::commands::tell_distrust;
use crate::error::{ExitCode, Failure, PlainHost};
use crate::instances::cache::Cache;
use crate::instances::resolve::{Choice, Resolved, Resolver, scope};
use crate::key::one_time::KeyType;
use crate::net::network::Network;
use crate::road::error::RoadError;
use crate::road::tunnel;
use crate::target::{InstanceId, OsUser, Port, Target};
use crate::ui;

/// The connection that ssh asks for.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    /// The target, from ssh's host.
    pub target: Target,
    /// What to do when several instances match.
    pub choice: Choice,
    /// The name by which `ssh_ec2` found the instance before it started ssh. None under plain ssh, whose host
    /// is the name.
    pub found_by: Option<Target>,
    /// The directory in which known-hosts looks for the socket of this proxy.
    pub sockets: PathBuf,
    /// The options that do not depend on the instance.
    pub options: Options,
}

/// How to connect to an instance.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The user for whom the key is pushed.
    pub user: OsUser,
    /// sshd's port.
    pub port: Port,
    /// Profile and region.
    pub settings: Settings,
    /// The reason, for Session Manager's session history.
    pub reason: Option<String>,
    /// The user's own public key, to push instead of a one-time key.
    pub key_file: Option<PathBuf>,
    /// The type of the one-time key. None means the one that ssh's options accept.
    pub key_type: Option<KeyType>,
    /// The path at which ssh looks for the key agent.
    pub agent_socket: PathBuf,
    /// The file to which a failure is written for `ssh_ec2 doctor`, which looks for the cause itself.
    pub report: Option<PathBuf>,
    /// The program at the other end of standard input and output.
    pub client: Client,
    /// The command line of that program. Empty where the system does not show it.
    pub ssh: Vec<OsString>,
    /// The host, if that program is an ssh that the user runs and not `ssh_ec2`.
    pub plain_host: Option<PlainHost>,
    /// Keeps `ssh_ec2` waiting until this process has explained a failure.
    pub words: Rc<Words>,
}

/// The program at the other end of standard input and output.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Client {
    /// Another program, for which any server may listen on the port.
    Other,
    /// ssh, for which sshd must listen on the port.
    Ssh,
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

/// Why this process stops a tunnel.
#[derive(Debug)]
enum Stop {
    /// ssh has finished or was killed, or a signal asks this process to end.
    Asked,
    /// The key cannot be pushed or served.
    Failed(Failure),
}

type End = tunnel::End<Stop, RoadError>;
type Outcome = tunnel::Outcome<Stop, RoadError>;

/// Runs until ssh or the instance ends the connection.
///
/// # Errors
///
/// The first failure that keeps ssh from its connection.
pub(crate) async fn run(request: &Request, network: &Network, cache: &Cache) -> Result<ExitCode, Failure> {
    let mut signals =
        Signals::new().map_err(|source| Failure::System { action: "handle signals", source })?;
    let aws = Aws::load(&request.options.settings, network).await?;
    tracing::info!("the region is {}", aws.region());
    let resolver = Resolver::new(&aws, cache);
    // Before StartSession, since a prompt to the user can be cancelled, and starting a session cannot.
    let found = tokio::select! {
        found = find(request, &aws, cache, &resolver) => found?,
        signal = signals.next() => {
            tracing::info!("ending: {signal}");
            return Ok(ExitCode::Interrupted);
        }
    };
    tell_distrust(Some(&aws), cache);
    let scope = scope(&aws);
    let paces = [cache.pace(&scope), cache.session_pace(&scope)];
    let mut connect_to = async |instance: &InstanceId| {
        let job = Job::new(request, instance.clone(), paces.each_ref());
        connect(&job, &aws, network, &mut signals).await
    };
    let error = match connect_to(&found.id).await {
        Err(error) if leads_nowhere(&error) => error,
        Err(error) => return Err(explain(error, &aws, &found.id).await),
        result => return result,
    };
    // ssh has received no byte yet, so it does not notice the change of instance.
    if let Some(current) = renamed(request, &resolver, &found).await? {
        return match connect_to(&current).await {
            Err(error) => Err(explain(error, &aws, &current).await),
            result => result,
        };
    }
    Err(explain(error, &aws, &found.id).await)
}

async fn find(
    request: &Request,
    aws: &Aws,
    cache: &Cache,
    resolver: &Resolver<'_>,
) -> Result<Resolved, Failure> {
    aws.sign_in().await.inspect_err(|_| tell_distrust(Some(aws), cache))?;
    Ok(resolver.instance(&request.target, request.choice).await?)
}

/// The instance that the target's name resolves to now, if it was found in the cache and has changed.
///
/// # Errors
///
/// [`Failure::Moved`] if `ssh_ec2` found the instance by a name that belongs to another instance now: the
/// error about the name is more useful than the one about the instance.
async fn renamed(
    request: &Request,
    resolver: &Resolver<'_>,
    found: &Resolved,
) -> Result<Option<InstanceId>, Failure> {
    let look_up = async |target: &Target| {
        resolver.forget(target, request.choice).await;
        Ok::<_, Failure>(resolver.instance(target, request.choice).await?.id)
    };
    if found.cached {
        let new = look_up(&request.target).await?;
        if new != found.id {
            tracing::info!("{} is {new} now, and no longer {}", request.target, found.id);
            return Ok(Some(new));
        }
    }
    if let Some(target) = &request.found_by {
        let new = look_up(target).await?;
        if new != found.id {
            return Err(Failure::Moved { target: target.to_string(), old: found.id.clone(), new });
        }
    }
    Ok(None)
}
