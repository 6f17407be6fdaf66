//! The only file that prints. Standard error is for people; standard output has the result of a command. The
//! SSH bytes of the proxy do not pass through here.

use std::io::{self, IsTerminal, Write};
use std::time::SystemTime;

use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

use crate::error::Failure;
use crate::system::explain::Explain as _;

/// Whether standard input, output and error are a terminal.
pub(crate) fn is_interactive() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal() && io::stderr().is_terminal()
}

/// Prints an error: the message with its causes, then the hints.
pub(crate) fn error(error: &Failure) {
    error_lines(error).iter().for_each(|text| line(text));
}

/// The lines of [`error`], for another process to print.
pub(crate) fn error_lines(error: &Failure) -> Vec<String> {
    let mut lines = vec![format!("error: {}", error.chain())];
    lines.extend(error.details(SystemTime::now()));
    // Two lines in all, as ssh and its callers print lines of their own.
    let link = error.link().map(|link| format!("more: {link}"));
    let hints: Vec<_> = error.hints().into_iter().chain(link).collect();
    match hints.as_slice() {
        [] => {}
        [only] if only.starts_with("more: ") => lines.push(only.clone()),
        hints => lines.push(format!("hint: {}", hints.join("; "))),
    }
    lines
}

/// Prints a line for the waiting user.
pub(crate) fn note(text: &str) {
    line(text);
}

/// Prints the result of a command on standard output.
///
/// # Errors
///
/// When it cannot be written. A closed pipe is not an error.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Prints text on standard error as it is.
pub(crate) fn explain(text: &str) {
    // There is no other place to report that standard error is closed.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Makes foreign text safe for a terminal: control characters, and characters that hide or reorder the
/// following text, become replacement characters.
pub(crate) fn sanitise(text: &str) -> String {
    text.chars().map(|character| if is_harmful(character) { '\u{fffd}' } else { character }).collect()
}

/// [`sanitise`] for JSON, as escapes: parsers still read the original text. JSON itself escapes only some of
/// these.
pub(crate) fn escape_json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        // Outside of strings, JSON has only line breaks.
        if is_harmful(character) && character != '\n' {
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            escaped.push(character);
        }
    }
    escaped
}

fn is_harmful(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

/// Shortens text to `width` columns, with an ellipsis. Characters without a width, such as combining accents,
/// are limited too.
pub(crate) fn shorten(text: &str, width: usize) -> String {
    let limit = 4 * width;
    if text.width() <= width && text.chars().nth(limit).is_none() {
        return text.to_owned();
    }
    let (mut short, mut used) = (String::new(), 0);
    for character in text.chars().take(limit) {
        used += character.width().unwrap_or(0);
        if used >= width {
            break;
        }
        short.push(character);
    }
    short + "…"
}

/// Rows of cells as lines of columns, two spaces apart.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.width()).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(cell);
            line.extend(std::iter::repeat_n(' ', width - cell.width() + 2));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The writer of the log: an event is one sanitised line on standard error, because it may have foreign text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log;

impl Write for Log {
    /// The subscriber writes an event as a whole.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        whole_line(String::from_utf8_lossy(event).trim_end());
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(text: &str) {
    whole_line(&format!("ssh_ec2: {text}"));
}

fn whole_line(text: &str) {
    // ssh has set the terminal to raw mode when the proxy prints: a newline alone would not return the
    // carriage.
    let end = if io::stderr().is_terminal() { "\r\n" } else { "\n" };
    explain(&(shorten(&sanitise(text), LINE_WIDTH) + end));
}

/// More than the longest line, which has a public RSA key. Foreign text could be endless.
const LINE_WIDTH: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(sanitise("web\u{1b}[2J\r\n1\u{9b}"), "web\u{fffd}[2J\u{fffd}\u{fffd}1\u{fffd}");
        assert_eq!(sanitise("größe 字"), "größe 字");
        assert_eq!(sanitise("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn json_means_the_same_when_it_is_harmless() {
        let value = serde_json::json!({ "name": "a\u{9b}2J\u{202e}\u{feff}\u{7f}\n\u{1b}é😀" });
        let escaped = escape_json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(escaped.chars().all(|character| character == '\n' || !is_harmful(character)), "{escaped:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&escaped).unwrap(), value);
    }

    #[test]
    fn tables_are_aligned_by_what_is_seen() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(align(&[row(["字", "x"]), row(["abc", "yz"]), row(["", ""])]), "字   x\nabc  yz\n\n");
        assert_eq!(shorten("abcdef", 6), "abcdef");
        assert_eq!(shorten("abcdefg", 6), "abcde…");
        assert_eq!(shorten("字字字字", 6), "字字…");
        assert_eq!(shorten(&format!("e{}", "\u{301}".repeat(1_000_000)), 6).chars().count(), 25);
    }
}
