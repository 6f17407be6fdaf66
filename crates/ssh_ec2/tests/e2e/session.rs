//! Commands, terminals, forwarding and multiplexing.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use crate::harness::{
    HEALTHY, Running, Sandbox, Terminal, eventually, run, run_with_input, with_each_server,
};

with_each_server!(
    a_control_master_carries_a_second_session,
    a_dynamic_forwarding_carries_data,
    a_local_forwarding_carries_data,
    a_remote_forwarding_carries_data,
    a_terminal_has_its_size_and_learns_a_new_one,
    exit_status_and_signals_come_back,
    standard_error_stays_apart,
);

#[test]
fn the_sandbox_runs_uname_on_an_instance() {
    let sandbox = Sandbox::start();
    let here = run(sandbox.command("uname").arg("-a")).success();
    let words = ["sandbox", "ssh", "-o", "LogLevel=ERROR", "ec2-user@i-0decaf00000000001", "uname", "-a"];
    let there = run(sandbox.ssh_ec2().args(words)).success();
    assert_eq!(there.text(), here.text());
    assert_eq!(there.stderr, "");
}

#[test]
fn the_sandbox_returns_what_its_command_returns() {
    let sandbox = Sandbox::start();
    let words = ["sandbox", "ssh", "-o", "LogLevel=ERROR", "ec2-user@i-0decaf00000000001", "exit 7"];
    let ended = run(sandbox.ssh_ec2().args(words)).status(7);
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
}

#[test]
fn the_other_ports_of_an_instance_are_those_of_this_machine() {
    let sandbox = Sandbox::start();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut question = [0; 4];
        stream.read_exact(&mut question).unwrap();
        stream.write_all(b"pong").unwrap();
        question
    });
    let proxy = ["proxy", "ec2-user", HEALTHY, &port];
    let ended = run_with_input(sandbox.ssh_ec2().args(proxy), b"ping").success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("pong", ""));
    assert_eq!(server.join().unwrap(), *b"ping");
    sandbox.assert_tidy();
}

fn exit_status_and_signals_come_back(sandbox: &Sandbox) {
    run(sandbox.ssh(&sandbox.target()).arg("exit 7")).status(7);
    // ssh returns this when a signal ended the remote command.
    run(sandbox.ssh(&sandbox.target()).arg("kill -KILL $$")).status(255);
    sandbox.assert_tidy();
}

fn standard_error_stays_apart(sandbox: &Sandbox) {
    let ended = run(sandbox.ssh(&sandbox.target()).arg("echo out; echo err >&2")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("out\n", "err\n"));
}

fn a_terminal_has_its_size_and_learns_a_new_one(sandbox: &Sandbox) {
    sandbox.assert_that_terminals_can_be_had();
    let mut command = sandbox.ssh(&sandbox.target());
    command.args(["-tt", "tty; stty size; exec sh"]);
    let mut terminal = Terminal::start(command, 30, 100);
    terminal.wait_for("30 100");
    assert!(terminal.screen().starts_with("/dev/pts/"), "{}", terminal.screen());
    terminal.resize(41, 121);
    eventually("the new size arrives", || {
        terminal.type_in("stty size\n");
        terminal.screen().contains("41 121").then_some(())
    });
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.status(), 5);
}

fn a_local_forwarding_carries_data(sandbox: &Sandbox) {
    let socket = sandbox.file("L");
    let forwarding = format!("{}:127.0.0.1:{}", socket.display(), echo().port());
    let _ssh = Running::start(sandbox.ssh(&sandbox.target()).args(["-N", "-L", &forwarding]));
    check_echo(connect(&socket));
}

fn a_dynamic_forwarding_carries_data(sandbox: &Sandbox) {
    let (socket, echo) = (sandbox.file("D"), echo());
    let _ssh =
        Running::start(sandbox.ssh(&sandbox.target()).args(["-N", "-D", &socket.display().to_string()]));
    let mut stream = connect(&socket);
    // SOCKS 5: no authentication; connect to an IPv4 address.
    stream.write_all(&[5, 1, 0]).unwrap();
    let mut reply = [0; 2];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply, [5, 0]);
    let port = echo.port().to_be_bytes();
    stream.write_all(&[&[5, 1, 0, 1, 127, 0, 0, 1][..], &port].concat()).unwrap();
    let mut reply = [0; 10];
    stream.read_exact(&mut reply).unwrap();
    assert_eq!(reply[..2], [5, 0]);
    check_echo(stream);
}

fn a_remote_forwarding_carries_data(sandbox: &Sandbox) {
    let forwarding = format!("0:127.0.0.1:{}", echo().port());
    let mut command = sandbox.command("ssh");
    command.args(["-o", "LogLevel=INFO", "-N", "-R", &forwarding, &sandbox.target()]);
    let ssh = Running::start(&mut command);
    let allocated = |said: &str| {
        let (_, rest) = said.split_once("Allocated port ")?;
        rest.split_once(' ')?.0.parse().ok()
    };
    let port: u16 = eventually("ssh names the port", || allocated(&ssh.said()));
    let stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).unwrap();
    check_echo(stream);
}

fn a_control_master_carries_a_second_session(sandbox: &Sandbox) {
    let socket = sandbox.file("control").display().to_string();
    let mut master = Running::start(sandbox.ssh(&sandbox.target()).args(["-M", "-S", &socket, "cat"]));
    master.write(b"first\n");
    master.wait_for_output(|output| output == b"first\n");
    let second = run(sandbox.ssh(&sandbox.target()).args(["-S", &socket, "echo second"])).success();
    assert_eq!(second.text(), "second\n");
    assert_eq!(sandbox.region.sessions().len(), 1, "the second session has none of its own");
    run(sandbox.ssh(&sandbox.target()).args(["-S", &socket, "-O", "exit"])).success();
    master.wait();
    assert!(!Path::new(&socket).exists());
    sandbox.assert_tidy();
}

/// A listener that echoes.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut reader = stream.unwrap();
            let mut writer = reader.try_clone().unwrap();
            thread::spawn(move || {
                let _ = std::io::copy(&mut reader, &mut writer);
                let _ = writer.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    address
}

fn connect(socket: &Path) -> UnixStream {
    eventually("ssh listens", || UnixStream::connect(socket).ok())
}

/// Sends a megabyte and reads the echo meanwhile.
fn check_echo(stream: impl Duplex) {
    let sent: Vec<u8> = (0..1024 * 1024_u32).map(|index| (index % 251).to_le_bytes()[0]).collect();
    let mut writer = stream.duplicate();
    let bytes = sent.clone();
    let writing = thread::spawn(move || writer.write_all(&bytes).unwrap());
    let mut received = vec![0; sent.len()];
    let mut reader = stream;
    reader.set_deadline();
    reader.read_exact(&mut received).unwrap();
    writing.join().unwrap();
    assert!(received == sent, "what came back is not what was sent");
}

trait Duplex: Read + Write + Send + Sized + 'static {
    fn duplicate(&self) -> Self;
    fn set_deadline(&self);
}

impl Duplex for UnixStream {
    fn duplicate(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn set_deadline(&self) {
        self.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    }
}

impl Duplex for TcpStream {
    fn duplicate(&self) -> Self {
        self.try_clone().unwrap()
    }

    fn set_deadline(&self) {
        self.set_read_timeout(Some(crate::harness::DEADLINE)).unwrap();
    }
}

#[test]
fn host_keys_are_kept_under_the_instance_id() {
    let sandbox = Sandbox::start();
    sandbox.remote("true");
    let known_hosts = fs::read_to_string(sandbox.directory().join("known_hosts")).unwrap();
    assert!(known_hosts.contains("i-0decaf00000000001 ssh-ed25519 "), "{known_hosts}");
    assert!(known_hosts.lines().all(|line| line.starts_with("i-0decaf00000000001 ")), "{known_hosts}");
}
