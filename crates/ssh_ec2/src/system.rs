//! What the program asks of the operating system: files and sockets that are private to their owner, the terminal,
//! locks between processes, the process's own limits.

pub mod descriptors;
pub mod explain;
pub mod jitter;
pub mod memory;
pub mod pace;
pub mod private_file;
pub mod private_socket;
pub mod text;
pub mod tty;
