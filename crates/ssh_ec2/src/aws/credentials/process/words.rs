//! Splits a `credential_process`, and the header of a profile, into words. (Pure.)
//!
//! On Unix the AWS CLI splits the line with Python's `shlex.split` (botocore, `compat_shell_split`) and runs
//! the first word without a shell. So `~`, `$HOME`, `*` and `;` are not special, quotes and backslashes work
//! as in a shell, and `#` begins no comment.

use super::ProcessError;

/// Splits a line. The errors do not quote it: an argument may be a secret.
pub(crate) fn split(line: &str) -> Result<Vec<String>, ProcessError> {
    let (mut words, mut word) = (Vec::new(), None::<String>);
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next().ok_or(ProcessError::Quotation)? {
                        '\'' => break,
                        character => word.push(character),
                    }
                }
            }
            '"' => quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => {
                let escaped = characters.next().ok_or(ProcessError::Backslash)?;
                word.get_or_insert_default().push(escaped);
            }
            character => word.get_or_insert_default().push(character),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Within double quotes a backslash escapes them and itself, and nothing else.
fn quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), ProcessError> {
    loop {
        match characters.next().ok_or(ProcessError::Quotation)? {
            '"' => return Ok(()),
            '\\' => match characters.next().ok_or(ProcessError::Quotation)? {
                escaped @ ('"' | '\\') => word.push(escaped),
                character => word.extend(['\\', character]),
            },
            character => word.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_python_splits_them() {
        // `shlex.split` of Python 3.11 gave each of these.
        let cases: [(&str, &[&str]); 18] = [
            ("a b", &["a", "b"]),
            ("a  'b c' d", &["a", "b c", "d"]),
            (r#"a "b \"c\" \x \\" d"#, &["a", r#"b "c" \x \"#, "d"]),
            (r#"a\ b c\"d"#, &["a b", "c\"d"]),
            ("''", &[""]),
            ("a '' b", &["a", "", "b"]),
            ("a\"b\"c'd'e", &["abcde"]),
            ("a#b # c", &["a#b", "#", "c"]),
            ("tab\tand\nnewline\r", &["tab", "and", "newline"]),
            ("a\\\nb", &["a\nb"]),
            ("\"a\\\nb\"", &["a\\\nb"]),
            ("'it''s'", &["its"]),
            ("größe 字", &["größe", "字"]),
            ("a\u{a0}b", &["a\u{a0}b"]),
            ("  ", &[]),
            ("$HOME ~ *", &["$HOME", "~", "*"]),
            ("a;b|c", &["a;b|c"]),
            ("'a\\'", &["a\\"]),
        ];
        for (line, words) in cases {
            assert_eq!(split(line).unwrap(), words, "{line:?}");
        }
    }

    #[test]
    fn a_line_that_ends_too_early_is_refused() {
        for line in ["a 'b", "a \"b", "a \"b\\", "'"] {
            assert!(matches!(split(line), Err(ProcessError::Quotation)), "{line:?}");
        }
        assert!(matches!(split("a \\"), Err(ProcessError::Backslash)));
    }
}
