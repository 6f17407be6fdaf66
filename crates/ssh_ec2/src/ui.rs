//! The only file that prints. People read standard error; standard output carries what a command was asked for,
//! and SSH bytes in proxy mode, which do not pass through here.

use std::io::{self, IsTerminal, Write};

use crate::error::Failure;

/// An error: what was seen, each cause below it, and what to do next.
pub fn error(error: &Failure) {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    line(&format!("error: {text}"));
    for hint in error.hints() {
        line(&format!("hint: {hint}"));
    }
}

/// A line for the user who waits.
pub fn note(text: &str) {
    line(text);
}

/// What a command was asked for.
///
/// # Errors
/// When standard output does not take it; a closed pipe is no error.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}

/// Text for standard error, as it is.
pub fn explain(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Makes foreign text harmless for a terminal: control characters are shown, not obeyed.
pub fn sanitise(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn line(text: &str) {
    // ssh has the terminal in raw mode while the proxy speaks: a bare newline would not return the carriage.
    let end = if io::stderr().is_terminal() { "\r\n" } else { "\n" };
    explain(&format!("ssh_ec2: {}{end}", sanitise(text)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(sanitise("web\u{1b}[2J\r\n1\u{9b}"), "web\u{fffd}[2J\u{fffd}\u{fffd}1\u{fffd}");
        assert_eq!(sanitise("größe 字"), "größe 字");
    }
}
