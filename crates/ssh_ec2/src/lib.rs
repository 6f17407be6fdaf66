//! The library behind the program `ssh_ec2`. It exists so that tests, benches and fuzz targets reach inside,
//! and has no stable interface.
//!
//! From the top down; a room uses those below it, and `tests/layering.rs` checks that:
//!
//! - `commands`: one file a subcommand, from its options to its exit status.
//! - `cli`: the command line, as typed. `ui`: what is printed. `environment`: what is read from it, once.
//! - `error`: the errors of all rooms as the program reports them, with hints and exit status.
//! - `doctor`: checks every layer between here and an instance, and finds the cause of a failure.
//! - `road`: how bytes reach an instance: session, tunnel, probe. `policy`: the smallest IAM policy.
//! - `key`: one-time keys, their push, the key agent. `instances`: from a target to one instance.
//! - `aws`: credentials, and the calls to AWS. `ssh`: OpenSSH's command line, configuration and host keys.
//! - `net`: proxies, certificates, the websocket. `target`: what a user typed, parsed.
//! - `system`: files, terminals, time and memory.

mod aws;
mod cli;
mod commands;
mod doctor;
mod environment;
mod error;
mod instances;
pub mod key;
pub mod net;
mod policy;
pub mod road;
#[cfg(test)]
#[path = "../tests/snapshot/mod.rs"]
mod snapshot;
pub mod ssh;
mod system;
mod target;
mod ui;

use std::ffi::OsString;

use crate::cli::{CliError, Command, Parsed};
use crate::commands::{first_process, signals};
pub use crate::error::ExitCode;
use crate::error::Failure;
use crate::ssh::error::SshError;
use crate::ssh::job::Child;
use crate::system::descriptors;

/// Runs the program with the arguments that follow its name.
pub fn run(arguments: &[OsString]) -> ExitCode {
    if let Some(code) = first_process::run_child(arguments) {
        return code;
    }
    if let Some(child) = Child::parse(arguments) {
        return become_program(&child);
    }
    let parsed = cli::parse(arguments);
    if carries_connection(&parsed) {
        // Before this program opens any itself.
        descriptors::close_inherited(arguments);
    }
    if let Err(source) = signals::keep_exit_statuses() {
        return commands::fail(&Failure::System { action: "handle signals", source });
    }
    parsed.map_or_else(commands::explain, commands::run).unwrap_or_else(|error| commands::fail(&error))
}

/// Whether the command carries a connection of its caller. Other commands may have to pass inherited
/// descriptors on, to a command in the sandbox or to rsync.
fn carries_connection(parsed: &Result<Parsed, CliError>) -> bool {
    match parsed {
        Ok(Parsed::Connect(_)) => true,
        Ok(Parsed::Command(cli)) => matches!(cli.command, Command::Proxy(_) | Command::KnownHosts(_)),
        _ => false,
    }
}

fn become_program(child: &Child) -> ExitCode {
    if let Some(source) = child.exec() {
        let program = child.command.program.to_string_lossy().into_owned();
        ui::error(&SshError::NotRun { program, source }.into());
    }
    ExitCode::Failure
}
