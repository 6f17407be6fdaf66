//! IAM policies, evaluated as IAM does it: what a statement denies is denied, and what none allows is as well.
//!
//! Pure: a policy, an action, a resource and what is known of the request go in, a [`Decision`] comes out. Only
//! identity-based policies; no boundaries, no session policies. How documents are read is in `document`.
//!
//! Rules: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>.

use std::collections::{BTreeMap, BTreeSet};

use self::{condition::Condition, pattern::Pattern};

mod condition;
mod document;
mod pattern;
#[cfg(test)]
mod tests;

/// Text that should be a policy is none.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct MalformedPolicy(String);

/// One or more policy documents, which count together.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    statements: Vec<Statement>,
}

/// What a policy says to a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    Allowed,
    /// A statement denies it.
    ExplicitDeny,
    /// No statement allows it.
    ImplicitDeny,
}

/// What a request is checked on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource {
    /// Its ARN, or `*`.
    pub(crate) name: String,
    /// What is known of the request and the resource.
    pub(crate) context: Context,
}

/// Condition keys and their values. Upper and lower case of a key are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Adds a value to those of `key`.
    pub(crate) fn add(&mut self, key: &str, value: impl Into<String>) {
        self.0.entry(key.to_ascii_lowercase()).or_default().push(value.into());
    }

    /// The values of `key`, if it is known.
    fn values(&self, key: &str) -> Option<&[String]> {
        self.0.get(&key.to_ascii_lowercase()).map(Vec::as_slice)
    }

    /// The value of a key that has one.
    fn single(&self, key: &str) -> Option<&str> {
        match self.values(key)? {
            [value] => Some(value),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
struct Statement {
    allows: bool,
    actions: Selection,
    resources: Selection,
    conditions: Vec<Condition>,
}

/// What an element such as `Action` or `NotAction` lists.
#[derive(Clone, Debug)]
struct Selection {
    patterns: Vec<Pattern>,
    /// Whether everything else is meant.
    inverted: bool,
}

impl Policy {
    /// Reads a policy document, or a JSON array of them.
    pub(crate) fn parse(text: &str) -> Result<Self, MalformedPolicy> {
        document::read(text).map(|statements| Self { statements })
    }

    /// What the policy says to `action` on `resource`.
    pub(crate) fn decide(&self, action: &str, resource: &Resource) -> Decision {
        let mut decision = Decision::ImplicitDeny;
        for statement in &self.statements {
            if !statement.concerns(action, resource) || !statement.holds(&resource.context) {
                continue;
            }
            if !statement.allows {
                return Decision::ExplicitDeny;
            }
            decision = Decision::Allowed;
        }
        decision
    }

    /// The condition keys that decide about `action`, and of which the context says nothing.
    pub(crate) fn missing(&self, action: &str, context: &Context) -> BTreeSet<String> {
        let statements = self.statements.iter().filter(|statement| statement.actions.means_action(action));
        let keys = statements.flat_map(|statement| {
            let conditions = statement.conditions.iter().map(|condition| condition.key.as_str());
            conditions.chain(statement.resources.patterns.iter().flat_map(Pattern::variables))
        });
        keys.filter(|key| context.values(key).is_none()).map(str::to_owned).collect()
    }
}

impl Statement {
    fn concerns(&self, action: &str, resource: &Resource) -> bool {
        self.actions.means_action(action) && self.resources.means_resource(resource)
    }

    fn holds(&self, context: &Context) -> bool {
        self.conditions.iter().all(|condition| condition.holds(context))
    }
}

impl Selection {
    fn means_action(&self, action: &str) -> bool {
        let action = action.to_ascii_lowercase();
        let is_like = |pattern: &Pattern| pattern.is_like(&action, &Context::default());
        self.patterns.iter().any(is_like) != self.inverted
    }

    fn means_resource(&self, Resource { name, context }: &Resource) -> bool {
        let is_like = |pattern: &Pattern| pattern.is_like_arn(name, context);
        self.patterns.iter().any(is_like) != self.inverted
    }
}
