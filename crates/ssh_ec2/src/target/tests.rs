use super::*;

#[test]
fn instance_ids_of_both_lengths_are_accepted() {
    for id in ["i-0a1b2c3d", "i-0a1b2c3d4e5f60718", "mi-0a1b2c3d4e5f60718"] {
        assert_eq!(id.parse::<InstanceId>().unwrap().as_str(), id);
    }
}

#[test]
fn anything_else_is_not_an_instance_id() {
    for id in [
        "",
        "i-",
        "web-1",
        "i-0A1B2C3D",
        "i-0a1b2c3",
        "i-0a1b2c3d4",
        "i-0a1b2c3d;id",
        "i-0a1b2c3d\n",
        "x-0a1b2c3d",
    ] {
        assert_eq!(id.parse::<InstanceId>(), Err(TargetError::InstanceId(id.into())), "{id:?}");
    }
}

#[test]
fn every_form_of_a_target_is_told_apart() {
    let name = |name: &str| Target::Name(name.into());
    for (text, expected) in [
        ("web-1", name("web-1")),
        ("web-*", name("web-*")),
        ("i-robot", name("i-robot")),
        ("web.example.com", name("web.example.com")),
        ("tag:Team=web=1", Target::Tag { key: "Team".into(), value: "web=1".into() }),
        ("tag:Team=", Target::Tag { key: "Team".into(), value: String::new() }),
        ("asg:web", Target::AutoScalingGroup("web".into())),
        ("10.0.0.1", Target::Address("10.0.0.1".parse().unwrap())),
        ("2001:db8::1", Target::Address("2001:db8::1".parse().unwrap())),
        ("[2001:db8::1]", Target::Address("2001:db8::1".parse().unwrap())),
        ("IP-10-0-0-1.ec2.internal", Target::DnsName("ip-10-0-0-1.ec2.internal".into())),
        // Resource names, too, which begin as ids do.
        ("i-0a1b2c3d4e5f60718.ec2.internal", Target::DnsName("i-0a1b2c3d4e5f60718.ec2.internal".into())),
        // A dot at the end makes a name absolute, and is no part of it.
        ("ip-10-0-0-1.ec2.internal.", Target::DnsName("ip-10-0-0-1.ec2.internal".into())),
        ("web-1.amazonaws.com", name("web-1.amazonaws.com")),
        ("i-0a1b2c3d", Target::Id("i-0a1b2c3d".parse().unwrap())),
    ] {
        assert_eq!(text.parse(), Ok(expected), "{text}");
    }
    for text in ["", "-x", "tag:x", "tag:=x", "asg:", "a\u{1b}b", "a\nb", &"a".repeat(513)] {
        assert_eq!(text.parse::<Target>(), Err(TargetError::Target(text.into())), "{text:?}");
    }
    for text in ["i-0A1B2C3D", "i-0a1b2c3d4", "mi-0a1b2c"] {
        assert_eq!(text.parse::<Target>(), Err(TargetError::InstanceId(text.into())), "{text}");
    }
}

#[test]
fn dns_names_of_every_partition_are_targets() {
    for name in [
        "ip-10-0-0-1.ec2.internal",
        "ip-10-0-0-1.eu-west-1.compute.internal",
        "ip-10-0-0-1.cn-north-1.compute.internal",
        "i-0a1b2c3d4e5f60718.eusc-de-east-1.compute.internal",
        "ec2-203-0-113-9.compute-1.amazonaws.com",
        "ec2-203-0-113-9.eu-west-1.compute.amazonaws.com",
        "ec2-203-0-113-9.us-gov-west-1.compute.amazonaws.com",
        "ec2-203-0-113-9.cn-north-1.compute.amazonaws.com.cn",
        "ec2-203-0-113-9.eusc-de-east-1.compute.amazonaws.eu",
        "ec2-203-0-113-9.us-iso-east-1.compute.c2s.ic.gov",
        "ec2-203-0-113-9.us-isob-east-1.compute.sc2s.sgov.gov",
        "ec2-203-0-113-9.eu-isoe-west-1.compute.cloud.adc-e.uk",
        "ec2-203-0-113-9.us-isof-south-1.compute.csp.hci.ic.gov",
    ] {
        assert_eq!(name.parse(), Ok(Target::DnsName(name.into())), "{name}");
        assert_eq!(name.to_uppercase().parse(), Ok(Target::DnsName(name.into())), "{name}");
    }
}

#[test]
fn hosts_end_in_their_suffix_and_may_name_a_region() {
    let host = |text, suffix| {
        Host::below(text, suffix).map(|host| host.unwrap()).map(|host| (host.target.to_string(), host.region))
    };
    let found = |name: &str, region: Option<&str>| Some((name.to_owned(), region.map(str::to_owned)));
    assert_eq!(host("web-1.ec2", "ec2"), found("web-1", None));
    assert_eq!(host("Web-1.EC2", "ec2"), found("Web-1", None));
    assert_eq!(host("web-1.eu-west-1.ec2", "ec2"), found("web-1", Some("eu-west-1")));
    assert_eq!(host("web-1.us-gov-west-1.prod.ec2", "prod.ec2"), found("web-1", Some("us-gov-west-1")));
    assert_eq!(host("web.prod.ec2", "ec2"), found("web.prod", None));
    assert_eq!(host("db.my-web-1.ec2", "ec2"), found("db.my-web-1", None));
    assert_eq!(host("eu-west-1.ec2", "ec2"), found("eu-west-1", None));
    assert_eq!(host("10.0.0.1.ec2", "ec2"), found("10.0.0.1", None));
    for text in ["web-1", "ec2", "webec2", ""] {
        assert_eq!(host(text, "ec2"), None, "{text}");
    }
    assert!(Host::below(".ec2", "ec2").unwrap().is_err());
}

#[test]
fn user_names_follow_the_limits_of_the_api() {
    let long = ["a".repeat(32), "a".repeat(31) + "$", "a".repeat(30) + ".", "0".repeat(31) + "@"];
    let short = ["ec2-user", "ubuntu", "a.b@corp", "svc$", "0a", "_", "a.", "a@", "a-", "0.", "0-", "0.$"];
    for user in short.into_iter().chain(long.iter().map(String::as_str)) {
        assert_eq!(user.parse::<OsUser>().unwrap().as_str(), user);
    }
    let long = ["a".repeat(33), "a".repeat(31) + ".", "a".repeat(31) + "@", "0".repeat(32) + "a"];
    let short = [
        "",
        "123",
        "-oProxyCommand=x",
        "a b",
        "a/b",
        ".",
        "..",
        ".a",
        "@a",
        "$",
        "$x",
        "a$b",
        "0$",
        "a$$",
        "é",
        "a\n",
    ];
    for user in short.into_iter().chain(long.iter().map(String::as_str)) {
        assert_eq!(user.parse::<OsUser>(), Err(TargetError::OsUser(user.into())), "{user:?}");
    }
}

/// How many of all texts of these lengths Python's `re` finds with the pattern of the service model.
#[test]
fn as_many_short_names_are_users_as_the_pattern_of_the_api_accepts() {
    let mut names = vec![String::new()];
    for accepted in [2, 19, 124, 754, 4534] {
        let longer = names.iter().flat_map(|name| "a0_.@-$".chars().map(move |last| format!("{name}{last}")));
        names = longer.collect();
        assert_eq!(names.iter().filter(|name| name.parse::<OsUser>().is_ok()).count(), accepted);
    }
}

#[test]
fn a_managed_node_has_users_that_the_api_would_not_take() {
    let target = |text: &str| text.parse::<Target>().unwrap();
    let (node, instance) = (target("mi-0a1b2c3d4e5f60718"), target("i-0a1b2c3d4e5f60718"));
    let long = "firstname.lastname@corp.example.com";
    for user in [long, "CORP\\alice", "alice+ssh", "1000", "alice", &"a".repeat(255)] {
        assert_eq!(OsUser::on(&node, user).unwrap().as_str(), user);
    }
    for user in [long, "CORP\\alice", "alice+ssh", "1000"] {
        assert_eq!(OsUser::on(&instance, user), Err(TargetError::OsUser(user.into())), "{user:?}");
    }
    for user in ["", "-oProxyCommand=x", "a b", "a;b", "a'b", "a\"b", "a\\", "a`b", "a\nb", &"a".repeat(256)]
    {
        assert_eq!(OsUser::on(&node, user), Err(TargetError::NodeUser(user.into())), "{user:?}");
    }
}

#[test]
fn ports_are_one_to_65535() {
    assert_eq!("22".parse::<Port>().unwrap().to_string(), "22");
    for port in ["0", "65536", "-1", "+22", "ssh", ""] {
        assert_eq!(port.parse::<Port>(), Err(TargetError::Port(port.into())), "{port:?}");
    }
}
