//! Which host keys are accepted, and which are not. In all of these ssh checks strictly and has no
//! known_hosts file.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use rustix::process::Signal;

use crate::harness::{Ended, HEALTHY, Running, Sandbox, run, wait_until_runnable};

/// Its console output has fingerprints only.
const FINGERPRINTS: &str = "i-0decaf00000000009";
/// Its console output was overwritten since the first boot; the latest output has the keys.
const REBOOTED: &str = "i-0decaf0000000000b";
/// Its console output has no keys.
const NO_CONSOLE: &str = "i-0decaf00000000008";
/// Presents another key than AWS lists.
const IMPOSTOR: &str = "i-0dead00000000001d";

fn known_hosts(sandbox: &Sandbox) -> PathBuf {
    sandbox.directory().join("known_hosts")
}

/// The sources that confirmed the keys of an instance.
fn sources(sandbox: &Sandbox, instance: &str) -> Vec<String> {
    let text = fs::read_to_string(known_hosts(sandbox)).unwrap_or_default();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{instance} ")));
    lines.map(|line| line.split(' ').nth(4).unwrap().to_owned()).collect()
}

fn calls(sandbox: &Sandbox, action: &str) -> usize {
    sandbox.region.calls().iter().filter(|call| call.action == action).count()
}

#[track_caller]
fn connects(sandbox: &Sandbox, target: &str) {
    let ended = run(sandbox.ssh(target).arg("echo in")).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
}

/// ssh refuses the key, and our error with its hint comes before ssh's own message.
#[track_caller]
fn is_refused(sandbox: &Sandbox, target: &str, instance: &str, learned_from: &str) -> Ended {
    let ended = run(sandbox.ssh(target).arg("echo in")).status(255);
    assert_eq!(ended.text(), "", "{ended}");
    let lines: Vec<_> = ended.stderr.lines().filter(|line| line.starts_with("ssh_ec2: ")).collect();
    let [error, hint] = lines[..] else { panic!("{ended}") };
    assert!(
        error.starts_with(&format!("ssh_ec2: error: {instance} presents the host key ED25519 SHA256:")),
        "{ended}"
    );
    assert!(error.contains(", but the known key is "), "{ended}");
    assert!(error.contains(&format!(", from {learned_from}")), "{ended}");
    assert!(error.matches("SHA256:").count() >= 2, "{ended}");
    assert!(hint.contains("`ssh_ec2 known-hosts --trust 'ssh-ed25519 "), "{ended}");
    ended
}

#[test]
fn the_console_is_read_once_for_the_keys() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.target());
    assert_eq!(sources(&sandbox, HEALTHY), ["console", "console"]);
    assert_eq!(fs::metadata(known_hosts(&sandbox)).unwrap().permissions().mode() & 0o777, 0o600);
    connects(&sandbox, &sandbox.target());
    connects(&sandbox, &format!("{}@web-1.ec2", sandbox.user()));
    assert_eq!(run(sandbox.ssh_ec2().args(["web-1", "echo in"])).success().stderr, "");
    assert_eq!(calls(&sandbox, "ec2:GetConsoleOutput"), 1, "what is known is not asked again");
    assert_eq!(sources(&sandbox, HEALTHY).len(), 2);
    assert_eq!(sandbox.region.sessions().len(), 4, "no session is started to read keys");
    sandbox.assert_tidy();
}

#[test]
fn openssh_s_own_server_is_known_from_the_console() {
    let sandbox = Sandbox::with_sshd();
    connects(&sandbox, &sandbox.target());
    assert_eq!(sources(&sandbox, HEALTHY), ["console", "console"]);
}

#[test]
fn a_console_of_fingerprints_is_enough() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.at(FINGERPRINTS));
    assert_eq!(sources(&sandbox, FINGERPRINTS), ["console"]);
}

#[test]
fn the_latest_console_is_read_when_the_stored_one_has_no_keys() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.at(REBOOTED));
    assert_eq!(sources(&sandbox, REBOOTED), ["console", "console"]);
    assert_eq!(calls(&sandbox, "ec2:GetConsoleOutput"), 2);
}

#[test]
fn another_key_than_the_console_s_is_refused() {
    let sandbox = Sandbox::start();
    let ended = is_refused(&sandbox, &sandbox.at(IMPOSTOR), IMPOSTOR, "EC2's console output");
    assert!(ended.stderr.contains("; AWS does not list the presented key\n"), "{ended}");
    sandbox.region.replace_host_key(FINGERPRINTS).unwrap();
    is_refused(&sandbox, &sandbox.at(FINGERPRINTS), FINGERPRINTS, "EC2's console output");
    assert_eq!(sources(&sandbox, FINGERPRINTS), Vec::<String>::new());
    sandbox.assert_tidy();
}

#[test]
fn another_key_than_the_known_one_is_refused_until_it_is_trusted() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.target());
    sandbox.region.replace_host_key(HEALTHY).unwrap();
    for target in [sandbox.target(), format!("{}@web-1.ec2", sandbox.user())] {
        is_refused(&sandbox, &target, HEALTHY, "EC2's console output");
    }
    let ended = run(sandbox.ssh_ec2().args(["-oLogLevel=ERROR", "web-1", "true"])).status(255);
    assert!(ended.stderr.contains(" presents the host key "), "{ended}");
    let hint = ended.stderr.lines().find(|line| line.contains("--trust")).unwrap();
    let command = hint.split('`').nth(1).unwrap().to_owned();
    let trusted = run(sandbox.command("sh").args(["-c", &command])).success();
    assert!(
        trusted.stderr.starts_with(&format!("ssh_ec2: the ED25519 key of {HEALTHY} is SHA256:")),
        "{trusted}"
    );
    connects(&sandbox, &sandbox.target());
    assert_eq!(sources(&sandbox, HEALTHY), ["user"]);
}

#[test]
fn a_key_that_aws_does_not_list_is_accepted_once_with_a_note() {
    let sandbox = Sandbox::with_faults(&["deny=ssm:StartSession@AWS-StartNonInteractiveCommand"]);
    let first = run(sandbox.ssh(&sandbox.at(NO_CONSOLE)).arg("echo in")).success();
    let said = format!(
        "ssh_ec2: AWS lists no host key of {NO_CONSOLE} that you have permission to read: its ED25519 key SHA256:"
    );
    assert!(first.text() == "in\n" && first.stderr.starts_with(&said), "{first}");
    assert_eq!(first.stderr.lines().count(), 1, "{first}");
    assert_eq!(sources(&sandbox, NO_CONSOLE), ["first-use"]);
    let asked = calls(&sandbox, "ec2:GetConsoleOutput");
    assert_eq!(asked, 2, "before the key exchange, as kept and as it is now, and not again afterwards");
    connects(&sandbox, &sandbox.at(NO_CONSOLE));
    assert_eq!(calls(&sandbox, "ec2:GetConsoleOutput"), asked);
    sandbox.region.replace_host_key(NO_CONSOLE).unwrap();
    is_refused(&sandbox, &sandbox.at(NO_CONSOLE), NO_CONSOLE, "the first connection");
    sandbox.assert_tidy();
}

#[test]
fn a_source_that_fails_is_not_taken_for_an_empty_one() {
    let denied = "deny=ssm:StartSession@AWS-StartNonInteractiveCommand";
    let sandbox = Sandbox::with_faults(&[denied]);
    let mut ssh = sandbox.ssh(&sandbox.at(IMPOSTOR));
    let ended = run(ssh.env("AWS_ENDPOINT_URL_EC2", "http://127.0.0.1:1").arg("echo in")).success();
    let said = format!("ssh_ec2: AWS cannot be asked for the host key of {IMPOSTOR} (");
    assert!(
        ended.stderr.starts_with(&said) && ended.stderr.ends_with(", for this connection only\n"),
        "{ended}"
    );
    assert_eq!(sources(&sandbox, IMPOSTOR), Vec::<String>::new(), "nothing is written down");
    let sandbox = Sandbox::with_faults(&[denied, "throttle=GetConsoleOutput:0.02/1"]);
    connects(&sandbox, &sandbox.target());
    let ended = run(sandbox.ssh(&sandbox.at(IMPOSTOR)).arg("echo in")).status(255);
    let said =
        format!("error: the host key of {IMPOSTOR} cannot be checked: AWS throttles ec2:GetConsoleOutput");
    assert!(ended.stderr.contains(&said), "{ended}");
    assert_eq!(sources(&sandbox, IMPOSTOR), Vec::<String>::new());
}

#[test]
fn keys_are_of_use_where_they_cannot_be_kept() {
    let sandbox = Sandbox::start();
    fs::create_dir(sandbox.directory().join("known_hosts.lock")).unwrap();
    let ended = run(sandbox.ssh(&sandbox.target()).arg("echo in")).success();
    assert_eq!(ended.text(), "in\n");
    let said = format!("ssh_ec2: the host keys of {HEALTHY} cannot be stored: cannot write ");
    assert!(ended.stderr.starts_with(&said), "{ended}");
}

/// An authority, and a certificate that it signed for a host key.
fn certificate(sandbox: &Sandbox, key: &str) -> (String, String) {
    let authority = sandbox.key_pair(sandbox.file("authority"), "ed25519");
    let public = sandbox.file("host.pub");
    fs::write(&public, key).unwrap();
    let mut keygen = sandbox.command("ssh-keygen");
    run(keygen.arg("-q").arg("-s").arg(&authority).args(["-I", "x", "-h"]).arg(&public)).success();
    let words = fs::read_to_string(sandbox.file("host-cert.pub")).unwrap();
    let words: Vec<_> = words.split(' ').collect();
    let authority = fs::read_to_string(authority.with_extension("pub")).unwrap();
    (format!("@cert-authority i-* {authority}"), format!("{}:{}", words[0], words[1]))
}

#[test]
fn a_certificate_is_for_ssh_to_judge() {
    let sandbox = Sandbox::start();
    let listed = run(sandbox.ssh_ec2().args(["known-hosts", HEALTHY])).success().text().to_owned();
    let key = listed.lines().find(|line| line.contains(" ssh-ed25519 ")).unwrap().split_once(' ').unwrap().1;
    let (mark, presented) = certificate(&sandbox, key);
    let shown = || {
        let mut command = sandbox.ssh_ec2();
        let words = ["known-hosts", "--host", HEALTHY, "--presented", &presented, HEALTHY];
        run(command.args(words)).success().text().to_owned()
    };
    assert!(shown().contains(key), "the plain key, to fall back to");
    let known = known_hosts(&sandbox);
    fs::write(&known, format!("{}{mark}", fs::read_to_string(&known).unwrap())).unwrap();
    let lines = shown();
    assert!(lines.starts_with(mark.trim_end()) && lines.contains(key), "{lines}");
    // For a certificate of another key as well: an authority that ssh knows may have signed it.
    let (_, other) = certificate(&Sandbox::start(), OTHER_KEY);
    let mut command = sandbox.ssh_ec2();
    let ended = run(command.args(["known-hosts", "--host", "x", "--presented", &other, HEALTHY])).success();
    assert!(ended.text().contains(key), "{ended}");
}

const OTHER_KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";

#[test]
fn nothing_in_the_options_is_for_ssh_to_replace() {
    let sandbox = Sandbox::start();
    let mut ssh_ec2 = sandbox.ssh_ec2();
    let ended =
        run(ssh_ec2.args(["--reason", "fix ${TICKET} 100%", "-q", "-n", "web-1", "echo in"])).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    assert_eq!(sandbox.region.sessions()[0].reason.as_deref(), Some("fix ${TICKET} 100%"));
    let mut ssh_ec2 = sandbox.ssh_ec2();
    let ended = run(ssh_ec2.args(["--profile", "${HOME}", &sandbox.target(), "true"])).status(2);
    assert!(ended.stderr.starts_with("ssh_ec2: error: \"${HOME}\" cannot be given to ssh"), "{ended}");
}

#[test]
fn a_signal_ends_what_is_open() {
    for words in [&["known-hosts", NO_CONSOLE][..], &["doctor", HEALTHY]] {
        let sandbox = Sandbox::with_faults(&["never-attach"]);
        let mut running = Running::start(sandbox.ssh_ec2().args(words));
        sandbox.wait_for_sessions(1);
        running.signal(Signal::INT);
        running.wait().status(130);
        sandbox.assert_tidy();
    }
}

#[test]
fn the_files_of_sshd_are_read_when_the_console_has_no_keys() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.at(NO_CONSOLE));
    assert_eq!(sources(&sandbox, NO_CONSOLE), ["session", "session"]);
    assert_eq!(sandbox.region.sessions().len(), 2);
    sandbox.region.replace_host_key(NO_CONSOLE).unwrap();
    is_refused(&sandbox, &sandbox.at(NO_CONSOLE), NO_CONSOLE, "its own files, read through Session Manager");
    sandbox.assert_tidy();
}

#[test]
fn each_port_has_its_own_keys() {
    let sandbox = Sandbox::start();
    let listed = |port: &str| {
        let mut command = sandbox.ssh_ec2();
        run(command.args(["known-hosts", "--port", port, HEALTHY])).success().text().to_owned()
    };
    assert!(listed("2222").lines().all(|line| line.starts_with(&format!("[{HEALTHY}]:2222 "))));
    assert!(listed("22").lines().all(|line| line.starts_with(&format!("{HEALTHY} "))));
    assert_eq!(calls(&sandbox, "ec2:GetConsoleOutput"), 2);
    // The sshd of a container has keys of its own, which AWS does not list.
    let presented = OTHER_KEY.replace(' ', ":");
    let present = |port: &str| {
        let mut command = sandbox.ssh_ec2();
        let words = ["known-hosts", "--port", port, "--host", "x", "--presented", &presented, HEALTHY];
        run(command.args(words))
    };
    let first = present("2200").success();
    assert!(first.stderr.contains(", not of the one on port 2200: its ED25519 key "), "{first}");
    assert_eq!(present("2200").success().stderr, "");
    assert_eq!(present("22").status(1).text(), "");
}

#[test]
fn a_name_that_means_another_instance_now_is_no_changed_key() {
    let sandbox = Sandbox::start();
    let target = format!("{}@web-1.ec2", sandbox.user());
    connects(&sandbox, &target);
    for file in fs::read_dir(sandbox.directory().join("cache")).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(HEALTHY));
            fs::write(&path, text.replace(HEALTHY, "i-0decaf00000000002")).unwrap();
        }
    }
    connects(&sandbox, &target);
    assert_eq!(sandbox.region.sessions().last().unwrap().target, "i-0decaf00000000002");
    assert_eq!(sources(&sandbox, "i-0decaf00000000002"), ["console", "console"]);
}

#[test]
fn known_keys_are_shown_and_forgotten() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.target());
    let list = run(sandbox.ssh_ec2().args(["known-hosts", "--list"])).success();
    let lines: Vec<_> = list.text().lines().collect();
    assert_eq!(lines.len(), 2, "{list}");
    assert!(
        lines.iter().all(|line| line.starts_with(HEALTHY) && line.contains("  from EC2's console output  "))
    );
    let shown = run(sandbox.ssh_ec2().args(["known-hosts", "web-1"])).success();
    assert!(shown.text().lines().all(|line| line.starts_with(&format!("{HEALTHY} "))), "{shown}");
    assert_eq!(shown.text().lines().count(), 2);
    for (port, names) in
        [("22", format!("{HEALTHY},web-1.ec2 ")), ("2222", format!("[{HEALTHY}]:2222,[web-1.ec2]:2222 "))]
    {
        let shown = run(sandbox.ssh_ec2().args(["known-hosts", "--port", port, "web-1.ec2"])).success();
        assert!(shown.text().lines().count() > 0, "{shown}");
        assert!(shown.text().lines().all(|line| line.starts_with(&names)), "{shown}");
    }
    let forgotten = run(sandbox.ssh_ec2().args(["known-hosts", "--forget", "web-1"])).success();
    assert_eq!(forgotten.stderr.matches("ssh_ec2: forgot the ").count(), 2, "{forgotten}");
    assert_eq!(run(sandbox.ssh_ec2().args(["known-hosts", "--list"])).success().text(), "");
    let again = run(sandbox.ssh_ec2().args(["known-hosts", "--forget", HEALTHY])).status(1);
    assert!(
        again.stderr.starts_with(&format!("ssh_ec2: error: no host key of {HEALTHY} is known\n")),
        "{again}"
    );
    connects(&sandbox, &sandbox.target());
}

#[test]
fn a_file_that_others_can_write_is_refused() {
    let sandbox = Sandbox::start();
    connects(&sandbox, &sandbox.target());
    let file = known_hosts(&sandbox);
    let before = fs::read(&file).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
    let error = format!("ssh_ec2: error: other users can write to {}\n", file.display());
    for target in [sandbox.target(), sandbox.at(NO_CONSOLE)] {
        let ended = run(sandbox.ssh(&target).arg("echo in")).status(255);
        assert!(ended.stderr.contains(&error) && ended.text().is_empty(), "{ended}");
    }
    assert_eq!(run(sandbox.ssh_ec2().args(["known-hosts", "--list"])).status(1).text(), "");
    assert_eq!(fs::read(&file).unwrap(), before);
    sandbox.assert_tidy();
}

#[test]
fn what_is_no_key_is_not_trusted() {
    let sandbox = Sandbox::start();
    let ended =
        run(sandbox.ssh_ec2().args(["known-hosts", "--trust", "ssh-ed25519 nonsense", HEALTHY])).status(2);
    assert!(
        ended.stderr.starts_with("ssh_ec2: error: \"ssh-ed25519 nonsense\" is not a host key"),
        "{ended}"
    );
    assert!(!known_hosts(&sandbox).exists());
}

#[test]
fn an_old_ssh_is_reported_before_its_configuration_is_broken() {
    let sandbox = Sandbox::start();
    let bin = sandbox.file("bin");
    fs::create_dir(&bin).unwrap();
    fs::write(bin.join("ssh"), "#!/bin/sh\necho OpenSSH_8.4p1 >&2\n").unwrap();
    fs::set_permissions(bin.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    wait_until_runnable(&bin.join("ssh"));
    let mut command = sandbox.plain_command(env!("CARGO_BIN_EXE_ssh_ec2"));
    let ended = run(command.env("PATH", &bin).args(["config", "--install"])).status(1);
    assert_eq!(
        ended.stderr,
        "ssh_ec2: error: ssh is OpenSSH 8.4, but checking host keys needs 8.5 or later\n\
         ssh_ec2: hint: put a newer ssh in PATH\n"
    );
    assert!(!sandbox.home().join(".ssh/config").exists());
}
