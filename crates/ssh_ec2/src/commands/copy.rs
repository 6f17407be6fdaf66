//! scp, sftp and rsync with targets for hosts. None of it needs the blocks in ssh_config.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::ffi::OsString;

use crate::cli::Common;
use crate::commands::config::file::make_own_directory;
use crate::commands::connect::{Destination, Lookup};
use crate::commands::explanations::{self, Explanations};
use crate::commands::forwarding::{Agent, to_forward};
use crate::commands::options::{aws_settings, choice, proxy_options, target_of_host};
use crate::environment::Environment;
use crate::error::{ExitCode, Failure};
use crate::ssh::client::{Command, Invocation};
use crate::ssh::config::{Keys, ProxyOptions, settings};
use crate::ssh::options::SshOptions;
use crate::ssh::transfer::{Remote, Tool};
use crate::target::Target;
use crate::ui;

pub(super) fn start(tool: Tool, arguments: &[OsString], common: &Common) -> Result<ExitCode, Failure> {
    let environment = Environment::read()?;
    if arguments.first().is_some_and(|word| word == "--help") {
        ui::print(&help(tool)).map_err(Failure::Output)?;
        return Ok(ExitCode::Success);
    }
    if let Some(mistake) = tool.mistake(arguments) {
        return Err(Failure::Usage(mistake));
    }
    let (remotes, first) = tool.remotes(arguments);
    let Some(remote) = remotes.first() else {
        let program = tool.program();
        return Err(Failure::Usage(format!("{program} has no instance to go to; write it as TARGET:PATH")));
    };
    // The ssh that the tool is going to run.
    let ssh = Invocation {
        options: tool.ssh_options(arguments),
        destination: remote.host.clone().into(),
        command: Vec::new(),
    };
    if let Some(option) = ssh.other_way() {
        return Err(Failure::OtherWay { option, program: tool.program() });
    }
    let common = Common { batch: common.batch || tool.is_batch(arguments), ..common.clone() };
    let resolved = Resolved::new(&remotes, arguments, &common, &environment)?;
    run(tool, &ssh, resolved, first, &environment)
}

/// Runs the tool. `first` is the index of its first operand, in front of which the settings for ssh go.
fn run(
    tool: Tool,
    ssh: &Invocation,
    resolved: Resolved,
    first: usize,
    environment: &Environment,
) -> Result<ExitCode, Failure> {
    let Resolved { arguments, mut options, only_nodes } = resolved;
    make_own_directory(&environment.places)?;
    let explanations = Explanations::listen(&environment.places.sockets());
    options.proxy_arguments.extend(explanations.iter().flat_map(Explanations::option));
    // One run of the tool has one set of settings: if a key can be pushed to any of the instances, it must
    // be.
    let keys = if only_nodes { Keys::Own } else { Keys::Pushed };
    let mut settings = settings(&environment.program, &environment.places, &options, keys);
    if keys == Keys::Pushed && options.identity.is_none() {
        settings.extend(forwarded_agent(tool, ssh, environment)?);
    }
    let arguments = tool.with_settings(arguments, first, &settings);
    let command = Command { program: tool.program().into(), arguments };
    // The exit status does not distinguish a failed ssh from other failures.
    explanations::run(&environment.program, &command, explanations, |code| code != 0)
}

/// A command line with instances instead of targets.
struct Resolved {
    arguments: Vec<OsString>,
    options: ProxyOptions,
    /// Whether all instances are managed nodes, to which no key can be pushed.
    only_nodes: bool,
}

impl Resolved {
    fn new(
        remotes: &[Remote],
        arguments: &[OsString],
        common: &Common,
        environment: &Environment,
    ) -> Result<Self, Failure> {
        let mut arguments = arguments.to_vec();
        let mut hosts = Hosts { environment, known: HashMap::new(), names: Vec::new() };
        let mut of_all: Option<Common> = None;
        for remote in remotes {
            let (target, common) = target_of_host(&remote.host, common.clone(), &environment.places)?;
            if of_all.get_or_insert_with(|| common.clone()) != &common {
                let mistake = "the hosts are in different accounts or regions; copy in two steps";
                return Err(Failure::Usage(mistake.into()));
            }
            let user = remote.user.clone().or_else(|| configured_user(&remote.host));
            let destination = hosts.find(&remote.host, target, &common, user.is_none())?;
            let user = user.or_else(|| destination.user.as_ref().map(ToString::to_string));
            let user = user.map(|user| format!("{user}@")).unwrap_or_default();
            let Remote { scheme, rest, .. } = remote;
            arguments[remote.index] = format!("{scheme}{user}{}{rest}", destination.instance).into();
        }
        let mut options = proxy_options(&of_all.unwrap_or_default(), 0)?;
        if let ([name], [_]) = (hosts.names.as_slice(), remotes) {
            options.found_by = Some(name.clone());
        }
        let only_nodes = hosts.known.values().all(|destination| destination.instance.is_managed_node());
        Ok(Self { arguments, options, only_nodes })
    }
}

/// The hosts of a command line, each looked up once.
struct Hosts<'a> {
    environment: &'a Environment,
    /// The destinations found, by host and by whether the user was looked up.
    known: HashMap<(String, bool), Destination>,
    /// The targets that are no ids.
    names: Vec<String>,
}

impl Hosts<'_> {
    fn find(
        &mut self,
        host: &str,
        target: Target,
        common: &Common,
        needs_user: bool,
    ) -> Result<&Destination, Failure> {
        let unknown = match self.known.entry((host.to_owned(), needs_user)) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(unknown) => unknown,
        };
        if let (Target::Id(id), false) = (&target, needs_user) {
            return Ok(unknown.insert(Destination { instance: id.clone(), user: None }));
        }
        if !matches!(target, Target::Id(_)) {
            self.names.push(target.to_string());
        }
        let lookup = Lookup {
            target,
            choice: choice(common),
            settings: aws_settings(common),
            needs_user,
            verbosity: common.verbose,
        };
        Ok(unknown.insert(lookup.start(self.environment)?))
    }
}

/// The setting for the agent to forward, if it needs one.
fn forwarded_agent(
    tool: Tool,
    ssh: &Invocation,
    environment: &Environment,
) -> Result<Option<(&'static str, String)>, Failure> {
    // scp and sftp forward one only by their own option.
    let configured = (tool == Tool::Rsync).then(|| SshOptions::configured(ssh)).flatten();
    let agent = to_forward(ssh.forwards_agent(), configured.as_ref(), environment)?;
    Ok(agent.map(|agent| match agent {
        Agent::At(agent) => ("ForwardAgent", agent),
        Agent::Missing => ("ForwardAgent", "no".to_owned()),
    }))
}

/// The help of a program that has a manual of its own.
fn help(tool: Tool) -> String {
    let program = tool.program();
    format!(
        "Usage: ssh_ec2 [OPTIONS] {program} ARGUMENT…\n\n\
         Runs {program}; a target stands for a host:\n\n\
         \x20   ssh_ec2 --region eu-west-1 {program} {}\n\n\
         Options of ssh_ec2 go in front of `{program}`; `ssh_ec2 --help` lists them.\n\
         The arguments of {program} follow it; `man {program}` lists them.\n",
        if tool == Tool::Sftp { "web-1" } else { "web-1:FILE ." }
    )
}

/// The user of `~/.ssh/config`.
fn configured_user(host: &str) -> Option<String> {
    let ssh = Invocation { options: Vec::new(), destination: host.into(), command: Vec::new() };
    SshOptions::configured(&ssh)?.user()
}
