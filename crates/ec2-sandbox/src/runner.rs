//! Runs one command inside a region: a private directory with its own `ssh_config`, and `ssh`, `scp` and
//! `sftp` in front of the real ones that use it.
//!
//! Programs that start `ssh` by name, such as git and rsync, come along through `PATH`. Nothing outside the
//! directory is written, and the directory goes when the [`Workspace`] does. Signals of the terminal reach
//! the command directly, as it stays in the foreground; the others are passed on.

use std::{
    env,
    ffi::{OsStr, OsString},
    fs,
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    process::ExitStatus,
    time::Duration,
};

use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::{
    process::{Child, Command},
    signal::unix::{Signal as Arrivals, SignalKind, signal},
    time,
};

use crate::{region::Region, runner::shell::Shell};

mod shell;

/// A private directory in which commands find the region instead of AWS.
#[derive(Debug)]
pub struct Workspace {
    directory: TempDir,
    environment: Vec<(OsString, OsString)>,
}

impl Workspace {
    /// Makes the directory, readable by its owner alone, with the text that `ssh_config` gives for it.
    ///
    /// # Errors
    ///
    /// Fails if the directory cannot be written, or if there is no `ssh` on `PATH`.
    pub fn new(region: &Region, ssh_config: impl FnOnce(&Path) -> String) -> io::Result<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let directory = tempfile::Builder::new().prefix("ssh_ec2-").tempdir()?;
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o700))?;
        write(&directory.path().join("ssh_config"), &ssh_config(directory.path()), 0o600)?;
        let programs = directory.path().join("bin");
        fs::create_dir(&programs)?;
        write_shims(directory.path(), &programs, &path)?;
        shell::write_startup_files(directory.path())?;

        let mut workspace = Self { directory, environment: Vec::new() };
        let paths = [programs].into_iter().chain(env::split_paths(&path));
        workspace.set("PATH", env::join_paths(paths).map_err(io::Error::other)?);
        for (name, value) in region.environment() {
            workspace.set(&name, value);
        }
        Ok(workspace)
    }

    /// The directory. It is gone when the workspace is dropped.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file that `ssh` reads there.
    pub fn ssh_config(&self) -> PathBuf {
        self.directory.path().join("ssh_config")
    }

    /// Sets one more environment variable for the commands to come.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.into(), value.into()));
    }

    /// Makes `program` known as `name` to the commands to come.
    ///
    /// # Errors
    ///
    /// Fails if there is such a name already.
    pub fn add_program(&self, name: &str, program: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(program, self.directory.path().join("bin").join(name))
    }

    /// Runs `command` in the foreground, with our standard streams, until it ends.
    ///
    /// While it runs we outlive ctrl-c and ctrl-\, which the terminal gives to the command too. SIGTERM and
    /// SIGHUP are passed on, and a command that stays is killed a little later. What was ignored when this
    /// process was started stays ignored, here and in the command. As tokio keeps the handlers, these four
    /// signals no longer end this process afterwards. Dropping the future kills the command.
    ///
    /// # Errors
    ///
    /// Fails if `command` is empty or cannot be started.
    pub async fn run(&self, command: &[OsString]) -> io::Result<ExitStatus> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = self.command(program);
        command.args(arguments);
        wait(command).await
    }

    /// Runs the user's shell, with a prompt that says where it is.
    ///
    /// # Errors
    ///
    /// Fails if the shell cannot be started.
    pub async fn shell(&self) -> io::Result<ExitStatus> {
        let shell = Shell::of_user(self.directory.path());
        let mut command = self.command(&shell.program);
        command.args(shell.arguments).envs(shell.environment);
        wait(command).await
    }

    /// A command that finds the region and nothing else.
    fn command(&self, program: &OsStr) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os().filter(|(name, _)| leads_elsewhere(name)) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value))).kill_on_drop(true);
        command
    }
}

/// Whether a variable could lead a command past the region: a profile or an endpoint of AWS, or a variable by
/// which git and rsync prefer another `ssh` to the one on `PATH`.
fn leads_elsewhere(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"AWS_")
        || ["GIT_SSH", "GIT_SSH_COMMAND", "GIT_SSH_VARIANT", "RSYNC_RSH"].iter().any(|choice| name == *choice)
}

async fn wait(mut command: Command) -> io::Result<ExitStatus> {
    let mut outlived = [watch(SignalKind::interrupt())?, watch(SignalKind::quit())?];
    let mut terminate = watch(SignalKind::terminate())?;
    let mut hangup = watch(SignalKind::hangup())?;
    let mut child = command.spawn()?;
    loop {
        let [interrupt, quit] = &mut outlived;
        let passed_on = tokio::select! {
            status = child.wait() => return status,
            () = arrival(interrupt) => continue,
            () = arrival(quit) => continue,
            () = arrival(&mut terminate) => Signal::TERM,
            () = arrival(&mut hangup) => Signal::HUP,
        };
        return end(child, passed_on).await;
    }
}

/// None if the signal is ignored, as nohup and shells in the background do it.
fn watch(kind: SignalKind) -> io::Result<Option<Arrivals>> {
    // proc_pid_status(5); where there is no /proc, nothing counts as ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let is_ignored = mask >> (kind.as_raw_value() - 1) & 1 == 1;
    if is_ignored { Ok(None) } else { signal(kind).map(Some) }
}

async fn arrival(signal: &mut Option<Arrivals>) {
    // An end would mean that no more can come, which does not happen while the runtime lives.
    let Some(signal) = signal else { return std::future::pending().await };
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}

/// Passes a signal on, and kills a command that ignores it, as interactive shells do with SIGTERM.
async fn end(mut child: Child, signal: Signal) -> io::Result<ExitStatus> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // It may have ended in the meantime; until `wait` has returned, its id is not given to another.
        let _ = rustix::process::kill_process(id, signal);
    }
    if let Ok(status) = time::timeout(GRACE, child.wait()).await {
        return status;
    }
    child.start_kill()?;
    child.wait().await
}

/// Writes the three programs, each as a script that calls the real one.
fn write_shims(directory: &Path, programs: &Path, path: &OsStr) -> io::Result<()> {
    let find =
        |name: &str| env::split_paths(path).map(|entry| entry.join(name)).find(|file| is_program(file));
    let ssh =
        find("ssh").ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no `ssh` on PATH"))?;
    let config = quote(&directory.join("ssh_config"));
    let own_ssh = programs.join("ssh");
    write(&own_ssh, &format!("#!/bin/sh\nexec {} -F {config} \"$@\"\n", quote(&ssh)), 0o700)?;
    // Both have the path of `ssh` compiled in, so `PATH` alone would not lead them here.
    for name in ["scp", "sftp"] {
        if let Some(program) = find(name) {
            let script = format!("#!/bin/sh\nexec {} -S {} \"$@\"\n", quote(&program), quote(&own_ssh));
            write(&programs.join(name), &script, 0o700)?;
        }
    }
    Ok(())
}

fn is_program(file: &Path) -> bool {
    fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Quotes a path for `sh`. Temporary directories and programs with names outside UTF-8 do not occur.
fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

fn write(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    file.write_all(text.as_bytes())
}

/// Time for a command to tidy up after SIGTERM or SIGHUP; service managers give little more.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
