//! The form of comments, in all crates and the fuzz targets.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn comment_lines_are_no_wider_than_the_code() {
    let configuration = fs::read_to_string(root().join("rustfmt.toml")).unwrap();
    let limit = configuration.lines().find_map(|line| line.strip_prefix("max_width = ")).unwrap();
    let limit: usize = limit.parse().unwrap();
    // A link cannot be broken.
    let is_long = |line: &str| line.chars().count() > limit && line.split_whitespace().count() > 2;
    assert_eq!(comments(is_long), Vec::<String>::new(), "over {limit} columns");
}

#[test]
fn the_subject_of_a_comment_is_a_thing_that_acts() {
    let begins_with_who = |line: &str| {
        let text = line.trim_start_matches(['/', '!', ' ']).to_lowercase();
        text.starts_with("who ") || text.starts_with("whoever ")
    };
    assert_eq!(comments(begins_with_who), Vec::<String>::new(), "name the program, file or user that acts");
}

/// The lines that are comments and match, by file and number.
fn comments(matches: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    let mut directories = vec![root().join("crates"), root().join("fuzz")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let comments = text.lines().zip(1..).filter(|(line, _)| line.trim_start().starts_with("//"));
                let broken = comments.filter(|(line, _)| matches(line));
                found.extend(broken.map(|(line, number)| format!("{}:{number}: {line}", path.display())));
            }
        }
    }
    found
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
