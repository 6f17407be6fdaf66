use serde_json::{Value, json};

use super::*;

const ID: &str = "arn:aws:ec2:us-east-1:123456789012:instance/i-0decaf00000000001";

fn policy(statements: Value) -> Policy {
    Policy::parse(&json!({"Version": "2012-10-17", "Statement": statements}).to_string()).unwrap()
}

fn resource(name: &str, context: &[(&str, &str)]) -> Resource {
    let mut resource = Resource { name: name.to_owned(), ..Resource::default() };
    for (key, value) in context {
        resource.context.add(key, *value);
    }
    resource
}

/// Whether a statement with this condition applies.
fn holds(condition: &Value, context: &[(&str, &str)]) -> bool {
    let statement =
        json!({"Effect": "Allow", "Action": "ec2:X", "Resource": "*", "Condition": condition.clone()});
    policy(statement).decide("ec2:X", &resource("*", context)) == Decision::Allowed
}

#[test]
fn what_is_denied_anywhere_is_denied_and_what_is_allowed_nowhere_as_well() {
    let policy = policy(json!([
        {"Effect": "Deny", "Action": "ssm:StartSession", "Resource": "arn:aws:ec2:*:*:instance/i-0dead*"},
        {"Effect": "Allow", "Action": ["ssm:*", "EC2:describeinstances"], "Resource": "*"},
    ]));
    let decide = |action, name: &str| policy.decide(action, &resource(name, &[]));
    assert_eq!(decide("ssm:StartSession", ID), Decision::Allowed);
    assert_eq!(decide("ec2:DescribeInstances", "*"), Decision::Allowed);
    assert_eq!(decide("ssm:StartSession", &ID.replace("decaf", "dead0")), Decision::ExplicitDeny);
    assert_eq!(decide("ssm:ResumeSession", &ID.replace("decaf", "dead0")), Decision::Allowed);
    assert_eq!(decide("ec2:DescribeRegions", "*"), Decision::ImplicitDeny);
}

#[test]
fn several_documents_count_together() {
    let document = |effect, action| json!({"Version": "2012-10-17", "Statement": {"Effect": effect, "Action": action, "Resource": "*"}});
    let text = json!([document("Allow", "ec2:*"), document("Deny", "ec2:Describe?egions")]).to_string();
    let policy = Policy::parse(&text).unwrap();
    assert_eq!(policy.decide("ec2:DescribeInstances", &resource("*", &[])), Decision::Allowed);
    assert_eq!(policy.decide("ec2:DescribeRegions", &resource("*", &[])), Decision::ExplicitDeny);
}

#[test]
fn inverted_elements_mean_everything_else() {
    let policy = policy(
        json!([{"Effect": "Allow", "NotAction": "ssm:*", "NotResource": "arn:aws:ec2:*:*:instance/*"}]),
    );
    assert_eq!(policy.decide("ec2:DescribeInstances", &resource("*", &[])), Decision::Allowed);
    assert_eq!(policy.decide("ec2:GetConsoleOutput", &resource(ID, &[])), Decision::ImplicitDeny);
    assert_eq!(policy.decide("ssm:DescribeSessions", &resource("*", &[])), Decision::ImplicitDeny);
}

#[test]
fn wildcards_of_an_arn_stay_within_its_parts() {
    let allowed = |pattern: &str, name: &str| {
        let policy = policy(json!([{"Effect": "Allow", "Action": "*", "Resource": pattern}]));
        policy.decide("ssm:StartSession", &resource(name, &[])) == Decision::Allowed
    };
    assert!(allowed("arn:aws:ec2:*:*:instance/*", ID));
    assert!(allowed("arn:aws:ec2:us-east-?:123456789012:*", ID));
    assert!(allowed("*", ID));
    assert!(allowed(
        "arn:aws:ssm:*::document/AWS-StartSSHSession",
        "arn:aws:ssm:eu-west-1::document/AWS-StartSSHSession"
    ));
    assert!(!allowed("arn:aws:ec2:*:instance/i-0decaf00000000001:*", ID));
    assert!(!allowed("arn:aws:ec2:*:210987654321:instance/*", ID));
    assert!(!allowed("arn:aws:ec2:*:*:Instance/*", ID));
    assert!(!allowed("arn:aws:ec2:*:*:instance/*", "*"));
}

#[test]
fn variables_stand_for_what_is_known_and_match_nothing_otherwise() {
    let statement = json!({
        "Effect": "Allow", "Action": "ssm:ResumeSession",
        "Resource": ["arn:aws:ssm:*:*:session/${aws:username}-*", "arn:aws:ssm:*:*:session/${aws:userid}-*"],
    });
    let policy = policy(json!([statement]));
    let session = |id: &str| format!("arn:aws:ssm:us-east-1:123456789012:session/{id}");
    let decide = |id: &str, context: &[(&str, &str)]| {
        policy.decide("ssm:ResumeSession", &resource(&session(id), context)) == Decision::Allowed
    };
    assert!(decide("joe-0a", &[("aws:username", "joe")]));
    assert!(decide("AROA:joe-0a", &[("aws:userid", "AROA:joe")]));
    assert!(!decide("ann-0a", &[("aws:username", "joe"), ("aws:userid", "AIDA")]));
    assert!(!decide("-0a", &[]));
    // A value is not a pattern.
    assert!(!decide("ann-0a", &[("aws:username", "*")]));
    assert!(!decide("joe-0a", &[("aws:userid", "AROA:joe")]));
    let missing = policy.missing("ssm:ResumeSession", &Context::default());
    assert_eq!(missing.iter().collect::<Vec<_>>(), ["aws:userid", "aws:username"]);
    assert!(policy.missing("ssm:StartSession", &Context::default()).is_empty());
}

#[test]
fn the_old_version_knows_no_variables() {
    let text = json!({"Version": "2008-10-17", "Statement": {
        "Effect": "Allow", "Action": "ssm:X", "Resource": "arn:aws:ssm:*:*:session/${aws:username}"}});
    let policy = Policy::parse(&text.to_string()).unwrap();
    let session = |id| resource(&format!("arn:aws:ssm:r:1:session/{id}"), &[("aws:username", "joe")]);
    assert_eq!(policy.decide("ssm:X", &session("joe")), Decision::ImplicitDeny);
    assert_eq!(policy.decide("ssm:X", &session("${aws:username}")), Decision::Allowed);
}

#[test]
fn strings_are_compared_as_their_operator_says() {
    for (condition, value, expected) in [
        (json!({"StringEquals": {"ec2:osuser": ["ubuntu", "ec2-user"]}}), "ec2-user", true),
        (json!({"StringEquals": {"ec2:osuser": "ec2-*"}}), "ec2-user", false),
        (json!({"StringEquals": {"EC2:OsUser": "Ec2-User"}}), "ec2-user", false),
        (json!({"StringEqualsIgnoreCase": {"ec2:osuser": "Ec2-User"}}), "ec2-user", true),
        (json!({"StringLike": {"ec2:osuser": "ec2-*"}}), "ec2-user", true),
        (json!({"StringLike": {"ec2:osuser": "ec2-?"}}), "ec2-user", false),
        (json!({"StringNotEquals": {"ec2:osuser": ["root", "admin"]}}), "root", false),
        (json!({"StringNotEquals": {"ec2:osuser": ["root", "admin"]}}), "ec2-user", true),
    ] {
        assert_eq!(holds(&condition, &[("ec2:osuser", value)]), expected, "{condition}");
    }
}

#[test]
fn an_unknown_key_meets_only_what_allows_for_it() {
    for (operator, expected) in [
        ("StringEquals", false),
        ("StringLike", false),
        ("StringNotEquals", true),
        ("StringEqualsIfExists", true),
        ("StringLikeIfExists", true),
        ("Bool", false),
        ("BoolIfExists", true),
        ("ArnLike", false),
        ("ForAllValues:StringEquals", true),
        ("ForAnyValue:StringEquals", false),
    ] {
        assert_eq!(holds(&json!({operator: {"aws:ResourceTag/Team": "true"}}), &[]), expected, "{operator}");
    }
    assert!(holds(&json!({"Null": {"aws:ResourceTag/Team": "true"}}), &[]));
    assert!(!holds(&json!({"Null": {"aws:ResourceTag/Team": true}}), &[("aws:ResourceTag/Team", "web")]));
    assert!(holds(&json!({"Null": {"aws:ResourceTag/Team": false}}), &[("aws:resourcetag/team", "web")]));
}

#[test]
fn booleans_and_arns_have_their_own_rules() {
    let check = |value| [("ssm:SessionDocumentAccessCheck", value)];
    let condition = json!({"BoolIfExists": {"ssm:SessionDocumentAccessCheck": "true"}});
    assert!(holds(&condition, &check("True")));
    assert!(!holds(&condition, &check("false")));
    for operator in ["ArnLike", "ArnEquals"] {
        assert!(holds(&json!({operator: {"aws:x": "arn:aws:ec2:*:*:instance/*"}}), &[("aws:x", ID)]));
        assert!(!holds(&json!({operator: {"aws:x": "arn:aws:ec2:*:instance/*"}}), &[("aws:x", ID)]));
    }
}

#[test]
fn keys_with_several_values_need_a_quantifier_to_be_compared_whole() {
    let context = [("aws:TagKeys", "a"), ("aws:TagKeys", "b")];
    assert!(holds(&json!({"ForAnyValue:StringEquals": {"aws:TagKeys": ["b", "c"]}}), &context));
    assert!(!holds(&json!({"ForAllValues:StringEquals": {"aws:TagKeys": ["b", "c"]}}), &context));
    assert!(holds(&json!({"ForAllValues:StringLike": {"aws:TagKeys": "?"}}), &context));
}

#[test]
fn all_operators_and_all_keys_must_be_met() {
    let condition = json!({"StringEquals": {"a": "1", "b": "2"}, "StringLike": {"c": "3*"}});
    assert!(holds(&condition, &[("a", "1"), ("b", "2"), ("c", "33")]));
    for missing in 0..3 {
        let mut context = vec![("a", "1"), ("b", "2"), ("c", "33")];
        context.remove(missing);
        assert!(!holds(&condition, &context), "{missing}");
    }
}

#[test]
fn what_iam_would_not_store_is_refused_by_name() {
    let statement = |change: &str, value: Value| {
        let mut statement = json!({"Effect": "Allow", "Action": "ec2:X", "Resource": "*"});
        statement[change] = value;
        json!({"Version": "2012-10-17", "Statement": [statement]}).to_string()
    };
    for (text, named) in [
        ("{".to_owned(), "not JSON"),
        ("7".to_owned(), "not an object"),
        (json!({"Version": "2012-10-17"}).to_string(), "Statement"),
        (json!({"Version": "2012-10-18", "Statement": []}).to_string(), "Version"),
        (statement("Effect", json!("allow")), "Effect"),
        (statement("Principal", json!("*")), "Principal"),
        (statement("NotAction", json!("ec2:Y")), "NotAction"),
        (statement("Action", json!("DescribeInstances")), "DescribeInstances"),
        (statement("Action", json!([])), "Action is empty"),
        (statement("Resource", json!("i-0decaf00000000001")), "i-0decaf00000000001"),
        (statement("Resource", json!("arn:aws:ssm:*:*:session/${aws:userid")), "${aws:userid"),
        (statement("Sid", json!("a-b")), "a-b"),
        (statement("Condition", json!({"DateLessThan": {"a": "b"}})), "DateLessThan"),
        (statement("Condition", json!({"ForAnyValue:Bool": {"a": "b"}})), "ForAnyValue:Bool"),
        (statement("Condition", json!({"StringLike": {"a": {}}})), "no value for a"),
    ] {
        let error = Policy::parse(&text).unwrap_err().to_string();
        assert!(error.contains(named), "{text}: {error}");
    }
}
