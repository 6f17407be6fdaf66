//! The user's shell, started with a prompt that names the region and with the workspace's `PATH` kept.
//!
//! bash and zsh read a startup file of the workspace, which reads the user's own first; other shells get a
//! plain prompt.

use std::{env, ffi::OsString, io, path::Path};

use super::{quote, write};

/// An interactive shell: its program and how to start it.
#[derive(Debug)]
pub(super) struct Shell {
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: Vec<(OsString, OsString)>,
}

impl Shell {
    /// The shell that `SHELL` names, else `/bin/sh`, with the startup files in `directory`.
    pub(super) fn of_user(directory: &Path) -> Self {
        let program =
            env::var_os("SHELL").filter(|shell| !shell.is_empty()).unwrap_or_else(|| "/bin/sh".into());
        Self::new(program, directory)
    }

    fn new(program: OsString, directory: &Path) -> Self {
        let name = Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let (arguments, environment) = match name {
            "bash" => (vec!["--rcfile".into(), directory.join("bashrc").into(), "-i".into()], vec![]),
            "zsh" => (vec!["-i".into()], vec![("ZDOTDIR".into(), directory.join("zsh").into())]),
            _ => (vec![], vec![("PS1".into(), format!("{HINT}$ ").into())]),
        };
        Self { program, arguments, environment }
    }
}

/// Writes the startup files into `directory`.
pub(super) fn write_startup_files(directory: &Path) -> io::Result<()> {
    let path = format!("PATH={}:$PATH", quote(&directory.join("bin")));
    let bash = format!("[ -f ~/.bashrc ] && . ~/.bashrc\n{path}\nPS1=\"{HINT}$PS1\"\n");
    write(&directory.join("bashrc"), &bash, 0o600)?;
    std::fs::create_dir(directory.join("zsh"))?;
    let zsh = format!("ZDOTDIR=$HOME\n[ -f ~/.zshrc ] && . ~/.zshrc\n{path}\nPROMPT=\"{HINT}$PROMPT\"\n");
    write(&directory.join("zsh").join(".zshrc"), &zsh, 0o600)
}

const HINT: &str = "(sandbox) ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_started_with_the_files_it_reads() {
        let arguments = |program: &str| Shell::new(program.into(), Path::new("/w")).arguments;
        assert_eq!(arguments("/bin/bash"), ["--rcfile", "/w/bashrc", "-i"]);
        assert_eq!(arguments("/usr/bin/zsh"), ["-i"]);
        assert!(arguments("/bin/dash").is_empty());
    }
}
