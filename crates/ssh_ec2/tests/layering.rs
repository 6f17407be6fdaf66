//! The rules of `docs/architecture.md`, checked on the sources. A rule is a row of a table below.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use self::source::{SOURCES, begins};

#[path = "layering/source.rs"]
mod source;

/// The rooms from the top floor down. A file uses its own room and those on floors below, never another on
/// its own.
const FLOORS: &str = "
    main lib
    commands
    cli ui environment
    error
    doctor
    road policy
    key instances
    aws ssh
    net target
    system
";

/// Paths, and the only files that may contain them. A path that ends in `*` stands for all that begin so, a
/// file that ends in `/` for all below it.
const CONFINED: &str = "
    aws_*: aws.rs aws/ key/one_time/rsa.rs net/network.rs
    clap: cli.rs cli/
    crossterm: commands/pick.rs
    dns_lookup: aws/client/connections.rs
    ec2_sandbox: commands/sandbox.rs
    ed25519_dalek: key/one_time.rs
    getrandom: key/one_time.rs road/error.rs road/session.rs system/jitter.rs
    hyper_util: aws/client/connections.rs aws/client/http_client.rs net/network.rs net/websocket/
    std::env: aws/credentials/sso/device_flow.rs aws/load.rs commands/first_process.rs commands/sandbox.rs
        environment.rs main.rs net/network.rs system/descriptors.rs system/tty.rs
    std::process::exit:
    std::thread:
    tokio::net: key/agent/serve.rs key/agent/socket.rs net/websocket/connect.rs road/stdio.rs
        system/private_socket.rs
    tokio::spawn:
    tokio_rustls: aws/error/explain.rs net/network.rs net/websocket.rs net/websocket/
    tokio_tungstenite: net/websocket.rs net/websocket/ road/tunnel/
    tracing_subscriber: commands/runtime.rs
    std::io::stdout: road/stdio.rs ui.rs
    tokio::io::stdout: road/stdio.rs ui.rs
";

/// Files that only compute. Of the standard library they use `PURE_STD`, and no crate of `IMPURE`.
const PURE: &str = "
    aws/client/endpoint.rs
    aws/client/error_response.rs
    aws/client/query.rs
    aws/client/request_id.rs
    aws/client/service.rs
    aws/credentials/identity.rs
    aws/credentials/identity/sso.rs
    aws/credentials/ini.rs
    aws/credentials/mfa.rs
    aws/credentials/process/words.rs
    aws/credentials/sign_in.rs
    aws/credentials/variables.rs
    commands/pick/picker.rs
    commands/proxy/login_watch.rs
    doctor/diagnosis/kept_back.rs
    doctor/diagnosis/sshd_files.rs
    doctor/report.rs
    instances/default_user.rs
    key/agent/protocol.rs
    net/websocket/url.rs
    policy.rs
    policy/write.rs
    ssh/config.rs
    ssh/config/agent_socket.rs
    ssh/config/hosts.rs
    ssh/config/include.rs
    ssh/config/installed.rs
    ssh/host_key.rs
    ssh/host_key/evidence.rs
    ssh/own_files.rs
    ssh/own_options.rs
    ssh/quote.rs
    ssh/transfer.rs ssh/transfer/mistake.rs ssh/transfer/remote.rs ssh/transfer/settings.rs ssh/transfer/ssh.rs
    ssh/wire.rs
    target.rs
";
const PURE_STD: &str = "
    std::collections std::ffi std::fmt std::iter std::net::IpAddr std::net::Ipv6Addr std::ops std::path std::str
    std::string std::time::Duration
";
const IMPURE: &str = "aws_config getrandom rustix tokio tracing";

/// Macros that no file may call: standard output is ssh's. `ui.rs` writes to it without them.
const PRINTING: &str = "dbg eprint eprintln print println";

/// Files that may use each other: a role is assumed with the credentials of another profile, and those may be
/// cached.
const RECURSIVE: [&str; 2] = ["aws/credentials/assume_role.rs", "aws/credentials/cache.rs"];

/// All that the channel's crate may depend on: nothing that could do I/O or know the time.
const CHANNEL_DEPENDENCIES: &str = "bytes serde serde_json sha2 thiserror";

#[test]
fn rooms_use_only_floors_below() {
    let floors: Vec<Vec<_>> = FLOORS.trim().lines().map(|floor| floor.split_whitespace().collect()).collect();
    let floor = |room: &str| floors.iter().position(|floor| floor.contains(&room));
    let mut broken = Vec::new();
    for (file, source) in SOURCES.iter() {
        let own = file.split(['/', '.']).next().unwrap();
        let own_floor = floor(own).unwrap_or_else(|| panic!("{file} is on no floor"));
        for path in source.paths.iter().filter(|path| path.starts_with("crate::")) {
            let room = path.split("::").nth(1).unwrap();
            if room != own && floor(room).is_none_or(|floor| floor <= own_floor) {
                broken.push(format!("{file} uses {path}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "not below, by FLOORS");
}

#[test]
fn crates_stay_where_they_belong() {
    let mut confined = BTreeMap::<_, Vec<_>>::new();
    let mut path = "";
    for word in CONFINED.split_whitespace() {
        path = word.strip_suffix(':').unwrap_or(path);
        confined.entry(path).or_default().extend((!word.ends_with(':')).then_some(word));
    }
    let is_at = |file: &str, place: &str| file == place || (place.ends_with('/') && file.starts_with(place));
    for (path, places) in confined {
        for place in &places {
            assert!(SOURCES.keys().any(|file| is_at(file, place)), "there is no {place} any more");
        }
        let elsewhere = |file: &str| !places.iter().any(|place| is_at(file, place));
        let broken: Vec<_> = users(path).into_iter().filter(|file| elsewhere(file)).collect();
        assert_eq!(broken, Vec::<&str>::new(), "may not use {path}, by CONFINED");
    }
    let aws = SOURCES["net/network.rs"].paths.iter().filter(|path| begins(path, "aws_*"));
    assert_eq!(
        aws.filter(|path| !begins(path, "aws_lc_rs")).count(),
        0,
        "the network needs only cryptography"
    );
}

fn users(pattern: &str) -> Vec<&'static str> {
    let users = SOURCES.iter().filter(|(_, source)| source.paths.iter().any(|path| begins(path, pattern)));
    users.map(|(file, _)| file.as_str()).collect()
}

#[test]
fn pure_files_do_nothing_but_compute() {
    for file in PURE.split_whitespace() {
        let source = SOURCES.get(file).unwrap_or_else(|| panic!("there is no {file} any more"));
        let impure = source.paths.iter().filter(|path| {
            let allowed = |patterns: &str| patterns.split_whitespace().any(|pattern| begins(path, pattern));
            allowed(IMPURE) || (path.starts_with("std::") && !allowed(PURE_STD))
        });
        assert_eq!(impure.collect::<Vec<_>>(), Vec::<&String>::new(), "{file} only computes");
    }
}

#[test]
fn nothing_prints_but_the_ui() {
    for (file, source) in SOURCES.iter() {
        let printing = PRINTING.split_whitespace().filter(|name| source.macros.contains(*name));
        assert_eq!(printing.collect::<Vec<_>>(), Vec::<&str>::new(), "{file}: standard output is ssh's");
    }
}

#[test]
fn no_two_files_use_each_other() {
    let circles = source::circles(&SOURCES);
    let broken: Vec<_> = circles.iter().filter(|circle| **circle != RECURSIVE.map(str::to_owned)).collect();
    assert_eq!(broken, Vec::<&Vec<String>>::new(), "a circle of files: move what they share to a third one");
}

#[test]
fn the_crates_below_know_nothing_of_this_one() {
    let channel = dependencies("ssm-channel", "dependencies");
    assert_eq!(channel, CHANNEL_DEPENDENCIES.split_whitespace().map(str::to_owned).collect());
    for section in ["dependencies", "dev-dependencies"] {
        let sandbox = dependencies("ec2-sandbox", section);
        assert!(!sandbox.contains("ssh_ec2"), "a peer that shared our code would share our mistakes");
    }
}

fn dependencies(package: &str, section: &str) -> BTreeSet<String> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let manifest = fs::read_to_string(crates.join(package).join("Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
