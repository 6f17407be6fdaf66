//! Hostile clients of the key agent's socket while a connection lasts.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;
use std::{fs, iter};

use rustix::process::{Resource, Rlimit, prlimit};

use crate::harness::{HEALTHY, Running, Sandbox, eventually, is_root, pid, run};
use crate::key_agent::connected;
use crate::stdout::is_exchanged;

const REFUSED: [u8; 5] = [0, 0, 0, 1, 5];
const LIST: [u8; 5] = [0, 0, 0, 1, 11];

fn string(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// All bytes that come in answer to these bytes, until the socket closes.
fn ask(socket: &Path, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(socket).unwrap();
    // The agent closes the connection of a refused peer at once.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The public key that is listed.
fn listed(socket: &Path) -> Vec<u8> {
    let answer = ask(socket, &LIST);
    assert_eq!(answer[4..9], [12, 0, 0, 0, 1], "one key");
    let length = usize::from(answer[12]);
    answer[13..13 + length].to_vec()
}

#[test]
fn requests_of_every_malformed_kind_are_refused() {
    let sandbox = Sandbox::start();
    let (mut ssh, socket) = connected(&sandbox);
    let key = listed(&socket);
    let sign =
        |key: &[u8], data: &[u8], flags: &[u8]| [&[13][..], &string(key), &string(data), flags].concat();
    let mut other = key.clone();
    *other.last_mut().unwrap() ^= 1;
    let refused = [
        vec![0],
        vec![255],
        vec![12, 0, 0, 0, 0],
        vec![14, 0, 0, 0, 0],
        vec![11, 0],
        sign(&other, b"data", &[0; 4]),
        sign(b"", b"data", &[0; 4]),
        sign(&key[..key.len() - 1], b"data", &[0; 4]),
        sign(&[&key[..], &[0]].concat(), b"data", &[0; 4]),
        sign(&key, b"data", &[]),
        sign(&key, b"data", &[0; 5]),
        [&[13][..], &[0xff; 8]].concat(),
        // Add, with a lifetime, from a card; remove one and all; lock and unlock; extensions.
        [&[17][..], &string(b"ssh-ed25519"), &string(&[0; 32]), &string(&[0; 64]), &string(b"")].concat(),
        [&[25][..], &string(b"ssh-ed25519")].concat(),
        [&[20][..], &string(b"/tmp/evil.so"), &string(b"")].concat(),
        [&[26][..], &string(b"/tmp/evil.so"), &string(b"")].concat(),
        [&[18][..], &string(&key)].concat(),
        vec![19],
        vec![9],
        [&[22][..], &string(b"secret")].concat(),
        [&[23][..], &string(b"secret")].concat(),
        [&[27][..], &string(b"session-bind@openssh.com"), &[0; 64]].concat(),
        vec![0; 256 * 1024],
    ];
    for request in &refused {
        assert_eq!(ask(&socket, &string(request)), REFUSED, "{:?}", &request[..request.len().min(64)]);
    }
    let all: Vec<u8> = refused.iter().flat_map(|request| string(request)).collect();
    assert_eq!(ask(&socket, &all), REFUSED.repeat(refused.len()), "on one connection as well");
    let cut_off = [
        vec![0; 4],
        vec![0, 0],
        u32::MAX.to_be_bytes().to_vec(),
        (256 * 1024 + 1_u32).to_be_bytes().to_vec(),
        [&100_u32.to_be_bytes()[..], &[11]].concat(),
    ];
    for request in &cut_off {
        assert!(ask(&socket, request).is_empty(), "{request:?}");
    }
    assert_eq!(listed(&socket), key, "it is the same key as before");
    ssh.write(b"still here\n");
    ssh.wait_for_output(|output| output == b"in\nstill here\n");
}

#[test]
fn silent_clients_of_the_key_agent_hold_up_no_other_client() {
    let sandbox = Sandbox::start();
    let (mut ssh, socket) = connected(&sandbox);
    let silent: Vec<_> = iter::repeat_with(|| UnixStream::connect(&socket).unwrap()).take(200).collect();
    let mut begun = UnixStream::connect(&socket).unwrap();
    begun.write_all(&LIST[..3]).unwrap();
    assert_eq!(listed(&socket), listed(&socket));
    // They do not delay the end of the connection either.
    ssh.write(b"still here\n");
    ssh.wait_for_output(|output| output == b"in\nstill here\n");
    assert_eq!(ssh.finish().success().text(), "in\nstill here\n");
    drop((silent, begun));
    sandbox.assert_tidy();
}

/// A caller may allow the proxy few descriptors. Connections that it cannot take are in the backlog, and the
/// system reports them all the time.
#[test]
fn at_its_limit_of_descriptors_the_agent_waits_and_the_connection_goes_on() {
    let sandbox = Sandbox::start();
    let mut proxy = Running::start(sandbox.proxy(HEALTHY).arg("-vv"));
    proxy.wait_for_output(|output| output.ends_with(b"\n"));
    let limit = Rlimit { current: Some(40), maximum: Some(40) };
    prlimit(Some(pid(proxy.id())), Resource::Nofile, limit).unwrap();
    let socket = sandbox.agent_socket(&sandbox.target());
    let begun = Instant::now();
    let silent: Vec<_> = iter::repeat_with(|| UnixStream::connect(&socket).unwrap()).take(60).collect();
    let attempts = || proxy.said().matches("a private socket could not accept a connection").count();
    eventually("it has tried again and again", || (attempts() >= 5).then_some(()));
    // Each is followed by a pause of 100 ms.
    let (attempts, pauses) = (attempts(), begun.elapsed().as_millis() / 100);
    assert!(u128::try_from(attempts).unwrap() <= pauses + 1, "{attempts} in {pauses} pauses");
    proxy.write(b"SSH-2.0-test\r\n");
    proxy.wait_for_output(is_exchanged);
    drop(silent);
    assert!(!listed(&socket).is_empty(), "there is room again");
    proxy.finish().success();
    sandbox.assert_tidy();
}

/// Two barriers against another user: the mode of the directory, and the check of the peer's user id.
#[test]
fn another_user_is_not_answered() {
    let sandbox = Sandbox::start();
    let (_ssh, socket) = connected(&sandbox);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&sandbox.sockets()), mode(&socket)), (0o700, 0o600));
    if !is_root() {
        // Only root can become another user.
        return;
    }
    let list = || {
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "ssh-add", "-L"]);
        run(command.env("SSH_AUTH_SOCK", &socket).current_dir("/"))
    };
    let kept_out = list();
    assert!(kept_out.code != 0 && kept_out.stderr.contains("Permission denied"), "{kept_out}");
    // With these modes only the check of the user id is left.
    let doors = [sandbox.directory().to_owned(), sandbox.sockets(), socket.clone()];
    for path in &doors {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let refused = list();
    assert!(refused.code != 0 && !refused.stderr.contains("Permission denied"), "{refused}");
    assert_eq!(refused.text(), "", "{refused}");
    assert!(!listed(&socket).is_empty(), "its owner is answered nevertheless");
}
