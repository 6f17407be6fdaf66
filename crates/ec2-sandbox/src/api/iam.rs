//! The IAM action that asks for permissions: SimulatePrincipalPolicy.
//!
//! Like IAM's it evaluates only the context keys in its input: neither the tags of resources nor the caller.

use http::StatusCode;

use super::{Call, error::ApiError, query::Query, xml::Xml};
use crate::world::{Context, Decision, Policy, Resource};

/// Performs `action`; `None` if there is no such action.
pub(super) fn perform(call: &Call<'_>, action: &str, query: &Query) -> Option<Result<String, ApiError>> {
    (action == "SimulatePrincipalPolicy").then(|| simulate(call, query))
}

fn simulate(call: &Call<'_>, query: &Query) -> Result<String, ApiError> {
    let source = query.value("PolicySourceArn").ok_or_else(|| missing("policySourceArn"))?;
    let policy = policy(call, source)?;
    let actions = query.list("ActionNames.member");
    if actions.is_empty() {
        return Err(missing("actionNames"));
    }
    let mut resources = query.list("ResourceArns.member");
    if resources.is_empty() {
        resources.push("*");
    }
    let context = context(query);
    let mut xml = Xml::document();
    xml.root("SimulatePrincipalPolicyResponse", NAMESPACE, |xml| {
        xml.element("SimulatePrincipalPolicyResult", |xml| {
            xml.text("IsTruncated", false);
            xml.element("EvaluationResults", |xml| {
                for action in actions {
                    for name in &resources {
                        xml.element("member", |xml| evaluation(xml, policy, action, name, &context));
                    }
                }
            });
        });
        xml.element("ResponseMetadata", |xml| xml.text("RequestId", call.request_id));
    });
    Ok(xml.finish())
}

/// The policy of the role with this ARN. The ARN of a role session is an error.
fn policy<'a>(call: &Call<'a>, arn: &str) -> Result<Option<&'a Policy>, ApiError> {
    let name = arn.strip_prefix("arn:aws:iam::").and_then(|rest| rest.split_once(":role/"));
    let Some((_, name)) = name else {
        let message = format!("Invalid Entity Arn: {arn} does not clearly define entity type and name.");
        return Err(ApiError::new("InvalidInput", message));
    };
    call.world.policy_of_role(arn).ok_or_else(|| {
        let message = format!("The role with name {name} cannot be found.");
        ApiError::new("NoSuchEntity", message).with_status(StatusCode::NOT_FOUND)
    })
}

fn context(query: &Query) -> Context {
    let mut context = Context::default();
    let entries = (1..).map(|number| format!("ContextEntries.member.{number}"));
    let named =
        entries.map_while(|entry| Some((query.value(&format!("{entry}.ContextKeyName"))?.to_owned(), entry)));
    for (key, entry) in named {
        for value in query.list(&format!("{entry}.ContextKeyValues.member")) {
            context.add(&key, value);
        }
    }
    context
}

fn evaluation(xml: &mut Xml, policy: Option<&Policy>, action: &str, name: &str, context: &Context) {
    let resource = Resource { name: name.to_owned(), context: context.clone() };
    let decision = policy.map_or(Decision::Allowed, |policy| policy.decide(action, &resource));
    xml.text("EvalActionName", action);
    xml.text("EvalResourceName", name);
    xml.text(
        "EvalDecision",
        match decision {
            Decision::Allowed => "allowed",
            Decision::ExplicitDeny => "explicitDeny",
            Decision::ImplicitDeny => "implicitDeny",
        },
    );
    xml.element("MatchedStatements", |_| ());
    xml.element("MissingContextValues", |xml| {
        for key in policy.map(|policy| policy.missing(action, context)).unwrap_or_default() {
            xml.text("member", key);
        }
    });
}

fn missing(member: &str) -> ApiError {
    let found = format!("Value null at '{member}' failed to satisfy constraint: Member must not be null");
    ApiError::new("ValidationError", format!("1 validation error detected: {found}"))
}

/// The namespace of every answer.
pub(super) const NAMESPACE: &str = "https://iam.amazonaws.com/doc/2010-05-08/";
