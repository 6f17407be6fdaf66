use std::future::{Future, poll_fn};
use std::io::{Read, Write, pipe};
use std::os::unix::net::UnixStream;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::task::spawn_blocking;

use super::*;

fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let path = PathBuf::from(ptsname(&ours, Vec::new()).unwrap().into_string().unwrap());
    let theirs = OwnedFd::from(File::options().read(true).write(true).open(path).unwrap());
    let mut settings = tcgetattr(&theirs).unwrap();
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings).unwrap();
    (ours, theirs)
}

/// Pipes, sockets and so on that carry bytes from the second descriptor to the first, and buffer less than
/// `LENGTH` bytes.
fn ways() -> Vec<(&'static str, OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe().unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    let (controller, terminal) = terminal();
    vec![
        ("pipe", reader.into(), writer.into()),
        ("sockets", one.into(), other.into()),
        ("terminal", controller, terminal),
    ]
}

const LENGTH: usize = 1 << 20;

#[tokio::test]
async fn a_slow_reader_holds_up_the_writer_and_loses_nothing() {
    let bytes: Vec<u8> = (0..LENGTH).map(|at| u8::try_from(at / 7 % 251).unwrap()).collect();
    for (kind, reader, writer) in ways() {
        let mut output = writing(writer).unwrap();
        let mut write_all = pin!(async {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let (one, other) = rest.split_at(rest.len().min(1000));
                let slices = [IoSlice::new(one), IoSlice::new(other)];
                rest = &rest[poll_fn(|cx| poll_write(&mut output, cx, &slices)).await.unwrap()..];
            }
        });
        let waits = poll_fn(|cx| Poll::Ready(write_all.as_mut().poll(cx).is_pending())).await;
        assert!(waits, "{kind}: nobody has read");
        let reading = spawn_blocking(move || {
            let mut read = vec![0; LENGTH];
            File::from(reader).read_exact(&mut read).unwrap();
            read
        });
        write_all.await;
        assert!(reading.await.unwrap() == bytes, "{kind}");
    }
}

#[tokio::test]
async fn input_comes_whole_to_its_end() {
    let path = tempfile::NamedTempFile::new().unwrap();
    fs::write(&path, vec![7; LENGTH]).unwrap();
    let mut ways = ways();
    // A terminal ends when its controller closes, and unread bytes are lost then.
    ways.retain(|(kind, ..)| *kind != "terminal");
    ways.push(("file", File::open(&path).unwrap().into(), File::open("/dev/null").unwrap().into()));
    for (kind, reader, writer) in ways {
        let mut input = reading(reader).unwrap();
        let feeding = spawn_blocking(move || {
            let _ = File::from(writer).write_all(&vec![7; LENGTH]);
        });
        let mut read = Vec::new();
        while poll_fn(|cx| poll_read(&mut input, cx, &mut (&mut read).limit(1000))).await.unwrap() > 0 {}
        assert!(read == vec![7; LENGTH], "{kind}: {} bytes", read.len());
        feeding.await.unwrap();
    }
}

#[tokio::test]
async fn a_terminal_that_is_hung_up_is_an_end() {
    let (controller, terminal) = terminal();
    let mut input = reading(terminal).unwrap();
    let mut controller = File::from(controller);
    controller.write_all(b"x").unwrap();
    let mut read = Vec::new();
    assert_eq!(poll_fn(|cx| poll_read(&mut input, cx, &mut read)).await.unwrap(), 1);
    drop(controller);
    assert_eq!(poll_fn(|cx| poll_read(&mut input, cx, &mut read)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_peer_that_closes_with_bytes_unread_is_an_end() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (&theirs).write_all(b"unread").unwrap();
    drop(ours);
    let mut input = reading(theirs.into()).unwrap();
    assert_eq!(poll_fn(|cx| poll_read(&mut input, cx, &mut Vec::new())).await.unwrap(), 0);
}
