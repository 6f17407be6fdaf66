//! `ssh_ec2 sandbox`: starts the local region, runs one command in it, and removes it again.
//!
//! Only this file knows both the program and the region. The command finds the region by its environment and
//! by an ssh_config of its own; for the `ssh_ec2` that it runs, the region differs from AWS only in its URL.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use ec2_sandbox::{Faults, Options, Region, Workspace, parse_time};

use crate::cli::{Common, Sandbox};
use crate::commands::runtime::{log_to_stderr, on_runtime};
use crate::error::{ExitCode, Failure};
use crate::ssh::config::{ProxyOptions, block};
use crate::ssh::own_files::OwnFiles;
use crate::ui;

pub(super) fn start(sandbox: &Sandbox, before: &Common) -> Result<ExitCode, Failure> {
    log_to_stderr(sandbox.verbose.max(before.verbose));
    on_runtime(run(sandbox))
}

/// Runs a command, or a shell, in a new region.
async fn run(sandbox: &Sandbox) -> Result<ExitCode, Failure> {
    let Some(options) = options(sandbox)? else {
        ui::print(Faults::list()).map_err(Failure::Output)?;
        return Ok(ExitCode::Success);
    };
    let region = Region::start(options).await.map_err(|error| refused(sandbox, error))?;
    let program = std::env::current_exe().map_err(Failure::Sandbox)?;
    let user = rustix::process::getuid().as_raw();
    let config =
        |directory: &Path| block(&program, &OwnFiles::of_user(directory, user), &ProxyOptions::default());
    let mut workspace = Workspace::new(&region, config).map_err(Failure::Sandbox)?;
    workspace.add_program("ssh_ec2", &program).map_err(Failure::Sandbox)?;
    let directory = workspace.directory().as_os_str().to_owned();
    workspace.set("SSH_EC2_DIR", directory);
    // The file that `config --install` changes here: the one that ssh reads in the region, not the user's
    // own.
    workspace.set("SSH_EC2_SSH_CONFIG", workspace.ssh_config());
    let status = if sandbox.command.is_empty() {
        greet(&region, sandbox);
        workspace.shell().await.map_err(Failure::Sandbox)?
    } else {
        run_command(&workspace, &sandbox.command).await?
    };
    // A proxy that ssh has left behind ends its session after ssh is gone.
    if !region.sessions_ended(FAREWELL).await {
        tracing::warn!("some sessions have not ended by themselves");
    }
    Ok(exit_code(status))
}

/// The options of the region; none for `--fault help`.
fn options(sandbox: &Sandbox) -> Result<Option<Options>, Failure> {
    let mut faults = Faults::default();
    for fault in &sandbox.fault {
        if fault == "help" {
            return Ok(None);
        }
        let unknown = |error| Failure::Usage(format!("{error}; `ssh_ec2 sandbox --fault help` lists them"));
        faults.add(fault).map_err(unknown)?;
    }
    let latency = match &sandbox.latency {
        None => Duration::ZERO,
        Some(text) => parse_time(text)
            .ok_or_else(|| Failure::Usage(format!("{text:?} is no time; write 50ms, 2s or 1m")))?,
    };
    let policy = sandbox.policy.as_deref().map(read_policy).transpose()?;
    Ok(Some(Options {
        fleet: sandbox.fleet,
        latency,
        faults,
        sshd: sandbox.sshd.clone(),
        policy,
        ..Options::default()
    }))
}

fn read_policy(path: &Path) -> Result<String, Failure> {
    let file = |source| Failure::File { action: "read", path: path.to_owned(), source };
    fs::read_to_string(path).map_err(file)
}

/// The policy is the only option that a region refuses.
fn refused(sandbox: &Sandbox, error: io::Error) -> Failure {
    match &sandbox.policy {
        Some(path) if error.kind() == io::ErrorKind::InvalidInput => {
            Failure::Usage(format!("{}: {error}", path.display()))
        }
        _ => Failure::Sandbox(error),
    }
}

async fn run_command(workspace: &Workspace, command: &[OsString]) -> Result<ExitStatus, Failure> {
    let failed =
        |source: io::Error| Failure::Command { program: command[0].to_string_lossy().into_owned(), source };
    workspace.run(command).await.map_err(failed)
}

fn greet(region: &Region, sandbox: &Sandbox) {
    let user = if sandbox.sshd.is_some() { "$USER" } else { "ec2-user" };
    ui::explain(&format!(
        "A region on this machine, until this shell ends. Its instances:\n\n{}\nTry: ssh {user}@{}\n",
        region.table(),
        region.instances().first().map_or("", |instance| instance.id.as_str()),
    ));
}

fn exit_code(status: ExitStatus) -> ExitCode {
    // As a shell reports a signal.
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::Passed(u8::try_from(code).unwrap_or(1))
}

/// Longer than a proxy takes at most to end its session.
const FAREWELL: Duration = Duration::from_secs(5);
