//! A region, and a workspace in which the real programs find it and nothing else.

mod files;
mod process;
mod terminal;

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ec2_sandbox::{Faults, Options, Region, SessionState, SessionSummary, Workspace};
use ssh_ec2::ssh::config::{ProxyOptions, block};
use ssh_ec2::ssh::own_files::OwnFiles;
use tokio::runtime::Runtime;

pub(crate) use self::files::{assert_same, files_below, random_file};
pub(crate) use self::process::{
    DEADLINE, Ended, Gathered, Running, eventually, find_processes, is_child_of, pid, run, run_with_input,
};
pub(crate) use self::terminal::Terminal;

/// The instances of the region, named after their state.
pub(crate) const HEALTHY: &str = "i-0decaf00000000001";
pub(crate) const STOPPED: &str = "i-0dead000000000001";
pub(crate) const SSM_AGENT_OFFLINE: &str = "i-0dead000000000002";
pub(crate) const NO_INSTANCE_CONNECT: &str = "i-0dead000000000003";
pub(crate) const PORT_CLOSED: &str = "i-0dead000000000004";
pub(crate) const PUSH_DENIED: &str = "i-0dead000000000005";
pub(crate) const START_DENIED: &str = "i-0dead000000000006";
pub(crate) const END_DENIED: &str = "i-0dead000000000007";
pub(crate) const THROTTLED: &str = "i-0dead000000000008";
pub(crate) const THROTTLED_FOR_EVER: &str = "i-0dead000000000009";
/// No instance has this id.
pub(crate) const ABSENT: &str = "i-0ffff000000000001";

/// Lifts the quota of StartSession, for tests that start many sessions and are not about it.
pub(crate) const WITHOUT_QUOTA: &str = "throttle=StartSession:1000/1000";

/// The SSH server on the instances.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Server {
    /// The built-in server of the sandbox.
    BuiltIn,
    /// The machine's sshd, which accepts only the current user.
    OpenSsh,
}

/// Makes a test of each named function for each [`Server`].
macro_rules! with_each_server {
    ($($name:ident),* $(,)?) => {
        mod builtin {
            $(#[test] fn $name() { super::$name(&$crate::harness::Sandbox::start()); })*
        }
        mod openssh {
            $(#[test] fn $name() { super::$name(&$crate::harness::Sandbox::with_sshd()); })*
        }
    };
}
pub(crate) use with_each_server;

/// A region with a workspace. Dropping it ends the region and deletes the workspace.
pub(crate) struct Sandbox {
    pub(crate) region: Region,
    workspace: Workspace,
    server: Server,
    runtime: Runtime,
}

impl Sandbox {
    /// A region without faults, with its own SSH server.
    pub(crate) fn start() -> Self {
        Self::with(Options::default())
    }

    /// The same with the machine's sshd.
    pub(crate) fn with_sshd() -> Self {
        Self::with(Options { sshd: Some(sshd()), ..Options::default() })
    }

    /// The same with faults, written as on the command line.
    pub(crate) fn with_faults(words: &[&str]) -> Self {
        let mut faults = Faults::default();
        for word in words {
            faults.add(word).unwrap();
        }
        Self::with(Options { faults, ..Options::default() })
    }

    /// A region with a quick SSM agent, unless the faults set its pace.
    pub(crate) fn with(mut options: Options) -> Self {
        options.faults.add("quick").unwrap();
        let server = if options.sshd.is_some() { Server::OpenSsh } else { Server::BuiltIn };
        for program in ["ssh", "scp", "sftp"] {
            find(program, env::var_os("PATH").unwrap().as_os_str());
        }
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        // This detects a client that does not sign its websockets.
        let faults = Faults { require_signature: true, ..options.faults };
        let region = runtime.block_on(Region::start(Options { faults, ..options })).unwrap();
        let config = |directory: &Path| block(binary(), &places(directory), &ProxyOptions::default());
        let workspace = Workspace::new(&region, config).unwrap();
        workspace.add_program("ssh_ec2", binary()).unwrap();
        let sandbox = Self { region, workspace, server, runtime };
        for program in ["ssh", "scp", "sftp"] {
            wait_until_runnable(&sandbox.path("bin").join(program));
        }
        for directory in [sandbox.home().join(".ssh"), sandbox.scratch(), sandbox.path("tmp")] {
            fs::create_dir_all(&directory).unwrap();
            fs::set_permissions(&directory, fs::Permissions::from_mode(0o700)).unwrap();
        }
        sandbox
    }

    /// The directory with all files that the programs write.
    pub(crate) fn directory(&self) -> &Path {
        self.workspace.directory()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory().join(name)
    }

    /// HOME of the programs.
    pub(crate) fn home(&self) -> PathBuf {
        self.path("home")
    }

    /// A directory for the test's own files, and the programs' working directory.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    /// A file in it.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.scratch().join(name)
    }

    /// The directory of the key agents' sockets.
    pub(crate) fn sockets(&self) -> PathBuf {
        places(self.directory()).sockets()
    }

    /// The path of a connection's key agent, from `ssh -G`.
    pub(crate) fn agent_socket(&self, target: &str) -> PathBuf {
        let settings = run(self.command("ssh").args(["-G", target])).success();
        let agent = settings.text().lines().find_map(|line| line.strip_prefix("identityagent "));
        PathBuf::from(agent.unwrap())
    }

    /// The login name.
    pub(crate) fn user(&self) -> String {
        match self.server {
            Server::BuiltIn => "ec2-user".to_owned(),
            Server::OpenSsh => String::from_utf8(run(Command::new("id").arg("-un")).success().stdout)
                .unwrap()
                .trim_end()
                .to_owned(),
        }
    }

    /// `user@instance` of an instance that works.
    pub(crate) fn target(&self) -> String {
        self.at(HEALTHY)
    }

    /// `user@instance`.
    pub(crate) fn at(&self, instance: &str) -> String {
        format!("{}@{instance}", self.user())
    }

    /// A command that finds the region and nothing else; `ssh`, `scp` and `sftp` are configured for it.
    pub(crate) fn command(&self, program: &str) -> Command {
        let inherited = env::var_os("PATH").unwrap();
        let paths = [self.path("bin")].into_iter().chain(env::split_paths(&inherited));
        let mut command = self.isolated(program, &env::join_paths(paths).unwrap());
        command.env("SSH_EC2_DIR", self.directory());
        command
    }

    /// A command that finds the region and nothing else, without configuration; our files are below HOME.
    pub(crate) fn plain_command(&self, program: &str) -> Command {
        self.isolated(program, &env::var_os("PATH").unwrap())
    }

    fn isolated(&self, program: &str, path: &OsStr) -> Command {
        let mut command = Command::new(find(program, path));
        command
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.home())
            .env("TMPDIR", self.path("tmp"))
            .env("TERM", "xterm")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(self.region.environment())
            .current_dir(self.scratch());
        command
    }

    /// The same command, run by another program.
    pub(crate) fn behind(&self, words: &[&str], command: &Command) -> Command {
        let mut other = self.plain_command(words[0]);
        other.env_clear().args(&words[1..]).arg(command.get_program()).args(command.get_args());
        other.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
        other
    }

    /// The program under test.
    pub(crate) fn ssh_ec2(&self) -> Command {
        self.command(BINARY)
    }

    /// `ssh_ec2 proxy` for an instance, as ssh would start it.
    pub(crate) fn proxy(&self, instance: &str) -> Command {
        let mut command = self.ssh_ec2();
        command.args(["proxy", &self.user(), instance, "22"]);
        command
    }

    /// `ssh`, without messages about host keys.
    pub(crate) fn ssh(&self, target: &str) -> Command {
        let mut command = self.command("ssh");
        command.args(["-o", "LogLevel=ERROR", target]);
        command
    }

    /// Runs a remote command that must succeed. Returns its output.
    pub(crate) fn remote(&self, command: &str) -> String {
        let ended = run(self.ssh(&self.target()).arg(command)).success();
        String::from_utf8(ended.stdout).unwrap()
    }

    /// The only session so far.
    pub(crate) fn session(&self) -> SessionSummary {
        let [session] = &self.region.sessions()[..] else { panic!("{:#?}", self.region.sessions()) };
        session.clone()
    }

    /// Waits until the region has had this many sessions.
    pub(crate) fn wait_for_sessions(&self, count: usize) {
        eventually("sessions are started", || (self.region.sessions().len() >= count).then_some(()));
    }

    /// Waits until no session of the region is open.
    pub(crate) fn wait_for_the_end(&self) {
        let ended = self.runtime.block_on(self.region.sessions_ended(DEADLINE));
        assert!(ended, "sessions are left: {:#?}", self.region.sessions());
    }

    /// Ends the region; the programs go on without one.
    pub(crate) fn lose_region(&mut self) {
        self.region = self.runtime.block_on(Region::start(Options::default())).unwrap();
    }

    /// The process ids of the proxies of this workspace.
    pub(crate) fn proxies(&self) -> Vec<u32> {
        find_processes(|words| {
            words.first().is_some_and(|word| Path::new(word) == binary())
                && words.iter().any(|word| Path::new(word).starts_with(self.directory()))
        })
    }

    /// Asserts that no connection has left a process, a socket or a session.
    pub(crate) fn assert_tidy(&self) {
        eventually("the proxies end", || self.proxies().is_empty().then_some(()));
        self.wait_for_the_end();
        assert!(self.region.sessions().iter().all(|session| session.state == SessionState::Terminated));
        assert_eq!(files_below(&self.sockets()), Vec::<PathBuf>::new());
    }

    /// Fails if sshd can give a terminal to root only, and this is not root.
    pub(crate) fn assert_that_terminals_can_be_had(&self) {
        let mounts = fs::read_to_string("/proc/mounts").unwrap();
        let grouped = mounts.lines().any(|line| line.starts_with("devpts ") && line.contains("gid="));
        assert!(
            self.server == Server::BuiltIn || is_root() || grouped,
            "sshd, when not started by root, needs terminals of the group `tty`: `mount -o remount,gid=5 /dev/pts`"
        );
    }

    /// Makes a key pair of the user's own, without a passphrase. Returns the path of the private half.
    pub(crate) fn key_pair(&self, path: PathBuf, kind: &str) -> PathBuf {
        let mut command = self.command("ssh-keygen");
        run(command.args(["-q", "-t", kind, "-N", "", "-C", "own", "-f"]).arg(&path)).success();
        path
    }

    /// Whether all sessions end within this time.
    pub(crate) fn sessions_end_within(&self, bound: Duration) -> bool {
        self.runtime.block_on(self.region.sessions_ended(bound))
    }
}

/// All files of the program below one directory.
pub(crate) fn places(directory: &Path) -> OwnFiles {
    OwnFiles::below(directory, directory)
}

/// The program under test.
pub(crate) fn binary() -> &'static Path {
    Path::new(BINARY)
}

const BINARY: &str = env!("CARGO_BIN_EXE_ssh_ec2");

/// Waits until a script that was written just now can be run: a child that another thread has forked in the
/// meantime holds it open for writing until its own `exec`, and Linux does not run such a file.
pub(crate) fn wait_until_runnable(script: &Path) {
    eventually("the script can be run", || match Command::new(script).arg("-V").output() {
        Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => None,
        ran => Some(ran.unwrap()),
    });
}

/// Finds a program in PATH. A missing one fails the test: a test that skips itself shows nothing.
fn find(program: &str, path: &OsStr) -> PathBuf {
    let found = env::split_paths(path).map(|directory| directory.join(program)).find(|file| file.is_file());
    let install = match program {
        "aws" => "pip install awscli".to_owned(),
        "moto_server" => "pip install 'moto[ec2,server,ssm,sts]'".to_owned(),
        "ansible" => "pip install ansible-core".to_owned(),
        "node" => "apt install nodejs".to_owned(),
        "nohup" => "apt install coreutils".to_owned(),
        "perl" => "apt install perl-base".to_owned(),
        "unshare" => "apt install util-linux".to_owned(),
        "ssh" | "scp" | "sftp" | "ssh-add" | "ssh-agent" | "ssh-keygen" => {
            "apt install openssh-client".to_owned()
        }
        other => format!("apt install {other}"),
    };
    found.unwrap_or_else(|| panic!("this test needs `{program}`, which is not there: `{install}`"))
}

/// Whether the owner of files can be changed.
pub(crate) fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

/// The machine's sshd, ready to be started by us.
pub(crate) fn sshd() -> PathBuf {
    let path = PathBuf::from("/usr/sbin/sshd");
    assert!(path.is_file(), "this test needs {}: `apt install openssh-server`", path.display());
    assert!(
        !is_root() || Path::new("/run/sshd").is_dir(),
        "sshd, when started by root, needs the directory /run/sshd: `mkdir -p /run/sshd`"
    );
    path
}
