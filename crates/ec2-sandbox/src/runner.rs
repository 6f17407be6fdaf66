//! Runs one command inside a region: a private directory with its own `ssh_config`, and `ssh`, `scp` and
//! `sftp` in front of the real ones that use it.
//!
//! Programs that start `ssh` by name, such as git and rsync, find it in `PATH`. Nothing outside the directory
//! is written, and dropping the [`Workspace`] removes it. Signals of the terminal reach the command directly,
//! since it stays in the foreground; the others are passed on.

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

/// A private directory with all that makes commands use the region instead of AWS.
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
    /// The directory cannot be written, or there is no `ssh` in `PATH`.
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

    /// The directory, which dropping the workspace removes.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The configuration file of `ssh` in the directory.
    pub fn ssh_config(&self) -> PathBuf {
        self.directory.path().join("ssh_config")
    }

    /// Sets one more environment variable for later commands.
    pub fn set(&mut self, name: &str, value: impl Into<OsString>) {
        self.environment.push((name.into(), value.into()));
    }

    /// Makes later commands find `program` as `name`.
    ///
    /// # Errors
    ///
    /// There is a program of this name already.
    pub fn add_program(&self, name: &str, program: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(program, self.directory.path().join("bin").join(name))
    }

    /// Runs `command` in the foreground, with this process's standard streams, until it ends.
    ///
    /// While it runs, ctrl-c and ctrl-\ do not end this process: the terminal sends them to the command too.
    /// SIGTERM and SIGHUP are passed on, and a command that does not end is killed a little later. Signals
    /// that were ignored when this process was started stay ignored, here and in the command. Since tokio
    /// keeps its handlers, these four signals no longer end this process afterwards. Dropping the future
    /// kills the command.
    ///
    /// # Errors
    ///
    /// `command` is empty or cannot be started.
    pub async fn run(&self, command: &[OsString]) -> io::Result<ExitStatus> {
        let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = self.command(program);
        command.args(arguments);
        wait(command).await
    }

    /// Runs the user's shell, with a prompt that names the region.
    ///
    /// # Errors
    ///
    /// The shell cannot be started.
    pub async fn shell(&self) -> io::Result<ExitStatus> {
        let shell = Shell::of_user(self.directory.path());
        let mut command = self.command(&shell.program);
        command.args(shell.arguments).envs(shell.environment);
        wait(command).await
    }

    /// A command whose environment leads to the region and not to AWS.
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

/// None if the signal is ignored, as after nohup or in the background of a shell.
fn watch(kind: SignalKind) -> io::Result<Option<Arrivals>> {
    // proc_pid_status(5); where there is no /proc, nothing counts as ignored.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    let is_ignored = mask >> (kind.as_raw_value() - 1) & 1 == 1;
    if is_ignored { Ok(None) } else { signal(kind).map(Some) }
}

async fn arrival(signal: &mut Option<Arrivals>) {
    // The stream does not end while the runtime lives.
    let Some(signal) = signal else { return std::future::pending().await };
    if signal.recv().await.is_none() {
        std::future::pending().await
    }
}

/// Passes a signal on, and kills a command that ignores it, as interactive shells do with SIGTERM.
async fn end(mut child: Child, signal: Signal) -> io::Result<ExitStatus> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // If it has ended meanwhile this fails; its id is not used again before `wait` has returned.
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
    // Both have the path of `ssh` compiled in and do not look for it in `PATH`.
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

/// Quotes a path for `sh`. It must be UTF-8, as paths of temporary directories and programs are.
fn quote(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', r"'\''"))
}

fn write(file: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(file)?;
    file.write_all(text.as_bytes())
}

/// Time for a command to clean up after SIGTERM or SIGHUP; service managers allow little more.
const GRACE: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
