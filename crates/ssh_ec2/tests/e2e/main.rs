//! The program as its users meet it: the real `ssh`, `scp`, `sftp`, `rsync`, `git` and `aws` through the built
//! binary, on a region of `ec2-sandbox`.
//!
//! Every test has a region, a home directory and a temporary directory of its own. Nothing waits for a time to
//! pass; what is waited for has a deadline, and passing it fails the test. A program that is missing fails the
//! test as well, and the message says how to install it.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

/// The sandbox from outside, with the credentials that it gives out, by AWS's own client.
mod ansible;
mod aws_cli;
/// Programs other than ssh that start the proxy, and what they give it for standard input and output.
mod callers;
/// `ssh_ec2 config`, and plain ssh after it.
mod config;
mod credential_process;
/// What is wrong, by `ssh_ec2 doctor` and by plain ssh.
mod doctor;
/// What becomes of the proxy and the session when one of the two sides goes.
mod ends;
/// What the program says, word for word, when it cannot do what it was asked for.
mod errors;
/// A failure is explained before the command returns.
mod explained;
/// Messages lost, doubled, late, and websockets cut.
mod faults;
/// The program as process 1 of a container.
mod first_process;
/// Region, workspace, and processes with deadlines.
mod harness;
/// Which host keys are believed, and which are not.
mod host_keys;
/// What means harm: names, answers, messages, requests, files.
mod hostile;
mod http_proxy;
mod identity;
/// An endpoint that answers otherwise than AWS does.
mod impostor;
/// The command line of the script that the program replaces.
mod interface;
/// Signals, terminals and jobs, with `ssh_ec2` where ssh would be.
mod job_control;
/// The one-time key's socket, and the user's own agent.
mod key_agent;
mod login;
/// Host keys that only the server itself presents.
mod made_up_keys;
mod mfa;
mod moto;
mod names;
/// Credentials are fetched once for a connection.
mod one_process;
/// Many connections at once.
mod parallel;
/// What `ssh_ec2 policy` prints, enforced.
mod policy;
/// Why a login failed.
mod refusals;
/// Commands, terminals, forwarding, multiplexing.
mod session;
/// Signals that end a session, and those that were ignored from the start.
mod signals;
mod sso;
/// What the proxy writes to standard output.
mod stdout;
/// Files there and back.
mod transfer;
mod web_identity;
/// `ssh_ec2` in front of ssh's own command line.
mod wrapper;
