//! The element `Condition`: an operator, a key, and values of which one must match.

use super::{Context, pattern::Pattern};

#[derive(Clone, Debug)]
pub(super) struct Condition {
    pub(super) operator: Operator,
    /// The condition key, in lower case.
    pub(super) key: String,
    pub(super) values: Vec<Pattern>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Operator {
    comparison: Comparison,
    quantifier: Option<Quantifier>,
    /// Whether the condition holds if the key is missing.
    if_exists: bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Comparison {
    Arn,
    Bool,
    Null,
    StringEquals,
    StringEqualsIgnoreCase,
    StringLike,
    StringNotEquals,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Quantifier {
    All,
    Any,
}

impl Operator {
    /// Reads an operator; `None` if this region does not support it.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (quantifier, bare) = match name.split_once(':') {
            Some(("ForAllValues", bare)) => (Some(Quantifier::All), bare),
            Some(("ForAnyValue", bare)) => (Some(Quantifier::Any), bare),
            Some(_) => return None,
            None => (None, name),
        };
        let (bare, if_exists) = match bare.strip_suffix("IfExists") {
            Some(bare) => (bare, true),
            None => (bare, false),
        };
        let comparison = match bare {
            // AWS documents that the two are equal.
            "ArnEquals" | "ArnLike" => Comparison::Arn,
            "Bool" => Comparison::Bool,
            "Null" if !if_exists => Comparison::Null,
            "StringEquals" => Comparison::StringEquals,
            "StringEqualsIgnoreCase" => Comparison::StringEqualsIgnoreCase,
            "StringLike" => Comparison::StringLike,
            "StringNotEquals" => Comparison::StringNotEquals,
            _ => return None,
        };
        let is_string = !matches!(comparison, Comparison::Arn | Comparison::Bool | Comparison::Null);
        (quantifier.is_none() || is_string).then_some(Self { comparison, quantifier, if_exists })
    }
}

impl Condition {
    /// Whether it holds for the request's context.
    pub(super) fn holds(&self, context: &Context) -> bool {
        let Operator { comparison, quantifier, if_exists } = self.operator;
        let found = context.values(&self.key);
        if comparison == Comparison::Null {
            let absent = if found.is_none() { "true" } else { "false" };
            return self.values.iter().any(|value| value.is_ignoring_case(absent, context));
        }
        let negated = comparison == Comparison::StringNotEquals;
        let Some(found) = found else { return if_exists || negated || quantifier == Some(Quantifier::All) };
        let mut passes = found
            .iter()
            .map(|found| self.values.iter().any(|value| fits(comparison, value, found, context)) != negated);
        match quantifier {
            Some(Quantifier::All) => passes.all(|passes| passes),
            Some(Quantifier::Any) => passes.any(|passes| passes),
            None if negated => passes.all(|passes| passes),
            None => passes.any(|passes| passes),
        }
    }
}

fn fits(comparison: Comparison, value: &Pattern, found: &str, context: &Context) -> bool {
    match comparison {
        Comparison::Arn => value.is_like_arn(found, context),
        Comparison::Bool | Comparison::Null | Comparison::StringEqualsIgnoreCase => {
            value.is_ignoring_case(found, context)
        }
        Comparison::StringEquals | Comparison::StringNotEquals => value.is(found, context),
        Comparison::StringLike => value.is_like(found, context),
    }
}
