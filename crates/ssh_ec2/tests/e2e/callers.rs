//! Programs other than ssh that start the proxy, with standard input and output of many kinds: pairs of
//! sockets, terminals, files. Each gets every byte as soon as it comes, keeps its own mode, and ends the
//! session by going away.

use std::env;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{OFlags, fcntl_getfl};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::harness::{
    Ended, Gathered, HEALTHY, Running, Sandbox, assert_same, binary, eventually, random_file, run,
};
use crate::stdout::is_exchanged;

const IDENTIFICATION: &[u8] = b"SSH-2.0-test\r\n";

// ---- standard input and output ----

fn socket_pair() -> (OwnedFd, OwnedFd) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    (ours.into(), theirs.into())
}

fn tcp_connection() -> (OwnedFd, OwnedFd) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (ours.into(), listener.accept().unwrap().0.into())
}

fn terminal() -> (OwnedFd, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let path = PathBuf::from(ptsname(&ours, Vec::new()).unwrap().into_string().unwrap());
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let theirs = rustix::fs::open(&path, flags, rustix::fs::Mode::empty()).unwrap();
    let mut settings = tcgetattr(&theirs).unwrap();
    settings.make_raw();
    tcsetattr(&theirs, OptionalActions::Now, &settings).unwrap();
    (ours, theirs)
}

/// Opens one channel for both directions: our end, and the proxy's.
type Open = fn() -> (OwnedFd, OwnedFd);

const DUPLEX: [(&str, Open); 3] =
    [("a pair of sockets", socket_pair), ("a TCP connection", tcp_connection), ("a terminal", terminal)];

fn both(sandbox: &Sandbox, end: &OwnedFd) -> Running {
    let copy = || Stdio::from(end.try_clone().unwrap());
    Running::start_with(&mut sandbox.proxy(HEALTHY), copy(), copy())
}

#[test]
fn every_byte_comes_at_once() {
    let sandbox = Sandbox::start();
    for (what, open) in DUPLEX {
        let (ours, theirs) = open();
        let mut proxy = both(&sandbox, &theirs);
        let mut caller = File::from(ours);
        let output = Gathered::from(caller.try_clone().unwrap());
        caller.write_all(IDENTIFICATION).unwrap();
        eventually(&format!("{what} has it all"), || is_exchanged(&output.bytes()).then_some(()));
        assert!(!fcntl_getfl(&theirs).unwrap().contains(OFlags::NONBLOCK), "{what} is the caller's as well");
        proxy.signal(Signal::TERM);
        proxy.wait().status(130);
        sandbox.assert_tidy();
    }
}

#[test]
fn every_byte_comes_at_once_in_a_file() {
    let sandbox = Sandbox::start();
    let path = sandbox.file("output");
    let file = File::create(&path).unwrap();
    let mut proxy = Running::start_with_output(&mut sandbox.proxy(HEALTHY), file.into());
    proxy.write(IDENTIFICATION);
    eventually("the file has it all", || is_exchanged(&fs::read(&path).unwrap()).then_some(()));
    proxy.signal(Signal::TERM);
    proxy.wait().status(130);
    sandbox.assert_tidy();
}

#[test]
fn pipes_keep_their_mode() {
    let sandbox = Sandbox::start();
    let (mut reader, output) = std::io::pipe().unwrap();
    let (input, mut writer) = std::io::pipe().unwrap();
    let copies = (input.try_clone().unwrap(), output.try_clone().unwrap());
    let mut proxy = Running::start_with(&mut sandbox.proxy(HEALTHY), copies.0.into(), copies.1.into());
    writer.write_all(IDENTIFICATION).unwrap();
    reader.read_exact(&mut [0]).unwrap();
    for flags in [fcntl_getfl(&input).unwrap(), fcntl_getfl(&output).unwrap()] {
        assert!(!flags.contains(OFlags::NONBLOCK), "another program may use the pipe as well");
    }
    proxy.signal(Signal::TERM);
    proxy.wait().status(130);
    sandbox.assert_tidy();
}

#[test]
fn a_caller_that_only_stops_writing_gets_the_answer() {
    let sandbox = Sandbox::with_faults(&["delay=300ms"]);
    for half_close in [
        |_: &Sandbox| {
            let (mut ours, theirs) = UnixStream::pair().unwrap();
            ours.write_all(IDENTIFICATION).unwrap();
            ours.shutdown(Shutdown::Write).unwrap();
            (OwnedFd::from(theirs), Some(ours))
        },
        |sandbox: &Sandbox| {
            let path = sandbox.file("input");
            fs::write(&path, IDENTIFICATION).unwrap();
            (File::open(path).unwrap().into(), None)
        },
    ] {
        let (input, _caller) = half_close(&sandbox);
        let mut proxy = Running::start_with(&mut sandbox.proxy(HEALTHY), input.into(), Stdio::piped());
        let ended = proxy.wait().success();
        assert!(is_exchanged(&ended.stdout), "{ended}");
        assert_eq!(ended.stderr, "");
        sandbox.assert_tidy();
    }
}

#[test]
fn a_caller_that_is_gone_takes_the_session_along() {
    let sandbox = Sandbox::start();
    // A TCP connection that is closed looks like one whose other half is still open.
    for (what, open) in DUPLEX.into_iter().filter(|(what, _)| !what.contains("TCP")) {
        let (ours, theirs) = open();
        let mut proxy = both(&sandbox, &theirs);
        drop(theirs);
        let mut caller = File::from(ours);
        caller.read_exact(&mut [0]).unwrap();
        drop(caller);
        let ended = proxy.wait().status(130);
        assert_eq!(ended.stderr, "", "{what}");
        sandbox.assert_tidy();
    }
}

/// Python, since a descriptor that a test leaves open is inherited by the programs of the other tests as
/// well.
#[test]
fn the_end_of_a_caller_is_seen_although_it_left_its_own_end_open_in_the_proxy() {
    let sandbox = Sandbox::start();
    let script = "import socket, subprocess, sys
ours, theirs = socket.socketpair()
ours.set_inheritable(True)
subprocess.Popen(sys.argv[1:], stdin=theirs, stdout=theirs, close_fds=False)
ours.recv(1)";
    run(&mut sandbox.behind(&["python3", "-c", script], &sandbox.proxy(HEALTHY))).success();
    sandbox.assert_tidy();
}

#[test]
fn a_descriptor_that_an_argument_names_stays_open() {
    let sandbox = Sandbox::start();
    let key = sandbox.key_pair(sandbox.file("key"), "ed25519");
    let script = format!("exec \"$@\" --key-file <(cat '{}.pub')", key.display());
    let mut proxy =
        Running::start(&mut sandbox.behind(&["bash", "-c", &script, "bash"], &sandbox.proxy(HEALTHY)));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    proxy.finish().success();
    sandbox.assert_tidy();
}

// ---- programs ----

/// The arguments of the proxy, with a socket for its key agent.
fn proxy_line(sandbox: &Sandbox) -> String {
    format!(
        "{} proxy {} {HEALTHY} 22 --agent-socket {}",
        binary().display(),
        sandbox.user(),
        agent(sandbox).display()
    )
}

fn agent(sandbox: &Sandbox) -> PathBuf {
    sandbox.file("agent")
}

/// ssh with another ProxyCommand.
fn ssh_through(sandbox: &Sandbox, proxy: &str) -> Command {
    let mut ssh = sandbox.ssh("-o");
    ssh.arg(format!("ProxyCommand={proxy}"));
    ssh.args(["-o", &format!("IdentityAgent={}", agent(sandbox).display()), &sandbox.target()]);
    ssh
}

#[test]
fn ssh_behind_cat() {
    let sandbox = Sandbox::start();
    let proxy = format!("{} | cat", proxy_line(&sandbox));
    let ended = run(ssh_through(&sandbox, &proxy).arg("echo in")).success();
    assert_eq!(ended.text(), "in\n");
    sandbox.assert_tidy();
}

/// Gives the proxy a pair of sockets, and passes megabytes both ways.
#[test]
fn ssh_behind_socat() {
    let sandbox = Sandbox::start();
    let listening = sandbox.file("listening");
    let mut socat = sandbox.command("socat");
    socat.arg(format!("UNIX-LISTEN:{},fork", listening.display()));
    let socat = Running::start(socat.arg(format!("EXEC:{}", proxy_line(&sandbox))));
    eventually("socat listens", || listening.exists().then_some(()));
    let (from, to) = (sandbox.file("from"), sandbox.file("to"));
    random_file(&from, 8, 1);
    let mut ssh = ssh_through(&sandbox, &format!("socat - UNIX-CONNECT:{}", listening.display()));
    ssh.arg("cat");
    let line = format!("exec \"$@\" <'{}' >'{}'", from.display(), to.display());
    run(&mut sandbox.behind(&["sh", "-c", &line, "sh"], &ssh)).success();
    assert_same(&from, &to);
    sandbox.assert_tidy();
    drop(socat);
}

/// Node's `ssh2`, whose children have pairs of sockets for standard streams.
fn node(sandbox: &Sandbox, remote: &str) -> Command {
    // Beside the built program, where `.ci/run` installs it, or where NODE_PATH points.
    let modules = binary().ancestors().nth(2).unwrap().join("node/node_modules");
    let modules = if modules.is_dir() { Some(modules.into()) } else { env::var_os("NODE_PATH") };
    let found = modules.filter(|modules| Path::new(modules).join("ssh2").is_dir());
    let install = format!("`npm install --ignore-scripts --prefix target/node ssh2@{SSH2}`");
    let modules = found.unwrap_or_else(|| panic!("this test needs Node's ssh2: {install}"));
    let mut node = sandbox.command("node");
    node.env("NODE_PATH", modules).args(["-e", include_str!("callers/client.js"), "--"]);
    client_arguments(sandbox, &mut node, remote);
    node
}

/// `.ci/run` installs this version.
const SSH2: &str = "1.17.0";

/// Python's binding of libssh, by the first Python that has it.
fn pylibssh(sandbox: &Sandbox, remote: &str) -> Command {
    let paths = env::var_os("PATH").unwrap();
    let mut pythons = env::split_paths(&paths).map(|path| path.join("python3"));
    let found = pythons.find(|python| {
        let import = Command::new(python).args(["-c", "import pylibsshext"]).stderr(Stdio::null()).status();
        import.is_ok_and(|status| status.success())
    });
    let install = "this test needs Python's binding of libssh: `pip install ansible-pylibssh`";
    let mut python = sandbox.command(found.expect(install).to_str().unwrap());
    python.args(["-c", include_str!("callers/client.py")]).env("SSH_AUTH_SOCK", agent(sandbox));
    client_arguments(sandbox, &mut python, remote);
    python
}

fn client_arguments(sandbox: &Sandbox, client: &mut Command, remote: &str) {
    client.args([&proxy_line(sandbox), &sandbox.user(), HEALTHY, agent(sandbox).to_str().unwrap(), remote]);
}

fn assert_connects(sandbox: &Sandbox, client: &mut Command) {
    let ended: Ended = run(client).success();
    assert_eq!(ended.text(), "in\n", "{ended}");
    sandbox.assert_tidy();
}

/// Kills the client in the middle of a command.
fn assert_leaves_nothing(sandbox: &Sandbox, client: fn(&Sandbox, &str) -> Command) {
    let mark = sandbox.file("mark");
    let running = Running::start(&mut client(sandbox, &format!("touch {}; exec cat", mark.display())));
    eventually("the command runs", || mark.exists().then_some(()));
    running.signal(Signal::KILL);
    sandbox.assert_tidy();
}

#[test]
fn ssh2_of_node() {
    let sandbox = Sandbox::start();
    assert_connects(&sandbox, &mut node(&sandbox, "echo in"));
    assert_leaves_nothing(&sandbox, node);
}

/// libssh leaves its own end of the socket open in the proxy.
#[test]
fn libssh_of_python() {
    let sandbox = Sandbox::start();
    assert_connects(&sandbox, &mut pylibssh(&sandbox, "echo in"));
    assert_leaves_nothing(&sandbox, pylibssh);
}
