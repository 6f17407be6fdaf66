//! The policies that `ssh_ec2 policy` prints, enforced by the region: each suffices, allows nothing else, and
//! none of its actions can be left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use ec2_sandbox::{ApiCall, Faults, Options};
use serde_json::Value;

use crate::errors::fails;
use crate::harness::{Ended, HEALTHY, Running, Sandbox, WITHOUT_QUOTA, binary, eventually, run};

const OTHER: &str = "i-0decaf00000000002";
const EVERYTHING: &str = "names,host-keys,commands,doctor,forwarding,managed-nodes";

/// The output of `ssh_ec2 policy` with these arguments.
fn printed(words: &[&str]) -> String {
    let mut command = Command::new(binary());
    let ended = run(command.arg("policy").args(words)).success();
    assert_eq!(ended.stderr, "", "{ended}");
    ended.text().to_owned()
}

fn enforcing(policy: &str, faults: &[&str]) -> Sandbox {
    let mut all = Faults::default();
    // A call refused for the quota would look like one that the policy denies.
    for fault in [&[WITHOUT_QUOTA], faults].concat() {
        all.add(fault).unwrap();
    }
    Sandbox::with(Options { policy: Some(policy.to_owned()), faults: all, ..Options::default() })
}

/// The value of an element that may be a string or a list.
fn strings(element: &Value) -> Vec<&str> {
    match element {
        Value::Array(values) => values.iter().map(|value| value.as_str().unwrap()).collect(),
        value => vec![value.as_str().unwrap()],
    }
}

fn statements(policy: &str) -> Vec<Value> {
    serde_json::from_str::<Value>(policy).unwrap()["Statement"].as_array().unwrap().clone()
}

fn actions(policy: &str) -> BTreeSet<String> {
    let statements = statements(policy);
    statements.iter().flat_map(|statement| strings(&statement["Action"])).map(str::to_owned).collect()
}

/// The policy without one action, in whatever statement it is.
fn without(policy: &str, action: &str) -> String {
    let mut kept = statements(policy);
    for statement in &mut kept {
        let left: Vec<_> =
            strings(&statement["Action"]).into_iter().filter(|found| *found != action).collect();
        statement["Action"] = left.into();
    }
    kept.retain(|statement| statement["Action"] != Value::Array(Vec::new()));
    let text = serde_json::json!({"Version": "2012-10-17", "Statement": kept}).to_string();
    let mut expected = actions(policy);
    assert!(expected.remove(action), "{action} was not in it");
    assert_eq!(actions(&text), expected);
    text
}

/// Asserts that exactly these calls succeeded.
#[track_caller]
fn assert_performed(sandbox: &Sandbox, expected: &[&str]) {
    sandbox.assert_tidy();
    let calls = sandbox.region.calls();
    // TerminateSession fails if the session has already ended.
    let performs = |call: &&ApiCall| call.ok || call.action == "ssm:TerminateSession";
    let (performed, failed): (Vec<_>, Vec<_>) = calls.iter().partition(performs);
    let failures = |action: &str| failed.iter().filter(|call| call.action == action).count();
    // Host keys are looked up even without permission: first in the console output, then by a session.
    assert_eq!(failures("ec2:GetConsoleOutput"), failures("ssm:StartSession"), "{failed:?}");
    let asks = ["ec2:GetConsoleOutput", "ssm:StartSession"];
    assert!(failed.iter().all(|call| asks.contains(&call.action.as_str())), "{failed:?}");
    let made: BTreeSet<_> = performed.iter().map(|call| call.action.as_str()).collect();
    assert_eq!(made, expected.iter().copied().collect());
}

#[track_caller]
fn assert_names(ended: &Ended, action: &str) {
    let denial = format!("is not authorized to perform: {action} on resource: ");
    assert!(ended.stderr.contains(&denial), "{action} is not named: {ended}");
}

fn aws(sandbox: &Sandbox, words: &[&str]) -> Ended {
    run(sandbox.command("aws").args(["--output", "text"]).args(words))
}

fn connects(sandbox: &Sandbox) -> Ended {
    run(sandbox.ssh(&sandbox.target()).arg("echo in"))
}

/// A connection that loses its websocket until it has been resumed twice, or has failed.
fn outlives_its_websocket(sandbox: &Sandbox) -> Ended {
    let mut ssh = Running::start(sandbox.ssh(&sandbox.target()).arg("cat"));
    eventually("it resumes twice", || {
        let resumed = sandbox.region.sessions().iter().any(|session| session.resumes >= 2);
        (resumed || ssh.has_ended()).then_some(())
    });
    ssh.write(b"still here\n");
    ssh.finish()
}

// ---- each policy suffices ----

const CONNECTION: [&str; 3] =
    ["ec2-instance-connect:SendSSHPublicKey", "ssm:StartSession", "ssm:TerminateSession"];

#[test]
fn an_id_needs_no_feature() {
    let policy = printed(&[]);
    let sandbox = enforcing(&policy, &[]);
    assert_eq!(connects(&sandbox).success().text(), "in\n");
    let mut ssh_ec2 = sandbox.ssh_ec2();
    let ended = run(ssh_ec2.args(["--verbose", "-n", &sandbox.target(), "echo in"])).success();
    assert_eq!(ended.text(), "in\n");
    assert!(ended.stderr.contains("ended the session at AWS") && !ended.stderr.contains("not authorized"));
    assert_performed(&sandbox, &CONNECTION);

    let sandbox = enforcing(&policy, &["reset=300ms"]);
    assert_eq!(outlives_its_websocket(&sandbox).success().text(), "still here\n");
    assert_performed(&sandbox, &[&CONNECTION[..], &["ssm:ResumeSession"]].concat());
}

#[test]
fn names_and_lists_need_one() {
    let sandbox = enforcing(&printed(&["--with", "names"]), &[]);
    let by_name = |target: &str| run(sandbox.ssh_ec2().args(["-q", "-n", target, "echo $USER"]));
    assert_eq!(by_name("web-1").success().text(), "ec2-user\n");
    // The user of this instance is known to Session Manager only.
    assert_eq!(by_name("web-3").success().text(), "ubuntu\n");
    let list = run(sandbox.ssh_ec2().args(["list", "--all-regions"])).success();
    assert!(list.text().contains("eu-web") && list.stderr.is_empty(), "{list}");
    let names = ["ec2:DescribeInstances", "ec2:DescribeRegions", "ssm:DescribeInstanceInformation"];
    assert_performed(&sandbox, &[&CONNECTION[..], &names].concat());
}

#[test]
fn tags_and_users_narrow_it_and_still_suffice() {
    let narrow = ["--tag", "Name=web-1", "--tag", "Environment=sand*", "--user", "ec2-user"];
    let place = ["--region", "us-east-1", "--account", "123456789012", "--with", EVERYTHING];
    let sandbox = enforcing(&printed(&[&narrow[..], &place].concat()), &[]);
    let ended = connects(&sandbox).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""), "the console tells the host keys");
    assert_performed(&sandbox, &[&CONNECTION[..], &["ec2:GetConsoleOutput"]].concat());
}

#[test]
fn host_keys_need_the_console_or_commands() {
    let told_by = |features: &str| {
        let sandbox = enforcing(&printed(&["--with", features]), &[]);
        let ended = connects(&sandbox).success();
        assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""), "{features}");
        sandbox.assert_tidy();
        let asked = sandbox.region.calls().into_iter().find(|call| call.action == "ec2:GetConsoleOutput");
        (asked.unwrap().ok, sandbox.region.sessions().len())
    };
    assert_eq!(told_by("host-keys"), (true, 1));
    assert_eq!(told_by("commands"), (false, 2), "a session of its own reads them");
    let ended = connects(&enforcing(&printed(&[]), &[])).success();
    assert!(ended.stderr.starts_with("ssh_ec2: AWS lists no host key of "), "{ended}");
}

// ---- it allows nothing else ----

#[test]
fn another_user_is_refused() {
    let sandbox = enforcing(&printed(&["--user", "ec2-user"]), &[]);
    assert_eq!(connects(&sandbox).success().text(), "in\n");
    let ended = run(sandbox.ssh_ec2().args(["proxy", "root", HEALTHY, "22"])).status(1);
    assert_names(&ended, "ec2-instance-connect:SendSSHPublicKey");
    let unnamed = enforcing(&printed(&[]), &[]);
    let ended = run(unnamed.ssh_ec2().args(["proxy", "root", HEALTHY, "22"])).status(1);
    assert_names(&ended, "ec2-instance-connect:SendSSHPublicKey");
}

#[test]
fn an_instance_without_the_tag_is_refused() {
    let sandbox = enforcing(&printed(&["--tag", "Name=web-1", "--with", EVERYTHING]), &[]);
    assert_eq!(connects(&sandbox).success().text(), "in\n");
    let key = sandbox.key_pair(sandbox.file("key"), "ed25519").with_extension("pub");
    let mut push = sandbox.ssh_ec2();
    push.args(["ec2-user", OTHER, "--send-key-only", "--key-file"]).arg(&key);
    assert_names(&run(&mut push).status(1), "ec2-instance-connect:SendSSHPublicKey");
    assert_names(&start_session(&sandbox, OTHER, Some("AWS-StartSSHSession")), "ssm:StartSession");
    assert_names(
        &aws(&sandbox, &["ec2", "get-console-output", "--instance-id", OTHER]),
        "ec2:GetConsoleOutput",
    );
    assert_eq!(sandbox.region.sessions().len(), 1);
}

fn start_session(sandbox: &Sandbox, target: &str, document: Option<&str>) -> Ended {
    let mut words = vec!["ssm", "start-session", "--target", target];
    words.extend(document.into_iter().flat_map(|document| ["--document-name", document]));
    let ended = aws(sandbox, &words);
    assert_ne!(ended.code, 0, "{ended}");
    ended
}

#[test]
fn another_document_is_refused() {
    let sandbox = enforcing(&printed(&["--with", "names,doctor,managed-nodes"]), &[]);
    for document in [
        None,
        Some("AWS-StartNonInteractiveCommand"),
        Some("AWS-StartInteractiveCommand"),
        Some("AWS-StartPortForwardingSession"),
        Some("AWS-StartPortForwardingSessionToRemoteHost"),
        Some("SSM-SessionManagerRunShell"),
    ] {
        assert_names(&start_session(&sandbox, HEALTHY, document), "ssm:StartSession");
    }
    assert!(sandbox.region.sessions().is_empty());
}

/// The documents in a policy that IAM allows, by the policy simulator.
#[test]
fn features_add_their_documents() {
    let documents = [
        "AWS-StartSSHSession",
        "AWS-StartNonInteractiveCommand",
        "AWS-StartPortForwardingSession",
        "AWS-StartPortForwardingSessionToRemoteHost",
        "SSM-SessionManagerRunShell",
    ];
    for (features, expected) in [
        ("names", [true, false, false, false, false]),
        ("doctor,host-keys", [true, false, false, false, false]),
        ("doctor,commands", [true, true, false, false, false]),
        ("doctor,forwarding", [true, false, true, true, false]),
    ] {
        let sandbox = enforcing(&and_asking_iam(&printed(&["--with", features])), &[]);
        let allowed = documents.map(|document| {
            let arn = format!("arn:aws:ssm:us-east-1::document/{document}");
            simulated(&sandbox, "ssm:StartSession", &arn) == "allowed\n"
        });
        assert_eq!(allowed, expected, "{features}");
    }
}

/// The policy, with the right to call the policy simulator.
fn and_asking_iam(policy: &str) -> String {
    let mut statements = statements(policy);
    let action = "iam:SimulatePrincipalPolicy";
    statements.push(serde_json::json!({"Effect": "Allow", "Action": action, "Resource": "*"}));
    serde_json::json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

fn simulated(sandbox: &Sandbox, action: &str, resource: &str) -> String {
    let role = "arn:aws:iam::123456789012:role/sandbox";
    let words = ["iam", "simulate-principal-policy", "--policy-source-arn", role];
    let asked = ["--action-names", action, "--resource-arns", resource];
    let query = ["--query", "EvaluationResults[].EvalDecision"];
    aws(sandbox, &[&words[..], &asked, &query].concat()).success().text().to_owned()
}

// ---- no action can be left out ----

#[test]
fn a_connection_can_spare_no_action() {
    let policy = printed(&[]);
    for action in actions(&policy) {
        let less = without(&policy, &action);
        match action.as_str() {
            "ec2-instance-connect:SendSSHPublicKey" | "ssm:StartSession" | "ssmmessages:OpenDataChannel" => {
                let sandbox = enforcing(&less, &[]);
                let ended = Running::start(&mut sandbox.proxy(HEALTHY)).wait().status(1);
                assert_names(&ended, &action);
                assert!(ended.stderr.contains(&format!("hint: the caller needs {action} on ")), "{ended}");
                sandbox.assert_tidy();
            }
            "ssm:ResumeSession" => {
                let sandbox = enforcing(&less, &[]);
                assert_eq!(connects(&sandbox).success().text(), "in\n");
                let sandbox = enforcing(&less, &["reset=300ms"]);
                let ended = outlives_its_websocket(&sandbox).status(255);
                assert_names(&ended, &action);
            }
            "ssm:TerminateSession" => {
                let sandbox = enforcing(&less, &[]);
                assert_eq!(connects(&sandbox).success().text(), "in\n");
                let ended = connects(&sandbox).success();
                assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
                let mut ssh_ec2 = sandbox.ssh_ec2();
                let ended = run(ssh_ec2.args(["--verbose", "-n", &sandbox.target(), "echo in"])).success();
                assert!(ended.stderr.contains("the session could not be ended at AWS: "), "{ended}");
                assert_names(&ended, &action);
                // The channel asks the SSM agent to end the session, which needs no permission.
                sandbox.assert_tidy();
            }
            other => panic!("nothing is known to need {other}"),
        }
    }
}

#[test]
fn names_can_spare_no_action() {
    let (policy, connecting) = (printed(&["--with", "names"]), actions(&printed(&[])));
    for action in actions(&policy).difference(&connecting) {
        let sandbox = enforcing(&without(&policy, action), &[]);
        assert_eq!(connects(&sandbox).success().text(), "in\n", "an id needs no {action}");
        let by_name = run(sandbox.ssh_ec2().args(["-q", "-n", "web-3", "echo $USER"]));
        let list = run(sandbox.ssh_ec2().args(["list"]));
        let everywhere = run(sandbox.ssh_ec2().args(["list", "--all-regions"]));
        match action.as_str() {
            "ec2:DescribeInstances" => {
                for ended in [by_name, list, everywhere] {
                    assert_names(&ended.status(1), action);
                }
            }
            "ec2:DescribeRegions" => {
                assert_eq!(by_name.success().text(), "ubuntu\n");
                assert_eq!(list.success().stderr, "");
                assert_names(&everywhere.status(1), action);
            }
            "ssm:DescribeInstanceInformation" => {
                // Without it the user is guessed, wrongly here.
                assert_eq!(by_name.success().text(), "ec2-user\n");
                for ended in [list, everywhere] {
                    let ended = ended.success();
                    assert!(ended.text().contains(HEALTHY), "{ended}");
                    assert_names(&ended, action);
                }
            }
            other => panic!("nothing is known to need {other}"),
        }
    }
}

#[test]
fn host_keys_need_the_console() {
    let policy = printed(&["--with", "host-keys"]);
    let sandbox = enforcing(&policy, &[]);
    let ended = connects(&sandbox).success();
    assert_eq!((ended.text(), ended.stderr.as_str()), ("in\n", ""));
    let sandbox = enforcing(&without(&policy, "ec2:GetConsoleOutput"), &[]);
    let ended = connects(&sandbox).success();
    assert!(ended.stderr.contains("that you have permission to read"), "{ended}");
    let verbose = run(sandbox.ssh_ec2().args(["-v", "known-hosts", "i-0decaf00000000002"])).status(1);
    assert_names(&verbose, "ec2:GetConsoleOutput");
}

/// The layers of a report that are not ok, with their facts.
fn complaints(ended: &Ended) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(ended.text()).unwrap();
    let checks = report["checks"].as_array().unwrap().iter();
    let found = checks.filter(|check| check["verdict"] != "ok");
    let text = |check: &Value, name: &str| check[name].as_str().unwrap().to_owned();
    found.map(|check| (text(check, "layer"), text(check, "fact"))).collect()
}

#[test]
fn the_doctor_can_spare_no_action() {
    let examine = |policy: &str| {
        let sandbox = enforcing(policy, &[]);
        let ended = run(sandbox.ssh_ec2().args(["doctor", "--json", HEALTHY]));
        sandbox.assert_tidy();
        ended
    };
    let policy = printed(&["--with", "doctor,host-keys"]);
    let ended = examine(&policy).success();
    assert_eq!(complaints(&ended), [], "{ended}");
    for action in actions(&policy) {
        let ended = examine(&without(&policy, &action));
        let [(layer, fact)] = &complaints(&ended)[..] else { panic!("{ended}") };
        let expected = match action.as_str() {
            "ec2:DescribeInstances" => "instance",
            "ec2:GetConsoleOutput" => "host-key",
            "ssm:DescribeInstanceInformation" => "session-manager",
            _ => "permissions",
        };
        assert_eq!(layer, expected, "{ended}");
        assert!(fact.contains(&action), "{action} is not named: {ended}");
    }
}

// ---- the text ----

#[test]
fn it_is_the_same_each_time_and_can_be_stored() {
    let words = ["--with", EVERYTHING, "--tag", "B=2", "--tag", "A=1", "--tag", "B=1"];
    assert_eq!(printed(&words), printed(&words));
    assert_eq!(printed(&[&words[..], &["--json"]].concat()), printed(&words));
    let shuffled =
        ["--tag=B=2", "--tag=B=1", "--tag=A=1", "--with=doctor,forwarding", "--with=managed-nodes"];
    let shuffled = [&shuffled[..], &["--with=names,commands,host-keys,names"]].concat();
    assert_eq!(printed(&shuffled), printed(&words));
    // The region refuses to start with a policy that IAM would refuse.
    enforcing(&printed(&words), &[]);
}

#[test]
fn terraform_gets_the_same_policy() {
    let words = ["--with", EVERYTHING, "--tag", "Team=web"];
    let terraform = printed(&[&words[..], &["--terraform"]].concat());
    assert!(terraform.starts_with("data \"aws_iam_policy_document\" \"ssh_ec2\" {\n  statement {\n"));
    let quoted: BTreeSet<_> =
        terraform.split('"').skip(1).step_by(2).map(|text| text.replace("&{", "${")).collect();
    let mut expected = BTreeSet::from(["aws_iam_policy_document".to_owned(), "ssh_ec2".to_owned()]);
    for statement in statements(&printed(&words)) {
        for element in ["Sid", "Action", "Resource"] {
            expected.extend(strings(&statement[element]).into_iter().map(str::to_owned));
        }
        for (operator, keys) in statement["Condition"].as_object().into_iter().flatten() {
            expected.insert(operator.clone());
            for (key, values) in keys.as_object().unwrap() {
                expected.insert(key.clone());
                expected.extend(strings(values).into_iter().map(str::to_owned));
            }
        }
    }
    assert_eq!(quoted, expected);
}

#[test]
fn mistakes_are_named() {
    let sandbox = Sandbox::start();
    let help = ["`ssh_ec2 --help` shows how to call it"];
    for (words, error) in [
        (["--tag", "Team"], "\"Team\" is no tag; write KEY=VALUE"),
        (["--region", "Europe"], "\"Europe\" is not the name of a region"),
        (["--account", "me"], "\"me\" is no account; its number has 12 digits"),
    ] {
        fails(sandbox.ssh_ec2().arg("policy").args(words), 2, error, &help);
    }
    let user = run(sandbox.ssh_ec2().args(["policy", "--user", "a/b"])).status(2);
    assert!(user.stderr.contains("\"a/b\" is not a user name"), "{user}");
    let feature = run(sandbox.ssh_ec2().args(["policy", "--with", "name"])).status(2);
    assert!(feature.stderr.contains("invalid value 'name'") && feature.stderr.contains("names"), "{feature}");
    assert!(sandbox.region.calls().is_empty(), "nothing is asked of AWS");
}

#[test]
fn the_sandbox_takes_a_policy_from_a_file() {
    let sandbox = Sandbox::start();
    let file = sandbox.file("policy.json");
    fs::write(&file, printed(&[])).unwrap();
    let within = |words: &[&str]| {
        let mut command = sandbox.ssh_ec2();
        command.args(["sandbox", "--policy"]).arg(&file).args(words);
        run(&mut command)
    };
    assert_eq!(within(&["ssh", "-q", "-n", &sandbox.target(), "echo in"]).success().text(), "in\n");
    assert_names(&within(&["ssh_ec2", "list"]).status(1), "ec2:DescribeInstances");
    fs::write(&file, "{\"Statement\": {}}").unwrap();
    let error = "the policy is malformed: Effect must be \"Allow\" or \"Deny\"";
    let help = "`ssh_ec2 --help` shows how to call it";
    let mut command = sandbox.ssh_ec2();
    command.args(["sandbox", "--policy"]).arg(&file).arg("true");
    fails(&mut command, 2, &format!("{}: {error}", file.display()), &[help]);
}

/// Every block of JSON in the documents stands below the command line that prints it.
#[test]
fn the_documents_show_what_is_printed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut shown = 0;
    for file in ["README.md", "docs/iam.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap();
        let mut command = None;
        for block in text.split("```").skip(1).step_by(2) {
            let (language, content) = block.split_once('\n').unwrap();
            let line = content.lines().next().unwrap_or_default();
            match language {
                "sh" => command = line.strip_prefix("ssh_ec2 policy"),
                "json" | "hcl" => {
                    let words = command.take().unwrap_or_else(|| panic!("{file}: who prints\n{content}"));
                    assert_eq!(content, printed(&words.split_whitespace().collect::<Vec<_>>()), "{file}");
                    shown += 1;
                }
                _ => {}
            }
        }
    }
    assert!(shown >= 3, "{shown}");
}
