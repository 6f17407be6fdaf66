//! The command line of a connection: ssh's own, with our long options anywhere in front of the remote
//! command.
//!
//! The words are split by what clap knows of our options. Ours go to clap, the rest is read as ssh reads it.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, CommandFactory as _, FromArgMatches as _, Parser};

use crate::cli::common::{Common, long_option};
use crate::cli::{CliError, Parsed, parse_command};
use crate::ssh::client::{Invocation, InvocationError};
use crate::target::InstanceId;

/// A connection, or the push of a key alone.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Connect {
    /// Profile, region, and so on.
    pub common: Common,
    /// Print the command line of ssh instead of running it.
    pub dry_run: bool,
    /// The form in which the target was typed.
    pub shape: Shape,
}

/// The two forms of a connection's command line.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Shape {
    /// ssh's own command line.
    Ssh(Invocation),
    /// `USER INSTANCE`, as the script took them that this program replaces.
    Script {
        /// The login name.
        user: String,
        /// An instance id.
        instance: String,
        /// Push the user's own key, and do not connect.
        send_key_only: bool,
    },
}

/// A command line without a target: the user chooses from a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Pick {
    /// Region, reason, and so on; `profile` is unused.
    pub common: Common,
    /// All profiles to search with; none means the default one.
    pub profiles: Vec<String>,
    /// Search all regions that the account uses.
    pub all_regions: bool,
    /// Options for ssh.
    pub options: Vec<OsString>,
}

/// Our options on ssh's command line.
#[derive(Debug, Parser)]
#[command(name = "ssh_ec2", no_binary_name = true)]
struct Options {
    #[command(flatten)]
    common: Common,
    #[arg(long)]
    dry_run: bool,
    #[arg(long)]
    send_key_only: bool,
    #[arg(long)]
    all_regions: bool,
}

/// clap's description of our options on ssh's command line. Unlike a subcommand's, they may be repeated: the
/// last value counts, and of `--profile` all do.
pub(super) fn options() -> clap::Command {
    Options::command().version("").mut_args(|option| match option.get_action() {
        _ if option.get_id() == "profile" => option.action(ArgAction::Append),
        ArgAction::Set | ArgAction::SetTrue => {
            let id = option.get_id().clone();
            option.overrides_with(id)
        }
        _ => option,
    })
}

/// Reads the arguments that follow the program's name, if no subcommand is among them.
pub(super) fn parse(options: clap::Command, arguments: &[OsString]) -> Result<Parsed, CliError> {
    let words = Words::split(&options, arguments)?;
    let mut matches = match options.try_get_matches_from(&words.ours) {
        Ok(matches) => matches,
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // The splitting ended with that word. The help is that of the whole program.
            return parse_command(words.ours.last().map(OsString::from).as_slice());
        }
        Err(error) => return Err(in_our_words(error)),
    };
    if let Some(query) = Invocation::query(&words.ssh) {
        return Ok(Parsed::Query { version: query == b'V', arguments: words.ssh });
    }
    let profiles: Vec<String> = matches.get_many("profile").unwrap_or_default().cloned().collect();
    let options = Options::from_arg_matches_mut(&mut matches).map_err(CliError::Clap)?;
    connection(options, profiles, words.ssh)
}

/// The words of a command line, by whom they are for.
#[derive(Default)]
struct Words {
    /// Our options, each in one word with its value.
    ours: Vec<String>,
    ssh: Vec<OsString>,
}

impl Words {
    fn split(options: &clap::Command, arguments: &[OsString]) -> Result<Self, CliError> {
        let mut words = Self::default();
        let mut arguments = arguments.iter();
        while let Some(word) = arguments.next() {
            let text = word.to_string_lossy();
            if !text.starts_with("--") {
                words.ssh.push(word.clone());
                if words.end_in_command() {
                    words.ssh.extend(arguments.by_ref().cloned());
                }
                continue;
            }
            let (name, joined) =
                text.split_once('=').map_or((&*text, None), |(name, value)| (name, Some(value)));
            match name {
                "--" => {
                    words.ssh.push(word.clone());
                    words.ssh.extend(arguments.by_ref().cloned());
                }
                "--help" | "--version" => {
                    words.ours.push(name.to_owned());
                    break;
                }
                _ => {
                    let option = long_option(options, &name[2..])
                        .ok_or_else(|| CliError::Usage(format!("there is no option `{name}`")))?;
                    if !option.get_action().takes_values() {
                        words.ours.push(name.to_owned());
                        continue;
                    }
                    let value = joined.or_else(|| arguments.next()?.to_str());
                    let value = value.ok_or_else(|| needs_value(name))?;
                    words.ours.push(format!("{name}={value}"));
                }
            }
        }
        Ok(words)
    }

    /// Whether the remote command has begun: with the second word that is no option, unless that is the
    /// instance of `USER INSTANCE`, which our options may follow.
    fn end_in_command(&self) -> bool {
        let has_command = Invocation::parse(&self.ssh).is_ok_and(|ssh| !ssh.command.is_empty());
        has_command && script_words(&self.ssh).is_none()
    }
}

/// What `options` and ssh's own words ask for together.
fn connection(options: Options, mut profiles: Vec<String>, ssh: Vec<OsString>) -> Result<Parsed, CliError> {
    let Options { mut common, dry_run, send_key_only, all_regions } = options;
    let mistake = |text: &str| Err(CliError::Usage(text.to_owned()));
    let shape = match script_words(&ssh) {
        Some(_) if send_key_only && common.key_type.is_some() => {
            return mistake("`--key-type` is for one-time keys, and `--send-key-only` pushes your own");
        }
        Some((user, instance)) => Shape::Script { user, instance, send_key_only },
        None if send_key_only => return mistake("`--send-key-only` needs a user and an instance id"),
        None => match Invocation::parse(&ssh) {
            Ok(invocation) => Shape::Ssh(invocation),
            Err(InvocationError::NoDestination) if !dry_run => {
                common.profile = None;
                return Ok(Parsed::Pick(Pick { common, profiles, all_regions, options: ssh }));
            }
            Err(error) => return mistake(&error.to_string()),
        },
    };
    if all_regions || profiles.len() > 1 {
        return mistake("several profiles, and `--all-regions`, are for choosing without a target");
    }
    common.profile = profiles.pop();
    Ok(Parsed::Connect(Connect { common, dry_run, shape }))
}

/// `USER INSTANCE`, where the first is no target itself.
fn script_words(words: &[OsString]) -> Option<(String, String)> {
    let [user, instance] = words else { return None };
    let (user, instance) = (user.to_str()?, instance.to_str()?);
    let is_user = !user.starts_with('-') && user.parse::<InstanceId>().is_err() && !names_instance(user);
    (is_user && instance.parse::<InstanceId>().is_ok()).then(|| (user.to_owned(), instance.to_owned()))
}

fn names_instance(destination: &str) -> bool {
    destination.rsplit_once('@').is_some_and(|(_, host)| host.parse::<InstanceId>().is_ok())
}

fn needs_value(name: &str) -> CliError {
    CliError::Usage(format!("the option `{name}` needs a value"))
}

/// clap explains a mistake by the usage of the command, which is not ours here but ssh's.
fn in_our_words(error: clap::Error) -> CliError {
    let name = |kind| match error.get(kind) {
        Some(ContextValue::String(usage)) => usage.split(' ').next(),
        _ => None,
    };
    match (error.kind(), name(ContextKind::InvalidArg), name(ContextKind::PriorArg)) {
        (ErrorKind::ArgumentConflict, Some(one), Some(other)) => {
            let (first, second) = (one.min(other), one.max(other));
            CliError::Usage(format!("`{first}` and `{second}` exclude each other"))
        }
        (ErrorKind::InvalidValue, Some(name), None) => needs_value(name),
        (ErrorKind::ValueValidation, ..) => match std::error::Error::source(&error) {
            Some(source) => CliError::Usage(source.to_string()),
            None => CliError::Clap(error),
        },
        _ => CliError::Clap(error),
    }
}
