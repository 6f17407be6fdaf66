//! OpenSSH's side: its command line, configuration and options, its host keys and wire format, and ssh as a
//! child process. And the list of all files that the program writes: [`own_files`].

pub mod client;
pub mod config;
pub mod error;
pub mod host_key;
pub mod job;
pub mod known_hosts;
pub mod options;
pub mod own_files;
mod own_options;
pub mod quote;
pub mod transfer;
pub(crate) mod wire;
