//! A connection: finds out what ssh needs to know, and runs ssh.

use crate::aws::{Aws, Settings};
use crate::cli::{Common, Connect, Shape};
use crate::commands::config::file::make_own_directory;
use crate::commands::explanations::{self, Explanations};
use crate::commands::forwarding::{Agent, to_forward};
use crate::commands::options::{aws_settings, choice, keys_of, proxy_options, target_of_host};
use crate::commands::runtime::{log_to_stderr, network, on_runtime};
use crate::commands::{interrupt, send_key, tell_distrust};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::instances::default_user::DEFAULT_USER;
use crate::instances::resolve::{Choice, Resolver};
use crate::net::network::Network;
use crate::ssh::client::{Command, Invocation};
use crate::ssh::config::{Keys, ProxyOptions, settings};
use crate::ssh::options::SshOptions;
use crate::target::{InstanceId, OsUser, Target};
use crate::ui;

/// What to look up at AWS, or in the cache, before ssh can be called.
#[derive(Debug)]
pub(super) struct Lookup {
    pub(super) target: Target,
    pub(super) choice: Choice,
    pub(super) settings: Settings,
    /// Whether to find out the user as well.
    pub(super) needs_user: bool,
    /// The level of the log: `-v` is an option of ssh and of this program.
    pub(super) verbosity: u8,
}

/// What a [`Lookup`] finds.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) instance: InstanceId,
    /// The login name from the tag or the default user. None if it was not looked up, or the instance is a
    /// managed node.
    pub(super) user: Option<OsUser>,
}

pub(super) fn start(connect: &Connect) -> Result<ExitCode, Failure> {
    let environment = Environment::read()?;
    match &connect.shape {
        Shape::Script { user, instance, send_key_only: true } => {
            push_own_key(user, instance, &connect.common, &environment)
        }
        Shape::Script { user, instance, send_key_only: false } => {
            let id: InstanceId = instance.parse()?;
            let user = OsUser::on(&Target::Id(id), user)?;
            let destination = format!("{user}@{instance}").into();
            let ssh = Invocation { options: Vec::new(), destination, command: Vec::new() };
            run(ssh, connect, &environment)
        }
        Shape::Ssh(ssh) => run(ssh.clone(), connect, &environment),
    }
}

fn push_own_key(
    user: &str,
    instance: &str,
    common: &Common,
    environment: &Environment,
) -> Result<ExitCode, Failure> {
    log_to_stderr(common.verbose);
    let options = send_key::Options {
        user: user.parse()?,
        instance: instance.parse()?,
        key_file: common.key_file.clone(),
        settings: aws_settings(common),
    };
    on_runtime(interrupt::unless_ended(async {
        let network = network(&options.settings).await?;
        send_key::run(&options, &network, environment.ssh_directory.as_deref()).await
    }))
}

/// Runs ssh, or prints its command line.
fn run(mut ssh: Invocation, connect: &Connect, environment: &Environment) -> Result<ExitCode, Failure> {
    let host = ssh.host();
    let (target, mut common) = target_of_host(&host, connect.common.clone(), &environment.places)?;
    common.batch |= ssh.is_batch();
    if let Some(option) = ssh.other_way() {
        return Err(Failure::OtherWay { option, program: "ssh" });
    }
    let mut options = proxy_options(&common, ssh.verbosity())?;
    let configured = SshOptions::configured(&ssh);
    let needs_user = ssh.user().is_none() && configured.as_ref().and_then(SshOptions::user).is_none();
    let mut found = Vec::new();
    let keys = match &target {
        Target::Id(id) if !needs_user => keys_of(id),
        _ => {
            let verbosity = common.verbose.max(u8::try_from(ssh.verbosity()).unwrap_or(u8::MAX));
            let lookup = Lookup {
                target: target.clone(),
                choice: choice(&common),
                settings: aws_settings(&common),
                needs_user,
                verbosity,
            };
            let destination = lookup.start(environment)?;
            found = settings_of(&destination, &target, &mut ssh, &mut options);
            keys_of(&destination.instance)
        }
    };
    make_own_directory(&environment.places)?;
    let explanations =
        (!connect.dry_run).then(|| Explanations::listen(&environment.places.sockets())).flatten();
    options.proxy_arguments.extend(explanations.iter().flat_map(Explanations::option));
    found.extend(settings(&environment.program, &environment.places, &options, keys));
    if keys == Keys::Pushed && options.identity.is_none() {
        let agent = to_forward(ssh.forwards_agent(), configured.as_ref(), environment)?;
        forward(&mut ssh, agent);
    }
    let command = Command::ssh(&ssh, &found);
    if connect.dry_run {
        ui::print(&format!("{}\n", command.shell_line())).map_err(Failure::Output)?;
        return Ok(ExitCode::Success);
    }
    explanations::run(&environment.program, &command, explanations, |code| code == CONNECTION_LOST)
}

/// The settings that lead ssh to a destination that was looked up.
fn settings_of(
    destination: &Destination,
    target: &Target,
    ssh: &mut Invocation,
    options: &mut ProxyOptions,
) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if !matches!(target, Target::Id(_)) {
        options.found_by = Some(target.to_string());
        // Keys, host keys and sockets go by the id, which is never given to another instance.
        settings.push(("HostName", destination.instance.to_string()));
        if !ssh.host().bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte)) {
            *ssh = ssh.for_host(destination.instance.as_str());
        }
    }
    settings.extend(destination.user.as_ref().map(|user| ("User", user.to_string())));
    settings
}

fn forward(ssh: &mut Invocation, agent: Option<Agent>) {
    match agent {
        // Put before all other options, since ssh uses the first value.
        Some(Agent::At(agent)) => {
            ssh.options.splice(0..0, ["-o".into(), format!("ForwardAgent={agent}").into()]);
        }
        // ssh uses the last of `-A` and `-a`, and prefers both to `ForwardAgent`.
        Some(Agent::Missing) => ssh.options.push("-a".into()),
        None => {}
    }
}

impl Lookup {
    /// Sets up what the look-up needs, and runs it.
    ///
    /// # Errors
    ///
    /// When the target is not exactly one instance, or AWS cannot be asked.
    pub(super) fn start(&self, environment: &Environment) -> Result<Destination, Failure> {
        log_to_stderr(self.verbosity);
        let network = network(&self.settings);
        on_runtime(interrupt::unless_ended(async { self.run(&network.await?, &environment.cache).await }))
    }

    async fn run(&self, network: &Network, cache: &Cache) -> Result<Destination, Failure> {
        let aws = Aws::load(&self.settings, network).await?;
        // Separate from the calls: their time limit must not include the time that a user takes to sign in.
        aws.sign_in().await.inspect_err(|_| tell_distrust(Some(&aws), cache))?;
        let resolver = Resolver::new(&aws, cache);
        let found = resolver.instance(&self.target, self.choice).await?;
        let user = if self.needs_user && !found.id.is_managed_node() {
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
        Ok(Destination { instance: found.id, user })
    }
}

/// ssh's exit status when it fails itself (ssh(1), EXIT STATUS).
const CONNECTION_LOST: u8 = 255;
