//! The names of the options that every command of `ssh_ec2` shares. A room below `cli` cannot ask it for
//! them, so a test in `commands/options.rs` compares this list with `cli::Common`. (Pure.)

/// Whether the option with this name takes a value. None if there is no such option.
///
/// `--verbose` is not listed: ssh, scp and rsync have `-v`, and rsync has `--verbose`, as well.
pub(super) fn takes_value(name: &str) -> Option<bool> {
    OWN_OPTIONS.iter().find(|(own, _)| *own == name).map(|(_, takes_value)| *takes_value)
}

const OWN_OPTIONS: [(&str, bool); 8] = [
    ("--profile", true),
    ("--region", true),
    ("--newest", false),
    ("--any", false),
    ("--batch", false),
    ("--reason", true),
    ("--key-file", true),
    ("--key-type", true),
];
