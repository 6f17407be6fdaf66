//! IAM policies, evaluated as IAM does: an explicit deny wins, and a request that no statement allows is
//! denied.
//!
//! Pure: a policy, an action, a resource and the condition keys of the request go in, a [`Decision`] comes
//! out. Only identity-based policies; no boundaries, no session policies. `document` reads the JSON.
//!
//! Rules: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html>.

use std::collections::{BTreeMap, BTreeSet};

use self::{condition::Condition, pattern::Pattern};

mod condition;
mod document;
mod pattern;
#[cfg(test)]
mod tests;

/// The text is not a valid policy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct MalformedPolicy(String);

/// One or more policy documents, evaluated together.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    statements: Vec<Statement>,
}

/// The result of evaluating a policy for a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Decision {
    Allowed,
    /// A statement denies it.
    ExplicitDeny,
    /// No statement allows it.
    ImplicitDeny,
}

/// A resource of a request, with the request's context.
#[derive(Clone, Debug, Default)]
pub(crate) struct Resource {
    /// Its ARN, or `*`.
    pub(crate) name: String,
    /// The condition keys of the request and the resource.
    pub(crate) context: Context,
}

/// Condition keys and their values. Keys are compared without case.
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

    /// The value of a key with exactly one.
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

/// The list of an element such as `Action` or `NotAction`.
#[derive(Clone, Debug)]
struct Selection {
    patterns: Vec<Pattern>,
    /// Whether it is a `Not…` element, which selects everything else.
    inverted: bool,
}

impl Policy {
    /// Reads a policy document, or a JSON array of them.
    pub(crate) fn parse(text: &str) -> Result<Self, MalformedPolicy> {
        document::read(text).map(|statements| Self { statements })
    }

    /// Evaluates the policy for `action` on `resource`.
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

    /// The condition keys of statements about `action` that are missing in the context.
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
