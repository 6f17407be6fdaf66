use super::*;
use crate::key::one_time::KeyType;

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn connect(text: &str) -> Connect {
    match parse(&words(text)) {
        Ok(Parsed::Connect(connect)) => connect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn ssh_command_lines_pass_untouched() {
    let connect = connect("--profile prod -v -L 1:localhost:2 ec2-user@i-0a1b2c3d --region x ls --region y");
    assert_eq!(connect.common.profile.as_deref(), Some("prod"));
    assert_eq!(connect.common.region.as_deref(), Some("x"));
    let Shape::Ssh(invocation) = connect.shape else { panic!("{:?}", connect.shape) };
    assert_eq!(invocation.command, words("ls --region y"));
}

#[test]
fn the_scripts_command_line_is_known_by_its_two_words() {
    let only = connect("ec2-user i-0a1b2c3d --send-key-only --key-file k.pub");
    assert_eq!(only.common.key_file, Some("k.pub".into()));
    let script = |user: &str, send_key_only| Shape::Script {
        user: user.into(),
        instance: "i-0a1b2c3d".into(),
        send_key_only,
    };
    assert_eq!(only.shape, script("ec2-user", true));
    assert_eq!(connect("ec2-user i-0a1b2c3d").shape, script("ec2-user", false));
    assert_eq!(connect("config i-0a1b2c3d").shape, script("config", false));
}

#[test]
fn a_target_with_a_command_is_not_the_script() {
    for text in ["i-0a1b2c3d i-0a1b2c3d", "me@i-0a1b2c3d i-0a1b2c3d"] {
        assert!(matches!(connect(text).shape, Shape::Ssh(_)), "{text}");
    }
}

#[test]
fn subcommands_are_found_behind_options() {
    for text in [
        "config",
        "--region x config --install",
        "-v proxy u i-0a1b2c3d 22",
        "--region x -vv proxy u i-0a1b2c3d 22",
        "doctor i-0a1b2c3d",
        "-v known-hosts i-0a1b2c3d",
    ] {
        assert!(matches!(parse(&words(text)), Ok(Parsed::Command(_))), "{text}");
    }
}

#[test]
fn mistakes_are_named() {
    for (text, mistake) in [
        ("--profile", "the option `--profile` needs a value"),
        ("--frobnicate i-0a1b2c3d", "there is no option `--frobnicate`"),
        (
            "--profile a --profile b i-0a1b2c3d",
            "several profiles, and `--all-regions`, are for choosing without a target",
        ),
        ("--key-type rsa --key-file k i-0a1b2c3d", "`--key-file` and `--key-type` exclude each other"),
        (
            "i-0a1b2c3d --key-type=dsa",
            "a one-time key cannot be of the type `dsa`: `ed25519` and `rsa` can be chosen",
        ),
        (
            "me i-0a1b2c3d --send-key-only --key-type rsa",
            "`--key-type` is for one-time keys, and `--send-key-only` pushes your own",
        ),
        ("i-0a1b2c3d --send-key-only", "`--send-key-only` needs a user and an instance id"),
    ] {
        assert!(matches!(parse(&words(text)), Err(CliError::Usage(said)) if said == mistake), "{text}");
    }
}

#[test]
fn what_ssh_is_asked_about_itself_needs_no_target() {
    for (text, is_version, passed) in [
        ("-V", true, "-V"),
        ("-vV", true, "-vV"),
        ("--region x -V", true, "-V"),
        ("-V web-1", true, "-V web-1"),
        ("-Q key", false, "-Q key"),
        ("-Qkex", false, "-Qkex"),
        ("-F none -Q mac", false, "-F none -Q mac"),
    ] {
        let Ok(Parsed::Query { version, arguments }) = parse(&words(text)) else { panic!("{text}") };
        assert_eq!((version, arguments), (is_version, words(passed)), "{text}");
    }
    for text in ["web-1 ls -V", "-l V web-1", "-o Q web-1", "-v"] {
        assert!(!matches!(parse(&words(text)), Ok(Parsed::Query { .. })), "{text}");
    }
}

#[test]
fn the_later_word_on_the_key_counts() {
    let common = |text: &str| connect(&format!("{text} i-0a1b2c3d")).common;
    let (file, rsa) = (|| common("--key-file k"), || common("--key-type=rsa"));
    assert_eq!(rsa().key_type, Some(KeyType::Rsa));
    for (later, before, both) in
        [(file(), rsa(), file()), (rsa(), file(), rsa()), (Common::default(), rsa(), rsa())]
    {
        assert_eq!(later.over(before), both);
    }
    for text in ["--key-type rsa config", "proxy --key-type rsa u i-0a1b2c3d 22"] {
        assert!(matches!(parse(&words(text)), Ok(Parsed::Command(_))), "{text}");
    }
    for text in ["--key-type dsa config", "proxy --key-type rsa --key-file k u i-0a1b2c3d 22"] {
        assert!(matches!(parse(&words(text)), Err(CliError::Clap(_))), "{text}");
    }
}

#[test]
fn without_a_target_one_is_chosen() {
    assert!(matches!(parse(&[]), Ok(Parsed::Pick(pick)) if pick == Pick::default()));
    let Ok(Parsed::Pick(pick)) = parse(&words("--profile a --all-regions --profile b -v -L 1:h:2")) else {
        panic!("there is no target")
    };
    assert_eq!((pick.profiles, pick.all_regions), (vec!["a".to_owned(), "b".to_owned()], true));
    assert_eq!(pick.options, words("-v -L 1:h:2"));
}

#[test]
fn every_common_option_is_noticed_where_it_is_not_used() {
    for (name, common) in common_options("k".as_ref()) {
        assert_eq!(common.unused(&[]), Some(name.as_str()));
        assert_eq!(common.unused(&[&name]), None);
        assert_eq!(common.clone().over(Common::default()), common, "{name}");
        assert_eq!(Common::default().over(common.clone()), common, "{name}");
    }
}

#[test]
fn every_option_of_a_connection_is_in_the_help() {
    let Err(CliError::Clap(help)) = parse(&words("--help")) else { panic!("there is no help") };
    let help = help.to_string();
    for name in long_options(&[]) {
        assert!(help.contains(&name), "{name}");
    }
}

#[test]
fn repeated_options_of_a_connection_count_once() {
    let common = connect("--region x --newest --region y --newest --verbose --verbose i-0a1b2c3d").common;
    let expected = Common { region: Some("y".into()), newest: true, verbose: 2, ..Common::default() };
    assert_eq!(common, expected);
}
