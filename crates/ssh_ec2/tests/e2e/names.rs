//! Instances by name, tag, address and group; the cache of names; and the list.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use ec2_sandbox::{InstanceState, InstanceSummary, Options};

use crate::harness::{HEALTHY, Running, Sandbox, Terminal, binary, random_file, run};

/// Connects with `ssh_ec2` and runs `echo $USER`.
fn user_on(sandbox: &Sandbox, words: &[&str]) -> String {
    let mut command = sandbox.ssh_ec2();
    let ended = run(command.args(["-q", "-n"]).args(words).arg("echo $USER")).success();
    ended.text().trim_end().to_owned()
}

fn refuses(sandbox: &Sandbox, words: &[&str], code: i32) -> String {
    let ended = run(sandbox.ssh_ec2().args(["-q", "-n"]).args(words).arg("true")).status(code);
    assert_eq!(ended.text(), "");
    ended.stderr
}

#[test]
fn every_form_of_a_target_reaches_its_instance() {
    let sandbox = Sandbox::start();
    let forms = [
        "web-1",
        "web-1.ec2",
        "web-1.us-east-1.ec2",
        "tag:Name=web-1",
        "10.0.0.11",
        "203.0.113.11",
        "ip-10-0-0-11.ec2.internal",
        "ec2-203-0-113-11.compute-1.amazonaws.com",
        HEALTHY,
    ];
    for (count, form) in (1..).zip(forms) {
        assert_eq!(user_on(&sandbox, &[form]), "ec2-user", "{form}");
        let sessions = sandbox.region.sessions();
        assert_eq!((sessions.len(), sessions[count - 1].target.as_str()), (count, HEALTHY), "{form}");
    }
    assert_eq!(user_on(&sandbox, &["2001:db8::17"]), "ec2-user");
    assert_eq!(user_on(&sandbox, &["--newest", "asg:workers"]), "ec2-user");
    assert_eq!(user_on(&sandbox, &["--region", "eu-west-1", "eu-web"]), "ec2-user");
    assert_eq!(user_on(&sandbox, &["eu-web.eu-west-1.ec2"]), "ec2-user");
    sandbox.assert_tidy();
}

#[test]
fn the_user_is_that_of_the_tag_or_of_the_system() {
    let sandbox = Sandbox::start();
    for (target, user) in [("web-1", "ec2-user"), ("web-3", "ubuntu"), ("api", "deploy")] {
        assert_eq!(user_on(&sandbox, &[target]), user, "{target}");
        let id = sandbox.region.sessions().last().unwrap().target.clone();
        assert_eq!(user_on(&sandbox, &[&id]), user, "{target} by its id");
    }
    let mut command = sandbox.ssh_ec2();
    let ended = run(command.args(["-v", "-n", "web-3", "true"])).success();
    assert!(ended.stderr.contains("the user on i-0decaf00000000004 is ubuntu"), "{ended}");
}

/// The calls after the first `before` ones.
fn actions(sandbox: &Sandbox, before: usize) -> Vec<String> {
    let calls = sandbox.region.calls().split_off(before);
    let mut actions: Vec<_> = calls.into_iter().map(|call| call.action.to_string()).collect();
    actions.sort();
    actions
}

#[test]
fn a_connection_by_name_makes_a_call_for_each_page_and_three_more_and_the_next_those_three() {
    let sandbox = Sandbox::start();
    let connection = ["ec2-instance-connect:SendSSHPublicKey", "ssm:StartSession", "ssm:TerminateSession"];
    let described = [
        "ec2-instance-connect:SendSSHPublicKey",
        // Two pages: the first is empty.
        "ec2:DescribeInstances",
        "ec2:DescribeInstances",
        "ssm:StartSession",
        "ssm:TerminateSession",
    ];
    // The first connection to an instance reads its host keys as well.
    assert_eq!(user_on(&sandbox, &["web-1"]), "ec2-user");
    sandbox.assert_tidy();
    let mut first = actions(&sandbox, 0);
    assert!(first.remove(3) == "ec2:GetConsoleOutput" && first == described, "{first:?}");
    let before = sandbox.region.calls().len();
    fs::remove_dir_all(sandbox.directory().join("cache")).unwrap();
    assert_eq!(user_on(&sandbox, &["web-1"]), "ec2-user");
    sandbox.assert_tidy();
    assert_eq!(actions(&sandbox, before), described);
    for words in [&["web-1"][..], &["ec2-user@web-1.ec2"]] {
        let before = sandbox.region.calls().len();
        assert_eq!(user_on(&sandbox, words), "ec2-user");
        sandbox.assert_tidy();
        assert_eq!(actions(&sandbox, before), connection, "{words:?}");
    }
}

#[test]
fn a_burst_of_connections_to_one_name_asks_once() {
    let sandbox = Sandbox::start();
    let target = format!("{}@web-1.ec2", sandbox.user());
    let running: Vec<_> =
        (0..8).map(|_| Running::start(sandbox.ssh(&target).args(["-n", "echo in"]))).collect();
    for mut running in running {
        assert_eq!(running.wait().success().text(), "in\n");
    }
    sandbox.assert_tidy();
    let described =
        actions(&sandbox, 0).into_iter().filter(|action| action == "ec2:DescribeInstances").count();
    assert_eq!(described, 2, "one question, of two pages");
}

#[test]
fn a_hint_names_the_region_that_has_the_instance() {
    let sandbox = Sandbox::start();
    let told = refuses(&sandbox, &["eu-web"], 1);
    assert_eq!(
        told,
        "ssh_ec2: error: no instance in us-east-1 is named `eu-web`\n\
         ssh_ec2: hint: i-0decaf0000000000a in eu-west-1 is: add `--region eu-west-1`\n"
    );
}

/// Plain ssh does not have our options. There the host name has the region.
#[test]
fn hints_are_for_the_program_in_use() {
    let sandbox = Sandbox::start();
    let elsewhere = "i-0decaf0000000000a";
    for (host, hint) in [
        ("eu-web.ec2", format!("{elsewhere} in eu-west-1 is: `ssh eu-web.eu-west-1.ec2`")),
        (elsewhere, format!("name the region: `ssh {elsewhere}.eu-west-1.ec2`")),
        (
            "worker.ec2",
            "name one by its id: `ssh i-0decaf00000000007.ec2` or `ssh i-0decaf00000000006.ec2`".to_owned(),
        ),
        (
            "worker.us-east-1.ec2",
            "name one by its id: `ssh i-0decaf00000000007.us-east-1.ec2` or `ssh i-0decaf00000000006.us-east-1.ec2`"
                .to_owned(),
        ),
        (
            "nobody.ec2",
            "`ssh_ec2 list` lists the instances; `ssh nobody.REGION.ec2` searches another region".to_owned(),
        ),
        ("stopped.ec2", "start it: `aws ec2 start-instances --instance-ids i-0dead000000000001`".to_owned()),
    ] {
        let told = run(sandbox.ssh(&format!("ec2-user@{host}")).arg("true")).status(255).stderr;
        assert!(told.contains(&format!("\nssh_ec2: hint: {hint}")), "{told}");
        assert!(!told.contains("`--"), "{told}");
    }
    let told = refuses(&sandbox, &[elsewhere], 255);
    assert!(told.contains("hint: add `--region eu-west-1`"), "{told}");
}

/// Hosts of plain ssh have a region in front of the suffix.
#[test]
fn a_region_behind_a_name_is_understood() {
    let sandbox = Sandbox::start();
    for name in ["i-0decaf0000000000a", "eu-web"] {
        let told = refuses(&sandbox, &[&format!("{name}.eu-west-1")], 1);
        let hint = format!("with a region, the name ends in `.ec2`: `{name}.eu-west-1.ec2`");
        assert!(told.contains(&hint), "{told}");
    }
    let mut proxy = sandbox.ssh_ec2();
    proxy.args(["proxy", "ec2-user", "i-0decaf0000000000a.eu-west-1", "22"]);
    let told = run(&mut proxy).status(1).stderr;
    assert!(told.contains("i-0decaf0000000000a.eu-west-1.ec2"), "{told}");
}

#[test]
fn a_hostile_name_does_not_reach_the_terminal() {
    let sandbox = Sandbox::start();
    for words in [&["list"][..], &["tag:Environment=sandbox", "true"]] {
        let ended = run(sandbox.ssh_ec2().args(words));
        let shown = format!("{}{}", ended.text(), ended.stderr);
        assert!(shown.contains("evil\u{fffd}[2J\u{fffd}]0;owned\u{fffd}"), "{shown:?}");
        assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
    }
}

#[test]
fn plain_ssh_takes_names_below_the_suffix() {
    let sandbox = Sandbox::start();
    let id = format!("{HEALTHY}.ec2");
    for host in ["web-1.ec2", "web-1.us-east-1.ec2", "10.0.0.11.ec2", &id] {
        let target = format!("{}@{host}", sandbox.user());
        assert_eq!(run(sandbox.ssh(&target).arg("echo in")).success().text(), "in\n", "{host}");
    }
    sandbox.assert_tidy();
}

#[test]
fn what_is_ambiguous_is_listed_and_not_guessed() {
    let sandbox = Sandbox::start();
    let told = refuses(&sandbox, &["web-[12]*"], 1);
    assert!(told.starts_with("ssh_ec2: error: no instance in us-east-1 is named `web-[12]*`\n"), "{told}");
    let told = refuses(&sandbox, &["worker"], 2);
    assert!(told.starts_with("ssh_ec2: error: 2 running instances are named `worker`\n"), "{told}");
    assert!(told.contains("\nssh_ec2:   i-0decaf00000000006  worker  us-east-1"), "{told}");
    assert!(told.contains("\nssh_ec2:   i-0decaf00000000007  worker  us-east-1"), "{told}");
    assert!(told.ends_with("hint: give an id, or choose with `--newest` (the latest start) or `--any`\n"));
    let told = refuses(&sandbox, &["tag:Name=web-?"], 2);
    assert!(told.starts_with("ssh_ec2: error: 3 running instances are tagged `Name=web-?`\n"), "{told}");
    let plain = run(sandbox.ssh("ec2-user@worker.ec2").arg("true")).status(255);
    assert!(plain.stderr.contains("error: 2 running instances are named `worker`\n"), "{plain}");
    assert!(sandbox.region.sessions().is_empty());
    assert_eq!(user_on(&sandbox, &["--any", "worker"]), "ec2-user");
    assert_eq!(user_on(&sandbox, &["--newest", "worker"]), "ec2-user");
    let newest = told_first(&refuses(&sandbox, &["worker"], 2));
    assert_eq!(sandbox.region.sessions().last().unwrap().target, newest);
    let told = refuses(&sandbox, &["--any", "--newest", "worker"], 2);
    assert!(told.contains("`--any` and `--newest` exclude each other"), "{told}");
}

/// The first instance in the list of an error.
fn told_first(refusal: &str) -> String {
    refusal.lines().nth(1).unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn what_is_not_there_or_stopped_is_said() {
    let sandbox = Sandbox::start();
    let told = refuses(&sandbox, &["nobody"], 1);
    assert_eq!(
        told,
        "ssh_ec2: error: no instance in us-east-1 is named `nobody`\n\
         ssh_ec2: hint: `ssh_ec2 list` lists the instances; `--region` and `--profile` search elsewhere; names must match exactly, upper and lower case too; `'nobody*'` matches a prefix\n"
    );
    let told = refuses(&sandbox, &["stopped"], 1);
    assert_eq!(
        told,
        "ssh_ec2: error: i-0dead000000000001, named `stopped`, is stopped\n\
         ssh_ec2: hint: start it: `aws ec2 start-instances --instance-ids i-0dead000000000001`\n"
    );
}

#[test]
fn a_stale_name_heals_itself() {
    let sandbox = Sandbox::start();
    assert_eq!(user_on(&sandbox, &["web-1"]), "ec2-user");
    let spoil = || {
        for file in fs::read_dir(sandbox.directory().join("cache")).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.contains(HEALTHY));
                fs::write(&path, text.replace(HEALTHY, "i-0ffff000000000001")).unwrap();
            }
        }
    };
    spoil();
    let target = format!("{}@web-1.ec2", sandbox.user());
    assert_eq!(run(sandbox.ssh(&target).arg("echo in")).success().text(), "in\n", "ssh does not notice");
    spoil();
    let told = refuses(&sandbox, &["web-1"], 255);
    assert!(
        told.contains(
            "error: web-1 is i-0decaf00000000001 now; a few minutes ago it was i-0ffff000000000001, which cannot be reached\n"
        ),
        "{told}"
    );
    assert_eq!(user_on(&sandbox, &["web-1"]), "ec2-user");
    sandbox.assert_tidy();
}

#[test]
fn a_user_of_ones_own_is_left_alone() {
    let sandbox = Sandbox::start();
    for words in [&["-l", "me", "web-1"][..], &["me@web-1"], &["-oUser=me", "web-1"]] {
        assert_eq!(user_on(&sandbox, words), "me", "{words:?}");
    }
    let config = sandbox.file("config");
    fs::write(&config, "Host web-1\n  User from-file\n").unwrap();
    assert_eq!(user_on(&sandbox, &["-F", config.to_str().unwrap(), "web-1"]), "from-file");
    // Even if it is the user that ssh takes by default.
    let local = String::from_utf8(run(Command::new("id").arg("-un")).success().stdout).unwrap();
    fs::write(&config, format!("Host web-1\n  User {local}")).unwrap();
    assert_eq!(user_on(&sandbox, &["-F", config.to_str().unwrap(), "web-1"]), local.trim());
    assert_eq!(user_on(&sandbox, &["-F", config.to_str().unwrap(), "web-2"]), "ec2-user");
}

#[test]
fn the_list_is_a_table_or_json() {
    let sandbox = Sandbox::start();
    let table = run(sandbox.ssh_ec2().args(["list", "web-[12]*"])).success();
    assert_eq!(table.text(), "NAME  ID  STATE  ADDRESS  TYPE  ZONE  AGE  SESSION MANAGER\n");
    let table = run(sandbox.ssh_ec2().args(["list", "web-1"])).success();
    let lines: Vec<_> = table.text().lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), 2, "{table}");
    assert!(lines[0].starts_with("NAME   ID                   STATE    ADDRESS    TYPE"), "{table}");
    assert!(lines[1].starts_with("web-1  i-0decaf00000000001  running  10.0.0.11  t3.micro"), "{table}");
    assert!(lines[1].ends_with("online"), "{table}");
    let offline = run(sandbox.ssh_ec2().args(["list", "agent-offline"])).success();
    assert!(offline.text().ends_with("lost 3d ago\n"), "{offline}");
    let all = run(sandbox.ssh_ec2().args(["list", "--all", "--json"])).success();
    let all: serde_json::Value = serde_json::from_str(all.text()).unwrap();
    let instances = all.as_array().unwrap();
    // One is in another region.
    assert_eq!(instances.len(), sandbox.region.instances().len() - 1);
    let everywhere = run(sandbox.ssh_ec2().args(["list", "--all", "--all-regions"])).success();
    assert_eq!(everywhere.text().lines().count(), sandbox.region.instances().len() + 1);
    assert!(everywhere.text().contains("eu-web"), "{everywhere}");
    let stopped = instances.iter().find(|instance| instance["name"] == "stopped").unwrap();
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(stopped["tags"]["Environment"], "sandbox");
    let running =
        run(sandbox.ssh_ec2().args(["list", "--tag", "Environment=sandbox", "--tag", "Name"])).success();
    assert!(!running.text().contains("stopped"), "{running}");
}

#[test]
fn suffixes_stand_for_a_profile_and_a_region() {
    let sandbox = Sandbox::start();
    let config = |options: &[&str]| {
        let mut command: Command = sandbox.plain_command(&binary().display().to_string());
        command.arg("config").args(options);
        command
    };
    let file = sandbox.home().join(".ssh/ssh_ec2/config");
    run(&mut config(&["--install"])).success();
    let before = fs::read_to_string(&file).unwrap();
    run(&mut config(&["--install", "--suffix", "prod.ec2", "--region", "us-east-1", "--user", "ec2-user"]))
        .success();
    run(&mut config(&["--install", "--suffix", "ours", "--region", "nowhere-1"])).success();
    let user_config = sandbox.home().join(".ssh/config");
    let mut ssh = sandbox.plain_command("ssh");
    ssh.args(["-n", "-q", "-F", user_config.to_str().unwrap(), "web-1.prod.ec2", "echo $USER"]);
    assert_eq!(run(&mut ssh).success().text(), "ec2-user\n");
    let mut elsewhere = sandbox.plain_command("ssh");
    elsewhere.args([
        "-n",
        "-q",
        "-F",
        user_config.to_str().unwrap(),
        "me@web-1.us-east-1.ours",
        "echo $USER",
    ]);
    assert_eq!(run(&mut elsewhere).success().text(), "me\n", "the region in the host, and not the suffix's");
    let mut resolved = sandbox.plain_command("ssh");
    resolved.args(["-G", "-F", user_config.to_str().unwrap(), "web-1.ours"]);
    let resolved = run(&mut resolved).success();
    assert!(resolved.text().contains("proxy --region nowhere-1 "), "{resolved}");
    // `ssh_ec2` in front knows the suffixes as well.
    let mut wrapper = sandbox.plain_command(&binary().display().to_string());
    let dry = run(wrapper.args(["--dry-run", "me@i-0decaf00000000001.prod.ec2"])).success();
    assert!(dry.text().contains("proxy --region us-east-1 "), "{dry}");

    let listed = run(&mut config(&[])).success();
    let described: Vec<_> = listed
        .text()
        .lines()
        .filter(|line| line.starts_with("# ssh_ec2 suffix "))
        .map(str::to_owned)
        .collect();
    assert_eq!(
        described,
        [
            r#"# ssh_ec2 suffix {"suffix":"prod.ec2","region":"us-east-1"}"#,
            r#"# ssh_ec2 suffix {"suffix":"ours","region":"nowhere-1"}"#
        ]
    );
    run(&mut config(&["--uninstall", "--suffix", "prod.ec2"])).success();
    run(&mut config(&["--uninstall", "--suffix", "ours"])).success();
    assert_eq!(fs::read_to_string(&file).unwrap(), before);
    let again = run(&mut config(&["--uninstall", "--suffix", "ours"])).status(2);
    assert!(again.stderr.contains("no suffix `ours` is installed"), "{again}");
    let bad = run(&mut config(&["--suffix", "Prod"])).status(2);
    assert!(bad.stderr.contains("\"Prod\" cannot end a host name"), "{bad}");
    run(&mut config(&["--uninstall"])).success();
    assert!(!file.exists());
}

#[test]
fn without_a_target_one_is_chosen_from_all() {
    let sandbox = Sandbox::with(Options { fleet: 2000, ..Options::default() });
    let mut command = sandbox.ssh_ec2();
    command.args(["--all-regions", "-q"]);
    let chosen_from = |instance: &InstanceSummary| instance.state != InstanceState::Terminated;
    let count = sandbox.region.instances().into_iter().filter(chosen_from).count();
    let mut terminal = Terminal::start(command, 30, 120);
    terminal.wait_for(&format!("{count} of {count}"));
    terminal.type_in("ubuntu no such thing");
    terminal.wait_for(&format!("  0 of {count}"));
    terminal.type_in("\u{15}web-3");
    terminal.wait_for("> web-3");
    terminal.type_in("\r");
    terminal.wait_for("ubuntu@web-3$ ");
    let restored = "\u{1b}[?1049l";
    assert!(terminal.screen().contains(restored), "the screen is given back");
    terminal.type_in("exit 3\r");
    assert_eq!(terminal.status(), 3);
    sandbox.assert_tidy();

    let mut terminal = Terminal::start(sandbox.ssh_ec2(), 30, 120);
    terminal.wait_for("agent-offline");
    terminal.type_in("\u{1b}");
    assert_eq!(terminal.status(), 130);
    terminal.wait_for(restored);
}

#[test]
fn what_does_not_run_is_not_chosen() {
    let sandbox = Sandbox::start();
    let mut terminal = Terminal::start(sandbox.ssh_ec2(), 30, 120);
    terminal.wait_for("web-1");
    terminal.type_in("sleeper\r");
    terminal.wait_for("i-0dead000000000010 is stopped");
    terminal.type_in("\u{3}");
    assert_eq!(terminal.status(), 130);
    assert!(sandbox.region.sessions().is_empty());
}

#[test]
fn files_are_carried_by_name_without_any_ssh_config() {
    let sandbox = Sandbox::start();
    let bytes = fs::read(random_file(&sandbox.file("one"), 1, 7)).unwrap();
    let own = |words: &[&str]| {
        let mut command = sandbox.plain_command(&binary().display().to_string());
        command.args(words);
        command
    };
    let there = sandbox.file("there");
    run(&mut own(&["scp", "-q", "one", &format!("web-1:{}", there.display())])).success();
    assert_eq!(fs::read(&there).unwrap(), bytes);
    let back = format!("deploy@api:{}", there.display());
    run(&mut own(&["scp", "-q", &back, "back"])).success();
    assert_eq!(fs::read(sandbox.file("back")).unwrap(), bytes);
    let between = ["scp", "-3", "-q", "web-1:there", "web-3:between"].map(|word| {
        word.replace("there", &there.display().to_string())
            .replace("between", &sandbox.file("between").display().to_string())
    });
    run(&mut own(&between.each_ref().map(String::as_str))).success();
    assert_eq!(fs::read(sandbox.file("between")).unwrap(), bytes);
    let source = format!("tag:Name=web-1:{}", there.display());
    run(&mut own(&["rsync", "-a", "--exclude", "a:b", &source, "synchronised"])).success();
    assert_eq!(fs::read(sandbox.file("synchronised")).unwrap(), bytes);
    let batch = sandbox.file("batch");
    fs::write(&batch, format!("get {} got\n", there.display())).unwrap();
    run(&mut own(&["sftp", "-q", "-b", "batch", "web-1.us-east-1.ec2"])).success();
    assert_eq!(fs::read(sandbox.file("got")).unwrap(), bytes);
    for (words, copy) in [
        (["scp", "-q", "scp://web-1/there", "uri"], "uri"),
        (["scp", "-q", "scp://ec2-user@web-1:22/there", "uri-2"], "uri-2"),
        (["sftp", "-q", "sftp://web-1/there", "uri-3"], "uri-3"),
        (["rsync", "-a", "[2001:db8::17]:there", "ipv6"], "ipv6"),
        (["rsync", "-a", "ubuntu@[2001:db8::17]:there", "ipv6-2"], "ipv6-2"),
    ] {
        // An absolute path: in a URI, and behind a colon.
        let path = there.display().to_string();
        let words = words
            .map(|word| word.replace("/there", &format!("/{path}")).replace(":there", &format!(":{path}")));
        run(&mut own(&words.each_ref().map(String::as_str))).success();
        assert_eq!(fs::read(sandbox.file(copy)).unwrap(), bytes, "{words:?}");
    }
    let nothing = run(&mut own(&["scp", "one", "two"])).status(2);
    assert!(nothing.stderr.contains("scp has no instance to go to; write it as TARGET:PATH"), "{nothing}");
    let users: Vec<_> = sandbox.region.sessions().iter().map(|session| session.target.clone()).collect();
    assert_eq!(users.len(), 11);
    sandbox.assert_tidy();
}

#[test]
fn completions_know_names_profiles_and_regions() {
    let sandbox = Sandbox::start();
    run(sandbox.ssh_ec2().arg("list")).success();
    let profiles = sandbox.file("profiles");
    fs::write(&profiles, "[profile prod]\nregion = eu-west-1\n[profile play]\n").unwrap();
    let complete = |words: &[&str]| {
        let mut command = sandbox.ssh_ec2();
        command.env("AWS_CONFIG_FILE", &profiles).args(["__complete", "--"]).args(words);
        let ended = run(&mut command).success();
        ended.text().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(complete(&["web-"]), ["web-1", "web-2", "web-3"]);
    assert_eq!(complete(&["-v", "me@web-1"]), ["me@web-1"]);
    assert_eq!(complete(&["scp", "file", "web-1"]), ["web-1:"]);
    assert_eq!(complete(&["--region", "eu-west-1", "web-"]), Vec::<String>::new());
    assert_eq!(complete(&["--profile", "p"]), ["play", "prod"]);
    assert_eq!(complete(&["--region", "eu-west-"]), ["eu-west-1", "eu-west-2", "eu-west-3"]);
    assert_eq!(complete(&["li"]), ["list"]);
    assert_eq!(complete(&["list", "--all"]), ["--all", "--all-regions"]);
    assert_eq!(complete(&["config", "--suf"]), ["--suffix"]);
    assert!(complete(&["--"]).contains(&"--dry-run".to_owned()));
    assert!(complete(&[""]).iter().all(|word| !word.contains("evil")), "names for terminals only");
    assert_eq!(
        sandbox.region.calls().iter().filter(|call| call.action == "ec2:DescribeInstances").count(),
        2,
        "one list, of two pages"
    );

    // As bash runs it.
    let script = "eval \"$(ssh_ec2 completions bash)\"; COMP_LINE='ssh_ec2 me@web-1'; COMP_POINT=${#COMP_LINE}; \
                  COMP_WORDS=(ssh_ec2 me @ web-1); COMP_CWORD=3; compopt() { :; }; _ssh_ec2; echo \"${COMPREPLY[@]}\"";
    let bash = run(sandbox.command("bash").args(["--norc", "-c", script])).success();
    assert_eq!(bash.text(), "@web-1\n", "with the @, which bash takes for a part of the word");
}

#[test]
fn two_iam_actions_are_enough_for_an_id() {
    let denied = [
        "ec2:DescribeInstances",
        "ec2:GetConsoleOutput",
        "ssm:DescribeInstanceInformation",
        "ssm:TerminateSession",
    ];
    let faults: Vec<_> = denied.iter().map(|action| format!("deny={action}")).collect();
    let sandbox = Sandbox::with_faults(&faults.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(user_on(&sandbox, &[HEALTHY]), "ec2-user");
    assert_eq!(user_on(&sandbox, &["deploy@i-0decaf00000000005"]), "deploy");
    let told = refuses(&sandbox, &["web-1"], 1);
    assert!(
        told.starts_with("ssh_ec2: error: AWS refused ec2:DescribeInstances on the instances in us-east-1: "),
        "{told}"
    );
    let hints = "ssh_ec2: hint: to connect by name, the caller needs ec2:DescribeInstances (on `*`: it cannot be restricted); the instance id (`i-…`) works without it\n";
    assert!(told.ends_with(hints), "{told}");
    let listed = run(sandbox.ssh_ec2().arg("list")).status(1);
    assert!(listed.stderr.contains("AWS refused ec2:DescribeInstances"), "{listed}");
    let allowed: BTreeSet<_> =
        sandbox.region.calls().into_iter().filter(|call| call.ok).map(|call| call.action).collect();
    assert_eq!(
        allowed.into_iter().collect::<Vec<_>>(),
        ["ec2-instance-connect:SendSSHPublicKey", "ssm:StartSession"]
    );
    sandbox.assert_tidy();
}

#[test]
fn nothing_in_a_name_is_for_the_shell() {
    let sandbox = Sandbox::start();
    fs::write(sandbox.file("web-1.ec2"), "").unwrap();
    let several = run(sandbox.ssh("ec2-user@web-?.ec2").args(["-n", "true"])).status(255);
    assert!(several.stderr.contains("3 running instances are named `web-?`"), "{several}");
    let mut command = sandbox.ssh(&format!("$AWS_SECRET_ACCESS_KEY@{HEALTHY}"));
    let user = run(command.args(["-n", "true"])).status(255);
    assert!(user.stderr.contains("error: \"$AWS_SECRET_ACCESS_KEY\" is not a user name"), "{user}");
    let told = refuses(&sandbox, &["--", "-oProxyCommand=x@web-1"], 2);
    assert!(told.contains("\"-oProxyCommand=x@web-1\" is not a destination"), "{told}");
}
