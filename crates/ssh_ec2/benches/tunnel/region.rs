//! The local region in a process of its own, so that its work is not counted as the client's.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, Stdio};

use ec2_sandbox::{Faults, Options, parse_time};

/// The first argument that makes this program a region.
pub(crate) const COMMAND: &str = "--region";
/// An instance that works.
pub(crate) const INSTANCE: &str = "i-0decaf00000000001";

pub(crate) struct Region {
    child: Child,
    /// Closing it ends the region.
    _stdin: ChildStdin,
    /// The environment variables of its clients.
    pub(crate) environment: Vec<(String, String)>,
}

impl Region {
    /// Starts a region with these faults; `latency=TIME` is the time of each API call.
    pub(crate) fn start(faults: &[&str]) -> Self {
        let program = std::env::current_exe().unwrap();
        let mut child = Command::new(program)
            .arg(COMMAND)
            .args(faults)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let environment = lines
            .take_while(|line| !line.is_empty())
            .map(|line| {
                line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned())).unwrap()
            })
            .collect();
        Self { child, _stdin: stdin, environment }
    }

    /// Makes a command find this region and no other.
    pub(crate) fn environment_of<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)))
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the region until standard input ends.
pub(crate) fn serve(faults: &[String]) {
    let mut options = Options::default();
    for fault in faults {
        match fault.strip_prefix("latency=") {
            Some(time) => options.latency = parse_time(time).unwrap(),
            None => add(&mut options.faults, fault),
        }
    }
    // Without the SSM agent's delays, since the tunnel is measured.
    add(&mut options.faults, "quick");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let region = ec2_sandbox::Region::start(options).await.unwrap();
        for (name, value) in region.environment() {
            println!("{name}={value}");
        }
        println!();
        let ended = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let _ = ended.await;
    });
}

fn add(faults: &mut Faults, fault: &str) {
    faults.add(fault).unwrap();
}
