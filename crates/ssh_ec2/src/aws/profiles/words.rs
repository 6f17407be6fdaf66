//! Words as Python's `shlex.split` divides them, by which botocore reads section headers and commands. (Pure.)

/// The words of a text; none if a quote is not closed or a backslash ends it.
///
/// Quotes are `'` and `"`. A backslash takes the next character as it is; between `"` only before `"` and `\`, and
/// between `'` never.
pub(crate) fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\r' | '\n' => words.extend(word.take()),
            '\\' => word.get_or_insert_default().push(characters.next()?),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        other => word.push(other),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '"' => break,
                        '\\' => match characters.next()? {
                            escaped @ ('"' | '\\') => word.push(escaped),
                            other => word.extend(['\\', other]),
                        },
                        other => word.push(other),
                    }
                }
            }
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_those_of_pythons_shlex() {
        // From Python 3.11: shlex.split(text)
        for (text, expected) in [
            ("profile foo", Some(vec!["profile", "foo"])),
            ("profile 'My Co'", Some(vec!["profile", "My Co"])),
            ("profile \"My Co\"", Some(vec!["profile", "My Co"])),
            ("a 'b'\"c\"d\\ e", Some(vec!["a", "bcd e"])),
            ("'' \"\"", Some(vec!["", ""])),
            (r#""a\"b\\c\d" 'e\f'"#, Some(vec![r#"a"b\c\d"#, r"e\f"])),
            ("a\u{a0}b # c", Some(vec!["a\u{a0}b", "#", "c"])),
            ("", Some(vec![])),
            ("it's", None),
            ("a \"b", None),
            ("a \\", None),
            (r#""a\"#, None),
        ] {
            let expected: Option<Vec<String>> =
                expected.map(|words| words.into_iter().map(str::to_owned).collect());
            assert_eq!(words(text), expected, "{text}");
        }
    }
}
