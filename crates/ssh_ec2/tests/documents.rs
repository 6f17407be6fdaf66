//! The facts that the documents state about the sources, compared with the sources.

#![expect(clippy::unwrap_used, reason = "a panic in a helper of a test is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn every_test_that_the_threat_model_names_exists() {
    let named = named_tests(&read("docs/threat-model.md"));
    assert!(named.len() > 40, "the tables are read: {named:?}");
    let existing = existing_tests();
    let absent: Vec<_> = named.difference(&existing).collect();
    assert!(absent.is_empty(), "there are no such tests: {absent:?}");
}

#[test]
fn a_claim_without_a_test_says_so() {
    for row in rows(&read("docs/threat-model.md")) {
        assert!(row == "–" || row.contains('`'), "the last cell of a row is {row:?}");
    }
}

#[test]
fn only_tests_count_as_such() {
    let text =
        "fn helper() {}\n#[test]\nfn one_two() {}\n#[tokio::test(start_paused = true)]\nasync fn three() {\n";
    assert_eq!(tests_in(text).collect::<Vec<_>>(), ["one_two", "three"]);
    let table = "| They | Shown by |\n|---|---|\n| `not_this` | `one_two` `three` |\n\n| A | B |\n|---|---|\n| a | `b` |\n";
    assert_eq!(rows(table), ["`one_two` `three`"]);
}

/// The last cells of the tables that have the last column "Shown by".
fn rows(text: &str) -> Vec<String> {
    let (mut rows, mut inside) = (Vec::new(), false);
    for line in text.lines() {
        let Some(line) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            inside = false;
            continue;
        };
        let cell = line.rsplit('|').next().unwrap().trim();
        if inside && cell != "---" {
            rows.push(cell.to_owned());
        }
        inside |= cell == "Shown by";
    }
    rows
}

fn named_tests(text: &str) -> BTreeSet<String> {
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
    // In prose, words in code quotes that read like a sentence.
    let prose = text.lines().filter(|line| !line.starts_with('|'));
    let in_prose = prose.flat_map(names).filter(|name| name.matches('_').count() > 3 && !name.contains('/'));
    rows(text).iter().flat_map(|cell| names(cell)).chain(in_prose).collect()
}

fn existing_tests() -> BTreeSet<String> {
    let mut files = Vec::new();
    sources_below(&root().join("crates"), &mut files);
    files.iter().flat_map(|file| tests_in(&fs::read_to_string(file).unwrap()).collect::<Vec<_>>()).collect()
}

fn tests_in(text: &str) -> impl Iterator<Item = String> {
    let is_test = |line: &str| line.trim_start().starts_with("#[") && line.contains("test");
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    let pairs: Vec<_> =
        lines.windows(2).filter(|pair| is_test(&pair[0])).map(|pair| pair[1].clone()).collect();
    pairs.into_iter().filter_map(|line| {
        let (_, name) = line.split_once("fn ")?;
        Some(name.split('(').next()?.to_owned())
    })
}

fn sources_below(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources_below(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}
