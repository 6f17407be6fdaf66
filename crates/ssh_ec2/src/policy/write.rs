//! A policy as text: the JSON that IAM takes, or a data source of Terraform. (Pure.)

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Policy, Statement};

impl Policy {
    /// The JSON that IAM takes.
    ///
    /// # Errors
    ///
    /// None in practice: all keys are strings.
    pub(crate) fn json(&self) -> serde_json::Result<String> {
        let statement = self.statements.iter().map(JsonStatement::new).collect();
        serde_json::to_string_pretty(&Document { version: "2012-10-17", statement }).map(|text| text + "\n")
    }

    /// A data source for Terraform's provider `aws`, formatted as by `terraform fmt`.
    pub(crate) fn terraform(&self) -> String {
        let statements: Vec<_> = self.statements.iter().map(block).collect();
        format!("data \"aws_iam_policy_document\" \"ssh_ec2\" {{\n{}}}\n", statements.join("\n"))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Document<'a> {
    version: &'static str,
    statement: Vec<JsonStatement<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct JsonStatement<'a> {
    sid: &'a str,
    effect: &'static str,
    action: OneOrMore<'a>,
    resource: OneOrMore<'a>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: BTreeMap<&'a str, BTreeMap<&'a str, OneOrMore<'a>>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum OneOrMore<'a> {
    One(&'a str),
    More(Vec<&'a str>),
}

impl<'a> OneOrMore<'a> {
    fn new<T: AsRef<str>>(values: &'a [T]) -> Self {
        match values {
            [value] => Self::One(value.as_ref()),
            values => Self::More(values.iter().map(AsRef::as_ref).collect()),
        }
    }
}

impl<'a> JsonStatement<'a> {
    fn new(Statement { sid, actions, resources, conditions }: &'a Statement) -> Self {
        let condition = conditions.iter().map(|(operator, keys)| {
            (*operator, keys.iter().map(|(key, values)| (key.as_str(), OneOrMore::new(values))).collect())
        });
        Self {
            sid,
            effect: "Allow",
            action: OneOrMore::new(actions),
            resource: OneOrMore::new(resources),
            condition: condition.collect(),
        }
    }
}

/// Without an `effect`, for which the provider assumes `Allow`.
fn block(statement: &Statement) -> String {
    let Statement { sid, actions, resources, conditions } = statement;
    let mut text =
        format!("  statement {{\n    sid = {}\n\n    actions = {}\n\n", quote(sid), list(actions, "    "));
    text += &format!("    resources = {}\n", list(resources, "    "));
    for (operator, key, values) in conditions
        .iter()
        .flat_map(|(operator, keys)| keys.iter().map(move |(key, values)| (operator, key, values)))
    {
        text += &format!(
            "\n    condition {{\n      test     = {}\n      variable = {}\n\n      values = {}\n    }}\n",
            quote(operator),
            quote(key),
            list(values, "      ")
        );
    }
    text + "  }\n"
}

/// A list in HCL, with a line for each value.
fn list<T: AsRef<str>>(values: &[T], indentation: &str) -> String {
    let lines: String =
        values.iter().map(|value| format!("{indentation}  {},\n", quote(value.as_ref()))).collect();
    format!("[\n{lines}{indentation}]")
}

/// IAM's variables begin with `&{`, since `${` begins a template of Terraform's; the provider turns them
/// back.
fn quote(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace("%{", "%%{").replace("${", "&{");
    format!("\"{escaped}\"")
}
