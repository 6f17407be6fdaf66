use std::fs::{File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process};

use super::*;

fn link(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("agent").join("ec2-user@i-0a1b2c3d:22")
}

/// A socket whose name in the directory is that of another process's socket.
async fn sibling(path: &Path, process: u32) -> AgentSocket {
    let mut path = AgentPath::check(path).unwrap();
    path.name = socket_name(&path.link, process);
    let socket = path.bind().unwrap();
    // As the proxy does in its turn.
    socket.take_link().unwrap();
    socket
}

fn names(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path.parent().unwrap()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn only_the_owner_can_reach_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let _socket = AgentPath::check(&path).unwrap().bind().unwrap();
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_path_that_cannot_be_used_is_refused_before_anything_listens() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    fs::create_dir(path.parent().unwrap()).unwrap();
    fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(AgentPath::check(&path), Err(SocketError::Exposed { .. })));
    let long = directory.path().join("x".repeat(PATH_LIMIT));
    assert!(matches!(AgentPath::check(&long), Err(SocketError::TooLong { .. })));
    let room = PATH_LIMIT - directory.path().as_os_str().len() - "/d/l".len();
    let deep = directory.path().join("d".repeat(room)).join("l");
    assert!(matches!(AgentPath::check(&deep), Err(SocketError::TooLong { .. })), "our own name is longer");
    assert_eq!(names(&path), Vec::<String>::new());
}

#[tokio::test]
async fn the_link_works_whatever_order_proxies_end_in() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let directory = tempfile::tempdir().unwrap();
        let path = link(&directory);
        let mut sockets = Vec::new();
        for process in 1..=3 {
            sockets.push(Some(sibling(&path, process).await));
        }
        for index in order {
            assert!(StdUnixStream::connect(&path).is_ok(), "{order:?} before {index}");
            sockets[index].take().unwrap().retire().await;
        }
        assert_eq!(names(&path), Vec::<String>::new(), "{order:?}");
    }
}

fn leads_to(path: &Path, socket: &AgentSocket) -> bool {
    fs::read_link(path).is_ok_and(|target| target == Path::new(&socket.path.name))
}

/// A client that connects in the turn of its proxy always finds a socket. At other times the kernel may have
/// read the link, and the socket may be removed before the kernel opens it.
#[tokio::test]
async fn the_link_leads_to_a_socket_at_every_moment_of_a_turn() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let last = sibling(&path, 1).await;
    for process in 2..20 {
        let ending = sibling(&path, process).await;
        last.begin_turn(last.turn().await);
        let mut retiring = Box::pin(ending.retire());
        assert!(timeout(Duration::ZERO, retiring.as_mut()).await.is_err());
        assert!(leads_to(&path, &last) && StdUnixStream::connect(&path).is_ok(), "{process}");
        last.end_turn();
        retiring.await;
        assert!(StdUnixStream::connect(&path).is_ok(), "it has led the link to another one");
    }
}

#[tokio::test]
async fn one_proxy_at_a_time_has_its_turn() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    // This process and the first one run.
    let (first, second) = (sibling(&path, 1).await, AgentPath::check(&path).unwrap().bind().unwrap());
    assert!(leads_to(&path, &first), "a new socket takes the link from nobody who runs");
    first.begin_turn(first.turn().await);
    let mut turn = second.turn();
    assert!(timeout(Duration::ZERO, turn.as_mut()).await.is_err());
    first.end_turn();
    second.begin_turn(turn.await);
    assert!(leads_to(&path, &second) && second.has_turn() && !first.has_turn());
    // A socket of another host's link.
    let other = AgentPath::check(&path.with_file_name("ec2-user@i-0a1b2c3e:22")).unwrap().bind().unwrap();
    other.begin_turn(other.turn().await);
    assert!(other.has_turn());
    for socket in [other, second, first] {
        socket.retire().await;
    }
    assert_eq!(names(&path), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn a_turn_ends_by_itself() {
    let directory = tempfile::tempdir().unwrap();
    let socket = sibling(&link(&directory), 1).await;
    let mut overdue = Box::pin(socket.turn_is_overdue());
    assert!(timeout(Duration::from_secs(60), overdue.as_mut()).await.is_err(), "there is none");
    socket.begin_turn(socket.turn().await);
    let began = tokio::time::Instant::now();
    overdue.await;
    assert_eq!(began.elapsed().as_secs(), 1);
}

#[tokio::test]
async fn what_a_killed_proxy_left_is_swept_away() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let killed = sibling(&path, 1).await;
    // The link and the socket stay, without a listener.
    killed.retired.set(true);
    drop(killed);
    let ended = socket_name(path.file_name().unwrap().to_str().unwrap(), u32::MAX / 2);
    std::os::unix::fs::symlink(&ended, path.with_file_name(format!("{ended}.link"))).unwrap();
    assert_eq!(names(&path).len(), 3);
    AgentPath::check(&path).unwrap().bind().unwrap().retire().await;
    assert_eq!(names(&path), Vec::<String>::new());
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_repaired() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let socket = sibling(&path, 1).await;
    let leads_here = || fs::read_link(&path).is_ok_and(|target| target == Path::new(&socket.path.name));
    // This process runs, so the link may lead to a socket with its id; no process has the other id.
    let running = socket_name(&socket.path.link, std::process::id());
    let ended = socket_name(&socket.path.link, u32::MAX / 2);
    for (leader, is_mended) in [(Some(&running), false), (Some(&ended), true), (None, true)] {
        remove_if_there(&path).unwrap();
        if let Some(leader) = leader {
            socket.path.lead_to(leader).unwrap();
        }
        socket.heal_link().unwrap();
        assert_eq!(leads_here(), is_mended, "{leader:?}");
        socket.take_link().unwrap();
        assert!(leads_here(), "for its own ssh it is taken from anybody");
    }
}

#[tokio::test]
async fn a_full_backlog_of_a_stopped_process_is_no_heir() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let mut process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let id = Pid::from_child(&process);
    let _full = sibling(&path, process.id()).await;
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = timeout(CONNECT_PATIENCE, UnixStream::connect(&path)).await {
        waiting.push(stream);
    }
    sibling(&path, 1).await.retire().await;
    assert!(path.is_symlink(), "the process runs, and will accept");
    kill_process(id, Signal::STOP).unwrap();
    rustix::process::waitid(WaitId::Pid(id), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    sibling(&path, 1).await.retire().await;
    assert!(!path.is_symlink(), "nobody answers there");
    process.kill().unwrap();
    process.wait().unwrap();
}

/// Locks the file of a link, as a stopped process would keep it locked.
fn keep_lock(path: &AgentPath) -> File {
    let held =
        crate::system::private_file::open(&path.directory.join(&path.name).with_extension("turn")).unwrap();
    held.lock().unwrap();
    held
}

#[tokio::test]
async fn a_lock_that_is_never_released_does_not_keep_a_proxy_from_its_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let agent_path = AgentPath::check(&path).unwrap();
    let _held = keep_lock(&agent_path);
    let socket = agent_path.bind().unwrap();
    assert!(StdUnixStream::connect(&path).is_ok());
    socket.retire().await;
    assert_eq!(names(&path), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_that_was_stopped_in_its_turn_keeps_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let path = link(&directory);
    let mut process = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    let id = Pid::from_child(&process);
    kill_process(id, Signal::STOP).unwrap();
    rustix::process::waitid(WaitId::Pid(id), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    let stopped = sibling(&path, process.id()).await;
    let held = keep_lock(&stopped.path);
    // This process and the first one run.
    let (first, second) = (sibling(&path, 1).await, AgentPath::check(&path).unwrap().bind().unwrap());
    stopped.take_link().unwrap();
    let (mut one, mut two) = (first.turn(), second.turn());
    let (has_turn, waits, waiting) = tokio::select! {
        lock = one.as_mut() => (&first, &second, (lock, two)),
        lock = two.as_mut() => (&second, &first, (lock, one)),
    };
    let (lock, next) = waiting;
    assert!(lock.is_some(), "by a new file");
    has_turn.begin_turn(lock);
    assert!(leads_to(&path, has_turn));
    drop(held);
    has_turn.end_turn();
    waits.begin_turn(next.await);
    assert!(leads_to(&path, waits) && waits.has_turn());
    process.kill().unwrap();
    process.wait().unwrap();
}
