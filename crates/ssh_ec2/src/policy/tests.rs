use super::*;

fn wanted(features: &[Feature], tags: &[&str]) -> Wanted {
    Wanted {
        features: features.iter().copied().collect(),
        tags: tags.iter().map(|tag| tag.parse().unwrap()).collect(),
        ..Wanted::default()
    }
}

/// The actions that a policy allows, each once.
fn actions(policy: &Policy) -> BTreeSet<&'static str> {
    policy.statements.iter().flat_map(|statement| statement.actions.iter().copied()).collect()
}

#[test]
fn all_features_are_listed() {
    // A new feature does not compile until it has its place in this order.
    let next = |feature: &Feature| match feature {
        Feature::Commands => Some(Feature::Doctor),
        Feature::Doctor => Some(Feature::Forwarding),
        Feature::Forwarding => Some(Feature::HostKeys),
        Feature::HostKeys => Some(Feature::ManagedNodes),
        Feature::ManagedNodes => Some(Feature::Names),
        Feature::Names => None,
    };
    let all: Vec<_> = std::iter::successors(Some(Feature::Commands), next).collect();
    assert_eq!(Feature::ALL[..], all);
}

/// The doctor shows the statement for a denied action. It asks for all features, but for `ssm:StartSession`.
#[test]
fn to_run_commands_matters_to_starting_a_session_alone() {
    let without =
        Feature::ALL.into_iter().filter(|feature| *feature != Feature::Commands).collect::<Vec<_>>();
    let granting = |features: &[Feature], action| Policy::least(&wanted(features, &[])).granting(action);
    for action in actions(&Policy::least(&wanted(&Feature::ALL, &[]))) {
        let is_same = granting(&Feature::ALL, action) == granting(&without, action);
        assert_eq!(is_same, action != "ssm:StartSession", "{action}");
    }
}

#[test]
fn each_feature_adds_its_own_and_no_more() {
    let connecting = Policy::least(&Wanted::default());
    assert_eq!(
        actions(&connecting).into_iter().collect::<Vec<_>>(),
        [
            "ec2-instance-connect:SendSSHPublicKey",
            "ssm:ResumeSession",
            "ssm:StartSession",
            "ssm:TerminateSession",
            "ssmmessages:OpenDataChannel"
        ]
    );
    let documents = |policy: &Policy| policy.statements[2].resources.len();
    for (feature, added, documents_added) in [
        (Feature::Doctor, &["ec2:DescribeInstances", "ssm:DescribeInstanceInformation"][..], 0),
        (Feature::Commands, &[], 1),
        (Feature::Forwarding, &[], 2),
        (Feature::HostKeys, &["ec2:GetConsoleOutput"], 0),
        (Feature::ManagedNodes, &[], 0),
        (
            Feature::Names,
            &["ec2:DescribeInstances", "ec2:DescribeRegions", "ssm:DescribeInstanceInformation"],
            0,
        ),
    ] {
        let policy = Policy::least(&wanted(&[feature], &[]));
        let more: Vec<_> = actions(&policy).difference(&actions(&connecting)).copied().collect();
        assert_eq!(more, added, "{feature:?}");
        assert_eq!(documents(&policy), documents(&connecting) + documents_added, "{feature:?}");
    }
}

#[test]
fn every_statement_about_instances_wants_their_tags() {
    let policy = Policy::least(&wanted(&Feature::ALL, &["Team=web", "Team=api", "Stage=t*"]));
    for statement in &policy.statements {
        let instances = statement.resources.iter().any(|resource| resource.contains("instance/"));
        let keys = |operator| statement.conditions.get(operator).into_iter().flatten();
        let tagged = keys("StringEquals")
            .any(|(key, values)| key.ends_with("esourceTag/Team") && values == &["web", "api"])
            && keys("StringLike").any(|(key, values)| key.ends_with("esourceTag/Stage") && values == &["t*"]);
        assert_eq!(instances, tagged, "{}", statement.sid);
        assert!(!instances || statement.resources.iter().all(|resource| !resource.contains("document/")));
    }
}

#[test]
fn sids_are_short_and_unlike_and_the_whole_fits_into_a_managed_policy() {
    let policy = Policy::least(&wanted(&Feature::ALL, &["Team=web"]));
    let sids: BTreeSet<_> = policy.statements.iter().map(|statement| statement.sid).collect();
    assert_eq!(sids.len(), policy.statements.len());
    assert!(sids.iter().all(|sid| sid.len() <= 20 && sid.bytes().all(|byte| byte.is_ascii_alphanumeric())));
    // White space does not count.
    let length = policy.json().unwrap().chars().filter(|character| !character.is_whitespace()).count();
    assert!(length <= 6144, "{length}");
}

#[test]
fn region_and_account_narrow_the_arns_and_choose_the_partition() {
    for (region, partition) in [
        ("eu-west-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eusc-de-east-1", "aws-eusc"),
    ] {
        let account = Some("111122223333".parse().unwrap());
        let wanted = Wanted { region: Some(region.parse().unwrap()), account, ..wanted(&Feature::ALL, &[]) };
        let policy = Policy::least(&wanted);
        let instances = format!("arn:{partition}:ec2:{region}:111122223333:instance/*");
        assert_eq!(policy.statements[0].resources, [instances]);
        let resources = policy.statements.iter().flat_map(|statement| &statement.resources);
        let arns: Vec<_> = resources.filter(|resource| *resource != "*").collect();
        assert!(arns.iter().all(|arn| arn.starts_with(&format!("arn:{partition}:"))), "{arns:?}");
        assert!(arns.iter().filter(|arn| !arn.contains(":session/")).all(|arn| !arn.contains(":*:")));
    }
}

#[test]
fn what_is_no_tag_region_or_account_is_named() {
    for text in
        ["", "Team", "=web", &format!("{}=x", "k".repeat(129)), &format!("k={}", "v".repeat(257)), "a=b\n"]
    {
        assert_eq!(text.parse::<Tag>(), Err(PolicyError::Tag(text.into())), "{text:?}");
    }
    let tag: Tag = "Team=a=b".parse().unwrap();
    assert_eq!((tag.key.as_str(), tag.value.as_str()), ("Team", "a=b"));
    assert!("Team=".parse::<Tag>().is_ok());
    for text in ["", "*", "eu-west-1/", "EU-WEST-1", "europe", "-a"] {
        assert_eq!(text.parse::<Region>(), Err(PolicyError::Region(text.into())), "{text:?}");
    }
    for text in ["", "*", "11112222333", "1111222233334", "11112222333x"] {
        assert_eq!(text.parse::<Account>(), Err(PolicyError::Account(text.into())), "{text:?}");
    }
}

#[test]
fn terraform_reads_no_template_out_of_a_tag() {
    let text = Policy::least(&wanted(&[], &[r#"Owner=${aws:username}\%{x}""#])).terraform();
    assert!(text.contains(r#""&{aws:username}\\%%{x}\"""#), "{text}");
    assert!(!text.contains("${"), "{text}");
}
