//! A connection: works out what ssh needs, and runs it.

use crate::aws::{Aws, Settings};
use crate::cli::{Connect, Shape};
use crate::commands::config::file::make_own_directory;
use crate::commands::explanations::{self, Explanations};
use crate::commands::forwarding::{Agent, to_forward};
use crate::commands::options::{aws_settings, choice, keys_of, place, proxy_options};
use crate::commands::tell_distrust;
use crate::environment::Surroundings;
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::instances::default_user::DEFAULT_USER;
use crate::instances::resolve::{Choice, Resolver};
use crate::net::network::Network;
use crate::ssh::client::{Command, Invocation};
use crate::ssh::config::{Keys, settings};
use crate::ssh::options::SshOptions;
use crate::target::{InstanceId, OsUser, Target};
use crate::ui;

/// What has to be found out before ssh can be called.
#[derive(Debug)]
pub struct Question {
    /// What the user named.
    pub target: Target,
    /// What to do when several match.
    pub choice: Choice,
    /// Where to look.
    pub settings: Settings,
    /// Whether the user is not known either.
    pub needs_user: bool,
    /// How much to say of it: `-v` is ssh's option and ours.
    pub verbosity: u8,
}

/// The instance, and the user on it if that was asked for.
#[derive(Debug)]
pub struct Answer {
    /// The instance.
    pub instance: InstanceId,
    /// The user.
    pub user: Option<OsUser>,
}

/// Runs ssh, or prints its command line. `find` is only called when something has to be found out.
///
/// # Errors
/// When the target is none, cannot be found, or ssh is not there.
pub fn run(
    connect: &Connect,
    surroundings: &Surroundings,
    find: impl FnOnce(&Question) -> Result<Answer, Failure>,
) -> Result<ExitCode, Failure> {
    let mut invocation = invocation(&connect.shape)?;
    let host = invocation.host();
    let (target, mut common) = place(&host, connect.common.clone(), &surroundings.places)?;
    common.batch |= invocation.is_batch();
    if let Some(option) = invocation.other_way() {
        return Err(Failure::OtherWay { option, program: "ssh" });
    }
    let mut options = proxy_options(&common, invocation.verbosity())?;
    let configured = SshOptions::configured(&invocation);
    let configured = configured.as_ref();
    let needs_user = invocation.user().is_none() && configured.and_then(SshOptions::user).is_none();
    let mut found = Vec::new();
    let mut keys = match &target {
        Target::Id(id) => keys_of(id),
        _ => Keys::Pushed,
    };
    if needs_user || !matches!(target, Target::Id(_)) {
        let question = Question {
            target: target.clone(),
            choice: choice(&common),
            settings: aws_settings(&common),
            needs_user,
            verbosity: common.verbose.max(u8::try_from(invocation.verbosity()).unwrap_or(u8::MAX)),
        };
        let answer = find(&question)?;
        keys = keys_of(&answer.instance);
        if !matches!(target, Target::Id(_)) {
            options.found_by = Some(target.to_string());
            // Keys, host keys and sockets go by the id, which is never given to another instance.
            found.push(("HostName", answer.instance.to_string()));
            if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
                invocation = invocation.for_host(answer.instance.as_str());
            }
        }
        found.extend(answer.user.map(|user| ("User", user.to_string())));
    }
    make_own_directory(&surroundings.places)?;
    let explanations =
        (!connect.dry_run).then(|| Explanations::listen(&surroundings.places.sockets())).flatten();
    options.proxy_arguments.extend(explanations.iter().flat_map(Explanations::option));
    found.extend(settings(&surroundings.program, &surroundings.places, &options, keys));
    if keys == Keys::Pushed && options.identity.is_none() {
        let agent = to_forward(invocation.forwards_agent(), configured, surroundings)?;
        forward(&mut invocation, agent);
    }
    let command = Command::ssh(&invocation, &found);
    if connect.dry_run {
        ui::print(&format!("{}\n", command.shell_line())).map_err(Failure::Output)?;
        return Ok(ExitCode::Success);
    }
    explanations::run(&surroundings.program, &command, explanations, |code| code == LOST)
}

fn invocation(shape: &Shape) -> Result<Invocation, Failure> {
    Ok(match shape {
        Shape::Ssh(invocation) => invocation.clone(),
        Shape::Script { user, instance, .. } => {
            let id: InstanceId = instance.parse()?;
            let user = OsUser::on(&Target::Id(id), user)?;
            let destination = format!("{user}@{instance}").into();
            Invocation { options: Vec::new(), destination, command: Vec::new() }
        }
    })
}

fn forward(ssh: &mut Invocation, agent: Option<Agent>) {
    match agent {
        // In front of all other options: ssh takes the first value.
        Some(Agent::At(agent)) => {
            ssh.options.splice(0..0, ["-o".into(), format!("ForwardAgent={agent}").into()]);
        }
        // Of `-A` and `-a` the last one counts, and both beat `ForwardAgent`.
        Some(Agent::Missing) => ssh.options.push("-a".into()),
        None => {}
    }
}

/// Finds the instance and the user.
///
/// # Errors
/// When no single instance is meant. A user that nobody tells is guessed.
pub async fn find(question: &Question, network: &Network, cache: &Cache) -> Result<Answer, Failure> {
    let aws = Aws::load(&question.settings, network).await?;
    // Apart from the calls, which have to be done in time.
    aws.sign_in().await.inspect_err(|_| tell_distrust(Some(&aws), cache))?;
    let resolver = Resolver::new(&aws, cache);
    let found = resolver.instance(&question.target, question.choice).await?;
    let user = if question.needs_user && !found.id.is_managed_node() {
        let known = resolver.user(&found).await;
        let user = match known {
            Some(user) => user,
            None => DEFAULT_USER.parse()?,
        };
        tracing::info!("the user on {} is {user}", found.id);
        Some(user)
    } else {
        None
    };
    tell_distrust(Some(&aws), cache);
    Ok(Answer { instance: found.id, user })
}

/// ssh's exit status when it fails itself (ssh(1), EXIT STATUS).
const LOST: u8 = 255;
