//! The work of a session on the instance: a connection to a port, or a program.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

use super::Connection;

/// A program that a session runs.
pub(crate) trait Program: Send {
    /// Waits for its end and returns all of its output. Not to be called again after that.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn io::Read + Send>>>;

    /// Sends the signal of a key. The program has no other input.
    fn interrupt(&mut self, key: Interrupt);
}

/// A program with separate outputs, which are read while it runs.
pub(crate) trait SeparateProgram: Send {
    /// Reads from one of its outputs into `room`; nothing at the end, when no process has the output open.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: OutputStream,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// Its exit status, once it has ended; -1 if a signal killed it.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<i32>>;

    /// Sends the signal of a key.
    fn interrupt(&mut self, key: Interrupt);
}

/// Where a program prints.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum OutputStream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// A key that is a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interrupt {
    /// Ctrl-C.
    Int,
    /// Ctrl-\.
    Quit,
}

impl Interrupt {
    pub(crate) fn of(key: u8) -> Option<Self> {
        match key {
            0x03 => Some(Self::Int),
            0x1c => Some(Self::Quit),
            _ => None,
        }
    }
}

/// The result of starting a session's work.
pub(crate) enum Start {
    /// The port is connected.
    Connected(Box<Connection>),
    /// The program runs.
    Running(Box<dyn Program>),
    /// The program runs, with separate outputs.
    RunningSeparate(Box<dyn SeparateProgram>),
    /// Nothing listens on the port.
    Refused,
    /// The command has no words.
    Blank,
    /// The command cannot be split into words, for this reason.
    Unparsable(&'static str),
    /// The program cannot be run.
    NotStarted {
        /// The reason, with the text of Go's `os/exec`.
        text: String,
        /// Whether its outputs would have been separate.
        separate: bool,
    },
}
