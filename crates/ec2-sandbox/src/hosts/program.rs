//! What a session does on the instance: it is connected to a port, or it runs a program.

use std::{
    io,
    task::{Context, Poll},
};

use tokio::io::ReadBuf;

use super::Connection;

/// A program that a session runs.
pub(crate) trait Program: Send {
    /// All of its output, to be read once it has ended. Not to be called again after that.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Box<dyn io::Read + Send>>>;

    /// What the client types never reaches it, but two keys interrupt it.
    fn interrupt(&mut self, key: Interrupt);
}

/// A program with separate outputs, which are read while it runs.
pub(crate) trait SeparateProgram: Send {
    /// Fills `room` with what it prints to one of its outputs; nothing when nobody can print there any more.
    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        stream: OutputStream,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>>;

    /// Its exit status, once it has ended; -1 if a signal killed it.
    fn poll_exit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<i32>>;

    /// As for [`Program`].
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

/// What became of the attempt to begin.
pub(crate) enum Start {
    /// The port is connected.
    Connected(Box<Connection>),
    /// The program runs.
    Running(Box<dyn Program>),
    /// The same with separate outputs.
    RunningSeparate(Box<dyn SeparateProgram>),
    /// Nothing listens on the port.
    Refused,
    /// The command has no words.
    Blank,
    /// The command cannot be split into words, for this reason.
    Unparsable(&'static str),
    /// The program cannot be run, in the words of Go's `os/exec`.
    NotStarted {
        /// Those words.
        text: String,
        /// Whether its outputs would have been separate.
        separate: bool,
    },
}
