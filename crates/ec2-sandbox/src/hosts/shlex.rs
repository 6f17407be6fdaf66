//! Splits a command into words as the SSM agent does, by the rules of Go's `github.com/google/shlex`, without
//! a shell.
//!
//! White space separates, a newline like a blank. Quotes and backslashes quote; in double quotes a backslash
//! quotes whatever follows. `#` at the start of a word begins a comment that ends with the line. Nothing is
//! expanded.

/// The words of `text`, or why its quotes are wrong.
pub(super) fn split(text: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.peek().copied() {
        match character {
            ' ' | '\t' | '\r' | '\n' => _ = characters.next(),
            '#' => _ = characters.find(|character| *character == '\n'),
            _ => words.push(word(&mut characters)?),
        }
    }
    Ok(words)
}

/// Reads one word and the character after it.
fn word(characters: &mut impl Iterator<Item = char>) -> Result<String, &'static str> {
    let mut word = String::new();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => break,
            '\\' => word.push(characters.next().ok_or(NO_CHARACTER)?),
            '\'' => loop {
                match characters.next().ok_or(NO_QUOTE)? {
                    '\'' => break,
                    quoted => word.push(quoted),
                }
            },
            '"' => loop {
                match characters.next().ok_or(NO_QUOTE)? {
                    '"' => break,
                    '\\' => word.push(characters.next().ok_or(NO_CHARACTER)?),
                    quoted => word.push(quoted),
                }
            },
            other => word.push(other),
        }
    }
    Ok(word)
}

const NO_QUOTE: &str = "EOF found when expecting closing quote";
const NO_CHARACTER: &str = "EOF found after escape character";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_the_ssm_agent() {
        for (text, words) in [
            ("", &[][..]),
            (" \t\r\n", &[]),
            ("ls /etc/host*", &["ls", "/etc/host*"]),
            ("echo one; echo two", &["echo", "one;", "echo", "two"]),
            ("echo $HOME ~ {a,b} # comment", &["echo", "$HOME", "~", "{a,b}"]),
            ("echo a#b #c\nd", &["echo", "a#b", "d"]),
            ("echo a\necho b", &["echo", "a", "echo", "b"]),
            (r#"sh -c 'a "b" \c'"#, &["sh", "-c", r#"a "b" \c"#]),
            (r#""a\nb"'c'd\ e '' "#, &["anbcd e", ""]),
            ("a\\\nb", &["a\nb"]),
        ] {
            assert_eq!(split(text).unwrap(), words, "{text:?}");
        }
    }

    #[test]
    fn quotes_must_end() {
        for (text, error) in [
            ("echo \"a", NO_QUOTE),
            ("echo 'a", NO_QUOTE),
            ("echo \\", NO_CHARACTER),
            ("\"a\\", NO_CHARACTER),
        ] {
            assert_eq!(split(text), Err(error), "{text:?}");
        }
    }
}
