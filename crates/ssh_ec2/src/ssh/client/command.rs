//! A program and its arguments, which never pass through a shell.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process;

use super::Invocation;
use crate::ssh::quote::shell_word;

/// A program to run, with its arguments.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Command {
    /// Its name, searched in PATH, or its path.
    pub program: OsString,
    /// The words after the program.
    pub arguments: Vec<OsString>,
}

impl Command {
    /// ssh with these settings, placed after the user's options, which win: ssh takes the first value.
    pub(crate) fn ssh(invocation: &Invocation, settings: &[(&str, String)]) -> Self {
        let mut arguments = invocation.options.clone();
        for (keyword, value) in settings {
            arguments.push("-o".into());
            arguments.push(format!("{keyword}={value}").into());
        }
        arguments.push(invocation.destination.clone());
        arguments.extend(invocation.command.iter().cloned());
        Self { program: "ssh".into(), arguments }
    }

    /// Becomes the program: this process's caller then sees the program's use of the terminal, its signals
    /// and its exit status.
    ///
    /// # Errors
    ///
    /// When the program cannot be started; otherwise it does not return.
    pub(crate) fn exec(&self) -> Result<Infallible, io::Error> {
        Err(process::Command::new(&self.program).args(&self.arguments).exec())
    }

    /// The command line for a POSIX shell.
    pub(crate) fn shell_line(&self) -> String {
        let words = std::iter::once(&self.program).chain(&self.arguments);
        words.map(|word| shell_word(word)).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn our_settings_stand_behind_the_users() {
        let invocation = Invocation::parse(&words("-o User=x i-0a1b2c3d echo a")).unwrap();
        let command = Command::ssh(&invocation, &[("IdentityFile", "none".into())]);
        assert_eq!(command.arguments, words("-o User=x -o IdentityFile=none i-0a1b2c3d echo a"));
    }

    #[test]
    fn the_shell_line_is_quoted() {
        let command =
            Command { program: "ssh".into(), arguments: vec!["a b".into(), "it's".into(), "".into()] };
        assert_eq!(command.shell_line(), r"ssh 'a b' 'it'\''s' ''");
    }
}
