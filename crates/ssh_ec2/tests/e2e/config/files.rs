//! Files and directories that cannot be written, do not exist, or belong to another user or program.

use std::fs::{self, Permissions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{install, own_directory, ssh_ec2_config, uninstall, user_config};
use crate::errors::told;
use crate::harness::{HEALTHY, Sandbox, binary, files_below, is_root, run, wait_until_runnable};

/// A file that not even root can replace.
const UNCHANGEABLE: &str = "/proc/version";

/// nix and others make `~/.ssh/config` a link to a file that only they can change.
#[test]
fn a_config_that_cannot_be_changed_gets_its_line_from_elsewhere() {
    let sandbox = Sandbox::start();
    let (config, directory) = (user_config(&sandbox), own_directory(&sandbox));
    let line = format!("Include {}/config", directory.display());
    let elsewhere = |what: &str, then: &str| {
        format!("if another program writes that file, have it {what} the line `{line}`{then}")
    };
    symlink(UNCHANGEABLE, &config).unwrap();
    let ended = run(&mut ssh_ec2_config(&sandbox, &["--install"])).status(1);
    let error = format!("ssh_ec2: error: cannot change {}: ", config.display());
    let hint = elsewhere("put", " at the top; then install again");
    assert!(ended.stderr.starts_with(&error) && ended.stderr.contains(&hint), "{ended}");
    assert_eq!(files_below(&sandbox.home()), std::slice::from_ref(&config), "nothing is written");
    assert!(!directory.exists());

    // With the `Include` line already there, only the file with the blocks has to be written.
    fs::remove_file(&config).unwrap();
    let managed = sandbox.file("managed");
    let text = format!("# made by a program\nInclude {}/config\nHost *\n", directory.display());
    fs::write(&managed, &text).unwrap();
    symlink(&managed, &config).unwrap();
    install(&sandbox);
    assert_eq!(fs::read_to_string(&managed).unwrap(), text);
    let mut ssh = sandbox.plain_command("ssh");
    run(ssh.arg("-F").arg(&config).args([&*sandbox.target(), "true"])).success();
    uninstall(&sandbox);
    assert_eq!(fs::read_to_string(&managed).unwrap(), text);
    assert!(!directory.join("config").exists() && !directory.join("alias").exists());
}

#[test]
fn a_link_to_nothing_stays_one() {
    let sandbox = Sandbox::start();
    let (config, absent) = (user_config(&sandbox), sandbox.file("absent"));
    symlink(&absent, &config).unwrap();
    let ended = run(&mut ssh_ec2_config(&sandbox, &["--install"])).status(1);
    let directory = own_directory(&sandbox);
    assert_eq!(
        ended.stderr,
        told(
            &format!(
                "cannot change {}: it is a link to {}, which does not exist",
                config.display(),
                absent.display()
            ),
            &[&format!(
                "if another program writes that file, have it put the line `Include {}/config` at the top; then install again",
                directory.display()
            )]
        )
    );
    assert_eq!(fs::read_link(&config).unwrap(), absent);
    assert!(!absent.exists() && !directory.exists());
}

/// Characters that ssh, its shell or glob(3) read as something else.
#[test]
fn a_home_of_any_name_works() {
    let sandbox = Sandbox::start();
    let names = ["it's", "a\"b", r"back\slash", "br[a]c", "st*r", "b c", "100%h", "#1", "$HOME", "!a;b&"];
    for name in names {
        let home = sandbox.file(name);
        fs::create_dir(&home).unwrap();
        let config = home.join(".ssh/config");
        let ssh_ec2 = |words: &[&str]| {
            let mut command = sandbox.plain_command(&binary().display().to_string());
            run(command.env("HOME", &home).args(words))
        };
        ssh_ec2(&["config", "--install"]).success();
        ssh_ec2(&["config", "--install"]).success();
        let text = fs::read_to_string(&config).unwrap();
        assert_eq!(text.lines().count(), 1, "{text}");
        let mut ssh = sandbox.plain_command("ssh");
        ssh.env("HOME", &home).arg("-F").arg(&config);
        let plain = run(ssh.args(["ec2-user@web-1.ec2", "echo in"])).success();
        assert_eq!((plain.text(), plain.stderr.as_str()), ("in\n", ""), "{name}");
        let wrapped = ssh_ec2(&[&sandbox.target(), "echo in"]).success();
        assert_eq!((wrapped.text(), wrapped.stderr.as_str()), ("in\n", ""), "{name}");
        ssh_ec2(&["config", "--uninstall"]).success();
        assert!(!config.exists(), "{name}");
    }
    for name in ["${x}", "two\nlines"] {
        let home = sandbox.file(name);
        fs::create_dir(&home).unwrap();
        for words in [&["config", "--install"][..], &[&*sandbox.target(), "echo in"]] {
            let mut command = sandbox.plain_command(&binary().display().to_string());
            let ended = run(command.env("HOME", &home).args(words));
            assert!(ended.code != 0 && ended.stderr.contains("SSH_EC2_DIR"), "{name}: {ended}");
        }
        assert_eq!(files_below(&home), Vec::<PathBuf>::new(), "{name}");
    }
    sandbox.assert_tidy();
}

/// Many users link the file to `/dev/null` to run ssh without settings.
#[test]
fn what_is_no_regular_file_stays_what_it_is() {
    let sandbox = Sandbox::start();
    let config = user_config(&sandbox);
    // A device of the sandbox's own where possible: a bug here must not replace the machine's /dev/null.
    let device = sandbox.file("device");
    rustix::fs::mkfifoat(rustix::fs::CWD, &device, rustix::fs::Mode::RWXU).unwrap();
    symlink(&device, &config).unwrap();
    let ended = run(&mut ssh_ec2_config(&sandbox, &["--install"])).status(1);
    assert!(
        ended.stderr.starts_with("ssh_ec2: error: cannot read ") && ended.stderr.contains("pipe"),
        "{ended}"
    );
    fs::remove_file(&config).unwrap();
    if is_root() {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        let null = sandbox.file("null");
        let kind = rustix::fs::FileType::CharacterDevice;
        rustix::fs::mknodat(rustix::fs::CWD, &null, kind, mode, rustix::fs::makedev(1, 3)).unwrap();
        symlink(&null, &config).unwrap();
        let ended = run(&mut ssh_ec2_config(&sandbox, &["--install"])).status(1);
        assert!(ended.stderr.contains("null is not a regular file\n"), "{ended}");
        assert!(fs::metadata(&null).unwrap().file_type().is_char_device());
        assert!(!own_directory(&sandbox).exists());
    }
}

/// Under `sudo`, which may leave HOME as it was.
#[test]
fn the_file_stays_its_owners() {
    if !is_root() {
        return;
    }
    let sandbox = Sandbox::start();
    let config = user_config(&sandbox);
    fs::write(&config, "Host a\n").unwrap();
    let owner = || fs::metadata(&config).map(|file| (file.uid(), file.gid(), file.mode() & 0o777)).unwrap();
    chown(&config, Some(1234), Some(1235)).unwrap();
    fs::set_permissions(&config, Permissions::from_mode(0o600)).unwrap();
    install(&sandbox);
    assert_eq!(owner(), (1234, 1235, 0o600));
    uninstall(&sandbox);
    assert_eq!(owner(), (1234, 1235, 0o600));
    assert_eq!(fs::read_to_string(&config).unwrap(), "Host a\n");
}

/// A home directory that is missing or read-only.
#[test]
fn without_a_home_another_directory_is_named() {
    let sandbox = Sandbox::start();
    let target = sandbox.target();
    let commands: [&[&str]; 6] = [
        &[&target, "echo in"],
        &["proxy", "ec2-user", HEALTHY, "22"],
        &["doctor", &target],
        &["known-hosts", HEALTHY],
        &["scp", "-q", &format!("{target}:/etc/hostname"), "."],
        &["config", "--install"],
    ];
    // None of them is empty: with an empty HOME the home directory is that of the password file.
    for home in ["/proc", "/dev/null/x", "relative"] {
        for words in commands {
            let mut command = sandbox.plain_command(&binary().display().to_string());
            let ended = run(command.env("HOME", home).args(words));
            let is_told = ended.stderr.contains("SSH_EC2_DIR");
            // Host keys that cannot be kept are still printed.
            let is_printed = words[0] == "known-hosts" && ended.code == 0;
            assert!(is_told || is_printed, "HOME={home} {words:?}: {ended}");
        }
        let mut command = sandbox.ssh_ec2();
        let ended = run(command.env("HOME", home).args([&*target, "echo in"])).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""), "HOME={home}");
    }
    sandbox.assert_tidy();
}

#[test]
fn in_the_local_region_the_users_own_files_are_left_alone() {
    let sandbox = Sandbox::start();
    let config = user_config(&sandbox);
    fs::write(&config, "Host a\n").unwrap();
    let script = "set -e
        ssh_ec2 config --install
        ssh_ec2 --region eu-west-1 config --install --suffix eu.ec2 --user ec2-user
        ssh -n eu-web.eu.ec2 echo in
        ssh -n ec2-user@web-1.ec2 echo in
        ssh_ec2 -n ec2-user@web-1 echo in
        ssh_ec2 list >/dev/null
        ssh_ec2 config --uninstall --suffix eu.ec2
        ssh_ec2 config --uninstall
        ssh -n ec2-user@web-1.ec2 echo in
        grep -c Include \"$SSH_EC2_SSH_CONFIG\" || test $? = 1";
    let mut command = sandbox.plain_command(&binary().display().to_string());
    command.args(["sandbox", "--fault", "quick", "sh", "-c", script]);
    // As a user with another directory for the files of ssh_ec2.
    let ended = run(command.env("SSH_EC2_DIR", sandbox.home().join("own"))).success();
    assert_eq!(ended.text(), "in\nin\nin\nin\n0\n", "{ended}");
    assert_eq!(files_below(&sandbox.home()), std::slice::from_ref(&config));
    assert_eq!(fs::read_to_string(&config).unwrap(), "Host a\n");
}

// ---- an old ssh ----

/// A script with the name ssh that reports another version and then runs the real one.
fn of_version(sandbox: &Sandbox, version: &str) -> PathBuf {
    let bin = sandbox.file(version);
    fs::create_dir(&bin).unwrap();
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = -V ]; then echo {version}, OpenSSL >&2; else exec /usr/bin/ssh \"$@\"; fi\n"
    );
    fs::write(bin.join("ssh"), script).unwrap();
    fs::set_permissions(bin.join("ssh"), Permissions::from_mode(0o755)).unwrap();
    wait_until_runnable(&bin.join("ssh"));
    bin
}

#[test]
fn an_ssh_that_runs_what_a_host_name_contains_is_named() {
    let sandbox = Sandbox::start();
    for (version, is_named) in [("OpenSSH_8.5p1", true), ("OpenSSH_9.5p1", true), ("OpenSSH_9.6p1", false)] {
        let bin = of_version(&sandbox, version);
        let with = |mut command: Command| {
            let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
            run(command.env("PATH", path)).success()
        };
        let installed = with(ssh_ec2_config(&sandbox, &["--install"]));
        assert_eq!(installed.stderr.contains("CVE-2023-51385"), is_named, "{version}: {installed}");
        assert_eq!(installed.stderr.lines().count(), if is_named { 2 } else { 1 }, "{installed}");
        let mut doctor = sandbox.ssh_ec2();
        doctor.arg("doctor");
        let examined = with(doctor);
        let line = examined.text().lines().next().unwrap();
        let verdict = if is_named { "warning " } else { "ok " };
        assert!(line.starts_with(verdict) && line.contains("OpenSSH "), "{version}: {examined}");
        assert!(line.contains("9.6"), "{line}");
        uninstall(&sandbox);
    }
}

// ---- what must not be lost ----

/// Logs, in order, which files are synced to disk and which are renamed.
const SPY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
static void note(const char *what, const char *from, const char *to) {
    FILE *log = fopen(getenv("SPY_LOG"), "a");
    if (log) { fprintf(log, "%s %s%s%s\n", what, from, *to ? " " : "", to); fclose(log); }
}
int fsync(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    note("fsync", path, "");
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}
int rename(const char *from, const char *to) {
    note("rename", from, to);
    return ((int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename"))(from, to);
}
"#;

fn assert_durable(log: &str, file: &Path) {
    let lines: Vec<_> = log.lines().collect();
    let to = format!(" {}", file.display());
    let renamed = lines.iter().position(|line| line.starts_with("rename ") && line.ends_with(&to));
    let renamed = renamed.unwrap_or_else(|| panic!("{to} is not renamed: {log}"));
    let staged = lines[renamed].split(' ').nth(1).unwrap();
    assert!(lines[..renamed].contains(&&*format!("fsync {staged}")), "{staged} is not on disk: {log}");
    let directory = file.parent().unwrap().display();
    assert!(lines[renamed..].contains(&&*format!("fsync {directory}")), "its name is not on disk: {log}");
}

#[test]
fn host_keys_and_settings_are_on_disk_before_they_replace_others() {
    let sandbox = Sandbox::start();
    let (source, library, log) = (sandbox.file("spy.c"), sandbox.file("spy.so"), sandbox.file("log"));
    fs::write(&source, SPY).unwrap();
    let mut cc = sandbox.plain_command("cc");
    run(cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl")).success();
    let spied = |mut command: Command| {
        let _ = fs::remove_file(&log);
        run(command.env("LD_PRELOAD", &library).env("SPY_LOG", &log)).success();
        fs::read_to_string(&log).unwrap()
    };
    let mut connect = sandbox.ssh_ec2();
    connect.args([&*sandbox.at(HEALTHY), "true"]);
    let connected = spied(connect);
    assert_durable(&connected, &sandbox.directory().join("known_hosts"));
    fs::write(user_config(&sandbox), "Host a\n").unwrap();
    let installed = spied(ssh_ec2_config(&sandbox, &["--install"]));
    for file in
        [user_config(&sandbox), own_directory(&sandbox).join("config"), own_directory(&sandbox).join("alias")]
    {
        assert_durable(&installed, &file);
    }
    // Names can be looked up again, so connections do not wait until the cache is on disk.
    let mut named = sandbox.ssh_ec2();
    named.args(["ec2-user@web-1", "true"]);
    let named = spied(named);
    let cache = format!("{}/cache", sandbox.directory().display());
    assert!(named.contains(&cache), "{named}");
    assert!(!named.lines().any(|line| line.starts_with("fsync ") && line.contains(&cache)), "{named}");
}
