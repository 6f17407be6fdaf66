//! `ssh_ec2` as process 1 of a container, as in `docker run … ssh_ec2 …`.
//!
//! The kernel delivers to process 1 no signal that it does not catch, and makes it the parent of every
//! process whose parent has ended; when process 1 ends, the kernel kills all others (pid_namespaces(7)). So
//! the command runs in a child.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process;
use std::time::Duration;

use nix::sys::signal;
use nix::unistd::Pid as Processes;
use rustix::process::{WaitOptions, WaitStatus, wait};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::timeout;

use crate::commands::signals::{Signal, Signals};
use crate::error::ExitCode;
use crate::road::stdio;

/// Runs the command in a child if this is process 1. None if it is not, or if no child can be started.
pub(crate) fn run_child(arguments: &[OsString]) -> Option<ExitCode> {
    if process::id() != 1 {
        return None;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(run(arguments)).ok()
}

async fn run(arguments: &[OsString]) -> io::Result<ExitCode> {
    // Before the child exists, whose end must not be missed.
    let mut ends = unix::signal(SignalKind::child())?;
    let mut signals = Signals::new()?;
    let mut command = process::Command::new(env::current_exe()?);
    command.args(arguments);
    // With a terminal the child stays in this process group, which is in the foreground: in another one, a
    // read from the terminal would stop it.
    let has_terminal = File::open("/dev/tty").is_ok();
    if !has_terminal {
        // A signal to the group then reaches the child once, from this process.
        command.process_group(0);
    }
    let child = command.spawn()?.id();
    // A reader of the output must see its end when the child ends, not only when this process does.
    let _ = stdio::leave();
    let status = loop {
        if let Some(status) = reap(child) {
            break status;
        }
        tokio::select! {
            _ = ends.recv() => {}
            signal = signals.next() => {
                // The terminal sends these to the child as well.
                if !has_terminal || !matches!(signal, Signal::Interrupt | Signal::Quit) {
                    pass_on(child, signal);
                }
            }
        }
    };
    end_the_others(&mut ends).await;
    let code = status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal));
    Ok(ExitCode::Passed(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn pass_on(child: u32, signal: Signal) {
    let Ok(child) = i32::try_from(child) else { return };
    if let Ok(signal) = signal::Signal::try_from(signal.number()) {
        // Its number is not used again before it is reaped.
        let _ = signal::kill(Processes::from_raw(child), signal);
    }
}

/// Reaps all children that have ended, and returns the status of `child` if it is one of them.
fn reap(child: u32) -> Option<WaitStatus> {
    let mut found = None;
    while let Ok(Some((process, status))) = wait(WaitOptions::NOHANG) {
        if u32::try_from(process.as_raw_nonzero().get()) == Ok(child) {
            found = Some(status);
        }
    }
    found
}

/// Ends the other processes, among them proxies that ssh has left and that have sessions to end.
async fn end_the_others(ends: &mut unix::Signal) {
    // From process 1 this reaches its namespace alone.
    let _ = signal::kill(Processes::from_raw(-1), signal::Signal::SIGTERM);
    let all_ended = async {
        // An error means that there are none left.
        while let Ok(ended) = wait(WaitOptions::NOHANG) {
            if ended.is_none() {
                ends.recv().await;
            }
        }
    };
    let _ = timeout(GRACE, all_ended).await;
}

/// A proxy takes at most this long to end its session.
const GRACE: Duration = Duration::from_secs(5);
