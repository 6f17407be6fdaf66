use super::*;

fn words(text: &str) -> Vec<OsString> {
    text.split_whitespace().map(OsString::from).collect()
}

fn found(tool: Tool, line: &str) -> Vec<(usize, Option<String>, String, String)> {
    let (remotes, _) = tool.remotes(&words(line));
    remotes.into_iter().map(|remote| (remote.index, remote.user, remote.host, remote.rest)).collect()
}

fn remote(
    index: usize,
    user: Option<&str>,
    host: &str,
    rest: &str,
) -> (usize, Option<String>, String, String) {
    (index, user.map(str::to_owned), host.into(), rest.into())
}

#[test]
fn hosts_are_told_from_files() {
    for (line, expected) in [
        ("web-1:/etc/hosts .", vec![remote(0, None, "web-1", ":/etc/hosts")]),
        ("-r -P 22 me@web-1:x ./a:b", vec![remote(3, Some("me"), "web-1", ":x")]),
        ("-o User=a:b web-1: web-2:", vec![remote(2, None, "web-1", ":"), remote(3, None, "web-2", ":")]),
        (
            "-rP22 tag:Team=web:/x asg:a:y",
            vec![remote(1, None, "tag:Team=web", ":/x"), remote(2, None, "asg:a", ":y")],
        ),
        ("[2001:db8::1]:x .", vec![remote(0, None, "2001:db8::1", ":x")]),
        ("/a:b c", vec![]),
        (":x .", vec![]),
        ("-- -odd:x", vec![remote(1, None, "-odd", ":x")]),
    ] {
        assert_eq!(found(Tool::Scp, line), expected, "{line}");
    }
    assert_eq!(found(Tool::Sftp, "-b - me@web-1"), vec![remote(2, Some("me"), "web-1", "")]);
    assert_eq!(found(Tool::Sftp, "web-1:dir"), vec![remote(0, None, "web-1", ":dir")]);
    let line = "-av --exclude a:b --exclude=c:d -e ssh src/ web-1:dst";
    assert_eq!(found(Tool::Rsync, line), vec![remote(7, None, "web-1", ":dst")]);
    assert_eq!(found(Tool::Rsync, "host::module rsync://host/x"), vec![]);
    assert_eq!(
        found(Tool::Rsync, "[2001:db8::17]:f me@[2001:db8::17]:f ."),
        vec![remote(0, None, "2001:db8::17", ":f"), remote(1, Some("me"), "2001:db8::17", ":f"),]
    );
    assert_eq!(found(Tool::Sftp, "web-1:/tmp/f local"), vec![remote(0, None, "web-1", ":/tmp/f")]);
    let tag = "tag:aws:autoscaling:groupName=web";
    assert_eq!(found(Tool::Scp, &format!("f {tag}:/x")), vec![remote(1, None, tag, ":/x")]);
    for (tool, line, batch) in [
        (Tool::Scp, "-B a:b c", true),
        (Tool::Scp, "-q -oBatchMode=yes a:b c", true),
        (Tool::Scp, "-q a:B c", false),
        (Tool::Sftp, "-b - a", true),
        (Tool::Rsync, "-ab x a:b", false),
    ] {
        assert_eq!(tool.is_batch(&words(line)), batch, "{line}");
    }
}

#[test]
fn uris_have_hosts() {
    for (tool, text, user, host, rest) in [
        (Tool::Scp, "scp://web-1//f", None, "web-1", "//f"),
        (Tool::Scp, "scp://web-1", None, "web-1", ""),
        (Tool::Scp, "scp://me@web-1:2222/f", Some("me"), "web-1", ":2222/f"),
        (Tool::Scp, "scp://me@web-1/a@b:c", Some("me"), "web-1", "/a@b:c"),
        (Tool::Scp, "scp://[2001:db8::17]:22/f", None, "2001:db8::17", ":22/f"),
        (Tool::Sftp, "sftp://web-1/f", None, "web-1", "/f"),
        (Tool::Sftp, "sftp://web-1.eu-west-1.ec2", None, "web-1.eu-west-1.ec2", ""),
    ] {
        let scheme = if tool == Tool::Scp { "scp://" } else { "sftp://" };
        let (remotes, _) = tool.remotes(&words(text));
        let user = user.map(str::to_owned);
        let expected = Remote { index: 0, scheme, user, host: host.into(), rest: rest.into() };
        assert_eq!(remotes, [expected], "{text}");
    }
    for (tool, text) in [
        (Tool::Scp, "sftp://web-1/f"),
        (Tool::Sftp, "scp://web-1/f"),
        (Tool::Scp, "scp:///f"),
        (Tool::Scp, "scp://web-1:x/f"),
        (Tool::Rsync, "scp://web-1/f"),
    ] {
        assert_eq!(tool.remotes(&words(text)).0, [], "{text}");
    }
}

#[test]
fn what_cannot_be_passed_on_is_named() {
    let own = |name: &str, program: &str| {
        Some(format!(
            "`{name}` is an option of ssh_ec2, and goes in front of {program}: `ssh_ec2 {name} … {program} …`"
        ))
    };
    let module = |text: &str| {
        Some(format!(
            "{text:?} is a module of rsync's daemon, which is not reached through ssh; write TARGET:PATH"
        ))
    };
    for (tool, line, mistake) in [
        (Tool::Scp, "--region us-east-1 web-1:f .", own("--region", "scp")),
        (Tool::Scp, "-q --profile=x web-1:f .", own("--profile", "scp")),
        (Tool::Sftp, "--newest web-1", own("--newest", "sftp")),
        (Tool::Rsync, "-a web-1:f . --key-file k.pub", own("--key-file", "rsync")),
        (Tool::Scp, "-- --region web-1:f", None),
        (Tool::Scp, "web-1:f --region", None),
        (Tool::Rsync, "--exclude --region web-1:f .", None),
        (Tool::Rsync, "-a web-1::m .", module("web-1::m")),
        (Tool::Rsync, "-a . me@[2001:db8::17]::m", module("me@[2001:db8::17]::m")),
        (Tool::Rsync, "rsync://web-1/m .", module("rsync://web-1/m")),
        (Tool::Rsync, "-- web-1::m .", module("web-1::m")),
        (Tool::Rsync, "--exclude a::b ./c::d [2001:db8::17]:f .", None),
        (Tool::Rsync, "web-1:a::b .", None),
        (Tool::Scp, "web-1::m .", None),
    ] {
        assert_eq!(tool.mistake(&words(line)), mistake, "{line}");
    }
}

#[test]
fn settings_stand_behind_the_users_options() {
    let settings = [("ProxyCommand", "a 'b c' %h".to_owned())];
    let with = |tool: Tool, line: &str| {
        let (_, first) = tool.remotes(&words(line));
        tool.with_settings(words(line), first, &settings)
    };
    let line = |words: &[&str]| words.iter().map(OsString::from).collect::<Vec<_>>();
    assert_eq!(
        with(Tool::Scp, "-P 2 -- a:b c"),
        line(&["-P", "2", "-o", "ProxyCommand=a 'b c' %h", "--", "a:b", "c"])
    );
    let shell = " -o 'ProxyCommand=a ''b c'' %h'";
    for (given, ssh) in [
        ("-a x a:b", "ssh"),
        ("-e ssh\u{a0}-v -a x a:b", "ssh\u{a0}-v"),
        ("--rsh=s -a x a:b", "s"),
        ("--rsh s -a x a:b", "s"),
        ("-ae s x a:b", "s"),
    ] {
        // A space that does not split words here.
        let ours: Vec<_> = with(Tool::Rsync, &given.replace('\u{a0}', "_"));
        let ssh = ssh.replace('\u{a0}', "_");
        assert_eq!(ours, line(&["-e", &format!("{ssh}{shell}"), "-a", "x", "a:b"]), "{given}");
    }
}
