//! Names of instances, which are chosen by every user with the right to set tags.

use std::path::PathBuf;
use std::process::Command;

use super::assert_harmless;
use crate::harness::{Ended, HEALTHY, Sandbox, files_below, run};
use crate::impostor::impostor;

/// The fault that gives `web-2` a name of a mebibyte.
const HUGE: &str = "name-size=1048576";
const HUGE_ID: &str = "i-0decaf00000000002";
const HUGE_ADDRESS: &str = "10.0.0.12";

/// Characters that XML can carry. A line of output that begins with `forged` comes from a name.
const NAMES: [&str; 8] = [
    "a\u{9b}2J\u{9d}0;title\u{9c}",
    "a\nforged: ssh_ec2: hint: obey",
    "a\r\nforged\tb",
    "a\u{202e}gpj.exe\u{2066}\u{200b}",
    "$(touch pwned)`touch pwned`;touch pwned|touch pwned",
    "'\"\\ -oProxyCommand=touch${IFS}pwned",
    "--trust",
    "a\u{85}forged\u{2028}forged",
];

/// EC2's answer with two instances of one name.
fn instances(name: &str) -> String {
    let escape = |character: char| match character {
        '\t' | '\n' | '\r' | '"' | '&' | '<' | '\u{7f}'.. => format!("&#{};", u32::from(character)),
        plain => plain.to_string(),
    };
    let name: String = name.chars().map(escape).collect();
    let instance = |id: &str| {
        format!(
            "<item><instancesSet><item><instanceId>{id}</instanceId><instanceState><name>running</name></instanceState>\
             <tagSet><item><key>Name</key><value>{name}</value></item></tagSet></item></instancesSet></item>"
        )
    };
    let both = [HEALTHY, HUGE_ID].map(instance).concat();
    format!("<DescribeInstancesResponse><reservationSet>{both}</reservationSet></DescribeInstancesResponse>")
}

/// A command whose EC2 has only instances of this name.
fn with_name(sandbox: &Sandbox, name: &str, words: &[&str]) -> Command {
    let body = instances(name);
    let address = impostor(move |action| match action {
        "DescribeInstances" => (200, body.clone()),
        _ => (400, "<Response><Errors><Error><Code>No</Code></Error></Errors></Response>".to_owned()),
    });
    let mut command = sandbox.ssh_ec2();
    command.args(words).env("AWS_ENDPOINT_URL_EC2", format!("http://{address}"));
    command
}

/// Every file outside the program's own directories.
fn foreign_files(sandbox: &Sandbox) -> Vec<PathBuf> {
    [sandbox.home(), sandbox.scratch()].iter().flat_map(|directory| files_below(directory)).collect()
}

#[test]
fn names_are_shown_and_not_obeyed() {
    for name in NAMES {
        let sandbox = Sandbox::start();
        let before = foreign_files(&sandbox);
        let run = |words: &[&str]| -> Ended {
            let ended = run(&mut with_name(&sandbox, name, words));
            assert_harmless(&ended);
            ended
        };
        let listed = run(&["list"]).success();
        assert_eq!(listed.text().lines().count(), 3, "{listed}");
        let json = run(&["list", "--json"]).success();
        let json: serde_json::Value = serde_json::from_str(json.text()).unwrap();
        assert_eq!(json[0]["name"], name, "programs get it as it is");
        let several = run(&["-n", "tag:Team=x", "true"]).status(2);
        assert_eq!(several.stderr.lines().count(), 4, "{several}");
        let any = ["--any", "-v", "tag:Team=x"];
        let logged = run(&[&["known-hosts"][..], &any].concat()).success();
        assert!(logged.stderr.contains("tag:Team=x is i-0decaf0000000000"), "{logged}");
        run(&[&["--dry-run"][..], &any].concat()).success();
        run(&["known-hosts", "--list"]).success();
        let examined = run(&["doctor", "--any", "tag:Team=x"]);
        assert!(examined.text().contains("instance "), "{examined}");
        assert_eq!(foreign_files(&sandbox), before);
    }
}

#[test]
fn names_for_the_shell_are_not_completed() {
    let script = "eval \"$(ssh_ec2 completions bash)\"; COMP_LINE='ssh_ec2 '; COMP_POINT=8; COMP_WORDS=(ssh_ec2 ''); \
                  COMP_CWORD=1; compopt() { :; }; _ssh_ec2; printf '%s\\n' \"${COMPREPLY[@]}\"";
    for name in NAMES {
        let sandbox = Sandbox::start();
        // A name that stands alone is kept for completions.
        let body = instances(name).replacen(HUGE_ID, "i-is-none", 1);
        let address = impostor(move |_| (200, body.clone()));
        let mut list = sandbox.ssh_ec2();
        run(list.arg("list").env("AWS_ENDPOINT_URL_EC2", format!("http://{address}"))).success();
        let completed = run(sandbox.command("bash").args(["--norc", "-c", script])).success();
        assert_harmless(&completed);
        assert!(completed.text().contains("known-hosts\n"), "{completed}");
        let plain = |word: &str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
        assert!(completed.text().lines().all(plain), "{completed}");
        assert!(!completed.text().contains("--trust"), "{completed}");
        assert!(files_below(&sandbox.scratch()).is_empty());
    }
}

#[test]
fn a_name_of_a_mebibyte_floods_nothing() {
    let sandbox = Sandbox::with_faults(&[HUGE]);
    let run = |words: &[&str]| {
        let ended = run(sandbox.ssh_ec2().args(words));
        assert_harmless(&ended);
        let widest = ended.text().lines().chain(ended.stderr.lines()).map(str::len).max();
        assert!(widest.unwrap_or(0) < 5000, "{widest:?}");
        ended
    };
    run(&["list"]).success();
    let several = run(&["-n", "tag:Environment=sandbox", "true"]).status(2);
    assert!(several.stderr.contains("running instances are tagged `Environment=sandbox`"), "{several}");
    assert_eq!(run(&["-q", "-n", HUGE_ADDRESS, "echo in"]).success().text(), "in\n");
    run(&["-v", "known-hosts", HUGE_ADDRESS]).success();
    let examined = run(&["doctor", HUGE_ID]).success();
    assert!(examined.text().contains("all is well"), "{examined}");
    assert!(run(&["__complete", "--", ""]).success().text().contains("web-1\n"));
    sandbox.assert_tidy();
}

#[test]
fn programs_get_a_name_of_a_mebibyte_whole() {
    let sandbox = Sandbox::with_faults(&[HUGE]);
    let json = run(sandbox.ssh_ec2().args(["list", "--json"])).success();
    let json: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    let lengths: Vec<_> =
        json.as_array().unwrap().iter().filter_map(|found| found["name"].as_str()).map(str::len).collect();
    assert_eq!(lengths.iter().max(), Some(&(1 << 20)));
}

#[test]
fn a_name_of_a_mebibyte_can_be_chosen_from_the_list() {
    let sandbox = Sandbox::with_faults(&[HUGE]);
    let mut terminal = crate::harness::Terminal::start(sandbox.ssh_ec2(), 30, 120);
    terminal.wait_for("web-1");
    terminal.type_in(HUGE_ADDRESS);
    terminal.wait_for("  1 of ");
    assert!(terminal.screen().len() < 256 * 1024);
    terminal.type_in("\u{3}");
    assert_eq!(terminal.status(), 130);
}
