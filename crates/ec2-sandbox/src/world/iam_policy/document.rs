//! Reads policy documents as strictly as IAM when one is stored: an unknown element is an error.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::{
    MalformedPolicy, Selection, Statement,
    condition::{Condition, Operator},
    pattern::Pattern,
};

type Object = Map<String, Value>;

/// The statements of a document, or of an array of documents.
pub(super) fn read(text: &str) -> Result<Vec<Statement>, MalformedPolicy> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| MalformedPolicy(format!("the policy is not JSON: {error}")))?;
    let documents = match &value {
        Value::Array(documents) => documents.as_slice(),
        document => std::slice::from_ref(document),
    };
    let mut statements = Vec::new();
    for document in documents {
        statements.extend(document_of(document)?);
    }
    Ok(statements)
}

fn document_of(document: &Value) -> Result<Vec<Statement>, MalformedPolicy> {
    let document = object(document, "the policy")?;
    check_names(document, &["Id", "Statement", "Version"])?;
    let variables = match document.get("Version").and_then(Value::as_str) {
        Some("2012-10-17") => true,
        // Also the default of a document without a version. It has no variables.
        Some("2008-10-17") => false,
        None if !document.contains_key("Version") => false,
        _ => return Err(fault("Version must be \"2012-10-17\" or \"2008-10-17\"")),
    };
    let statements = one_or_more(document.get("Statement").ok_or_else(|| fault("it has no Statement"))?);
    let mut names = BTreeSet::new();
    for name in statements.iter().filter_map(|statement| statement.get("Sid")).filter_map(Value::as_str) {
        if !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) || !names.insert(name) {
            return Err(fault(&format!("the Sid {name:?} is not alone, or not of letters and digits")));
        }
    }
    statements.iter().map(|statement| statement_of(statement, variables)).collect()
}

fn statement_of(statement: &Value, variables: bool) -> Result<Statement, MalformedPolicy> {
    let statement = object(statement, "a statement")?;
    let known = ["Action", "Condition", "Effect", "NotAction", "NotResource", "Resource", "Sid"];
    check_names(statement, &known)?;
    let allows = match statement.get("Effect").and_then(Value::as_str) {
        Some("Allow") => true,
        Some("Deny") => false,
        _ => return Err(fault("Effect must be \"Allow\" or \"Deny\"")),
    };
    let actions = selection(statement, "Action", "NotAction", |text| {
        let is_action = text == "*" || text.split_once(':').is_some_and(|(service, _)| !service.is_empty());
        is_action.then(|| Pattern::parse(&text.to_ascii_lowercase(), false))?
    })?;
    let resources = selection(statement, "Resource", "NotResource", |text| {
        let is_resource = text == "*" || text.starts_with("arn:") && text.split(':').count() >= 6;
        is_resource.then(|| Pattern::parse(text, variables))?
    })?;
    let conditions = conditions(statement, variables)?;
    Ok(Statement { allows, actions, resources, conditions })
}

/// Reads one of two elements, exactly one of which must be there.
fn selection(
    statement: &Object,
    name: &str,
    inverted_name: &str,
    read: impl Fn(&str) -> Option<Pattern>,
) -> Result<Selection, MalformedPolicy> {
    let (listed, inverted) = match (statement.get(name), statement.get(inverted_name)) {
        (Some(listed), None) => (listed, false),
        (None, Some(listed)) => (listed, true),
        _ => return Err(fault(&format!("a statement must have either {name} or {inverted_name}"))),
    };
    let read = |value: &Value| {
        let pattern = value.as_str().and_then(&read);
        pattern.ok_or_else(|| fault(&format!("{value} cannot stand in {name}")))
    };
    let patterns: Vec<_> = one_or_more(listed).iter().map(read).collect::<Result<_, _>>()?;
    if patterns.is_empty() {
        return Err(fault(&format!("{name} is empty")));
    }
    Ok(Selection { patterns, inverted })
}

fn conditions(statement: &Object, variables: bool) -> Result<Vec<Condition>, MalformedPolicy> {
    let Some(element) = statement.get("Condition") else { return Ok(Vec::new()) };
    let mut conditions = Vec::new();
    for (name, keys) in object(element, "Condition")? {
        let unknown = || fault(&format!("the operator {name} is not known to this region"));
        let operator = Operator::parse(name).ok_or_else(unknown)?;
        for (key, values) in object(keys, name)? {
            let read = |value: &Value| {
                let text = match value {
                    Value::String(text) => Some(text.clone()),
                    Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
                    _ => None,
                };
                let pattern = text.and_then(|text| Pattern::parse(&text, variables));
                pattern.ok_or_else(|| fault(&format!("{value} is no value for {key}")))
            };
            let values = one_or_more(values).iter().map(read).collect::<Result<_, _>>()?;
            conditions.push(Condition { operator, key: key.to_ascii_lowercase(), values });
        }
    }
    Ok(conditions)
}

fn object<'a>(value: &'a Value, name: &str) -> Result<&'a Object, MalformedPolicy> {
    value.as_object().ok_or_else(|| fault(&format!("{name} is not an object")))
}

fn one_or_more(value: &Value) -> &[Value] {
    match value {
        Value::Array(values) => values,
        value => std::slice::from_ref(value),
    }
}

fn check_names(object: &Object, known: &[&str]) -> Result<(), MalformedPolicy> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(fault(&format!("{unknown} is no element of an identity-based policy"))),
        None => Ok(()),
    }
}

fn fault(text: &str) -> MalformedPolicy {
    MalformedPolicy(format!("the policy is malformed: {text}"))
}
