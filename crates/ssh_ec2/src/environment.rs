//! What the program reads from its environment, once, at the start. The AWS SDK reads its own variables.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::Failure;
use crate::instances::cache::Cache;
use crate::ssh::own_files::OwnFiles;

/// The user's directories and agent, and this program.
#[derive(Debug)]
pub(crate) struct Environment {
    /// `~/.ssh`, unless there is no home directory.
    pub ssh_directory: Option<PathBuf>,
    /// The file in which ssh looks for the user's settings: `~/.ssh/config`, or the one of the local region.
    pub user_config: Option<PathBuf>,
    /// The names and instances of the last minutes.
    pub cache: Cache,
    /// The real user id of this process.
    pub user: u32,
    /// This program, for the ProxyCommand.
    pub program: PathBuf,
    /// The paths of the files that this program writes.
    pub places: OwnFiles,
    /// `SSH_AUTH_SOCK`: the user's own agent, which ssh forwards on request.
    pub user_agent: Option<String>,
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    ///
    /// When there is no home directory to write files to, or the path of this program is unknown.
    pub(crate) fn read() -> Result<Self, Failure> {
        let ssh_directory = env::home_dir().filter(|home| home.is_absolute()).map(|home| home.join(".ssh"));
        let own = absolute("SSH_EC2_DIR");
        let user = rustix::process::getuid().as_raw();
        let (directory, cache) = match (own, &ssh_directory) {
            (Some(own), _) => (own.clone(), own.join("cache")),
            (None, Some(ssh)) => {
                let cache = absolute("XDG_CACHE_HOME").unwrap_or_else(|| ssh.with_file_name(".cache"));
                (ssh.join("ssh_ec2"), cache.join("ssh_ec2"))
            }
            (None, None) => return Err(Failure::NoHome),
        };
        let program = env::current_exe().map_err(|source| Failure::File {
            action: "find",
            path: "ssh_ec2".into(),
            source,
        })?;
        let places = OwnFiles::of_user(&directory, user);
        let user_agent = env::var("SSH_AUTH_SOCK").ok();
        Ok(Self {
            user_config: absolute("SSH_EC2_SSH_CONFIG")
                .or_else(|| ssh_directory.as_ref().map(|ssh| ssh.join("config"))),
            ssh_directory,
            cache: Cache::new(cache, user),
            user,
            program,
            places,
            user_agent,
        })
    }
}

fn absolute(variable: &str) -> Option<PathBuf> {
    env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// A path of `program`, which is this one, that stays valid after an upgrade: package managers keep each
/// version in a directory of its own, and a link to it in PATH. It is that link; for a program that is not in
/// PATH, the path that it was called by; else `program`.
pub(crate) fn installed_program(program: &Path) -> PathBuf {
    let is_this = |path: &Path| fs::canonicalize(path).is_ok_and(|path| path == program);
    let name = program.file_name().unwrap_or_default();
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path).filter(|directory| directory.is_absolute());
    let called = env::args_os().next().map(PathBuf::from).filter(|called| called.components().count() > 1);
    let called = called.and_then(|called| std::path::absolute(called).ok());
    let mut candidates = in_path.map(|directory| directory.join(name)).chain(called);
    candidates.find(|candidate| is_this(candidate)).unwrap_or_else(|| program.to_owned())
}

/// The name that gethostname(3) returns, which is `%l` of ssh.
pub(crate) fn local_host() -> Vec<u8> {
    rustix::system::uname().nodename().to_bytes().to_vec()
}

/// The command line of the process that started us: ssh's, for a ProxyCommand.
pub(crate) fn parent() -> Vec<OsString> {
    let Some(parent) = rustix::process::getppid() else { return Vec::new() };
    let parent = parent.as_raw_nonzero().get();
    let Ok(line) = fs::read(format!("/proc/{parent}/cmdline")) else { return shown_by_ps(parent) };
    line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// The same on systems without `/proc`, such as macOS. A word with spaces becomes several words.
fn shown_by_ps(process: i32) -> Vec<OsString> {
    let mut ps = Command::new("/bin/ps");
    ps.args(["-ww", "-o", "args=", "-p", &process.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
    let line = ps.output().map(|output| output.stdout).unwrap_or_default();
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
        .map(|word| OsString::from_vec(word.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ps_shows_what_proc_does() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let shown = shown_by_ps(i32::try_from(child.id()).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(shown, ["sleep", "600"]);
    }

    #[test]
    fn the_local_host_is_what_the_kernel_says() {
        let said = fs::read("/proc/sys/kernel/hostname").unwrap();
        assert_eq!(local_host(), said.trim_ascii_end());
    }
}
