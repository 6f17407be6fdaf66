//! The `Host` lines of our blocks, which match ids and names.
//!
//! A user's own hosts may begin with `i-` and `mi-` as well, so the lines match ids by their length, and
//! exclude hosts with a character that is no hexadecimal digit. ssh_config has no classes of characters, but
//! a negated pattern excludes a host even if others match.

/// `Host` and the patterns of every instance id.
pub(super) fn ids() -> String {
    header(&[INSTANCE, MANAGED_NODE].concat())
}

/// `Host` and the patterns of ids of EC2, to which a key can be pushed.
pub(super) fn instances() -> String {
    header(INSTANCE)
}

/// `Host` and the pattern of every name below a suffix.
pub(super) fn names(suffix: &str) -> String {
    format!("Host *.{suffix}\n")
}

/// `Host` and the patterns of the names below a suffix that stand for no managed node.
pub(super) fn names_of_instances(suffix: &str) -> String {
    format!("Host *.{suffix} !{}.*\n", MANAGED_NODE.concat())
}

fn header(ids: &[&str]) -> String {
    let mut line = format!("Host {} !*.* !*_* !*-*-*", ids.join(" "));
    // ssh compares a host as it was typed, and then makes it lower case.
    for letter in ('g'..='z').chain('G'..='Z') {
        line.push_str(&format!(" !*-*{letter}*"));
    }
    line + "\n"
}

/// The same blocks for hosts that got their name from `HostName`, which `Match host` compares, and `Host`
/// does not.
pub(super) fn by_host_name(file: &str) -> String {
    let lines = file.lines().map(|line| match line.strip_prefix("Host ") {
        Some(patterns) => format!("Match host {}\n", patterns.replace(' ', ",")),
        None => format!("{line}\n"),
    });
    lines.collect()
}

/// EC2 has two lengths of ids.
const INSTANCE: &[&str] = &["i-????????", "i-?????????????????"];
/// Systems Manager has one.
const MANAGED_NODE: &[&str] = &["mi-?????????????????"];
