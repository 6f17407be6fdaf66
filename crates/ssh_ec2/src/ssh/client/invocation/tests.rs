use super::*;

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn parse(text: &str) -> Invocation {
    Invocation::parse(&words(text)).unwrap()
}

#[test]
fn options_stand_on_both_sides_of_the_destination() {
    let invocation = parse("-v -p 2222 -oUser=x ec2-user@i-0a1b2c3d -tL 1:h:2 ls -l");
    assert_eq!(invocation.options, words("-v -p 2222 -oUser=x -tL 1:h:2"));
    assert_eq!(invocation.destination, "ec2-user@i-0a1b2c3d");
    assert_eq!(invocation.command, words("ls -l"));
}

#[test]
fn a_double_hyphen_keeps_the_command_whole() {
    let invocation = parse("i-0a1b2c3d -- -v");
    assert_eq!(invocation.command, words("-- -v"));
    assert_eq!(invocation.verbosity(), 0);
}

#[test]
fn the_user_is_found_wherever_ssh_takes_one() {
    for (line, user) in [
        ("me@host", Some("me")),
        ("ssh://me@host:22", Some("me")),
        ("a@corp@host", Some("a@corp")),
        ("-l me host", Some("me")),
        ("-vlme host", Some("me")),
        ("-oUser=me host", Some("me")),
        ("-o user=me host", Some("me")),
        ("-p 22 host", None),
        ("-o UserKnownHostsFile=x host", None),
        ("host -l", None),
    ] {
        if let Ok(invocation) = Invocation::parse(&words(line)) {
            assert_eq!(invocation.user().as_deref(), user, "{line}");
        }
    }
    for (line, batch) in [
        ("ssh -oBatchMode=yes host", true),
        ("ssh host -o batchmode=YES ls", true),
        ("ssh -oBatchMode=no -oBatchMode=yes host", false),
        ("ssh host echo -oBatchMode=yes", false),
        ("ssh", false),
        ("", false),
    ] {
        assert_eq!(is_batch(&words(line)), batch, "{line}");
    }
    let spaced = Invocation::parse(&["-o".into(), "User me".into(), "host".into()]).unwrap();
    assert_eq!(spaced.user().as_deref(), Some("me"));
    assert_eq!(parse("me@a(b) ls").for_host("i-0a1b2c3d").destination, "me@i-0a1b2c3d");
    let uri = "ssh://me@tag:Name=web-1:2222/";
    assert_eq!(parse(uri).for_host("i-0a1b2c3d").destination, "ssh://me@i-0a1b2c3d:2222");
    for (uri, host) in [
        (uri, "tag:Name=web-1"),
        ("ssh://tag:Name=web-1", "tag:Name=web-1"),
        ("ssh://me@[2001:db8::17]:22", "2001:db8::17"),
        ("ssh://me@[2001:db8::17]", "2001:db8::17"),
        ("me@2001:db8::17", "2001:db8::17"),
    ] {
        assert_eq!(parse(uri).host(), host, "{uri}");
    }
    for line in ["-- -vA@web-1 ls", "-- -oProxyCommand=x"] {
        assert!(matches!(Invocation::parse(&words(line)), Err(InvocationError::Destination(_))), "{line}");
    }
}

#[test]
fn the_host_is_found_in_every_form_of_destination() {
    for destination in [
        "i-0a1b2c3d",
        "ec2-user@i-0a1b2c3d",
        "me@corp@i-0a1b2c3d",
        "ssh://i-0a1b2c3d",
        "ssh://ec2-user@i-0a1b2c3d:2222/",
    ] {
        assert_eq!(parse(destination).host(), "i-0a1b2c3d", "{destination}");
    }
}

#[test]
fn flags_are_counted_where_they_are_flags() {
    assert_eq!(parse("-vvt -v -i -v i-0a1b2c3d").verbosity(), 3);
    assert_eq!(parse("-ov i-0a1b2c3d").verbosity(), 0);
    assert!(parse("-A i-0a1b2c3d").forwards_agent());
    assert!(!parse("-Aa i-0a1b2c3d").forwards_agent());
}

#[test]
fn what_ssh_refuses_is_refused() {
    let error = |text| Invocation::parse(&words(text)).unwrap_err();
    assert_eq!(error("-p"), InvocationError::MissingValue('p'));
    assert_eq!(error("-v"), InvocationError::NoDestination);
    assert_eq!(error("-z i-0a1b2c3d"), InvocationError::UnknownOption("-z".into()));
}
