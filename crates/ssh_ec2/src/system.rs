//! The operating system: files and sockets that are private to their owner, the terminal, locks between
//! processes, the limits of this process. And small things that every module uses.

pub(crate) mod age;
pub(crate) mod descriptors;
pub(crate) mod explain;
pub(crate) mod jitter;
pub(crate) mod memory;
pub(crate) mod pace;
pub(crate) mod private_file;
pub(crate) mod private_socket;
pub(crate) mod text;
pub(crate) mod tty;
