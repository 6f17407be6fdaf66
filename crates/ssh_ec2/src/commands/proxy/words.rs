//! Keeps the `ssh_ec2` that runs ssh waiting while this proxy may still print why the connection failed.
//!
//! The proxy holds a connection to a socket of `ssh_ec2` from its start on, and sends nothing. The connection
//! ends with a proxy that is killed, and there is none to a proxy that was never started, so neither is
//! waited for.

use std::cell::RefCell;
use std::fs;
use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;

/// The connection to the `ssh_ec2` that waits. None under plain ssh, or after [`done`](Self::done).
#[derive(Debug, Default)]
pub struct Words(RefCell<Option<UnixStream>>);

impl Words {
    /// Connects to the socket that the command line names. If its process was killed, the file is removed
    /// here, since no other process would.
    pub fn promise(socket: Option<&Path>) -> Self {
        let connect = |path: &Path| {
            UnixStream::connect(path).inspect_err(|error| {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    let _ = fs::remove_file(path);
                }
            })
        };
        Self(RefCell::new(socket.and_then(|path| connect(path).ok())))
    }

    /// Whether an `ssh_ec2` waits for the explanation.
    pub(super) fn are_awaited(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Hangs up: nothing more will be printed that explains a failure.
    pub fn done(&self) {
        let Some(mut stream) = self.0.take() else { return };
        let path = stream.peer_addr().ok().and_then(|peer| peer.as_pathname().map(Path::to_owned));
        // The other end sends nothing: it is readable only once it has ended.
        let is_alone = stream.set_nonblocking(true).is_ok()
            && !stream.read(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if let (true, Some(path)) = (is_alone, path) {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.done();
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn the_other_end_sees_when_all_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let words = Words::promise(Some(&path));
        let (mut other, _) = listener.accept().unwrap();
        other.set_nonblocking(true).unwrap();
        assert_eq!(other.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        words.done();
        assert_eq!(other.read(&mut [0]).unwrap(), 0);
        assert!(path.exists(), "the other end removes it");
    }

    #[test]
    fn a_socket_that_a_killed_process_left_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let words = Words::promise(Some(&path));
        drop(listener);
        drop(words);
        assert!(!path.exists(), "it was left while the connection was open");
        drop(UnixListener::bind(&path).unwrap());
        drop(Words::promise(Some(&path)));
        assert!(!path.exists(), "it was left before");
    }
}
