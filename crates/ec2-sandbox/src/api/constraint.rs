//! The constraints of the service models on an input: required members, lengths, patterns and values.
//!
//! AWS checks them before anything else of an operation, and reports all violations in one message.

use std::fmt::Display;

use super::error::ApiError;

/// The constraints that an input violates.
#[derive(Debug, Default)]
pub(super) struct Constraints(Vec<String>);

impl Constraints {
    /// Requires a text.
    pub(super) fn required<'a>(&mut self, member: &str, value: Option<&'a str>) -> &'a str {
        if value.is_none() {
            self.0.push(violation("null", member, "Member must not be null"));
        }
        value.unwrap_or_default()
    }

    /// Requires that a text, if present, has between `low` and `high` characters.
    pub(super) fn length(&mut self, member: &str, value: Option<&str>, low: usize, high: usize) {
        let Some(value) = value else { return };
        self.size(&format!("'{value}'"), member, value.chars().count(), low, high);
    }

    /// Requires that a list, if present, has between `low` and `high` items.
    pub(super) fn count<T>(&mut self, member: &str, items: Option<&[T]>, low: usize, high: usize) {
        let Some(items) = items else { return };
        self.size("'[…]'", member, items.len(), low, high);
    }

    /// Requires that a text, if present, matches `pattern`; `accepts` implements the pattern.
    pub(super) fn pattern(
        &mut self,
        member: &str,
        value: Option<&str>,
        pattern: &str,
        accepts: fn(&str) -> bool,
    ) {
        if let Some(value) = value.filter(|value| !accepts(value)) {
            let rule = format!("Member must satisfy regular expression pattern: {pattern}");
            self.0.push(violation(&format!("'{value}'"), member, &rule));
        }
    }

    /// Requires that a text, if present, is one of `words`.
    pub(super) fn one_of(&mut self, member: &str, value: Option<&str>, words: &[&str]) {
        if let Some(value) = value.filter(|value| !words.contains(value)) {
            let rule = format!("Member must satisfy enum value set: [{}]", words.join(", "));
            self.0.push(violation(&format!("'{value}'"), member, &rule));
        }
    }

    /// Requires that a number, if present, is between `low` and `high`.
    pub(super) fn range(&mut self, member: &str, value: Option<i64>, low: i64, high: i64) {
        let rule = match value {
            Some(value) if value < low => format!("Member must have value greater than or equal to {low}"),
            Some(value) if value > high => format!("Member must have value less than or equal to {high}"),
            _ => return,
        };
        self.0.push(violation(&format!("'{}'", value.unwrap_or_default()), member, &rule));
    }

    fn size(&mut self, value: &str, member: &str, size: usize, low: usize, high: usize) {
        let rule = match size {
            size if size < low => format!("Member must have length greater than or equal to {low}"),
            size if size > high => format!("Member must have length less than or equal to {high}"),
            _ => return,
        };
        self.0.push(violation(value, member, &rule));
    }

    /// The error with all violations, if there are any.
    pub(super) fn finish(self) -> Result<(), ApiError> {
        let errors = match self.0.len() {
            0 => return Ok(()),
            1 => "error",
            _ => "errors",
        };
        let message = format!("{} validation {errors} detected: {}", self.0.len(), self.0.join("; "));
        Err(ApiError::new("ValidationException", message))
    }
}

fn violation(value: &str, member: impl Display, rule: &str) -> String {
    format!("Value {value} at '{member}' failed to satisfy constraint: {rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_that_is_broken_is_named_in_one_message() {
        let mut constraints = Constraints::default();
        constraints.required("target", None);
        constraints.length("reason", Some(""), 1, 256);
        constraints.count("filters", Some(&[0; 7]), 1, 6);
        constraints.one_of("state", Some("active"), &["Active", "History"]);
        constraints.range("maxResults", Some(0), 1, 200);
        constraints.range("maxResults", Some(201), 1, 200);
        constraints.pattern("name", Some("a b"), "^a$", |text| text == "a");
        let message = "7 validation errors detected: \
             Value null at 'target' failed to satisfy constraint: Member must not be null; \
             Value '' at 'reason' failed to satisfy constraint: Member must have length greater than or equal to 1; \
             Value '[…]' at 'filters' failed to satisfy constraint: Member must have length less than or equal to 6; \
             Value 'active' at 'state' failed to satisfy constraint: Member must satisfy enum value set: [Active, History]; \
             Value '0' at 'maxResults' failed to satisfy constraint: Member must have value greater than or equal to 1; \
             Value '201' at 'maxResults' failed to satisfy constraint: Member must have value less than or equal to 200; \
             Value 'a b' at 'name' failed to satisfy constraint: Member must satisfy regular expression pattern: ^a$";
        assert_eq!(constraints.finish(), Err(ApiError::new("ValidationException", message)));
    }

    #[test]
    fn what_is_absent_or_within_its_limits_breaks_nothing() {
        let mut constraints = Constraints::default();
        assert_eq!(constraints.required("target", Some("i-1")), "i-1");
        constraints.length("reason", Some("é"), 1, 1);
        constraints.length("reason", None, 1, 1);
        constraints.count::<u8>("filters", None, 1, 6);
        constraints.one_of("state", None, &["Active"]);
        constraints.range("maxResults", Some(200), 1, 200);
        constraints.pattern("name", None, "^a$", |_| false);
        assert_eq!(constraints.finish(), Ok(()));
    }
}
