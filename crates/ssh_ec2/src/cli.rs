//! The command line, as typed. It is read here and used elsewhere.
//!
//! Three forms share one program name: subcommands; ssh's own command line, with a few long options in front;
//! and `USER INSTANCE`, which a script took that this program replaces. The first word that is neither an
//! option nor the value of one decides.

mod commands;
mod common;
mod connect;
mod help;
#[cfg(test)]
mod tests;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

#[cfg(feature = "sandbox")]
pub(crate) use self::commands::Sandbox;
pub(crate) use self::commands::{
    Completions, Config, Doctor, Extra, KnownHosts, List, Policy, Proxy, Shell, ToolArguments,
};
pub(crate) use self::common::Common;
#[cfg(test)]
pub(crate) use self::common::common_options;
pub(crate) use self::connect::{Connect, Pick, Shape};
pub(crate) use self::help::{is_subcommand_name, long_options, subcommand_names, usage};
use crate::target::InstanceId;

/// ssh to EC2 instances with IAM permissions only.
#[derive(Debug, Parser)]
#[command(
    name = "ssh_ec2",
    version,
    override_usage = help::USAGE,
    after_help = help::AFTER_HELP,
    disable_help_subcommand = true
)]
pub(crate) struct Cli {
    /// The options in front of the subcommand
    #[command(flatten)]
    pub common: Common,
    /// The subcommand, with the options behind it
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands; a command line without one is a connection.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Connect standard input and output to sshd on an instance, for ssh's ProxyCommand
    Proxy(Proxy),
    /// List the instances
    List(List),
    /// Copy files with scp; a target stands for a host
    #[command(disable_help_flag = true)]
    Scp(ToolArguments),
    /// Transfer files with sftp; a target stands for a host
    #[command(disable_help_flag = true)]
    Sftp(ToolArguments),
    /// Synchronise files with rsync; a target stands for a host
    #[command(disable_help_flag = true)]
    Rsync(ToolArguments),
    /// Print the ssh_config blocks for ids and names, or install them
    Config(Config),
    /// Print the host keys of an instance, for ssh's KnownHostsCommand; or list, forget and trust host keys
    KnownHosts(KnownHosts),
    /// Print the smallest IAM policy for what a user needs to do
    Policy(Policy),
    /// Check every layer between here and an instance, and name the one that is broken
    Doctor(Doctor),
    /// Print the completions for a shell
    Completions(Completions),
    /// What the completions call
    #[command(name = "__complete", hide = true)]
    Complete {
        /// The command line up to the cursor, without the program.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Try it all without an AWS account: an emulated region on this machine
    #[cfg(feature = "sandbox")]
    Sandbox(Sandbox),
}

/// What the arguments ask for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A subcommand.
    Command(Box<Cli>),
    /// A connection.
    Connect(Connect),
    /// No target: the user chooses one, on a terminal.
    Pick(Pick),
    /// `-V` or `-Q`, which ssh itself answers.
    Query {
        /// Whether to print the version of `ssh_ec2` as well.
        version: bool,
        /// For ssh.
        arguments: Vec<OsString>,
    },
}

/// Why there is nothing to run.
#[derive(Debug)]
pub(crate) enum CliError {
    /// `--help` or `--version`, or a mistake in a subcommand's options; clap has the text.
    Clap(clap::Error),
    /// A mistake in the command line of a connection.
    Usage(String),
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// For a mistake, and for `--help` and `--version`.
pub(crate) fn parse(arguments: &[OsString]) -> Result<Parsed, CliError> {
    let is_help = |word: &OsString| matches!(word.to_str(), Some("--help" | "-h" | "--version"));
    // ssh calls `ssh_ec2 proxy …` at each connection, so clap's description of the options is made only if
    // there are options in front.
    let has_options = arguments.first().is_some_and(|word| word.as_encoded_bytes().starts_with(b"-"));
    if !has_options && !arguments.is_empty() && is_subcommand(arguments) {
        return parse_command(arguments);
    }
    let options = connect::options();
    match first_word(&options, arguments) {
        Some(at) if is_subcommand(&arguments[at..]) => parse_command(arguments),
        _ if arguments.first().is_some_and(is_help) => parse_command(arguments),
        _ => connect::parse(options, arguments),
    }
}

fn parse_command(arguments: &[OsString]) -> Result<Parsed, CliError> {
    let name = OsString::from("ssh_ec2");
    let cli = Cli::try_parse_from(std::iter::once(&name).chain(arguments)).map_err(CliError::Clap)?;
    Ok(Parsed::Command(Box::new(cli)))
}

/// The first word that is neither one of our options nor the value of one.
fn first_word(options: &clap::Command, arguments: &[OsString]) -> Option<usize> {
    let mut at = 0;
    while let Some(word) = arguments.get(at) {
        let word = word.to_str()?;
        // All other short options are ssh's, and so is the command line then.
        if !word.starts_with("--") && !matches!(word, "-v" | "-vv") {
            return (!word.starts_with('-')).then_some(at);
        }
        at += if common::takes_next_word(options, word) { 2 } else { 1 };
    }
    None
}

/// Whether `words` begin with a subcommand. Its name in front of an instance id is the user of `USER
/// INSTANCE`.
fn is_subcommand(words: &[OsString]) -> bool {
    let Some(name) = words[0].to_str().filter(|word| is_subcommand_name(word)) else { return false };
    let is_id = |word: &OsString| word.to_str().is_some_and(|word| word.parse::<InstanceId>().is_ok());
    TAKE_INSTANCE.contains(&name) || !words.get(1).is_some_and(is_id)
}

/// Subcommands that an instance id may follow.
const TAKE_INSTANCE: &[&str] = &["doctor", "known-hosts"];
/// Names that no host has even where there is no such subcommand: `help` is expected by habit, and `sandbox`
/// is left out of some builds.
const RESERVED: &[&str] = &["help", "sandbox"];
