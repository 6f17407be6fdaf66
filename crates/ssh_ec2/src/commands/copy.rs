//! scp, sftp and rsync with targets as hosts, without any ssh_config.

use std::collections::HashMap;
use std::ffi::OsString;

use crate::cli::Common;
use crate::commands::config::make_private_directory;
use crate::commands::connect::{Answer, Question, Surroundings, aws_settings, choice, place, proxy_options};
use crate::error::{ExitCode, Failure};
use crate::openssh::{Command, Invocation};
use crate::ssh_config::{Keys, settings};
use crate::target::Target;
use crate::transfer::Tool;
use crate::ui;

/// Becomes the program.
///
/// # Errors
/// When a target cannot be found, or the program is not there.
pub fn run(
    tool: Tool,
    arguments: &[OsString],
    common: &Common,
    surroundings: &Surroundings,
    mut find: impl FnMut(&Question) -> Result<Answer, Failure>,
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
    let common = &Common { batch: common.batch || tool.is_batch(arguments), ..common.clone() };
    let mut arguments = arguments.to_vec();
    let mut names = Vec::new();
    let mut found: HashMap<(String, bool), Answer> = HashMap::new();
    let mut of_all: Option<Common> = None;
    for remote in &remotes {
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
    if let ([name], [_]) = (names.as_slice(), remotes.as_slice()) {
        options.found_by = Some(name.clone());
    }
    make_private_directory(surroundings.places.directory())?;
    // One program has one set: where something can be pushed, something must be.
    let only_nodes = found.values().all(|answer| answer.instance.is_managed_node());
    let keys = if only_nodes { Keys::Own } else { Keys::Pushed };
    let settings = settings(&surroundings.program, &surroundings.places, &options, keys);
    let arguments = tool.with_settings(arguments, first, &settings);
    match (Command { program: tool.program().into(), arguments }).exec() {
        Err(source) => Err(Failure::Ssh { program: tool.program().into(), source }),
    }
}

/// What stands where. The programs have manuals of their own.
fn help(tool: Tool) -> String {
    let program = tool.program();
    format!(
        "Usage: ssh_ec2 [OPTIONS] {program} ARGUMENT…\n\n\
         Runs {program} with a target in the place of a host, as in `ssh_ec2 --region eu-west-1 {program} {}`.\n\
         Options of ssh_ec2 stand in front of `{program}`: `ssh_ec2 --help` lists them. What follows it is {program}'s\n\
         own: `man {program}`.\n",
        if tool == Tool::Sftp { "web-1" } else { "web-1:FILE ." }
    )
}

fn configured_user(host: &str) -> Option<String> {
    Invocation { options: Vec::new(), destination: host.into(), command: Vec::new() }.configured_user()
}
