//! The program as its users meet it: the real `ssh`, `scp`, `sftp`, `rsync`, `git` and `aws` run the built
//! binary in a region of `ec2-sandbox`.
//!
//! Every test has a region, a home directory and a temporary directory of its own. Nothing waits for a fixed
//! time; each wait has a condition and a deadline, and passing the deadline fails the test. A missing program
//! fails the test as well, and the message names the package to install.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

/// Ansible over plain ssh: many forks at once.
mod ansible;
/// The sandbox as the AWS CLI sees it, with the credentials that the sandbox gives out.
mod aws_cli;
/// Programs other than ssh that start the proxy, with their kinds of standard input and output.
mod callers;
/// `ssh_ec2 config`, and plain ssh with the installed blocks.
mod config;
/// A profile with a `credential_process`.
mod credential_process;
/// Broken set-ups, as `ssh_ec2 doctor` and plain ssh report them.
mod doctor;
/// The end of the proxy and of the session when one of the two sides ends.
mod ends;
/// The exact text of error messages and hints.
mod errors;
/// An error is explained before the command returns.
mod explained;
/// Lost, doubled and late messages, and cut websockets.
mod faults;
/// The program as process 1 of a container.
mod first_process;
/// Region, workspace, and processes with deadlines.
mod harness;
/// Which host keys are accepted, and which are not.
mod host_keys;
/// Hostile names, answers, messages, requests and files.
mod hostile;
/// HTTP proxies that fail.
mod http_proxy;
/// Which credentials and which region a connection uses.
mod identity;
/// An endpoint that does not answer like AWS.
mod impostor;
/// The command line of the script that the program replaces.
mod interface;
/// Signals, terminals and jobs, with `ssh_ec2` in the place of ssh.
mod job_control;
/// The socket of the one-time key's agent, and the user's own agent.
mod key_agent;
/// A profile of `aws login`.
mod login;
/// Host keys that AWS does not list.
mod made_up_keys;
/// A profile whose role needs an MFA code.
mod mfa;
/// Against moto, an independent emulator of AWS.
mod moto;
/// Targets by name, tag, address and group; the cache of names; `ssh_ec2 list`; completions.
mod names;
/// Only the proxy of a connection talks to AWS.
mod one_process;
/// Many connections at once.
mod parallel;
/// The policies of `ssh_ec2 policy`, enforced by the region.
mod policy;
/// The causes of a refused login.
mod refusals;
/// Commands, terminals, forwarding, multiplexing.
mod session;
/// Signals that end a session, and signals that were ignored from the start.
mod signals;
/// A profile of IAM Identity Center.
mod sso;
/// Standard output of the proxy.
mod stdout;
/// Files copied there and back.
mod transfer;
/// A role that STS grants for a token in a file.
mod web_identity;
/// `ssh_ec2` in front of ssh's own command line.
mod wrapper;
