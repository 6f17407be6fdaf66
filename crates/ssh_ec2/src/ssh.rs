//! OpenSSH's side: its command line, configuration and options, its host keys and wire format, and ssh as a
//! child process. And the list of all files that the program writes: [`own_files`].

pub(crate) mod client;
pub mod config;
pub(crate) mod error;
pub mod host_key;
pub(crate) mod job;
pub(crate) mod known_hosts;
pub(crate) mod options;
pub mod own_files;
mod own_options;
pub(crate) mod quote;
pub(crate) mod transfer;
pub(crate) mod wire;
