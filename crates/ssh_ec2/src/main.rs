//! `ssh_ec2`: reads the command line and the environment, runs one command, and says how it went.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    ssh_ec2::run(&arguments).into()
}
