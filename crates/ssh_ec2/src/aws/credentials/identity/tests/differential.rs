//! The same configurations and environments, given to this program and to botocore: region, endpoints and
//! identity must agree, or the error in its class and in what it names.
//!
//! botocore runs in `tests/differential/oracle.py`, which also breaks each of its rules in turn: that a
//! broken rule shows is what makes agreement worth something.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::super::process;
use super::super::*;
use super::cases::{Case, HOME, case};

/// The botocore that the AWS CLI of the same week has inside; `.ci/run` installs it.
const BOTOCORE: &str = "1.43.62";
/// The number of generated configurations.
const CASES: usize = 6_000;
/// The least number of cases that each rule has to decide: with the rule broken, the result would be another.
const OCCURRENCES: usize = 50;

/// The intended differences, with their reasons.
struct Difference {
    reason: &'static str,
    applies: fn(&Case, &Value, &Value) -> bool,
}

const DIFFERENCES: [Difference; 3] = [
    Difference {
        reason: "two different profiles in AWS_PROFILE and AWS_DEFAULT_PROFILE are an error here: botocore takes the \
                 first, of which somebody who set the second would hear nothing",
        applies: |case, ours, _| {
            let of = |name| case.env.get(name).filter(|name: &&String| !name.is_empty());
            let (first, second) = (case.env.get("AWS_PROFILE"), of("AWS_DEFAULT_PROFILE"));
            case.profile.is_none()
                && first.is_some()
                && second.is_some()
                && first != second
                && ours["error"]["class"] == "two-profiles"
        },
    },
    Difference {
        reason: "regions with capitals are refused here, before a host name is made of them; at AWS there are none",
        applies: |_, ours, _| {
            let message = ours["error"]["message"].as_str().unwrap_or_default();
            ours["error"]["class"] == "bad-region" && message.contains("EU-West-1")
        },
    },
    Difference {
        reason: "an option that takes a word and has lines below it is named here; botocore ends with an error of \
                 Python's that names nothing",
        applies: |_, ours, theirs| {
            ours["error"]["class"] == "not-text" && theirs["error"]["class"] == "crash"
        },
    },
];

#[test]
fn identities_are_those_of_botocore() {
    let (first, count) = (number("SSH_EC2_SEED", 0), number("SSH_EC2_CASES", CASES));
    let cases: Vec<_> = (first..first + count).map(|seed| case(seed.try_into().unwrap())).collect();
    let mut occurrences = BTreeMap::<&str, Vec<usize>>::new();
    for (at, case) in cases.iter().enumerate() {
        for rule in &case.rules {
            occurrences.entry(rule).or_default().push(at);
        }
    }
    let oracles: Vec<_> = (0..2).map(|part| Oracle::start(&questions(&cases, part), part)).collect();
    let ours: Vec<_> = cases.iter().map(answer).collect();
    let theirs = Theirs::read(oracles, cases.len());

    check_agreement(&cases, &ours, &theirs.whole);
    let occurring: BTreeSet<_> = occurrences.keys().map(|rule| (*rule).to_owned()).collect();
    assert_eq!(occurring, theirs.rules, "the rules of the cases are those of the oracle");
    // With other seeds a rule may be a little rarer.
    let least = if (first, count) == (0, CASES) { OCCURRENCES } else { 1 };
    check_sensitivity(&cases, &theirs.whole, &occurrences, least);
}

/// Every result is the same, or the difference is intended; and at least half of the cases have an identity.
fn check_agreement(cases: &[Case], ours: &[Value], theirs: &[Value]) {
    let mut allowed = [0; DIFFERENCES.len()];
    let mut different = Vec::new();
    for ((case, ours), theirs) in cases.iter().zip(ours).zip(theirs) {
        if agree(ours, theirs) {
            continue;
        }
        match DIFFERENCES.iter().position(|difference| (difference.applies)(case, ours, theirs)) {
            Some(known) => allowed[known] += 1,
            None => different.push(show(case, ours, theirs)),
        }
    }
    let shown = different.iter().take(6).cloned().collect::<String>();
    let count = cases.len();
    assert!(
        different.is_empty(),
        "this program and botocore differ in {} cases of {count}:{shown}",
        different.len()
    );
    for (difference, count) in DIFFERENCES.iter().zip(allowed) {
        assert_ne!(count, 0, "this difference does not occur: {}", difference.reason);
    }
    let identities = theirs.iter().filter(|theirs| !theirs["identity"].is_null()).count();
    println!("{identities} of {count} cases have an identity; known differences: {allowed:?}");
    assert!(identities * 2 >= count, "only {identities} of {count} cases have an identity");
}

/// Every rule decides in at least `least` cases: if it is broken, the result is another. Each is broken in
/// one of its cases after the other, until so many were counted.
fn check_sensitivity(
    cases: &[Case],
    whole: &[Value],
    occurrences: &BTreeMap<&str, Vec<usize>>,
    least: usize,
) {
    let oracles: Vec<_> = (0..2)
        .map(|part| {
            let mine: BTreeMap<_, _> = occurrences.iter().skip(part).step_by(2).collect();
            let needed: BTreeSet<_> = mine.values().flat_map(|all| all.iter().copied()).collect();
            let mut text = String::new();
            for at in needed {
                text += &format!("{}\n", question(cases, at, json!({ "whole": whole[at] })));
            }
            for (rule, all) in mine {
                text += &format!("{}\n", json!({ "break": rule, "in": all, "least": least }));
            }
            Oracle::start(&text, part)
        })
        .collect();
    let mut seldom = Vec::new();
    for answer in oracles.into_iter().flat_map(Oracle::answers).filter(|answer| answer["break"].is_string()) {
        let rule = answer["break"].as_str().unwrap();
        let (tried, shows) = (answer["tried"].as_u64().unwrap(), answer["shows"].as_u64().unwrap());
        println!("{rule}: in {} cases; broken, it shows in {shows} of {tried}", occurrences[rule].len());
        if shows < least as u64 {
            seldom.push(format!("{rule}: {shows}"));
        }
    }
    assert_eq!(seldom, Vec::<String>::new(), "rules that would be missed too seldom");
}

/// botocore's answers.
struct Theirs {
    /// Its answer to each case, in order.
    whole: Vec<Value>,
    /// All rules that can be broken.
    rules: BTreeSet<String>,
}

impl Theirs {
    fn read(oracles: Vec<Oracle>, count: usize) -> Self {
        let mut theirs = Self { whole: vec![Value::Null; count], rules: BTreeSet::new() };
        for mut answer in oracles.into_iter().flat_map(Oracle::answers) {
            if let Some(names) = answer["rules"].as_array() {
                theirs.rules.extend(names.iter().map(|name| name.as_str().unwrap().to_owned()));
                continue;
            }
            let at = usize::try_from(answer["at"].as_u64().unwrap()).unwrap();
            theirs.whole[at] = answer["answer"].take();
        }
        theirs
    }
}

/// A number from the environment, for a longer run than CI's.
fn number(variable: &str, usual: usize) -> usize {
    std::env::var(variable).map_or(usual, |text| text.parse().unwrap())
}

/// What an oracle is asked: its half of the cases.
fn questions(cases: &[Case], part: usize) -> String {
    let mine = (0..cases.len()).filter(|at| at % 2 == part);
    // Now and then botocore makes a whole client.
    mine.map(|at| format!("{}\n", question(cases, at, json!({ "client": at % 25 == 0 })))).collect()
}

/// A case as an oracle reads it, and what else it has to know.
fn question(cases: &[Case], at: usize, mut more: Value) -> Value {
    let case = &cases[at];
    let files: BTreeMap<_, _> = case.files.iter().map(|(path, text)| (path, STANDARD.encode(text))).collect();
    let question = json!({
        "at": at,
        "files": files,
        "env": case.env,
        "profile": case.profile,
        "region": case.region,
    });
    more.as_object_mut().unwrap().extend(question.as_object().unwrap().clone());
    more
}

/// botocore, in a process of its own.
struct Oracle {
    process: Child,
    output: PathBuf,
    _directory: tempfile::TempDir,
}

impl Oracle {
    fn start(questions: &str, part: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (input, output) = (directory.path().join("questions"), directory.path().join("answers"));
        fs::File::create(&input).unwrap().write_all(questions.as_bytes()).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/differential/oracle.py");
        let process = Command::new(python())
            .arg(script)
            .arg(BOTOCORE)
            .arg(directory.path().join("root"))
            .stdin(fs::File::open(&input).unwrap())
            .stdout(fs::File::create(&output).unwrap())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap_or_else(|error| panic!("python, for oracle {part}: {error}"));
        Self { process, output, _directory: directory }
    }

    fn answers(mut self) -> Vec<Value> {
        let ended = self.process.wait().unwrap();
        let directory = directory();
        assert!(
            ended.success(),
            "botocore {BOTOCORE} is missing: python3 -m venv {0} && {0}/bin/pip install botocore=={BOTOCORE}",
            directory.display()
        );
        let text = fs::read_to_string(&self.output).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Where `.ci/run` installs botocore. The test is target/debug/deps/ssh_ec2-….
fn directory() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap().join(format!("botocore-{BOTOCORE}"))
}

/// The Python that has botocore; any may have it.
fn python() -> PathBuf {
    let own = directory().join("bin/python");
    if own.exists() { own } else { "python3".into() }
}

/// This program's result for a case, in the form of the oracle.
fn answer(case: &Case) -> Value {
    let env = case.env.iter().map(|(name, value)| (name.into(), value.into()));
    let variables = Variables::new(env, Some(HOME.into()));
    let read = |path: &Path| Ok(case.files.get(path.to_str().unwrap()).cloned());
    let options = Options { profile: case.profile.as_deref(), region: case.region.as_deref() };
    let identity = match Identity::resolve(options, &variables, &read) {
        Ok(identity) => identity,
        Err(error) => return json!({ "error": { "class": class(&error), "message": error.to_string() } }),
    };
    if identity.region.as_deref() == Some("") {
        return json!({ "error": { "class": "bad-region", "message": "\"\"" } });
    }
    let endpoint = |id| identity.endpoints.of(id);
    json!({
        "region": identity.region,
        "region_of_machine": identity.region.is_none() && identity.metadata.is_some(),
        "endpoints": {
            "ssm": endpoint("SSM"),
            "ec2-instance-connect": endpoint("EC2 Instance Connect"),
            "ec2": endpoint("EC2"),
            "sts": endpoint("STS"),
        },
        "fips": identity.fips,
        "dual_stack": identity.dual_stack,
        "identity": identity.source.as_ref().map(describe),
    })
}

fn describe(source: &Source) -> Value {
    match source {
        Source::Container => json!({ "container": true }),
        Source::Environment(keys) | Source::Keys(keys) => {
            json!({ "keys": keys.id, "secret": keys.secret, "token": keys.token })
        }
        Source::AwsLogin { session, .. } => json!({ "login": session }),
        Source::Metadata(metadata) => json!({ "metadata": metadata.endpoint }),
        Source::Process { command, .. } => {
            json!({ "process": process::split(command).ok() })
        }
        Source::Role(role) => json!({ "role": {
            "arn": role.role.arn,
            "session_name": role.role.session_name,
            "external_id": role.role.external_id,
            "mfa_serial": role.role.mfa_serial,
            "duration_seconds": role.role.duration_seconds,
            "source": describe(&role.source),
        } }),
        Source::Sso { sso, .. } => json!({ "sso": {
            "start_url": sso.start_url,
            "region": sso.region,
            "account_id": sso.account_id,
            "role_name": sso.role_name,
            "session": sso.session,
        } }),
        Source::WebIdentity(web_identity) => json!({ "web_identity": {
            "token_file": web_identity.token_file,
            "role_arn": web_identity.role_arn,
            "session_name": web_identity.session_name,
        } }),
    }
}

fn class(error: &ConfigurationError) -> &'static str {
    match error {
        ConfigurationError::BadExpiration { .. } => "bad-expiration",
        ConfigurationError::BadRegion { .. } => "bad-region",
        ConfigurationError::BothSources { .. } => "both-sources",
        ConfigurationError::EmptyProfile | ConfigurationError::UnknownProfile { .. } => "unknown-profile",
        ConfigurationError::EmptySource { .. } => "empty-source",
        ConfigurationError::Loop { .. } => "loop",
        ConfigurationError::MetadataMode { .. } => "metadata-mode",
        ConfigurationError::MissingServices { .. } => "missing-services",
        ConfigurationError::MissingSourceProfile { .. } => "missing-source-profile",
        ConfigurationError::MissingSsoSession { .. } => "missing-sso-session",
        ConfigurationError::NoSource { .. } => "no-source",
        ConfigurationError::NotText { .. } => "not-text",
        ConfigurationError::OtherHome { .. } => "other-home",
        ConfigurationError::PartialKey { .. } => "partial-key",
        ConfigurationError::SourceWithoutCredentials { .. } => "source-without-credentials",
        ConfigurationError::SsoConflict { .. } => "sso-conflict",
        ConfigurationError::SsoIncomplete { .. } => "sso-incomplete",
        ConfigurationError::Syntax { .. } | ConfigurationError::Unreadable { .. } => "syntax",
        ConfigurationError::TwoProfiles { .. } => "two-profiles",
        ConfigurationError::UnknownCredentialSource { .. } => "unknown-source",
        ConfigurationError::WebIdentityWithoutRole { .. } => "web-identity-without-role",
    }
}

/// Whether both results are the same; of errors, whether this program's names all that botocore's names.
fn agree(ours: &Value, theirs: &Value) -> bool {
    let Some(error) = theirs.get("error") else { return ours == theirs };
    let message = ours["error"]["message"].as_str().unwrap_or_default();
    let names = error["names"].as_array().unwrap();
    // A line end in a name is written as such.
    let is_named =
        |name: &str| message.contains(name) || message.contains(format!("{name:?}").trim_matches('"'));
    ours["error"]["class"] == error["class"] && names.iter().all(|name| is_named(name.as_str().unwrap()))
}

fn show(case: &Case, ours: &Value, theirs: &Value) -> String {
    let mut text = String::new();
    for (path, content) in &case.files {
        text += &format!("\n---- {path}\n{}", String::from_utf8_lossy(content).replace('\r', "\\r\n"));
    }
    format!(
        "\n======== --profile {:?} --region {:?} {:#?}{text}\n---- ours: {ours:#}\n---- botocore's: {theirs:#}\n",
        case.profile, case.region, case.env
    )
}
