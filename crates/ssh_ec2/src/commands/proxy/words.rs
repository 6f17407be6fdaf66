//! Keeps the `ssh_ec2` that runs ssh waiting while this proxy may still print why the connection failed.
//!
//! From its start on, the proxy holds a connection to a socket of `ssh_ec2`. A killed proxy loses the
//! connection, and a proxy that was never started has none, so `ssh_ec2` waits for neither. When the program
//! that `ssh_ec2` started has ended, it begins to wait and sends a byte.

use std::cell::RefCell;
use std::convert::Infallible;
use std::fs;
use std::future::pending;
use std::io::{self, Write as _};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::Path;
use std::time::Duration;

use tokio::time::sleep;

use crate::error::Failure;
use crate::road::stdio;
use crate::system::private_socket;
use crate::ui;

/// The connection to the `ssh_ec2` that waits. None under plain ssh, or after [`done`](Self::done).
#[derive(Debug)]
pub(crate) struct Words {
    connection: RefCell<Option<UnixStream>>,
    /// The process that started this one.
    ssh: u32,
}

impl Words {
    /// Connects to the socket that the command line names. If the process of the socket was killed, its file
    /// is removed here, since no other process would remove it.
    pub(crate) fn promise(socket: Option<&Path>) -> Self {
        let connect = |path: &Path| {
            UnixStream::connect(path).inspect_err(|error| {
                if error.kind() == io::ErrorKind::ConnectionRefused {
                    let _ = fs::remove_file(path);
                }
            })
        };
        let connection = socket.and_then(|path| connect(path).ok());
        Self { connection: RefCell::new(connection), ssh: parent_id() }
    }

    /// Passes an error to `ssh_ec2` if standard error is `/dev/null`, as ssh sets it for the proxy with
    /// ControlPersist.
    pub(crate) fn pass_on(&self, error: &Failure) {
        if let (Some(stream), true) = (&mut *self.connection.borrow_mut(), stdio::error_output_is_null()) {
            let _ = stream.write_all(ui::error_lines(error).join("\n").as_bytes());
        }
    }

    /// Whether an `ssh_ec2` waits for the explanation.
    pub(super) fn are_awaited(&self) -> bool {
        self.connection.borrow().is_some()
    }

    /// Closes the connection: nothing more will be printed that explains a failure.
    pub(crate) fn done(&self) {
        let Some(mut stream) = self.connection.take() else { return };
        let path = stream.peer_addr().ok().and_then(|peer| peer.as_pathname().map(Path::to_owned));
        let is_alone = stream.set_nonblocking(true).is_ok()
            && !io::copy(&mut stream, &mut io::sink())
                .is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        if let (true, Some(path)) = (is_alone, path) {
            let _ = fs::remove_file(path);
        }
    }

    /// Calls [`done`](Self::done) as soon as the ssh for which `ssh_ec2` waits has ended and a background
    /// process has taken over the connection, as with `ssh -f` and ControlPersist after the login. Never
    /// returns: the caller drops it.
    pub(crate) async fn done_when_left(&self) -> Infallible {
        if self.is_waited_for().await.is_ok() {
            // Checked in this order: an ssh that ends closes its files before it ceases to be this process's
            // parent.
            while parent_id() == self.ssh {
                sleep(GLANCE).await;
            }
            if !stdio::input_is_abandoned() {
                self.done();
            }
        }
        pending().await
    }

    /// Returns when `ssh_ec2` has begun to wait, or has ended.
    async fn is_waited_for(&self) -> io::Result<()> {
        let stream = self.connection.borrow().as_ref().map(UnixStream::try_clone);
        let Some(stream) = stream.transpose()? else { return pending().await };
        stream.set_nonblocking(true)?;
        private_socket::UnixStream::from_std(stream)?.readable().await
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.done();
    }
}

/// How often to look whether ssh has ended. It ends with the program for which `ssh_ec2` waits, or is that
/// program.
const GLANCE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::io::Read as _;
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
        // It waits.
        other.write_all(&[0]).unwrap();
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
