//! `ssh_ec2 config`, and plain ssh with the installed blocks.

mod files;
mod hosts;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ssh_ec2::ssh::config::{ProxyOptions, block};

use crate::errors::told;
use crate::harness::{Ended, HEALTHY, Sandbox, assert_same, binary, files_below, places, random_file, run};
use crate::transfer::git;

/// A user's files below HOME, the default.
fn ssh_ec2_config(sandbox: &Sandbox, options: &[&str]) -> Command {
    let mut command = sandbox.plain_command(&binary().display().to_string());
    command.arg("config").args(options);
    command
}

fn install(sandbox: &Sandbox) -> Ended {
    run(&mut ssh_ec2_config(sandbox, &["--install"])).success()
}

fn uninstall(sandbox: &Sandbox) {
    let ended = run(&mut ssh_ec2_config(sandbox, &["--uninstall"])).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
}

fn user_config(sandbox: &Sandbox) -> PathBuf {
    sandbox.home().join(".ssh/config")
}

fn own_directory(sandbox: &Sandbox) -> PathBuf {
    sandbox.home().join(".ssh/ssh_ec2")
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn the_block_is_printed() {
    let sandbox = Sandbox::start();
    let printed = run(&mut ssh_ec2_config(&sandbox, &[])).success();
    let places = places(&own_directory(&sandbox));
    assert_eq!(printed.text(), block(binary(), &places, &ProxyOptions::default()));
    assert_eq!(printed.stderr, "");
    assert_eq!(files_below(&sandbox.home()), Vec::<PathBuf>::new(), "nothing is written");
}

#[test]
fn options_are_kept_in_the_block() {
    let sandbox = Sandbox::start();
    let printed = run(&mut ssh_ec2_config(&sandbox, &["--region", "eu-west-1", "--reason", "a b"])).success();
    assert!(printed.text().contains(" proxy --region eu-west-1 --reason 'a b' --sockets "), "{printed}");
}

#[test]
fn installing_and_uninstalling_give_back_every_byte() {
    for (text, permissions) in [
        (&b"Host a\n  User b\n"[..], 0o600),
        (b"# no newline at the end", 0o644),
        (b"Host a\r\n  User b\r\n", 0o640),
        (b"# \xff\xfe\x00\n", 0o600),
        (b"", 0o600),
        (b"\n\n", 0o400),
    ] {
        let sandbox = Sandbox::start();
        let config = user_config(&sandbox);
        fs::write(&config, text).unwrap();
        fs::set_permissions(&config, Permissions::from_mode(permissions)).unwrap();
        let told = install(&sandbox).stderr;
        let directory = own_directory(&sandbox);
        assert_eq!(
            told,
            format!(
                "ssh_ec2: {} includes {}/config now: try `ssh USER@NAME.ec2`\n",
                config.display(),
                directory.display()
            )
        );
        let line = format!("Include {}/config\n", directory.display());
        let expected = [line.as_bytes(), text].concat();
        assert_eq!(fs::read(&config).unwrap(), expected);
        install(&sandbox);
        assert_eq!(fs::read(&config).unwrap(), expected, "a second time changes nothing");
        assert_eq!((mode(&config), mode(&directory)), (permissions, 0o700));

        uninstall(&sandbox);
        assert_eq!(fs::read(&config).unwrap(), text);
        assert_eq!(mode(&config), permissions);
        uninstall(&sandbox);
        assert_eq!(fs::read(&config).unwrap(), text);
        assert_eq!(files_below(&sandbox.home()), [config], "no other file is left");
    }
}

#[test]
fn without_a_file_before_there_is_none_after() {
    let sandbox = Sandbox::start();
    let ssh = sandbox.home().join(".ssh");
    fs::remove_dir(&ssh).unwrap();
    install(&sandbox);
    install(&sandbox);
    assert_eq!((mode(&ssh), mode(&user_config(&sandbox))), (0o700, 0o600));
    uninstall(&sandbox);
    assert_eq!(files_below(&sandbox.home()), Vec::<PathBuf>::new());
}

#[test]
fn what_was_added_in_the_meantime_stays() {
    let sandbox = Sandbox::start();
    install(&sandbox);
    let config = user_config(&sandbox);
    let mut text = fs::read(&config).unwrap();
    text.extend_from_slice(b"Host mine\n");
    fs::write(&config, text).unwrap();
    uninstall(&sandbox);
    assert_eq!(fs::read(&config).unwrap(), b"Host mine\n");
}

#[test]
fn a_linked_file_stays_linked() {
    let sandbox = Sandbox::start();
    let (config, real) = (user_config(&sandbox), sandbox.file("dotfiles"));
    fs::write(&real, "Host a\n").unwrap();
    symlink(&real, &config).unwrap();
    install(&sandbox);
    assert_eq!(fs::read_link(&config).unwrap(), real);
    assert!(fs::read_to_string(&real).unwrap().starts_with("Include "));
    uninstall(&sandbox);
    assert_eq!(fs::read_link(&config).unwrap(), real);
    assert_eq!(fs::read_to_string(&real).unwrap(), "Host a\n");
}

/// Permissions do not stop the superuser, so a file is in the way instead.
#[test]
fn a_file_that_cannot_be_written_is_left_as_it_was() {
    let sandbox = Sandbox::start();
    let config = user_config(&sandbox);
    fs::write(&config, "Host a\n").unwrap();
    // A file where the directory should be.
    fs::write(own_directory(&sandbox), "").unwrap();
    let ended = run(&mut ssh_ec2_config(&sandbox, &["--install"])).status(1);
    let directory = own_directory(&sandbox).display().to_string();
    assert_eq!(
        ended.stderr,
        told(
            &format!("cannot create {directory}: File exists (os error 17)"),
            &[&format!(
                "check the permissions of {directory}, or set SSH_EC2_DIR to a directory that you can write to"
            )]
        )
    );
    assert_eq!(fs::read(&config).unwrap(), b"Host a\n");

    fs::remove_file(own_directory(&sandbox)).unwrap();
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    let ended = run(&mut ssh_ec2_config(&sandbox, &["--install"])).status(1);
    assert!(
        ended.stderr.starts_with(&format!("ssh_ec2: error: cannot read {}: ", config.display())),
        "{ended}"
    );
    assert_eq!(files_below(&sandbox.home()), Vec::<PathBuf>::new(), "nothing is written");
}

// ---- plain ssh ----

/// A sandbox with the installed blocks in its HOME, and the option that makes ssh read them: OpenSSH looks
/// for its configuration in the home directory of the password file, not in HOME.
fn installed() -> (Sandbox, String) {
    let sandbox = Sandbox::start();
    fs::write(user_config(&sandbox), "Host *\n    LogLevel ERROR\nHost elsewhere\n    User me\n").unwrap();
    install(&sandbox);
    let config = user_config(&sandbox).display().to_string();
    (sandbox, config)
}

#[test]
fn ssh_understands_the_installed_settings() {
    let (sandbox, config) = installed();
    let settings = |host: &str| {
        let mut ssh = sandbox.command("ssh");
        run(ssh.args(["-G", "-F", &config, host])).success().text().to_owned()
    };
    let directory = own_directory(&sandbox).display().to_string();
    let agent = format!("identityagent {directory}/agent/");
    let proxy =
        format!("proxycommand {} proxy --sockets {directory}/agent '%r' '%h' '%p'\n", binary().display());
    let known_hosts = format!(
        "knownhostscommand {} known-hosts --file {directory}/known_hosts --port %p --host %H --presented %t:%K -- %h\n",
        binary().display()
    );
    let instance = settings(&format!("ec2-user@{HEALTHY}"));
    for line in [
        &*agent,
        &proxy,
        &known_hosts,
        "identityfile none\n",
        "userknownhostsfile /dev/null\n",
        "stricthostkeychecking true\n",
        "loglevel ERROR\n",
    ] {
        assert!(instance.contains(line), "{line:?} is not in\n{instance}");
    }
    let node = settings("mi-0decaf00000000001");
    assert!(
        node.contains(&proxy) && !node.contains("identityagent") && !node.contains("identityfile none"),
        "{node}"
    );
    let elsewhere = settings("elsewhere");
    assert!(elsewhere.contains("user me\n") && !elsewhere.contains("ssh_ec2"), "{elsewhere}");
}

#[test]
fn plain_ssh_and_its_friends_work() {
    let (sandbox, config) = installed();
    let ssh = format!("ssh -F {config}");
    let target = format!("ec2-user@{HEALTHY}");
    let plain = |program: &str| sandbox.plain_command(program);
    let ended = run(plain("ssh").args(["-F", &config, &target, "echo in"])).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));

    let here = random_file(&sandbox.file("here"), 1, 7);
    let there = sandbox.file("there");
    let remote = format!("{target}:{}", there.display());
    run(plain("scp").args(["-q", "-F", &config]).arg(&here).arg(&remote)).success();
    assert_same(&here, &there);
    let back = sandbox.file("back");
    run(plain("rsync").args(["-e", &ssh, &remote]).arg(&back)).success();
    assert_same(&here, &back);

    let bare = sandbox.file("bare.git");
    run(git(&sandbox).args(["init", "-q", "--bare"]).arg(&bare)).success();
    let mut listing = plain("git");
    let ended = run(listing
        .env("GIT_SSH_COMMAND", &ssh)
        .arg("ls-remote")
        .arg(format!("ssh://{target}{}", bare.display())))
    .success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("", ""));
    let known_hosts = fs::read_to_string(own_directory(&sandbox).join("known_hosts")).unwrap();
    assert!(known_hosts.starts_with(HEALTHY), "{known_hosts}");
    sandbox.assert_tidy();
    assert_eq!(files_below(&own_directory(&sandbox).join("agent")), Vec::<PathBuf>::new());
}
