//! scp, sftp and rsync with targets as hosts, without any ssh_config.

use std::collections::HashMap;
use std::ffi::OsString;

use crate::cli::Common;
use crate::commands::config::file::make_own_directory;
use crate::commands::connect::{Answer, Question};
use crate::commands::explanations::{self, Explanations};
use crate::commands::forwarding::{Agent, to_forward};
use crate::commands::options::{aws_settings, choice, place, proxy_options};
use crate::environment::Surroundings;
use crate::error::{ExitCode, Failure};
use crate::ssh::client::{Command, Invocation};
use crate::ssh::config::{Keys, ProxyOptions, settings};
use crate::ssh::options::SshOptions;
use crate::ssh::transfer::{Remote, Tool};
use crate::target::Target;
use crate::ui;

/// Runs the program.
///
/// # Errors
/// When a target cannot be found, or the program is not there.
pub fn run(
    tool: Tool,
    arguments: &[OsString],
    common: &Common,
    surroundings: &Surroundings,
    find: impl FnMut(&Question) -> Result<Answer, Failure>,
) -> Result<ExitCode, Failure> {
    if arguments.first().is_some_and(|word| word == "--help") {
        ui::print(&help(tool)).map_err(Failure::Output)?;
        return Ok(ExitCode::Success);
    }
    if let Some(mistake) = tool.mistake(arguments) {
        return Err(Failure::Usage(mistake));
    }
    let (remotes, first) = tool.remotes(arguments);
    if remotes.is_empty() {
        let program = tool.program();
        return Err(Failure::Usage(format!("{program} has no instance to go to; write it as TARGET:PATH")));
    }
    let ssh = Invocation {
        options: tool.ssh_options(arguments),
        destination: remotes[0].host.clone().into(),
        command: Vec::new(),
    };
    if let Some(option) = ssh.other_way() {
        return Err(Failure::OtherWay { option, program: tool.program() });
    }
    let common = &Common { batch: common.batch || tool.is_batch(arguments), ..common.clone() };
    let Placed { arguments, mut options, only_nodes } =
        place_all(&remotes, arguments, common, surroundings, find)?;
    make_own_directory(&surroundings.places)?;
    let explanations = Explanations::listen(&surroundings.places.sockets());
    options.proxy_arguments.extend(explanations.iter().flat_map(Explanations::option));
    // One program has one set: where something can be pushed, something must be.
    let keys = if only_nodes { Keys::Own } else { Keys::Pushed };
    let mut settings = settings(&surroundings.program, &surroundings.places, &options, keys);
    if keys == Keys::Pushed && options.identity.is_none() {
        settings.extend(forwarded_agent(tool, &ssh, surroundings)?);
    }
    let arguments = tool.with_settings(arguments, first, &settings);
    let command = Command { program: tool.program().into(), arguments };
    // The exit status does not tell a failed ssh from other failures.
    explanations::run(&surroundings.program, &command, explanations, |code| code != 0)
}

/// A command line with instances in the place of hosts.
struct Placed {
    arguments: Vec<OsString>,
    options: ProxyOptions,
    /// Whether all targets are managed nodes, to which no key can be pushed.
    only_nodes: bool,
}

fn place_all(
    remotes: &[Remote],
    arguments: &[OsString],
    common: &Common,
    surroundings: &Surroundings,
    mut find: impl FnMut(&Question) -> Result<Answer, Failure>,
) -> Result<Placed, Failure> {
    let mut arguments = arguments.to_vec();
    let mut names = Vec::new();
    let mut found: HashMap<(String, bool), Answer> = HashMap::new();
    let mut of_all: Option<Common> = None;
    for remote in remotes {
        let (target, common) = place(&remote.host, common.clone(), &surroundings.places)?;
        if of_all.get_or_insert_with(|| common.clone()) != &common {
            let mistake = "the hosts are in different accounts or regions; copy in two steps";
            return Err(Failure::Usage(mistake.into()));
        }
        let needs_user = remote.user.is_none() && configured_user(&remote.host).is_none();
        let answer = match found.entry((remote.host.clone(), needs_user)) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(unknown) => {
                let answer = match (&target, needs_user) {
                    (Target::Id(id), false) => Answer { instance: id.clone(), user: None },
                    _ => {
                        names.extend((!matches!(target, Target::Id(_))).then(|| target.to_string()));
                        find(&Question {
                            target,
                            choice: choice(&common),
                            settings: aws_settings(&common),
                            needs_user,
                            verbosity: common.verbose,
                        })?
                    }
                };
                unknown.insert(answer)
            }
        };
        let named = remote.user.clone().or_else(|| configured_user(&remote.host));
        let user = named.or_else(|| answer.user.as_ref().map(ToString::to_string));
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        arguments[remote.index] = format!("{}{user}{}{}", remote.scheme, answer.instance, remote.rest).into();
    }
    let mut options = proxy_options(&of_all.unwrap_or_default(), 0)?;
    if let ([name], [_]) = (names.as_slice(), remotes) {
        options.found_by = Some(name.clone());
    }
    let only_nodes = found.values().all(|answer| answer.instance.is_managed_node());
    Ok(Placed { arguments, options, only_nodes })
}

/// The setting for the agent that is forwarded, if it needs one.
fn forwarded_agent(
    tool: Tool,
    ssh: &Invocation,
    surroundings: &Surroundings,
) -> Result<Option<(&'static str, String)>, Failure> {
    // scp and sftp forward one only by their own option.
    let configured = (tool == Tool::Rsync).then(|| SshOptions::configured(ssh)).flatten();
    let agent = to_forward(ssh.forwards_agent(), configured.as_ref(), surroundings)?;
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
         Runs {program} with a target in the place of a host:\n\n\
         \x20   ssh_ec2 --region eu-west-1 {program} {}\n\n\
         Options of ssh_ec2 go in front of `{program}`; `ssh_ec2 --help` lists them.\n\
         The arguments of {program} follow it; `man {program}` lists them.\n",
        if tool == Tool::Sftp { "web-1" } else { "web-1:FILE ." }
    )
}

fn configured_user(host: &str) -> Option<String> {
    let ssh = Invocation { options: Vec::new(), destination: host.into(), command: Vec::new() };
    SshOptions::configured(&ssh)?.user()
}
