//! Errors as one text, and foreign text on one line.

use std::error::Error;

/// The message of an error, followed by those of its causes that it does not contain already.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Foreign text, made safe for a terminal: without control characters, with single spaces, cut after
/// `limit` characters.
pub(crate) fn foreign_text(text: &str, limit: usize) -> String {
    // Besides C0 and C1: characters that are invisible, break a line, or change the direction of text.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut clean = String::new();
    for word in text.split(|c: char| c.is_whitespace() || hidden(c)).filter(|word| !word.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    match clean.char_indices().nth(limit) {
        Some((end, _)) => format!("{}…", &clean[..end]),
        None => clean,
    }
}

/// A text of the SSM agent on one line, without empty lines and lines that begin with `-----`. The agent
/// reports a failure as an empty line, the line `----------ERROR-------`, and the message.
pub(crate) fn one_line(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("-----"));
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_ssm_agent_says_in_lines_is_said_in_one() {
        let text = "\n----------ERROR-------\nUnable to start command: Failed to parse\r\n the input\n\n";
        assert_eq!(one_line(text), "Unable to start command: Failed to parse the input");
        assert_eq!(one_line("one line - of it"), "one line - of it");
        assert_eq!(one_line(""), "");
    }

    #[test]
    fn foreign_text_loses_control_characters_and_length() {
        assert_eq!(foreign_text(" a\u{1b}[31mred\r\n\tb\u{202e}c ", 99), "a [31mred b c");
        assert_eq!(foreign_text("éééé", 2), "éé…");
        assert_eq!(foreign_text("ok", 2), "ok");
    }
}
