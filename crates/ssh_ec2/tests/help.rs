//! What `--help` prints, kept in files.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use self::snapshot::assert_snapshot;

mod snapshot;

#[test]
fn the_help_of_every_command_is_in_a_file() {
    let whole = help(&["--help"]);
    let listed = whole.lines().skip_while(|line| *line != "Commands:").skip(1);
    let listed = listed.take_while(|line| !line.is_empty()).filter(|line| !line.starts_with("   "));
    let commands: Vec<_> = listed.map(|line| line.split_whitespace().next().unwrap()).collect();
    assert!(commands.contains(&"sandbox"), "{whole}");
    assert_snapshot("tests/help/ssh_ec2.txt", &whole);
    for command in &commands {
        assert_snapshot(&format!("tests/help/{command}.txt"), &help(&[command, "--help"]));
    }
    let files = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/help")).unwrap();
    let files: BTreeSet<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
    let expected = commands.iter().chain([&"ssh_ec2"]).map(|command| format!("{command}.txt"));
    assert_eq!(files, expected.collect(), "a file without a command");
}

fn help(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ssh_ec2"));
    // Without a terminal, the lines are as wide as the environment says.
    command.args(arguments).env("COLUMNS", "100").env("HOME", "/nonexistent").stdin(Stdio::null());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}
