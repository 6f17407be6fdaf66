//! A connection: works out what ssh needs, and runs it.

use std::path::{Path, PathBuf};

use crate::aws::{Aws, Settings};
use crate::cli::{Common, Connect, Shape};
use crate::commands::config::{make_own_directory, read};
use crate::commands::explanations::{self, Explanations};
use crate::commands::forwarding::{Agent, to_forward};
use crate::commands::tell_distrust;
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::instances::default_user::DEFAULT_USER;
use crate::instances::resolve::{Choice, Resolver};
use crate::key::file::read_public_key;
use crate::net::network::Network;
use crate::ssh::client::{Command, Invocation};
use crate::ssh::config::{DEFAULT_SUFFIX, Keys, Places, ProxyOptions, is_literal, sections, settings};
use crate::ssh::options::SshOptions;
use crate::target::{Host, InstanceId, OsUser, Target};
use crate::ui;

/// What the environment says about a connection.
#[derive(Debug)]
pub struct Surroundings {
    /// This program, for the ProxyCommand.
    pub program: PathBuf,
    /// Where our files are.
    pub places: Places,
    /// `SSH_AUTH_SOCK`: the user's own agent, which ssh forwards on request.
    pub user_agent: Option<String>,
}

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

/// Which keys ssh is to offer there.
pub fn keys_of(instance: &InstanceId) -> Keys {
    if instance.is_managed_node() { Keys::Own } else { Keys::Pushed }
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

/// The target that a host stands for, and the options with what its suffix and region add to them.
///
/// # Errors
/// When the host names nothing.
pub fn place(host: &str, mut common: Common, places: &Places) -> Result<(Target, Common), Failure> {
    let file = read(&places.config())?.unwrap_or_default();
    let installed = sections(&String::from_utf8_lossy(&file));
    for suffix in installed.into_iter().map(|(suffix, _)| suffix) {
        if let Some(found) = Host::below(host, &suffix.suffix) {
            let Host { target, region } = found?;
            common.region = common.region.or(region).or(suffix.region);
            common.profile = common.profile.or(suffix.profile);
            return Ok((target, common));
        }
    }
    match Host::below(host, DEFAULT_SUFFIX) {
        Some(found) => {
            let Host { target, region } = found?;
            common.region = common.region.or(region);
            Ok((target, common))
        }
        None => Ok((host.parse()?, common)),
    }
}

/// Whether our blocks match a host: an id, or a name with a suffix.
pub fn is_ours(host: &str, places: &Places) -> bool {
    match place(host, Common::default(), places) {
        Ok((Target::Id(_), _)) => true,
        Ok((target, _)) => target.to_string() != host,
        Err(_) => false,
    }
}

/// The host that plain ssh takes for a target: a name has a suffix there.
pub fn plain_host(host: &str, target: &Target) -> String {
    match target {
        Target::Name(name) if name == host => format!("{host}.{DEFAULT_SUFFIX}"),
        _ => host.to_owned(),
    }
}

/// The proxy's share of the options.
///
/// # Errors
/// When the key file holds no public key.
pub fn proxy_options(common: &Common, verbosity: usize) -> Result<ProxyOptions, Failure> {
    let mut arguments = Vec::new();
    let mut proxy_arguments = Vec::new();
    for (name, value) in [("--profile", &common.profile), ("--region", &common.region)] {
        if let Some(value) = value {
            if !is_literal(value) {
                return Err(Failure::Usage(format!(
                    "{value:?} cannot be given to ssh, which would replace `${{…}}`"
                )));
            }
            arguments.extend([name.to_owned(), value.clone()]);
        }
    }
    if let Some(reason) = &common.reason {
        proxy_arguments.extend(["--reason".to_owned(), reason.clone()]);
    }
    let mut identity = None;
    if let Some(path) = &common.key_file {
        read_public_key(path)?;
        let path = std::path::absolute(path).map_err(|source| Failure::File {
            action: "find",
            path: path.clone(),
            source,
        })?;
        proxy_arguments.extend(["--key-file".to_owned(), path.to_string_lossy().into_owned()]);
        identity = Some(private_half(&path));
    }
    if let Some(key_type) = common.key_type {
        proxy_arguments.extend(["--key-type".to_owned(), key_type.to_string()]);
    }
    if common.batch {
        proxy_arguments.push("--batch".into());
    }
    match choice(common) {
        Choice::Unique => {}
        Choice::Newest => arguments.push("--newest".into()),
        Choice::Any => arguments.push("--any".into()),
    }
    arguments.extend((0..usize::from(common.verbose).max(verbosity).min(2)).map(|_| "-v".to_owned()));
    Ok(ProxyOptions { arguments, proxy_arguments, found_by: None, identity })
}

/// Profile and region, as the calls to AWS want them.
pub fn aws_settings(common: &Common) -> Settings {
    Settings { profile: common.profile.clone(), region: common.region.clone(), batch: common.batch }
}

/// What to do when several instances match.
pub fn choice(common: &Common) -> Choice {
    match (common.newest, common.any) {
        (true, _) => Choice::Newest,
        (_, true) => Choice::Any,
        _ => Choice::Unique,
    }
}

/// What ssh signs with: beside the `.pub` file, or in the user's agent when only that file is here.
fn private_half(path: &Path) -> PathBuf {
    let private = path.with_extension("");
    if path.extension().is_some_and(|extension| extension == "pub") && private.exists() {
        return private;
    }
    path.to_owned()
}

/// ssh's exit status when it fails itself (ssh(1), EXIT STATUS).
const LOST: u8 = 255;
