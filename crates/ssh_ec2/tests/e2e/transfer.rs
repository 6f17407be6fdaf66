//! Files there and back with every tool, and through every server. The same bytes must arrive.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::harness::{
    HEALTHY, Running, Sandbox, assert_same, random_file, run, run_with_input, with_each_server,
};

with_each_server!(
    git_clones_and_pushes,
    lone_newlines_arrive_unchanged_each_way,
    rsync_carries_a_file_each_way,
    scp_carries_a_file_each_way,
    scp_carries_a_quarter_gibibyte_each_way,
    sftp_carries_a_file_each_way,
);

fn scp_carries_a_file_each_way(sandbox: &Sandbox) {
    scp_each_way(sandbox, 64);
}

fn scp_carries_a_quarter_gibibyte_each_way(sandbox: &Sandbox) {
    scp_each_way(sandbox, 256);
}

fn scp_each_way(sandbox: &Sandbox, mebibytes: usize) {
    let trip = Trip::new(sandbox, mebibytes);
    let there = format!("{}:{}", sandbox.target(), trip.there.display());
    run(sandbox.command("scp").arg("-q").arg(&trip.here).arg(&there)).success();
    trip.check_there();
    run(sandbox.command("scp").arg("-q").arg(&there).arg(&trip.back)).success();
    trip.check_back();
    sandbox.assert_tidy();
}

fn sftp_carries_a_file_each_way(sandbox: &Sandbox) {
    let trip = Trip::new(sandbox, 64);
    let batch = format!(
        "put {here} {there}\nget {there} {back}\n",
        here = trip.here.display(),
        there = trip.there.display(),
        back = trip.back.display()
    );
    let mut sftp = sandbox.command("sftp");
    run_with_input(sftp.args(["-q", "-b", "-", &sandbox.target()]), batch.as_bytes()).success();
    trip.check_there();
    trip.check_back();
    sandbox.assert_tidy();
}

fn rsync_carries_a_file_each_way(sandbox: &Sandbox) {
    let trip = Trip::new(sandbox, 64);
    let there = format!("{}:{}", sandbox.target(), trip.there.display());
    run(sandbox.command("rsync").arg("-a").arg(&trip.here).arg(&there)).success();
    trip.check_there();
    run(sandbox.command("rsync").arg("-a").arg(&there).arg(&trip.back)).success();
    trip.check_back();
    sandbox.assert_tidy();
}

/// Other clients for Session Manager turn a lone newline into a carriage return.
fn lone_newlines_arrive_unchanged_each_way(sandbox: &Sandbox) {
    let mut cat = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    for sent in 1..=64 {
        cat.write(b"\n");
        // Each newline waits until the previous one has come back, so that it travels alone.
        let output = cat.wait_for_output(|output| output.len() >= sent);
        assert_eq!(output, vec![b'\n'; sent]);
    }
    assert_eq!(cat.finish().success().stdout, [b'\n'; 64]);
}

/// The version banners are the only part of SSH that is not encrypted: here, too, a newline is alone in a
/// message of the channel.
#[test]
fn a_lone_newline_ends_the_banner_each_way() {
    let sandbox = Sandbox::with_faults(&["agent-payload=1"]);
    let mut proxy = Running::start(&mut sandbox.proxy(HEALTHY));
    let banner = proxy.wait_for_output(|output| output.ends_with(b"\n"));
    assert!(banner.starts_with(b"SSH-2.0-") && banner.ends_with(b"\r\n"), "{banner:?}");
    proxy.write(b"SSH-2.0-test\r");
    proxy.wait_until_read();
    proxy.write(b"\n");
    // The server waits for a whole line.
    let output = proxy.wait_for_output(|output| output.len() > banner.len());
    assert!(output.starts_with(&banner));
}

fn git_clones_and_pushes(sandbox: &Sandbox) {
    let bare = sandbox.file("there.git");
    sandbox.remote(&format!("git init -q --bare -b main {}", bare.display()));
    let url = format!("ssh://{}{}", sandbox.target(), bare.display());
    let (one, two) = (sandbox.file("one"), sandbox.file("two"));
    run(git(sandbox).args(["clone", "-q", &url]).arg(&one)).success();
    let content = random_file(&one.join("content"), 4, 5);
    run(git(sandbox).arg("-C").arg(&one).args(["add", "content"])).success();
    run(git(sandbox).arg("-C").arg(&one).args(["commit", "-q", "-m", "content"])).success();
    run(git(sandbox).arg("-C").arg(&one).args(["push", "-q", "origin", "HEAD:main"])).success();
    run(git(sandbox).args(["clone", "-q", &url]).arg(&two)).success();
    assert_same(&content, &two.join("content"));
    sandbox.assert_tidy();
}

pub(crate) fn git(sandbox: &Sandbox) -> Command {
    let mut git = sandbox.command("git");
    git.args(["-c", "user.name=me", "-c", "user.email=me@example.com"]);
    git
}

/// A file, its remote path, and the path of the copy that comes back.
pub(crate) struct Trip {
    pub(crate) here: PathBuf,
    pub(crate) there: PathBuf,
    pub(crate) back: PathBuf,
}

impl Trip {
    pub(crate) fn new(sandbox: &Sandbox, mebibytes: usize) -> Self {
        let here = random_file(&sandbox.file("here"), mebibytes, 1);
        // rsync would compare with a file of the same name instead of sending.
        Self { here, there: sandbox.file("there"), back: sandbox.file("back") }
    }

    pub(crate) fn check_there(&self) {
        assert_same(&self.here, &self.there);
    }

    pub(crate) fn check_back(&self) {
        assert_same(&self.here, &self.back);
        for path in [&self.here, &self.there, &self.back] {
            fs::remove_file(path).unwrap();
        }
    }
}
