//! A terminal with a program in it.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use pty_process::Size;
use pty_process::blocking::{self, Pty};

use super::process::{DEADLINE, eventually, within};

/// A program in a terminal, and what the terminal shows.
pub(crate) struct Terminal {
    pty: Pty,
    child: Child,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    pub(crate) fn start(command: Command, rows: u16, columns: u16) -> Self {
        let (pty, end) = blocking::open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let child = blocking::Command::from(command).spawn(end).unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        let descriptor: OwnedFd = rustix::io::dup(&pty).unwrap();
        thread::spawn(move || {
            let mut output = File::from(descriptor);
            let mut buffer = [0; 4096];
            // A terminal reports its end as an error.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]);
                shown.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Self { pty, child, screen }
    }

    /// Types the text.
    pub(crate) fn type_in(&mut self, text: &str) {
        self.pty.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        self.pty.resize(Size::new(rows, columns)).unwrap();
    }

    pub(crate) fn screen(&self) -> String {
        self.screen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until the screen contains the text.
    pub(crate) fn wait_for(&self, text: &str) {
        self.wait_until(&format!("has {text:?}"), |screen| screen.contains(text));
    }

    /// Waits until the screen fulfils a condition.
    pub(crate) fn wait_until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let found = within(DEADLINE, || wanted(&self.screen()).then_some(()));
        assert!(found.is_some(), "waited in vain until the screen {what}:\n{}", self.screen());
    }

    /// The program's exit status.
    pub(crate) fn status(&mut self) -> i32 {
        let status = eventually("the program in the terminal ends", || self.child.try_wait().unwrap());
        status.code().unwrap()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
