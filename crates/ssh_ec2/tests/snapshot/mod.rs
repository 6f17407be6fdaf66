//! Texts that users read, kept in files, so that a review sees every change of a word.

use std::path::Path;
use std::{env, fs};

/// Compares a text with the file at `path`, which is relative to this crate. With `SNAPSHOTS=overwrite` in
/// the environment, writes it to the file instead.
pub(crate) fn assert_snapshot(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if env::var("SNAPSHOTS").is_ok_and(|value| value == "overwrite") {
        fs::write(&file, text).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let mut lines = (1..).zip(kept.lines().map(Some).chain([None]).zip(text.lines().map(Some).chain([None])));
    if let Some((number, (kept, now))) = lines.find(|(_, (kept, now))| kept != now) {
        panic!(
            "{path} has other words; if the new ones are meant, run the test again with SNAPSHOTS=overwrite\n\
             line {number}: {}\n     now: {}",
            kept.unwrap_or("(its end)"),
            now.unwrap_or("(its end)")
        );
    }
}
