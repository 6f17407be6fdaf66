//! The `Host` lines of the blocks, for instance ids and for names with a suffix. (Pure.)
//!
//! A user's own hosts may begin with `i-` and `mi-` as well, so the lines match ids by their length, and
//! exclude hosts with a character that is no hexadecimal digit. ssh_config has no character classes, but a
//! negated pattern excludes a host even if other patterns match.

/// `Host` and the patterns of every instance id.
pub(super) fn ids() -> String {
    header(&[INSTANCE, MANAGED_NODE].concat())
}

/// `Host` and the patterns of EC2's ids, without managed nodes, to which no key can be pushed.
pub(super) fn instances() -> String {
    header(INSTANCE)
}

/// `Host` and the pattern of every name with a suffix.
pub(super) fn names(suffix: &str) -> String {
    format!("Host *.{suffix}\n")
}

/// `Host` and the patterns of the names with a suffix, without ids of managed nodes.
pub(super) fn names_of_instances(suffix: &str) -> String {
    format!("Host *.{suffix} !{}.*\n", MANAGED_NODE.concat())
}

fn header(ids: &[&str]) -> String {
    let mut line = format!("Host {} !*.* !*_* !*-*-*", ids.join(" "));
    // Both cases: ssh compares the host as it was typed, before it makes it lower case.
    for letter in ('g'..='z').chain('G'..='Z') {
        line.push_str(&format!(" !*-*{letter}*"));
    }
    line + "\n"
}

/// The same blocks for hosts with a `HostName`: `Match host` compares that name, `Host` the one that was
/// typed.
pub(super) fn by_host_name(file: &str) -> String {
    let lines = file.lines().map(|line| match line.strip_prefix("Host ") {
        Some(patterns) => format!("Match host {}\n", patterns.replace(' ', ",")),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// EC2's ids have 8 or 17 digits.
const INSTANCE: &[&str] = &["i-????????", "i-?????????????????"];
/// The ids of managed nodes have 17.
const MANAGED_NODE: &[&str] = &["mi-?????????????????"];
