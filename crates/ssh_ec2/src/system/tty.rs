//! Asks the user at the terminal, even if standard input and output are redirected.
//!
//! As ssh does: on the terminal itself, or by the program in SSH_ASKPASS. The terminal does not show the keys
//! that are typed. Cancelling restores the terminal: Ctrl-C is read as a key, since as a signal it would end
//! this process before that.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::Stdio;
use std::sync::Arc;

use crate::system::text::foreign_text;
use rustix::process::getpgrp;
use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetpgrp, tcsetattr,
};
use thiserror::Error;
use tokio::process::Command;
use tokio::task::spawn_blocking;

/// The user gave no answer.
#[derive(Debug, Error)]
pub(crate) enum AskError {
    /// There is neither a terminal nor a program to ask with.
    #[error("there is no terminal to ask on")]
    Nobody,
    /// In batch mode, and while ssh uses the terminal.
    #[error("nothing may be asked now")]
    Unwanted,
    /// The user cancelled, or entered nothing.
    #[error("no answer was given")]
    Declined,
    /// The terminal, or the program that asks, failed.
    #[error("cannot ask")]
    Io(#[from] io::Error),
}

/// Asks, and returns the line that was typed.
///
/// # Errors
///
/// [`AskError`].
pub(crate) async fn ask(question: &str) -> Result<String, AskError> {
    let program = env::var_os("SSH_ASKPASS").filter(|program| !program.is_empty());
    let require = env::var("SSH_ASKPASS_REQUIRE").unwrap_or_default();
    let has_display = ["DISPLAY", "WAYLAND_DISPLAY"].iter().any(|name| env::var_os(name).is_some());
    let answer = match (program, require.as_str()) {
        (Some(program), "force" | "prefer") => ask_program(program, question).await?,
        (program, require) => match (terminal(), program) {
            (Some(terminal), _) => ask_terminal(terminal, question).await?,
            (None, Some(program)) if has_display && require != "never" => {
                ask_program(program, question).await?
            }
            (None, _) => return Err(AskError::Nobody),
        },
    };
    let answer = answer.trim();
    if answer.is_empty() { Err(AskError::Declined) } else { Ok(answer.to_owned()) }
}

/// Waits for Enter.
///
/// # Errors
///
/// [`AskError::Declined`] when the user cancelled, [`AskError::Nobody`] when there is no terminal.
pub(crate) async fn confirm(question: &str) -> Result<(), AskError> {
    ask_terminal(terminal().ok_or(AskError::Nobody)?, question).await.map(|_| ())
}

/// Writes a line to the terminal, for the user who has just answered there.
pub(crate) fn print_line(text: &str) {
    if let Some(mut terminal) = terminal() {
        let _ = terminal.write_all(format!("{}\n", foreign_text(text, LIMIT)).as_bytes());
    }
}

/// The terminal, if this process is in its foreground. Reading it from the background would stop this
/// process.
pub(crate) fn terminal() -> Option<File> {
    let terminal = OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    (tcgetpgrp(&terminal).ok()? == getpgrp()).then_some(terminal)
}

async fn ask_terminal(terminal: File, question: &str) -> Result<String, AskError> {
    let terminal = Arc::new(terminal);
    let _hidden = Hidden::new(Arc::clone(&terminal))?;
    (&*terminal).write_all(question.as_bytes())?;
    let line = spawn_blocking(move || read_line(&terminal)).await.map_err(io::Error::other)??;
    String::from_utf8(line).map_err(|_| AskError::Declined)
}

/// Reads keys up to Enter. Ctrl-C and Ctrl-D decline.
fn read_line(mut terminal: &File) -> Result<Vec<u8>, AskError> {
    let mut line = Vec::new();
    let mut key = [0];
    loop {
        if terminal.read(&mut key)? == 0 {
            return Err(AskError::Declined);
        }
        match key[0] {
            b'\r' | b'\n' => return Ok(line),
            CONTROL_C | CONTROL_D => return Err(AskError::Declined),
            BACKSPACE | DELETE => {
                line.pop();
            }
            CONTROL_U => line.clear(),
            byte if line.len() < LIMIT => line.push(byte),
            _ => {}
        }
    }
}

async fn ask_program(program: OsString, question: &str) -> Result<String, AskError> {
    let mut command = Command::new(program);
    command.arg(question).stdin(Stdio::null()).stderr(Stdio::inherit()).kill_on_drop(true);
    let output = command.output().await?;
    if !output.status.success() {
        return Err(AskError::Declined);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A terminal that does not show the keys that are typed.
struct Hidden {
    terminal: Arc<File>,
    before: Termios,
}

impl Hidden {
    fn new(terminal: Arc<File>) -> io::Result<Self> {
        let before = tcgetattr(&terminal)?;
        let mut hidden = before.clone();
        hidden.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
        hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
        // Keys that were typed before were not meant for this question.
        tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, OptionalActions::Drain, &self.before);
        let _ = (&*self.terminal).write_all(b"\n");
    }
}

/// Longer than any code.
const LIMIT: usize = 1024;
const CONTROL_C: u8 = 0x03;
const CONTROL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CONTROL_U: u8 = 0x15;
const DELETE: u8 = 0x7f;
