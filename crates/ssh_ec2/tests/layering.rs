//! Who may use whom, read from the sources. `docs/architecture.md` says why.
//!
//! A rule is a line in a table below. The reading is no parser of Rust: comments, strings and test code are cut out,
//! and what is left is searched for paths, which is all that the rules are about.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The modules from the ground up, each with those that it may use. All of these stand above it in the list, so
/// there is no circle.
const MODULES: [(&str, &[&str]); 15] = [
    ("system", &[]),
    ("net", &["system"]),
    ("target", &["system"]),
    ("aws", &["net", "system", "target"]),
    ("ssh", &["system", "target"]),
    ("key", &["aws", "ssh", "system", "target"]),
    ("cli", &["key", "ssh", "target"]),
    ("instances", &["aws", "net", "system", "target"]),
    ("policy", &["aws", "instances", "target"]),
    ("road", &["aws", "net", "system", "target"]),
    ("doctor", &["aws", "instances", "key", "net", "policy", "road", "ssh", "system", "target"]),
    ("error", &["aws", "doctor", "instances", "key", "net", "road", "ssh", "system", "target"]),
    ("environment", &["error", "instances", "ssh"]),
    ("ui", &["error", "system"]),
    (
        "commands",
        &[
            "aws",
            "cli",
            "doctor",
            "environment",
            "error",
            "instances",
            "key",
            "net",
            "policy",
            "road",
            "ssh",
            "system",
            "target",
            "ui",
        ],
    ),
];

/// Paths that only these files may contain. A path that ends in `*` stands for all that begin so; a file that ends
/// in `/` for all below it.
const CONFINED: [(&str, &[&str]); 16] = [
    ("aws_*", &["aws.rs", "aws/", "key/one_time/rsa.rs", "net/network.rs"]),
    ("clap", &["cli.rs", "cli/"]),
    ("crossterm", &["commands/pick.rs"]),
    ("dns_lookup", &["aws/client/connections.rs"]),
    ("ec2_sandbox", &["commands/sandbox.rs"]),
    ("ed25519_dalek", &["key/one_time.rs"]),
    ("getrandom", &["key/one_time.rs", "road/error.rs", "road/session.rs", "system/jitter.rs"]),
    (
        "hyper_util",
        &["aws/client/connections.rs", "aws/client/http_client.rs", "net/network.rs", "net/websocket/"],
    ),
    (
        "std::env",
        &[
            "aws/load.rs",
            "aws/credentials/sso/device_flow.rs",
            "commands/first_process.rs",
            "commands/sandbox.rs",
            "system/descriptors.rs",
            "environment.rs",
            "main.rs",
            "net/network.rs",
            "system/tty.rs",
        ],
    ),
    ("std::process::exit", &[]),
    ("std::thread", &[]),
    (
        "tokio::net",
        &[
            "key/agent/serve.rs",
            "key/agent/socket.rs",
            "system/private_socket.rs",
            "road/stdio.rs",
            "net/websocket/connect.rs",
        ],
    ),
    ("tokio::spawn", &[]),
    ("tokio_rustls", &["aws/error/explain.rs", "net/network.rs", "net/websocket.rs", "net/websocket/"]),
    ("tokio_tungstenite", &["road/tunnel/", "net/websocket.rs", "net/websocket/"]),
    ("tracing_subscriber", &["commands/runtime.rs"]),
];

/// Files that only compute. Of the standard library they use these modules, of others none that could do more.
const PURE: [&str; 38] = [
    "key/agent/protocol.rs",
    "aws/client/endpoint.rs",
    "aws/credentials/identity.rs",
    "aws/credentials/identity/sso.rs",
    "aws/credentials/mfa.rs",
    "aws/credentials/process/words.rs",
    "aws/credentials/ini.rs",
    "aws/client/query.rs",
    "aws/client/request_id.rs",
    "aws/client/service.rs",
    "aws/credentials/sign_in.rs",
    "aws/client/error_response.rs",
    "aws/credentials/variables.rs",
    "commands/proxy/login_watch.rs",
    "doctor/diagnosis/kept_back.rs",
    "doctor/diagnosis/sshd_files.rs",
    "ssh/host_key.rs",
    "ssh/host_key/evidence.rs",
    "instances/default_user.rs",
    "commands/pick/picker.rs",
    "policy.rs",
    "policy/write.rs",
    "doctor/report.rs",
    "ssh/config.rs",
    "ssh/config/agent_socket.rs",
    "ssh/config/hosts.rs",
    "ssh/config/include.rs",
    "ssh/config/installed.rs",
    "ssh/own_files.rs",
    "ssh/quote.rs",
    "target.rs",
    "ssh/transfer.rs",
    "ssh/transfer/mistake.rs",
    "ssh/transfer/remote.rs",
    "ssh/transfer/settings.rs",
    "ssh/transfer/ssh.rs",
    "ssh/wire.rs",
    "net/websocket/url.rs",
];
const PURE_STD: [&str; 11] = [
    "std::ffi",
    "std::collections",
    "std::fmt",
    "std::iter",
    "std::net::IpAddr",
    "std::net::Ipv6Addr",
    "std::ops",
    "std::path",
    "std::str",
    "std::string",
    "std::time::Duration",
];
const IMPURE: [&str; 5] = ["aws_config", "getrandom", "rustix", "tokio", "tracing"];

/// Standard output is ssh's. `ui.rs` writes to it without these.
const PRINTING: [&str; 5] = ["dbg", "eprint", "eprintln", "print", "println"];

/// All that the channel's crate may depend on: nothing that could do I/O or know the time.
const CHANNEL_DEPENDENCIES: [&str; 5] = ["bytes", "serde", "serde_json", "sha2", "thiserror"];

#[test]
fn every_module_is_in_the_table_and_uses_only_those_above_it() {
    let names: Vec<_> = MODULES.iter().map(|(name, _)| *name).collect();
    let found: BTreeSet<_> = sources().keys().map(|file| module_of(file)).collect();
    let known: BTreeSet<_> = names.iter().copied().chain(["lib", "main"]).map(str::to_owned).collect();
    assert_eq!(found, known, "a module came or went: give it a place in MODULES");
    for (at, (name, used)) in MODULES.iter().enumerate() {
        for used in *used {
            assert!(names[..at].contains(used), "{name} may not use {used}, which does not stand above it");
        }
    }
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let allowed: BTreeMap<_, _> = MODULES.into_iter().collect();
    let mut broken = Vec::new();
    for (file, code) in sources() {
        let module = module_of(&file);
        let Some(allowed) = allowed.get(module.as_str()) else { continue };
        for path in &code.paths {
            let parts: Vec<_> = path.split("::").collect();
            // As many `super` as there are folders and the file are another name for `crate`.
            let supers = parts.iter().take_while(|part| **part == "super").count();
            let used = match parts[0] {
                "crate" => parts[1],
                "super" if supers == file.matches('/').count() + 1 => parts[supers],
                _ => continue,
            };
            if used != module && !allowed.contains(&used) {
                broken.push(format!("{file} uses {path}"));
            }
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "not allowed by MODULES");
}

#[test]
fn crates_stay_where_they_belong() {
    let sources = sources();
    let mut broken = Vec::new();
    for (confined, places) in CONFINED {
        for place in places {
            assert!(sources.keys().any(|file| is_at(file, place)), "there is no {place} any more");
        }
        for (file, code) in &sources {
            if places.iter().any(|place| is_at(file, place)) {
                continue;
            }
            let paths = code.paths.iter().filter(|path| begins(path, confined));
            broken.extend(paths.map(|path| format!("{file} uses {path}")));
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "not allowed by CONFINED");
}

#[test]
fn the_network_knows_of_aws_only_its_cryptography() {
    let sources = sources();
    let foreign: Vec<_> =
        sources["net/network.rs"].paths.iter().filter(|path| begins(path, "aws_*")).collect();
    assert!(foreign.iter().all(|path| path.starts_with("aws_lc_rs::")), "{foreign:?}");
}

#[test]
fn pure_files_do_nothing_but_compute() {
    let sources = sources();
    let mut broken = Vec::new();
    for file in PURE {
        let code = sources.get(file).unwrap_or_else(|| panic!("there is no {file} any more"));
        let impure = code.paths.iter().filter(|path| {
            let std = path.starts_with("std::") && !PURE_STD.iter().any(|allowed| begins(path, allowed));
            std || IMPURE.iter().any(|impure| begins(path, impure))
        });
        broken.extend(impure.map(|path| format!("{file} uses {path}")));
    }
    assert_eq!(broken, Vec::<String>::new(), "these files only compute");
}

#[test]
fn nothing_prints_but_the_ui() {
    let mut broken = Vec::new();
    for (file, code) in sources() {
        let printing = code.macros.iter().filter(|name| PRINTING.contains(&name.as_str()));
        broken.extend(printing.map(|name| format!("{file} uses {name}!")));
        let standard = ["std::io::stdout", "io::stdout", "tokio::io::stdout"];
        if !["road/stdio.rs", "ui.rs"].contains(&file.as_str()) {
            let paths = code.paths.iter().filter(|path| standard.iter().any(|stdout| begins(path, stdout)));
            broken.extend(paths.map(|path| format!("{file} uses {path}")));
        }
    }
    assert_eq!(broken, Vec::<String>::new(), "standard output is ssh's");
}

#[test]
fn the_crates_below_know_nothing_of_this_one() {
    let channel = dependencies(&manifest("ssm-channel"), "dependencies");
    assert_eq!(channel, CHANNEL_DEPENDENCIES.map(str::to_owned).into());
    for section in ["dependencies", "dev-dependencies"] {
        let sandbox = dependencies(&manifest("ec2-sandbox"), section);
        assert!(!sandbox.contains("ssh_ec2"), "a peer that shared our code would share our mistakes");
    }
}

#[test]
fn the_reading_sees_through_comments_strings_and_tests() {
    let code = Code::read(
        r##"
        //! use tokio::net;
        use std::{fmt, io::{self, Read as _}};
        use crate::key::OneTimeKey as Key;
        const TEXT: &str = "std::fs::read \" println!"; /* std::env */
        const RAW: &str = r#"std::env::var " "#;
        fn f<'a>(quote: char) -> bool { print!("{}", aws_types::x()); quote == '"' && quote != '\'' }
        #[cfg(test)]
        mod tests { use tokio::net; fn g() { { std::fs::read("}") } } }
        #[cfg(test)]
        use std::thread;
        fn h() { std::process::abort() }
        "##,
    );
    let expected = [
        "aws_types::x",
        "crate::key::OneTimeKey",
        "std::fmt",
        "std::io",
        "std::io::Read",
        "std::process::abort",
    ];
    assert_eq!(code.paths.iter().map(String::as_str).collect::<Vec<_>>(), expected);
    assert_eq!(code.macros, ["print".to_owned()].into());
}

/// What the rules need to know of a file.
struct Code {
    /// Every path of at least two names, those of `use` written out.
    paths: BTreeSet<String>,
    /// Every macro that is called.
    macros: BTreeSet<String>,
}

impl Code {
    fn read(text: &str) -> Self {
        let tokens = without_tests(&tokens(text));
        let mut code = Self { paths: BTreeSet::new(), macros: BTreeSet::new() };
        let mut at = 0;
        while at < tokens.len() {
            if tokens[at] == "use" {
                let end = at + tokens[at..].iter().position(|token| token == ";").unwrap();
                flatten("", &tokens[at + 1..end], &mut code.paths);
                at = end;
            } else if is_name(&tokens[at]) {
                let mut path = tokens[at].clone();
                while tokens.get(at + 1).is_some_and(|token| token == "::") && is_name(&tokens[at + 2]) {
                    path = format!("{path}::{}", tokens[at + 2]);
                    at += 2;
                }
                let opens = |token: &String| ["(", "[", "{"].contains(&token.as_str());
                if tokens.get(at + 1).is_some_and(|token| token == "!")
                    && tokens.get(at + 2).is_some_and(opens)
                {
                    code.macros.insert(path.rsplit("::").next().unwrap().to_owned());
                }
                if path.contains("::") {
                    code.paths.insert(path);
                }
            }
            at += 1;
        }
        code
    }
}

/// Writes out a `use` tree.
fn flatten(prefix: &str, tree: &[String], paths: &mut BTreeSet<String>) {
    let mut path = prefix.to_owned();
    for (at, token) in tree.iter().enumerate() {
        match token.as_str() {
            "{" => {
                for branch in split_at_commas(&tree[at + 1..matching(tree, at)]) {
                    flatten(&path, branch, paths);
                }
                return;
            }
            "as" => break,
            "self" if !prefix.is_empty() => {}
            "::" => {}
            name => path = if path.is_empty() { name.to_owned() } else { format!("{path}::{name}") },
        }
    }
    if path.contains("::") {
        paths.insert(path);
    }
}

fn split_at_commas(tokens: &[String]) -> Vec<&[String]> {
    let (mut branches, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, token) in tokens.iter().enumerate() {
        match token.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            "," if depth == 0 => {
                branches.push(&tokens[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    branches.push(&tokens[start..]);
    branches.into_iter().filter(|branch| !branch.is_empty()).collect()
}

/// Cuts out every item that is compiled for tests only.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let attribute = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if tokens[at..].iter().map(String::as_str).take(attribute.len()).eq(attribute) {
            let end = at + tokens[at..].iter().position(|token| token == "{" || token == ";").unwrap();
            at = if tokens[end] == "{" { matching(tokens, end) } else { end };
        } else {
            kept.push(tokens[at].clone());
        }
        at += 1;
    }
    kept
}

fn matching(tokens: &[String], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return at,
            "}" => depth -= 1,
            _ => {}
        }
    }
    panic!("a brace is not closed")
}

/// Names, `::` and single characters, without comments, strings and character literals.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").unwrap() + 2
        } else if let Some(length) = literal_length(rest) {
            length
        } else if is_name_character(first) {
            let length = rest.find(|character| !is_name_character(character)).unwrap_or(rest.len());
            tokens.push(rest[..length].to_owned());
            length
        } else if rest.starts_with("::") {
            tokens.push("::".to_owned());
            2
        } else {
            if !first.is_whitespace() {
                tokens.push(first.to_string());
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string or character that `text` begins with, if it does.
fn literal_length(text: &str) -> Option<usize> {
    let plain = text.trim_start_matches(['b', 'c']);
    let prefix = text.len() - plain.len();
    if let Some(raw) = plain.strip_prefix('r').filter(|raw| raw.starts_with(['"', '#'])) {
        let hashes = raw.find(|character| character != '#')?;
        let end = format!("\"{}", &raw[..hashes]);
        let body = raw[hashes..].strip_prefix('"')?;
        return Some(prefix + 1 + hashes + 1 + body.find(&end)? + end.len());
    }
    let quote = plain.chars().next().filter(|character| matches!(character, '"' | '\''))?;
    // A lifetime has no second quote where a character has one.
    if quote == '\'' && !plain[1..].starts_with('\\') && plain[1..].chars().nth(1) != Some('\'') {
        return None;
    }
    let mut escaped = false;
    for (at, character) in plain.char_indices().skip(1) {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(prefix + at + 1),
            _ => {}
        }
    }
    None
}

fn is_name(token: &str) -> bool {
    token.chars().next().is_some_and(is_name_character)
}

fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// Whether `path` is `pattern` or below it.
fn begins(path: &str, pattern: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with("::")),
    }
}

fn is_at(file: &str, place: &str) -> bool {
    file == place || (place.ends_with('/') && file.starts_with(place))
}

/// The top-level module that a file belongs to.
fn module_of(file: &str) -> String {
    file.split('/').next().unwrap().trim_end_matches(".rs").to_owned()
}

/// Every source file below `src` but those of tests, by its path there.
fn sources() -> BTreeMap<String, Code> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let name = |file: &Path| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    let is_test = |file: &&PathBuf| file.iter().any(|part| part == "tests.rs" || part == "tests");
    let files = files.iter().filter(|file| !is_test(file));
    files.map(|file| (name(file), Code::read(&fs::read_to_string(file).unwrap()))).collect()
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn manifest(package: &str) -> String {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(crates.join(package).join("Cargo.toml")).unwrap()
}

fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let header = format!("[{section}]");
    let lines = manifest.lines().skip_while(|line| *line != header).skip(1);
    let lines = lines.take_while(|line| !line.starts_with('[')).filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| line.split(['.', ' ', '=']).next());
    names.filter(|name| !name.is_empty()).map(str::to_owned).collect()
}
