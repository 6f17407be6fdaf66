//! Text with wildcards and policy variables in it.

use super::Context;

/// A value of a policy.
#[derive(Clone, Debug)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token {
    /// `*`
    Any,
    /// `?`
    One,
    Text(char),
}

#[derive(Clone, Debug)]
enum Piece {
    Token(Token),
    /// `${key}`, or `${key, 'default'}`.
    Variable {
        key: String,
        default: Option<String>,
    },
}

impl Pattern {
    /// Reads a pattern; `None` if a variable in it is not closed. Without `variables` they are plain text.
    pub(super) fn parse(text: &str, variables: bool) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(first) = rest.chars().next() {
            if variables && let Some(variable) = rest.strip_prefix("${") {
                let (inside, after) = variable.split_once('}')?;
                pieces.push(variable_of(inside));
                rest = after;
                continue;
            }
            pieces.push(Piece::Token(match first {
                '*' => Token::Any,
                '?' => Token::One,
                other => Token::Text(other),
            }));
            rest = &rest[first.len_utf8()..];
        }
        Some(Self(pieces))
    }

    /// The keys of the variables in it that have no default.
    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Variable { key, default: None } => Some(key.as_str()),
            _ => None,
        })
    }

    /// Whether `text` is equal to it.
    pub(super) fn is(&self, text: &str, context: &Context) -> bool {
        self.literal(context).is_some_and(|literal| literal == text)
    }

    /// The same without case.
    pub(super) fn is_ignoring_case(&self, text: &str, context: &Context) -> bool {
        self.literal(context).is_some_and(|literal| literal.to_lowercase() == text.to_lowercase())
    }

    /// Whether `text` matches, with wildcards.
    pub(super) fn is_like(&self, text: &str, context: &Context) -> bool {
        let text: Vec<_> = text.chars().collect();
        self.tokens(context).is_some_and(|tokens| matches(&tokens, &text))
    }

    /// The same for ARNs, compared part by part. A lone `*` matches everything.
    pub(super) fn is_like_arn(&self, arn: &str, context: &Context) -> bool {
        let Some(tokens) = self.tokens(context) else { return false };
        if tokens == [Token::Any] {
            return true;
        }
        let text: Vec<_> = arn.chars().collect();
        let patterns: Vec<_> = tokens.splitn(ARN_PARTS, |token| *token == Token::Text(':')).collect();
        let parts: Vec<_> = text.splitn(ARN_PARTS, |character| *character == ':').collect();
        patterns.len() == parts.len()
            && patterns.iter().zip(&parts).all(|(pattern, part)| matches(pattern, part))
    }

    fn literal(&self, context: &Context) -> Option<String> {
        let tokens = self.tokens(context)?.into_iter();
        let characters = tokens.map(|token| match token {
            Token::Any => '*',
            Token::One => '?',
            Token::Text(character) => character,
        });
        Some(characters.collect())
    }

    /// The pattern with its variables replaced; `None` if one has no value, and then nothing matches.
    fn tokens(&self, context: &Context) -> Option<Vec<Token>> {
        let mut tokens = Vec::new();
        for piece in &self.0 {
            match piece {
                Piece::Token(token) => tokens.push(*token),
                Piece::Variable { key, default } => {
                    let value = context.single(key).or(default.as_deref())?;
                    tokens.extend(value.chars().map(Token::Text));
                }
            }
        }
        Some(tokens)
    }
}

fn variable_of(inside: &str) -> Piece {
    let escaped = match inside {
        "*" => '*',
        "?" => '?',
        "$" => '$',
        _ => {
            let (key, default) = match inside.split_once(',') {
                Some((key, default)) => (key, Some(default.trim().trim_matches('\'').to_owned())),
                None => (inside, None),
            };
            return Piece::Variable { key: key.trim().to_ascii_lowercase(), default };
        }
    };
    Piece::Token(Token::Text(escaped))
}

fn matches(pattern: &[Token], text: &[char]) -> bool {
    match (pattern, text) {
        ([], []) => true,
        ([Token::Any, rest @ ..], _) => (0..=text.len()).any(|skipped| matches(rest, &text[skipped..])),
        ([Token::One, pattern @ ..], [_, text @ ..]) => matches(pattern, text),
        ([Token::Text(wanted), pattern @ ..], [found, text @ ..]) => {
            wanted == found && matches(pattern, text)
        }
        _ => false,
    }
}

/// Partition, service, region and so on; the last part may contain colons.
const ARN_PARTS: usize = 6;
