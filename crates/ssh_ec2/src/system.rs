//! The operating system: files and sockets that are private to their owner, the terminal, locks between
//! processes, the limits of this process. And small things that every module uses.

pub mod age;
pub mod descriptors;
pub mod explain;
pub mod jitter;
pub mod memory;
pub mod pace;
pub mod private_file;
pub mod private_socket;
pub mod text;
pub mod tty;
