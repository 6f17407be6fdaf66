//! Files and directories that another user has made, can write to, or has replaced by a link or a pipe.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, mkfifoat};

use super::assert_harmless;
use crate::errors::fails;
use crate::harness::{HEALTHY, Sandbox, Terminal, files_below, is_root, run};
use crate::mfa;

/// A user that exists everywhere.
const NOBODY: u32 = 65534;
/// The instance id of `web-1` in the manipulated files.
const WRONG: &str = "i-0decaf00000000002";

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn replace_by_pipe(path: &Path) {
    fs::remove_file(path).unwrap();
    mkfifoat(CWD, path, Mode::RUSR | Mode::WUSR).unwrap();
}

fn names_with(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let files = files_below(directory);
    files.into_iter().filter(|path| path.extension().is_some_and(|found| found == extension)).collect()
}

/// A way to manipulate the cache of names, and the note about the file or its directory.
type Spoil = (fn(&Path), fn(&Path) -> String);

const OPEN_FILE: Spoil =
    (|file| set_mode(file, 0o666), |file| format!("other users can write to {}", file.display()));
const PIPE: Spoil =
    (replace_by_pipe, |file| format!("{} has the wrong file type, or is too large", file.display()));
const OPEN_DIRECTORY: Spoil = (
    |file| set_mode(file.parent().unwrap(), 0o777),
    |file| format!("other users can write to {}", file.parent().unwrap().display()),
);
const FOREIGN_FILE: Spoil = (
    |file| chown(file, Some(NOBODY), None).unwrap(),
    |file| {
        format!(
            "{} belongs to the user with id {NOBODY}, who could have written anything into it",
            file.display()
        )
    },
);

#[test]
fn names_that_others_could_have_kept_are_not_believed() {
    let spoils = [OPEN_FILE, PIPE, OPEN_DIRECTORY, FOREIGN_FILE];
    for (spoil, fault) in &spoils[..if is_root() { 4 } else { 3 }] {
        for plain in [false, true] {
            let sandbox = Sandbox::start();
            let connect = || {
                let mut command = match plain {
                    true => sandbox.ssh("ec2-user@web-1.ec2"),
                    false => sandbox.ssh_ec2(),
                };
                command.args(if plain { &["-n"][..] } else { &["-oLogLevel=ERROR", "-n", "web-1"] });
                let ended = run(command.arg("echo in")).success();
                assert_eq!(ended.text(), "in\n", "{ended}");
                ended.stderr
            };
            assert_eq!(connect(), "");
            let [file] = &names_with(&sandbox.directory().join("cache"), "json")[..] else {
                panic!("one file")
            };
            fs::write(file, fs::read_to_string(file).unwrap().replace(HEALTHY, WRONG)).unwrap();
            spoil(file);
            let note = "ssh_ec2: the cached names are not used, and are looked up again: ";
            assert_eq!(connect(), format!("{note}{}\n", fault(file)), "once");
            assert!(sandbox.region.sessions().iter().all(|session| session.target == HEALTHY));
            sandbox.assert_tidy();
        }
    }
}

#[test]
fn links_in_the_cache_are_not_written_through() {
    let sandbox = Sandbox::start();
    let connect = || run(sandbox.ssh_ec2().args(["-q", "-n", "web-1", "echo in"])).success();
    connect();
    let cache = sandbox.directory().join("cache");
    let victim = sandbox.file("victim");
    fs::write(&victim, "eight bytes and more").unwrap();
    let absent = sandbox.file("absent");
    for (extension, target) in [("pace", &victim), ("turn", &absent), ("lock", &absent), ("json", &victim)] {
        for file in names_with(&cache, extension) {
            fs::remove_file(&file).unwrap();
            symlink(target, &file).unwrap();
        }
        connect();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "eight bytes and more", "{extension}");
        assert!(!absent.exists(), "{extension}");
        fs::remove_dir_all(&cache).unwrap();
        connect();
    }
}

#[test]
fn host_keys_that_others_could_have_written_are_not_believed() {
    let spoils = [PIPE, OPEN_DIRECTORY, FOREIGN_FILE];
    for (spoil, fault) in &spoils[..if is_root() { 3 } else { 2 }] {
        let sandbox = Sandbox::start();
        let connect = || run(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"]));
        connect().success();
        let file = sandbox.directory().join("known_hosts");
        spoil(&file);
        let ended = connect().status(255);
        assert!(ended.stderr.contains(&format!("ssh_ec2: error: {}\n", fault(&file))), "{ended}");
        let trust = [
            "known-hosts",
            "--trust",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk",
        ];
        let trusted = run(sandbox.ssh_ec2().args(trust).arg(HEALTHY)).status(1);
        assert_harmless(&trusted);
        assert!(trusted.stderr.contains(&fault(&file)), "{trusted}");
        set_mode(sandbox.directory(), 0o700);
        sandbox.assert_tidy();
    }
}

#[test]
fn a_lock_that_leads_elsewhere_makes_no_file_there() {
    let sandbox = Sandbox::start();
    let absent = sandbox.file("absent");
    symlink(&absent, sandbox.directory().join("known_hosts.lock")).unwrap();
    let ended = run(sandbox.ssh(&sandbox.target()).args(["-n", "echo in"])).success();
    let file = sandbox.directory().join("known_hosts");
    let said =
        format!("ssh_ec2: the host keys of {HEALTHY} cannot be stored: cannot write {}", file.display());
    assert!(ended.stderr.starts_with(&said) && ended.stderr.lines().count() == 1, "{ended}");
    assert!(!absent.exists() && !file.exists());
}

#[test]
fn a_socket_directory_of_somebody_else_is_refused_before_anything_is_put_there() {
    let sandbox = Sandbox::start();
    let directory = sandbox.sockets();
    let refused = |hint: &str| {
        fails(
            &mut sandbox.proxy(HEALTHY),
            1,
            &format!(
                "the directory {} of the key agent's socket belongs to another user or is accessible to other users",
                directory.display()
            ),
            &[hint],
        );
        assert_eq!(files_below(&directory), Vec::<PathBuf>::new());
    };
    let own = format!("run `chmod 700 {}`", directory.display());
    let elsewhere =
        "set SSH_EC2_DIR to a directory of your own with a short path, and run `ssh_ec2 config --install`";
    fs::create_dir(&directory).unwrap();
    set_mode(&directory, 0o770);
    let before = fs::metadata(&directory).unwrap().modified().unwrap();
    refused(&own);
    assert_eq!(fs::metadata(&directory).unwrap().modified().unwrap(), before, "nothing came and went");
    if is_root() {
        set_mode(&directory, 0o700);
        chown(&directory, Some(NOBODY), None).unwrap();
        refused(elsewhere);
        // The link belongs to another user, who could point it elsewhere, though its target is private and
        // ours.
        fs::remove_dir(&directory).unwrap();
        let private = sandbox.file("private");
        fs::create_dir(&private).unwrap();
        set_mode(&private, 0o700);
        symlink(&private, &directory).unwrap();
        lchown(&directory, Some(NOBODY), None).unwrap();
        refused(elsewhere);
    }
    assert!(sandbox.region.sessions().is_empty());
}

#[test]
fn credentials_that_others_could_have_kept_are_not_used() {
    for spoil in [|file: &Path| set_mode(file, 0o666), replace_by_pipe] {
        let sandbox = Sandbox::start();
        let mut terminal = Terminal::start(mfa::ssh_ec2(&sandbox, &mfa::CONNECT), 24, 80);
        terminal.wait_for(mfa::QUESTION);
        terminal.type_in(&format!("{}\r", sandbox.region.mfa_code()));
        terminal.wait_for("in\r\n");
        assert_eq!(terminal.status(), 0);
        let [file] = &names_with(&sandbox.home().join(".aws/cli/cache"), "json")[..] else {
            panic!("one file")
        };
        spoil(file);
        let ended = run(&mut mfa::ssh_ec2(&sandbox, &mfa::CONNECT)).status(1);
        let note =
            "ssh_ec2: the cached credentials of the role are not used, and the role is assumed again: ";
        assert!(ended.stderr.starts_with(note), "{ended}");
        assert!(ended.stderr.lines().next().unwrap().contains(&file.display().to_string()), "{ended}");
        assert!(ended.stderr.contains("error: ") && ended.stderr.contains("MFA code"), "{ended}");
        assert_eq!(mfa::roles_assumed(&sandbox), 1);
        sandbox.assert_tidy();
    }
}
