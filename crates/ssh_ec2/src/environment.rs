//! What the program takes from its environment, read once, at the start. The AWS SDK reads its own variables.

use std::env;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::cache::Cache;
use crate::commands::connect::Surroundings;
use crate::error::Failure;
use crate::ssh_config::Places;

/// The user's directories, and this program.
#[derive(Debug)]
pub struct Environment {
    /// `~/.ssh`.
    pub ssh_directory: PathBuf,
    /// What names meant a short while ago.
    pub cache: Cache,
    /// Who runs this program.
    pub user: u32,
    /// For connections.
    pub surroundings: Surroundings,
}

impl Environment {
    /// Reads it.
    ///
    /// # Errors
    /// When there is no home directory, or this program cannot be found.
    pub fn read() -> Result<Self, Failure> {
        let home = env::home_dir().filter(|home| home.is_absolute()).ok_or(Failure::NoHome)?;
        let ssh_directory = home.join(".ssh");
        let own = env::var_os("SSH_EC2_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let cache = match &own {
            Some(directory) => directory.join("cache"),
            None => {
                let cache =
                    env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
                cache.unwrap_or_else(|| home.join(".cache")).join("ssh_ec2")
            }
        };
        let user = rustix::process::getuid().as_raw();
        let cache = Cache::new(cache, user);
        let directory = own.unwrap_or_else(|| ssh_directory.join("ssh_ec2"));
        let places = Places::below(&directory, &short_directory());
        let program = env::current_exe().map_err(|source| Failure::File {
            action: "find",
            path: "ssh_ec2".into(),
            source,
        })?;
        let user_agent = env::var("SSH_AUTH_SOCK").ok();
        Ok(Self { ssh_directory, cache, user, surroundings: Surroundings { program, places, user_agent } })
    }
}

/// The command line of the process that started us, where the system tells: ssh's, for a ProxyCommand.
pub fn parent() -> Vec<OsString> {
    let Some(parent) = rustix::process::getppid() else { return Vec::new() };
    let line = std::fs::read(format!("/proc/{}/cmdline", parent.as_raw_nonzero())).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| OsString::from_vec(word.to_vec())).collect()
}

/// A private directory with a short name: the session's, or one of our own in the temporary directory, which is
/// checked to be ours before it is used.
fn short_directory() -> PathBuf {
    if let Some(runtime) = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute())
    {
        return runtime.join("ssh_ec2");
    }
    PathBuf::from(format!("/tmp/ssh_ec2-{}", rustix::process::getuid().as_raw()))
}
