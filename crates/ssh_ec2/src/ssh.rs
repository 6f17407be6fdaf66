//! OpenSSH's side: its command line, its configuration and options, its host keys, and ssh as a child process.

pub mod client;
pub mod config;
pub mod host_key;
pub mod job;
pub mod known_hosts;
pub mod options;
pub mod own_files;
pub mod transfer;
