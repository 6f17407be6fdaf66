//! The subcommands, one file each, and which of them a command line runs.
//!
//! A command's `start` goes from its options and the environment to what it needs; its `run` does the work.

mod complete;
mod config;
mod connect;
mod copy;
pub(crate) mod doctor;
mod doctor_start;
mod explanations;
pub(crate) mod first_process;
mod forwarding;
pub(crate) mod interrupt;
pub(crate) mod known_hosts;
mod known_hosts_start;
mod list;
mod options;
mod pick;
mod policy;
pub(crate) mod proxy;
mod proxy_start;
mod runtime;
#[cfg(feature = "sandbox")]
mod sandbox;
mod send_key;
pub(crate) mod signals;

use std::ffi::OsString;
use std::path::Path;

use crate::aws::Aws;
use crate::cli::{self, CliError, Common, Completions, Parsed, Pick};
use crate::error::{ExitCode, Failure};
use crate::instances::cache::Cache;
use crate::ssh::client::{self, InvocationError};
use crate::ssh::error::SshError;
use crate::ssh::transfer::Tool;
use crate::ui;

/// Runs what the command line asks for.
///
/// # Errors
///
/// Those of the command.
pub(crate) fn run(parsed: Parsed) -> Result<ExitCode, Failure> {
    match parsed {
        Parsed::Query { version, arguments } => run_query(version, arguments),
        Parsed::Pick(pick) if ui::is_interactive() => pick::start(&pick),
        Parsed::Pick(pick) if pick == Pick::default() => {
            ui::explain(&cli::usage());
            Ok(ExitCode::Usage)
        }
        Parsed::Pick(_) => Err(InvocationError::NoDestination.into()),
        Parsed::Connect(connect) => connect::start(&connect),
        Parsed::Command(cli) => run_command(cli.command, cli.common),
    }
}

fn run_command(command: cli::Command, before: Common) -> Result<ExitCode, Failure> {
    use cli::Command;
    match command {
        Command::Proxy(proxy) => proxy_start::start(proxy, before),
        Command::KnownHosts(command) => known_hosts_start::start(command, before),
        Command::Doctor(command) => doctor_start::start(command, before),
        Command::Scp(tool) => copy::start(Tool::Scp, &tool.arguments, &before),
        Command::Sftp(tool) => copy::start(Tool::Sftp, &tool.arguments, &before),
        Command::Rsync(tool) => copy::start(Tool::Rsync, &tool.arguments, &before),
        Command::List(list) => list::start(list, before),
        Command::Config(config) => config::start(config, before),
        Command::Policy(policy) => policy::start(policy, before),
        Command::Completions(Completions { shell }) => complete::script(shell),
        Command::Complete { words } => complete::start(&words),
        #[cfg(feature = "sandbox")]
        Command::Sandbox(sandbox) => sandbox::start(&sandbox, &before),
    }
}

/// Prints help, or what is wrong with the command line.
///
/// # Errors
///
/// When standard output does not take the help, and for a mistake in a connection's command line.
pub(crate) fn explain(error: CliError) -> Result<ExitCode, Failure> {
    match error {
        CliError::Clap(error) if error.use_stderr() => {
            ui::explain(&error.render().to_string());
            Ok(ExitCode::Usage)
        }
        CliError::Clap(help) => {
            ui::print(&help.render().to_string()).map(|()| ExitCode::Success).map_err(Failure::Output)
        }
        CliError::Usage(mistake) => Err(Failure::Usage(mistake)),
    }
}

/// Prints an error, and returns its exit status.
pub(crate) fn fail(error: &Failure) -> ExitCode {
    ui::error(error);
    error.exit_code()
}

/// Lets ssh answer `-V` and `-Q`. Editors look for ssh's version, which it writes to standard error; the
/// version of this program goes to standard output.
fn run_query(version: bool, arguments: Vec<OsString>) -> Result<ExitCode, Failure> {
    if version {
        ui::print(concat!("ssh_ec2 ", env!("CARGO_PKG_VERSION"), "\n")).map_err(Failure::Output)?;
    }
    match (client::Command { program: "ssh".into(), arguments }).exec() {
        Err(source) => Err(SshError::NotRun { program: "ssh".into(), source }.into()),
    }
}

/// Refuses options in front of a subcommand that it does not use.
fn refuse_unused(subcommand: &str, before: &Common, used: &[&str]) -> Result<(), Failure> {
    match before.unused(used) {
        Some(option) => {
            Err(Failure::Usage(format!("`{option}` has no effect on `ssh_ec2 {subcommand}`; leave it out")))
        }
        None => Ok(()),
    }
}

/// Writes an error to the file of `--report` as well. The caller wants it apart from the rest of standard
/// error.
fn write_report(result: Result<ExitCode, Failure>, report: Option<&Path>) -> Result<ExitCode, Failure> {
    if let (Err(error), Some(file)) = (&result, report) {
        error.write_down(file);
    }
    result
}

/// Reports files of the cache that were not trusted. AWS was asked again, so the command continues.
fn tell_distrust(aws: Option<&Aws>, cache: &Cache) {
    if let Some(fault) = aws.and_then(Aws::fault) {
        ui::note(&format!(
            "the cached credentials of the role are not used, and the role is assumed again: {fault}"
        ));
    }
    if let Some(fault) = cache.fault() {
        ui::note(&format!("the cached names are not used, and are looked up again: {fault}"));
    }
}
