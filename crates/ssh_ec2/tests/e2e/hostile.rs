//! Hostile input, and its effect: an error that names it, or none at all.

mod answers;
mod files;
mod gateway;
mod key_agent;
mod names;
mod secrets;

use crate::harness::Ended;

/// Asserts that a program printed no control characters and no more than a few short lines.
#[track_caller]
fn assert_harmless(ended: &Ended) {
    let said = format!("{}{}", ended.text(), ended.stderr);
    assert!(said.len() < 64 * 1024, "{} bytes were said", said.len());
    assert!(!said.contains("panicked"), "{ended}");
    let obeyed = |character: char| {
        character.is_control()
            || matches!(character, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    assert!(said.chars().all(|character| character == '\n' || !obeyed(character)), "{said:?}");
    assert!(said.lines().all(|line| !line.starts_with("forged")), "{said}");
}
