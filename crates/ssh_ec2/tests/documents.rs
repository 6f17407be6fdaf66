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

#[test]
fn every_source_file_that_a_document_names_exists() {
    let bases = [
        "",
        "crates/ssh_ec2",
        "crates/ssh_ec2/src",
        "crates/ssh_ec2/tests",
        "crates/ssm-channel/src",
        "crates/ec2-sandbox/src",
    ];
    let exists = |path: &str| bases.iter().any(|base| root().join(base).join(path).is_file());
    let mut named = Vec::new();
    for document in documents() {
        named.extend(in_code(&read(&document)).map(|path| (document.clone(), path)));
    }
    named.retain(|(_, path)| path.ends_with(".rs"));
    assert!(named.len() > 150, "the documents are read: {named:?}");
    named.retain(|(_, path)| !exists(path));
    assert!(named.is_empty(), "there are no such files: {named:#?}");
}

#[test]
fn the_architecture_names_every_room() {
    let text = read("docs/architecture.md");
    let named: BTreeSet<_> = in_code(&text).collect();
    for entry in fs::read_dir(root().join("crates/ssh_ec2/src")).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let name = if entry.path().is_dir() { name + "/" } else { name };
        assert!(named.contains(&name), "{name} is not in docs/architecture.md");
    }
}

#[test]
fn the_architecture_lists_the_same_files_as_the_module_that_has_their_paths() {
    let text = read("docs/architecture.md");
    let section = text.split("\n## ").find(|section| section.starts_with("Files that")).unwrap();
    let module = read("crates/ssh_ec2/src/ssh/own_files.rs");
    let listed: Vec<_> = section.lines().filter(|line| line.starts_with("| ")).collect();
    let documented = module.lines().filter_map(|line| line.strip_prefix("//! "));
    assert_eq!(listed, documented.filter(|line| line.starts_with("| ")).collect::<Vec<_>>());
    assert!(listed.len() > 25, "the tables are read: {listed:?}");
}

#[test]
fn the_readme_lists_every_broken_instance() {
    let catalogue = read("crates/ec2-sandbox/src/world/catalogue.rs");
    let ids: BTreeSet<_> = catalogue.split('"').filter(|word| word.starts_with("i-0dead")).collect();
    let readme = read("README.md");
    let absent: Vec<_> = ids.iter().filter(|id| !readme.contains(&format!("\n| `{id}` | "))).collect();
    assert!(absent.is_empty() && ids.len() > 20, "README.md lacks {absent:?} of {ids:?}");
}

#[test]
fn the_table_of_limits_has_the_values_of_the_sources() {
    let listed: BTreeSet<_> = read("docs/limits.md").lines().filter_map(Limit::in_row).collect();
    let constants = constants();
    let wrong: Vec<_> = listed.difference(&constants).collect();
    assert!(wrong.is_empty() && listed.len() > 150, "docs/limits.md and the sources differ: {wrong:#?}");
    let times: BTreeSet<_> = constants.into_iter().filter(|limit| limit.is_time).collect();
    let absent: Vec<_> = times.difference(&listed).collect();
    assert!(absent.is_empty(), "docs/limits.md lacks these: {absent:#?}");
}

#[test]
fn values_are_read_alike_from_sources_and_tables() {
    for (declared, shown) in [
        ("END: Duration = Duration::from_secs(20 * 60);", "20 min"),
        ("END: Duration = Duration::from_secs(60);", "60 s"),
        ("END: Duration = Duration::from_millis(3_100);", "3100 ms"),
        ("END: usize = 2 * 1024 * 1024;", "2 MiB"),
        ("END: usize = 32 << 10;", "32 KiB"),
        ("END: u32 = 8 * 1024;", "8192"),
    ] {
        let row = format!("| `END` | {shown} | the end | `road/end.rs` |");
        let file = Path::new("crates/ssh_ec2/src/road/end.rs");
        assert_eq!(Limit::in_row(&row), Limit::declared(file, declared), "{shown}");
        assert!(Limit::in_row(&row).is_some(), "{shown}");
    }
    assert_eq!(Limit::declared(Path::new("end.rs"), "END: &str = \"2\";"), None);
}

/// A constant that bounds something.
#[derive(Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Limit {
    file: PathBuf,
    name: String,
    is_time: bool,
    /// In milliseconds, if it is a time.
    value: u64,
}

impl Limit {
    /// Reads a row of a table: name, value, meaning, file.
    fn in_row(row: &str) -> Option<Self> {
        let cells: Vec<_> = row.strip_prefix("| `")?.split(" | ").collect();
        let [name, value, _, file] = cells[..] else { return None };
        let file = file.strip_prefix('`')?.strip_suffix("` |")?;
        let base = if file.starts_with("crates/") { "" } else { "crates/ssh_ec2/src" };
        let (number, unit) = value.split_once(' ').unwrap_or((value, ""));
        let (is_time, factor) = match unit {
            "ms" => (true, 1),
            "s" => (true, 1000),
            "min" => (true, 60 * 1000),
            "KiB" => (false, 1024),
            "MiB" => (false, 1024 * 1024),
            "" => (false, 1),
            _ => return None,
        };
        let value = number.parse::<u64>().ok()? * factor;
        Some(Self {
            file: Path::new(base).join(file),
            name: name.strip_suffix('`')?.to_owned(),
            is_time,
            value,
        })
    }

    /// Reads the rest of a line behind `const`. None for other types, and for values that are no arithmetic.
    fn declared(file: &Path, text: &str) -> Option<Self> {
        let (name, rest) = text.split_once(": ")?;
        let (kind, expression) = rest.strip_suffix(';')?.split_once(" = ")?;
        let inside = |function: &str| number(expression.strip_prefix(function)?.strip_suffix(')')?);
        let (is_time, value) = match kind {
            "Duration" => {
                let seconds = inside("Duration::from_secs(").map(|seconds| seconds * 1000);
                (true, seconds.or_else(|| inside("Duration::from_millis("))?)
            }
            "u32" | "u64" | "usize" => (false, number(expression)?),
            _ => return None,
        };
        Some(Self { file: file.to_owned(), name: name.to_owned(), is_time, value })
    }
}

/// The value of a sum, product or shift.
fn number(expression: &str) -> Option<u64> {
    for (operator, apply) in OPERATORS {
        if let Some((left, right)) = expression.rsplit_once(operator) {
            return Some(apply(number(left)?, number(right)?));
        }
    }
    expression.replace('_', "").parse().ok()
}

type Operator = (&'static str, fn(u64, u64) -> u64);
/// Those that bind least come first.
const OPERATORS: [Operator; 4] =
    [(" << ", |a, b| a << b), (" + ", |a, b| a + b), (" - ", |a, b| a - b), (" * ", |a, b| a * b)];

/// The limits in the sources.
fn constants() -> BTreeSet<Limit> {
    let mut files = Vec::new();
    for directory in ["crates/ssh_ec2/src", "crates/ssm-channel/src"] {
        sources_below(&root().join(directory), &mut files);
    }
    let mut constants = BTreeSet::new();
    for path in files {
        let file = path.strip_prefix(root()).unwrap();
        if file.ends_with("tests.rs") || file.components().any(|part| part.as_os_str() == "tests") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let code = text.split("\nmod tests {").next().unwrap();
        let declared = code.lines().filter_map(|line| line.split_once("const "));
        constants.extend(declared.filter_map(|(_, text)| Limit::declared(file, text)));
    }
    constants
}

/// The documents of the repository, without licences.
fn documents() -> Vec<String> {
    let in_docs = fs::read_dir(root().join("docs")).unwrap().map(|entry| entry.unwrap().file_name());
    let in_docs = in_docs.map(|name| format!("docs/{}", name.into_string().unwrap()));
    ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
        .map(str::to_owned)
        .into_iter()
        .chain(in_docs)
        .collect()
}

/// The paths in code quotes, with each of their alternatives.
fn in_code(text: &str) -> impl Iterator<Item = String> + '_ {
    let quoted = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    quoted.filter(|name| !name.contains(' ')).flat_map(alternatives)
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`.
fn alternatives(name: &str) -> Vec<String> {
    let Some((before, rest)) = name.split_once('{') else { return vec![name.to_owned()] };
    let Some((choices, after)) = rest.split_once('}') else { return vec![name.to_owned()] };
    choices.split(',').flat_map(|choice| alternatives(&format!("{before}{choice}{after}"))).collect()
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
