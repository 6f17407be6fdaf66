//! The grammar of `~/.aws/config` and `~/.aws/credentials`. (Pure.)
//!
//! The AWS CLI reads them with `RawConfigParser` of Python's standard library, so that is the grammar: see
//! <https://docs.python.org/3/library/configparser.html> and botocore's `configloader.py`. Its traps: a line
//! that is indented deeper than the option above it belongs to that option's value, even if it looks like a
//! section; text after `]` is not an error; a comment begins a line, and is part of the value anywhere else;
//! a section or an option that occurs twice makes the whole file unreadable; `[DEFAULT]` has values for all
//! sections.

use std::collections::{BTreeMap, BTreeSet};

/// The options of a section. Their names are in lower case.
pub(crate) type Section = BTreeMap<String, Value>;

/// The value of an option.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Value {
    /// Lines below the option, each `name = value`.
    Nested(BTreeMap<String, String>),
    /// Text, of several lines if it is continued.
    Text(String),
}

impl Value {
    /// The text. None if it is nested.
    pub(crate) fn text(&self) -> Option<&str> {
        match self {
            Self::Nested(_) => None,
            Self::Text(text) => Some(text),
        }
    }
}

/// A syntax error, which makes the whole file unreadable.
#[derive(Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum SyntaxError {
    /// An option occurs twice in a section.
    #[error("line {line}: `{option}` is set a second time in [{section}]")]
    DuplicateOption {
        /// The line of the second one, from 1.
        line: usize,
        /// The name of the section.
        section: String,
        /// The name of the option.
        option: String,
    },
    /// A section occurs twice.
    #[error("line {line}: the section [{section}] occurs a second time")]
    DuplicateSection {
        /// The line of the second one, from 1.
        line: usize,
        /// The name of the section.
        section: String,
    },
    /// The bytes are not text.
    #[error("it is not text in UTF-8")]
    Encoding,
    /// A line is neither a section nor an option.
    #[error("line {line}: there is neither a [section] nor `name = value`")]
    Line {
        /// The number of the line, from 1.
        line: usize,
    },
    /// A line of a nested value is not an option.
    #[error("in [{section}], a line below `{option}` is not `name = value`")]
    Nested {
        /// The name of the section.
        section: String,
        /// The option that the lines belong to.
        option: String,
    },
    /// An option is above the first section.
    #[error(
        "line {line}: there is no [section] above it{}",
        if *.marked { "; the file begins with a byte order mark" } else { "" }
    )]
    NoSection {
        /// The number of the line, from 1.
        line: usize,
        /// Whether the file begins with a byte order mark, which Python reads as part of the first line.
        marked: bool,
    },
}

/// The sections of a file, in their order.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<(String, Section)>, SyntaxError> {
    let text = std::str::from_utf8(bytes).map_err(|_| SyntaxError::Encoding)?;
    // Python's universal newlines.
    let text = text.replace("\r\n", "\n").replace('\r', "\n");
    let mut reader = Reader::default();
    for (number, line) in text.split('\n').enumerate() {
        reader.line(number + 1, line)?;
    }
    reader.finish()
}

/// White space as in Python's `str.strip` and `\s`: Unicode's, and four control characters.
pub(super) fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\x1c'..='\x1f').contains(&character)
}

/// The state between two lines.
#[derive(Default)]
struct Reader {
    sections: Vec<(String, BTreeMap<String, Vec<String>>)>,
    /// The index of each section in `sections`, by its name.
    indices: BTreeMap<String, usize>,
    /// The options of `[DEFAULT]`.
    defaults: BTreeMap<String, Vec<String>>,
    seen: BTreeSet<(String, String)>,
    /// The name of the section that the line belongs to.
    section: Option<String>,
    /// The option that a deeper line continues.
    option: Option<String>,
    indentation: usize,
    /// The first line that is neither a section nor an option. It is reported unless a later line has an
    /// error of another kind, as in Python.
    bad: Option<usize>,
}

impl Reader {
    fn line(&mut self, number: usize, line: &str) -> Result<(), SyntaxError> {
        let content = line.trim_matches(is_space);
        if content.starts_with(['#', ';']) {
            return Ok(());
        }
        if content.is_empty() {
            // An empty line continues a value; `finish` cuts off those at its end.
            if let Some(lines) = self.continued() {
                lines.push(String::new());
            }
            return Ok(());
        }
        let indentation = line.chars().take_while(|character| is_space(*character)).count();
        if indentation > self.indentation
            && let Some(lines) = self.continued()
        {
            lines.push(content.to_owned());
            return Ok(());
        }
        self.indentation = indentation;
        match header(content) {
            Some(name) => self.begin(number, name),
            None => self.set(number, content),
        }
    }

    /// The lines of the option that the line before belongs to.
    fn continued(&mut self) -> Option<&mut Vec<String>> {
        let option = self.option.as_ref()?;
        let section = self.section.as_ref()?;
        self.options(&section.clone(), &option.clone())
    }

    fn options(&mut self, section: &str, option: &str) -> Option<&mut Vec<String>> {
        let options = if section == DEFAULTS {
            &mut self.defaults
        } else {
            let at = self.indices.get(section)?;
            &mut self.sections.get_mut(*at)?.1
        };
        Some(options.entry(option.to_owned()).or_default())
    }

    fn begin(&mut self, line: usize, name: &str) -> Result<(), SyntaxError> {
        if name != DEFAULTS {
            if self.indices.insert(name.to_owned(), self.sections.len()).is_some() {
                return Err(SyntaxError::DuplicateSection { line, section: name.to_owned() });
            }
            self.sections.push((name.to_owned(), BTreeMap::new()));
        }
        self.section = Some(name.to_owned());
        self.option = None;
        Ok(())
    }

    fn set(&mut self, line: usize, content: &str) -> Result<(), SyntaxError> {
        let Some(section) = self.section.clone() else {
            return Err(SyntaxError::NoSection { line, marked: content.starts_with('\u{feff}') });
        };
        let Some((option, value)) = content.split_once(['=', ':']) else {
            self.bad.get_or_insert(line);
            return Ok(());
        };
        let option = option.trim_end_matches(is_space).to_lowercase();
        if option.is_empty() {
            self.bad.get_or_insert(line);
        }
        if !self.seen.insert((section.clone(), option.clone())) {
            return Err(SyntaxError::DuplicateOption { line, section, option });
        }
        let value = value.trim_matches(is_space).to_owned();
        if let Some(lines) = self.options(&section, &option) {
            lines.push(value);
        }
        self.option = Some(option).filter(|option| !option.is_empty());
        Ok(())
    }

    fn finish(self) -> Result<Vec<(String, Section)>, SyntaxError> {
        if let Some(line) = self.bad {
            return Err(SyntaxError::Line { line });
        }
        let mut sections = Vec::new();
        for (name, options) in self.sections {
            let mut section = Section::new();
            let defaults = self.defaults.iter().filter(|(option, _)| !options.contains_key(*option));
            for (option, lines) in options.iter().chain(defaults) {
                let text = lines.join("\n");
                let value = value(text.trim_end_matches(is_space))
                    .ok_or_else(|| SyntaxError::Nested { section: name.clone(), option: option.clone() })?;
                section.insert(option.clone(), value);
            }
            sections.push((name, section));
        }
        Ok(sections)
    }
}

/// The name in a section's header: all up to the last `]`.
fn header(content: &str) -> Option<&str> {
    let (name, _) = content.strip_prefix('[')?.rsplit_once(']')?;
    Some(name).filter(|name| !name.is_empty())
}

/// A value whose first line is empty is nested. None if a line of it is no option.
fn value(text: &str) -> Option<Value> {
    let Some(lines) = text.strip_prefix('\n') else { return Some(Value::Text(text.to_owned())) };
    let mut nested = BTreeMap::new();
    // Python's `str.splitlines` ends lines at these.
    let ends = ['\n', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    for line in lines.split(ends).map(|line| line.trim_matches(is_space)).filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once('=')?;
        nested.insert(
            name.trim_end_matches(is_space).to_owned(),
            value.trim_start_matches(is_space).to_owned(),
        );
    }
    Some(Value::Nested(nested))
}

/// The section whose values all others have as well.
const DEFAULTS: &str = "DEFAULT";
