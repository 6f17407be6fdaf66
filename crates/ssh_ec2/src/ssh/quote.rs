//! Quotes words for what reads them next: a shell, or ssh with its tokens and its own splitting. (Pure.)

use std::ffi::OsStr;

/// One word for a POSIX shell.
pub(crate) fn shell_word(word: &OsStr) -> String {
    quote(&word.to_string_lossy(), b"_@%:,./+=-")
}

/// One word of a `ProxyCommand`: ssh replaces its tokens, and a shell runs the result.
pub(super) fn proxy_word(text: &str) -> String {
    escape_tokens(&quote(text, b"_@:,./+=-"))
}

fn quote(text: &str, plain: &[u8]) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || plain.contains(&byte)) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// One word for ssh, which splits the value of a setting, or a command that it runs without a shell.
pub(crate) fn split_word(text: &str) -> String {
    let special = |character: char| character.is_whitespace() || matches!(character, '"' | '\'' | '\\' | '#');
    if text.is_empty() || text.contains(special) {
        format!("\"{}\"", text.replace('\\', r"\\").replace('"', "\\\""))
    } else {
        text.to_owned()
    }
}

/// Keeps ssh from replacing `%` tokens in a value.
pub(crate) fn escape_tokens(text: &str) -> String {
    text.replace('%', "%%")
}

/// Whether ssh reads a value as it is written, in every setting. In some it replaces `${NAME}` by an
/// environment variable, and no escape prevents that; a line break ends the line.
pub(crate) fn is_literal(value: &str) -> bool {
    !value.contains("${") && !value.contains(['\n', '\r'])
}
