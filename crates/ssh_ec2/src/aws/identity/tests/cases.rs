//! Configurations and environments from a seed: what users write, what they write wrong, and how it goes together.

use std::collections::{BTreeMap, BTreeSet};

/// One configuration, environment and command line.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    pub(super) files: BTreeMap<String, Vec<u8>>,
    pub(super) env: BTreeMap<String, String>,
    pub(super) profile: Option<String>,
    pub(super) region: Option<String>,
    /// The rules that it may turn on, by their names in `oracle.py`.
    pub(super) rules: BTreeSet<&'static str>,
}

/// Where the files of cases are.
pub(super) const HOME: &str = "/R/home";

/// The case of a seed.
pub(super) fn case(seed: u64) -> Case {
    let mut draft = Draft::new(seed);
    draft.select();
    let selected = draft.selected.clone();
    draft.region(&selected);
    draft.source(&selected, 0);
    while draft.chance(30) {
        // More than one source: which of them counts?
        draft.source(&selected, MAX_DEPTH);
    }
    if draft.chance(40) {
        let other = draft.other_profile();
        draft.source(&other, MAX_DEPTH);
        draft.region(&other);
    }
    draft.environment();
    draft.endpoints(&selected);
    draft.metadata(&selected);
    draft.legacy_files();
    draft.oddities(&selected);
    draft.finish()
}

/// How many roles stand one behind the other.
const MAX_DEPTH: usize = 3;

const NAMES: [&str; 10] =
    ["dev", "prod", "My Co", "münchen", "a/b@c:d", "it's", "x  y", "Dev", "日本", "a\"b\\c"];
const REGIONS: [&str; 8] = [
    "eu-west-1",
    "us-east-1",
    "ap-south-1",
    "us-gov-west-1",
    "cn-north-1",
    "eu-central-2",
    "sa-east-1",
    "me-south-1",
];

/// Numbers from a seed (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(bound).unwrap()).unwrap()
    }
}

#[derive(Clone, Debug)]
enum Setting {
    Text(String),
    Nested(Vec<(String, String)>),
}

#[derive(Clone, Debug)]
struct Section {
    /// `profile`, `sso-session`, `services`, or nothing.
    kind: &'static str,
    name: String,
    settings: Vec<(String, Setting)>,
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum File {
    Config,
    Credentials,
}

struct Draft {
    random: Random,
    case: Case,
    config: Vec<Section>,
    credentials: Vec<Section>,
    selected: String,
    /// For values of which none is there twice.
    count: usize,
}

impl Draft {
    fn new(seed: u64) -> Self {
        let mut draft = Self {
            random: Random(seed.wrapping_mul(0x2545_f491_4f6c_dd1d)),
            case: Case::default(),
            config: Vec::new(),
            credentials: Vec::new(),
            selected: String::new(),
            count: 0,
        };
        draft.set_env("HOME", HOME);
        draft
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.random.below(100) < percent
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len())].clone()
    }

    fn rule(&mut self, name: &'static str) {
        self.case.rules.insert(name);
    }

    fn set_env(&mut self, name: &str, value: impl Into<String>) {
        self.case.env.insert(name.to_owned(), value.into());
    }

    fn fresh(&mut self, prefix: &str) -> String {
        self.count += 1;
        format!("{prefix}{}", self.count)
    }

    fn some_region(&mut self) -> String {
        self.pick(&REGIONS).to_owned()
    }

    fn section(&mut self, file: File, kind: &'static str, name: &str) -> &mut Section {
        let sections = if file == File::Config { &mut self.config } else { &mut self.credentials };
        let found = sections.iter().position(|section| section.kind == kind && section.name == name);
        let at = found.unwrap_or_else(|| {
            sections.push(Section { kind, name: name.to_owned(), settings: Vec::new() });
            sections.len() - 1
        });
        &mut sections[at]
    }

    /// Sets an option that is not set yet.
    fn set(&mut self, file: File, profile: &str, option: &str, value: impl Into<String>) {
        let kind = if file == File::Config { "profile" } else { "" };
        let section = self.section(file, kind, profile);
        if section.settings.iter().all(|(name, _)| name != option) {
            section.settings.push((option.to_owned(), Setting::Text(value.into())));
        }
    }

    /// In the config file mostly; the credentials file has profiles as well.
    fn set_somewhere(&mut self, profile: &str, option: &str, value: impl Into<String>) {
        let value = value.into();
        match self.random.below(12) {
            0 => self.set(File::Credentials, profile, option, value),
            1 => {
                self.rule("the credentials file wins");
                self.set(File::Config, profile, option, format!("not-{value}"));
                self.set(File::Credentials, profile, option, value);
            }
            _ => self.set(File::Config, profile, option, value),
        }
    }

    fn other_profile(&mut self) -> String {
        let taken: Vec<_> =
            self.config.iter().chain(&self.credentials).map(|section| section.name.clone()).collect();
        let free: Vec<_> = NAMES
            .iter()
            .filter(|name| !taken.iter().any(|taken| taken == *name) && **name != self.selected)
            .collect();
        match free[..] {
            [] => self.fresh("p"),
            _ => self.pick(&free).to_string(),
        }
    }

    /// Which profile, and how it is named.
    fn select(&mut self) {
        let name = if self.chance(20) { "default".to_owned() } else { self.pick(&NAMES).to_owned() };
        self.selected.clone_from(&name);
        self.section(File::Config, "profile", &name);
        match self.random.below(20) {
            0..=5 => {
                self.rule("--profile");
                self.case.profile = Some(name);
                if self.chance(40) {
                    let other = self.other_profile();
                    self.set_env("AWS_PROFILE", other);
                }
            }
            6..=11 => {
                self.rule("AWS_PROFILE");
                self.set_env("AWS_PROFILE", name.clone());
                match self.random.below(12) {
                    0 => {
                        let other = self.other_profile();
                        self.set_env("AWS_DEFAULT_PROFILE", other);
                    }
                    1 => self.set_env("AWS_DEFAULT_PROFILE", name),
                    2 => self.set_env("AWS_DEFAULT_PROFILE", ""),
                    _ => {}
                }
            }
            12..=14 => {
                self.rule("AWS_DEFAULT_PROFILE");
                self.set_env("AWS_DEFAULT_PROFILE", name);
            }
            15 => {
                self.rule("an empty profile is a name");
                self.set_env(if self.count % 2 == 0 { "AWS_PROFILE" } else { "AWS_DEFAULT_PROFILE" }, "");
            }
            16 => {
                self.rule("a named profile exists");
                self.case.profile = Some("gone".into());
            }
            _ => {
                self.config.retain(|section| section.name != name);
                self.selected = "default".into();
                if self.chance(80) {
                    self.section(File::Config, "profile", "default");
                }
            }
        }
    }

    fn region(&mut self, profile: &str) {
        if self.chance(85) {
            let region = match self.random.below(60) {
                0 => "eu_west_1".to_owned(),
                1 => "EU-West-1".to_owned(),
                2 => String::new(),
                _ => self.some_region(),
            };
            self.set_somewhere(profile, "region", region);
        }
    }

    /// Gives a profile somewhere to get credentials from, or nothing.
    fn source(&mut self, profile: &str, depth: usize) {
        match self.random.below(if depth < MAX_DEPTH { 34 } else { 19 }) {
            0..=2 => self.keys(File::Credentials, profile, "keys in the credentials file"),
            3..=4 => self.keys(File::Config, profile, "keys in the config file"),
            5..=6 | 18 => self.process(profile),
            7..=10 => self.single_sign_on(profile),
            11 | 16..=17 => {
                self.rule("login_session");
                let session = self.fresh("arn:aws:iam::1:user/");
                self.set_somewhere(profile, "login_session", session);
            }
            12..=13 => self.web_identity(profile),
            14 => {}
            15 => self.half_key(profile),
            _ => self.role(profile, depth),
        }
        let has = |draft: &Self, file: File, option: &str| {
            let sections = if file == File::Config { &draft.config } else { &draft.credentials };
            let mut own = sections.iter().filter(|section| section.name == profile);
            own.any(|section| section.settings.iter().any(|(name, _)| name == option))
        };
        let keys = has(self, File::Credentials, "aws_access_key_id");
        let config_keys = has(self, File::Config, "aws_access_key_id");
        let sso = has(self, File::Config, "sso_role_name") || has(self, File::Credentials, "sso_role_name");
        let process = has(self, File::Config, "credential_process");
        for (both, rule) in [
            (keys && sso, "Identity Center before keys"),
            (keys && has(self, File::Config, "login_session"), "keys before login"),
            (process && has(self, File::Config, "login_session"), "login before a process"),
            (process && config_keys, "a process before the config file's keys"),
            (
                sso && has(self, File::Config, "web_identity_token_file"),
                "web identity before Identity Center",
            ),
        ] {
            if both {
                self.rule(rule);
            }
        }
    }

    fn keys(&mut self, file: File, profile: &str, rule: &'static str) {
        self.rule(rule);
        let id = self.fresh("AKIA");
        self.set(file, profile, "aws_access_key_id", id);
        self.set(file, profile, "aws_secret_access_key", "s");
        let tokens = self.random.below(4);
        if tokens & 1 != 0 {
            self.set(file, profile, "aws_session_token", "new");
        }
        if tokens & 2 != 0 {
            self.set(file, profile, "aws_security_token", "old");
        }
        if tokens == 3 {
            self.rule("tokens in a file");
        }
    }

    fn half_key(&mut self, profile: &str) {
        self.rule("half a key in a file");
        let file = if self.chance(50) { File::Config } else { File::Credentials };
        let id = self.fresh("HALF");
        if self.chance(70) {
            self.set(file, profile, "aws_access_key_id", id);
            if self.chance(20) {
                let other = if file == File::Config { File::Credentials } else { File::Config };
                self.set(other, profile, "aws_secret_access_key", "s");
            }
        } else {
            self.set(file, profile, "aws_secret_access_key", "s");
        }
    }

    fn process(&mut self, profile: &str) {
        self.rule("credential_process");
        let program = self.fresh("/bin/cp");
        let arguments = ["", " a", " 'b c'", " \"d e\" f", " g\\ h"];
        let mut command = program + &self.pick(&arguments);
        if self.chance(15) {
            self.rule("deeper lines continue a value");
            command += "\n-x";
            if self.chance(50) {
                self.rule("blank lines belong to values");
                command = command.replace("\n", "\n\n");
            }
        }
        self.set_somewhere(profile, "credential_process", command);
    }

    fn web_identity(&mut self, profile: &str) {
        self.rule("web identity in a profile");
        let file = self.fresh("/var/run/token");
        self.set_somewhere(profile, "web_identity_token_file", file);
        if self.chance(85) {
            self.rule("a web identity is no role");
            let arn = self.fresh("arn:aws:iam::1:role/web");
            self.set_somewhere(profile, "role_arn", arn);
        } else {
            self.rule("a web identity needs a role");
        }
        if self.chance(30) {
            let name = self.fresh("web-session");
            self.set_somewhere(profile, "role_session_name", name);
        }
    }

    fn single_sign_on(&mut self, profile: &str) {
        self.rule("Identity Center");
        let (account, role) = (self.fresh("1234"), self.fresh("Role"));
        let (url, region) = (self.fresh("https://start.example/"), self.some_region());
        match self.random.below(24) {
            0..=2 => {
                self.rule("half of Identity Center");
                let (option, value) =
                    if self.chance(50) { ("sso_account_id", account) } else { ("sso_role_name", role) };
                self.set_somewhere(profile, option, value);
            }
            3 => {}
            _ => {
                self.set_somewhere(profile, "sso_account_id", account);
                self.set_somewhere(profile, "sso_role_name", role);
            }
        }
        if self.chance(35) {
            // Without a section.
            let missing = self.random.below(8);
            if missing != 0 {
                self.set_somewhere(profile, "sso_start_url", url);
            }
            if missing != 1 {
                self.set_somewhere(profile, "sso_region", region);
            }
            if missing < 2 {
                self.rule("nothing is missing for Identity Center");
            }
            return;
        }
        let name = self.pick(&["s", "My Sign-in", "sëssion"]);
        self.set_somewhere(profile, "sso_session", name);
        if self.chance(10) {
            self.rule("a session exists");
            return;
        }
        self.rule("sso_session");
        let whole = !self.chance(10);
        if !whole {
            self.rule("a session is whole");
        }
        let mut settings = vec![("sso_start_url", url)];
        if whole {
            settings.push(("sso_region", region));
        }
        if self.chance(40) {
            settings.push(("sso_registration_scopes", "sso:account:access".into()));
        }
        let repeated = self.random.below(6);
        for (option, value) in settings {
            let section = self.section(File::Config, "sso-session", name);
            if section.settings.iter().all(|(name, _)| name != option) {
                section.settings.push((option.to_owned(), Setting::Text(value.clone())));
            }
            if repeated == 0 {
                self.rule("a session may be repeated");
                self.set(File::Config, profile, option, value);
            } else if repeated == 1 && option == "sso_start_url" {
                self.rule("a session is not contradicted");
                self.set(File::Config, profile, option, "https://other.example/");
            }
        }
    }

    fn role(&mut self, profile: &str, depth: usize) {
        self.rule("roles");
        let arn = self.fresh("arn:aws:iam::1:role/r");
        self.set_somewhere(profile, "role_arn", arn);
        for (option, value) in [
            ("role_session_name", "me"),
            ("external_id", "x # y ; z"),
            ("mfa_serial", "arn:aws:iam::1:mfa/me"),
            ("duration_seconds", "3600"),
        ] {
            if self.chance(25) {
                self.rule(option);
                if option == "external_id" {
                    self.rule("comments do not end a value");
                }
                let value = if option == "duration_seconds" && self.chance(10) { "an hour" } else { value };
                self.set_somewhere(profile, option, value);
            }
        }
        match self.random.below(24) {
            0..=2 => self.named_source(profile, &["Environment", "EcsContainer", "Ec2InstanceMetadata"]),
            3 => {
                self.rule("unknown sources");
                self.rule("sources have a case");
                self.set(File::Config, profile, "credential_source", "environment");
                if self.chance(50) {
                    self.set_key_env();
                }
            }
            4 => {
                self.rule("two sources");
                self.set(File::Config, profile, "source_profile", "dev");
                self.set(File::Config, profile, "credential_source", "Environment");
            }
            5 => self.rule("no source"),
            6 => {
                self.rule("a missing source profile");
                self.set_somewhere(profile, "source_profile", "nowhere to be found");
            }
            7 => {
                self.rule("a source without credentials");
                let source = self.other_profile();
                self.section(File::Config, "profile", &source);
                self.region(&source);
                self.set(File::Config, profile, "source_profile", source);
            }
            8 => {
                self.rule("circles");
                let selected = self.selected.clone();
                self.set(File::Config, profile, "source_profile", selected);
            }
            9 => {
                let file = if self.chance(50) { File::Config } else { File::Credentials };
                self.keys(file, profile, "keys before a source's role");
                self.set(File::Config, profile, "source_profile", profile);
            }
            10 => {
                let source = self.other_profile();
                self.keys(File::Credentials, &source, "keys before a source's role");
                self.role(&source, MAX_DEPTH);
                self.set_somewhere(profile, "source_profile", source);
            }
            _ => {
                let source = self.other_profile();
                // So that the name is taken.
                self.section(File::Config, "profile", &source);
                self.set_somewhere(profile, "source_profile", source.clone());
                if depth < MAX_DEPTH {
                    self.source(&source, depth + 1);
                } else {
                    self.keys(File::Credentials, &source, "keys in the credentials file");
                }
            }
        }
    }

    fn named_source(&mut self, profile: &str, names: &[&str]) {
        self.rule("named sources");
        self.rule("an empty source");
        let name = self.pick(names);
        self.set_somewhere(profile, "credential_source", name);
        if self.chance(65) {
            match name {
                "Environment" => self.set_key_env(),
                "EcsContainer" => self.set_env("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/c"),
                _ => {}
            }
        }
    }

    fn set_key_env(&mut self) {
        self.rule("keys in the environment");
        if self.case.profile.is_some() {
            self.rule("--profile switches keys off");
        }
        let id = self.fresh("ENV");
        self.set_env("AWS_ACCESS_KEY_ID", id);
        self.set_env("AWS_SECRET_ACCESS_KEY", "s");
        if self.chance(50) {
            self.set_env("AWS_SESSION_TOKEN", "new");
            if self.chance(50) {
                self.rule("tokens in the environment");
                self.set_env("AWS_SECURITY_TOKEN", "old");
            }
        }
    }

    fn environment(&mut self) {
        match self.random.below(25) {
            0..=3 => self.set_key_env(),
            4 => {
                self.rule("an id without a secret");
                self.set_env("AWS_ACCESS_KEY_ID", "HALF");
                if self.chance(30) {
                    self.set_env("AWS_SECRET_ACCESS_KEY", "");
                }
            }
            5 => {
                self.rule("a secret without an id");
                self.set_env("AWS_SECRET_ACCESS_KEY", "s");
            }
            _ => {}
        }
        if self.chance(12) {
            self.rule("web identity in the environment");
            if self.case.profile.is_some() {
                self.rule("--profile switches web identity off");
            }
            let file = if self.chance(10) { "" } else { "/env/token" };
            self.set_env("AWS_WEB_IDENTITY_TOKEN_FILE", file);
            if self.chance(80) {
                self.rule("AWS_ROLE_ARN");
                self.set_env("AWS_ROLE_ARN", "arn:aws:iam::1:role/env");
            } else {
                self.rule("a web identity needs a role");
            }
            if self.chance(40) {
                self.rule("AWS_ROLE_SESSION_NAME");
                self.set_env("AWS_ROLE_SESSION_NAME", "env-session");
            }
        }
        if self.chance(12) {
            self.rule("a container");
            self.rule("a container before the machine");
            let name = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
            let name = self.pick(&name);
            self.set_env(name, if name.ends_with("FULL_URI") { "http://localhost/c" } else { "/c" });
        }
        let (first, second) = (self.chance(15), self.chance(15));
        if first {
            let region = if self.chance(3) { String::new() } else { self.some_region() };
            self.set_env("AWS_REGION", region);
        }
        if second {
            let region = self.some_region();
            self.set_env("AWS_DEFAULT_REGION", region);
        }
        if first && second {
            self.rule("AWS_REGION before AWS_DEFAULT_REGION");
        }
        if first || second {
            self.rule("variables before the profile's region");
        }
        if self.chance(10) {
            self.rule("--region");
            self.case.region = Some(self.some_region());
        }
    }

    fn metadata(&mut self, profile: &str) {
        self.rule("the machine");
        self.rule("the machine is last");
        self.rule("the machine's region");
        if self.chance(25) {
            self.rule("AWS_EC2_METADATA_DISABLED");
            let value = self.pick(&["true", "TRUE", "1"]);
            self.set_env("AWS_EC2_METADATA_DISABLED", value);
        }
        if self.chance(15) {
            self.rule("AWS_EC2_METADATA_SERVICE_ENDPOINT");
            self.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338/");
        }
        if self.chance(15) {
            self.rule("ec2_metadata_service_endpoint");
            self.set(File::Config, profile, "ec2_metadata_service_endpoint", "http://127.0.0.1:1339/");
        }
        if self.chance(20) {
            self.rule("the mode of the metadata service");
            let mut mode = self.pick(&["IPv6", "ipv6", "IPv4"]);
            if self.chance(12) {
                self.rule("a mode that is none");
                mode = "IPv5";
            }
            match self.random.below(3) {
                0 => self.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", mode),
                1 => self.set_env("AWS_IMDS_USE_IPV6", "true"),
                _ => self.set(File::Config, profile, "ec2_metadata_service_endpoint_mode", mode),
            }
        }
    }

    fn endpoints(&mut self, profile: &str) {
        let mut found = 0;
        if self.chance(12) {
            self.rule("AWS_ENDPOINT_URL_…");
            for service in ["SSM", "EC2_INSTANCE_CONNECT", "EC2", "STS"] {
                if self.chance(50) {
                    self.set_env(
                        &format!("AWS_ENDPOINT_URL_{service}"),
                        format!("http://{}.env", service.len()),
                    );
                }
            }
            found |= 1;
        }
        if self.chance(10) {
            self.rule("AWS_ENDPOINT_URL");
            let url = if self.chance(15) { "" } else { "http://all.env" };
            self.set_env("AWS_ENDPOINT_URL", url);
            found |= 2;
        }
        if self.chance(15) {
            self.rule("services");
            self.rule("names of services");
            let name = self.pick(&["svc", "My Services"]);
            self.set(File::Config, profile, "services", name);
            if self.chance(12) {
                self.rule("a services section exists");
            } else {
                self.rule("lines below an option are nested");
                for service in ["ssm", "ec2_instance_connect", "ec2-instance-connect", "ec2", "sts"] {
                    if self.chance(60) {
                        let url = format!("http://{}.services", service.replace('_', "."));
                        let nested =
                            vec![("endpoint_url".to_owned(), url), ("other".to_owned(), "x = y".to_owned())];
                        let section = self.section(File::Config, "services", name);
                        section.settings.push((service.to_owned(), Setting::Nested(nested)));
                    }
                }
            }
            found |= 4;
        }
        if self.chance(12) {
            self.rule("endpoint_url");
            self.set_somewhere(profile, "endpoint_url", "http://all.profile");
            found |= 8;
        }
        for (both, rule) in [
            (3, "a service's variable before the one of all"),
            (5, "variables before services"),
            (6, "variables before services"),
            (9, "variables before services"),
            (12, "services before endpoint_url"),
        ] {
            if found & both == both {
                self.rule(rule);
            }
        }
        for (name, option) in [
            ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls"),
            ("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint"),
            ("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint"),
        ] {
            let value = self.pick(&["true", "True", "false", "yes"]);
            if self.chance(5) {
                self.rule(name);
                self.set_env(name, value);
            }
            if self.chance(5) {
                self.rule(option);
                self.set_somewhere(profile, option, value);
            }
        }
    }

    /// Files that only the oldest tools have.
    fn legacy_files(&mut self) {
        if self.chance(3) {
            self.rule("AWS_CREDENTIAL_FILE");
            self.set_env("AWS_CREDENTIAL_FILE", "~/ec2");
            let text = "AWSAccessKeyId = EC2OLD\nother\nAWSSecretKey=s\n";
            self.case.files.insert(format!("{HOME}/ec2"), text.into());
        }
        if self.chance(6) {
            self.rule("boto's file");
            let text = "[Boto]\nx = y\n[Credentials]\naws_access_key_id = BOTO\naws_secret_access_key = s\n";
            let path = match self.random.below(3) {
                0 => "/etc/boto.cfg".to_owned(),
                1 => format!("{HOME}/.boto"),
                _ => {
                    self.set_env("BOTO_CONFIG", "/R/boto");
                    "/R/boto".to_owned()
                }
            };
            self.case.files.insert(path, text.into());
        }
    }

    /// Sections that mean nothing, or something else than they seem to.
    fn oddities(&mut self, profile: &str) {
        if self.chance(6) {
            self.rule("a header needs the word profile");
            let name = match self.case.profile.clone().or(self.case.env.get("AWS_PROFILE").cloned()) {
                Some(name) if self.chance(60) => {
                    self.config.retain(|section| section.kind != "profile" || section.name != name);
                    name
                }
                _ => "bare".to_owned(),
            };
            let section = self.section(File::Config, "", &name);
            section.settings.push(("region".into(), Setting::Text("us-west-1".into())));
        }
        if self.chance(4) {
            self.rule("[DEFAULT] is for all");
            let option = self.pick(&["region", "external_id", "credential_process"]);
            let value = if option == "region" { "ca-central-1" } else { "of-all" };
            self.section(File::Config, "", "DEFAULT")
                .settings
                .push((option.into(), Setting::Text(value.into())));
        }
        if self.chance(10) {
            let nested = vec![("max_concurrent_requests".to_owned(), "20".to_owned())];
            self.section(File::Config, "profile", profile)
                .settings
                .push(("s3".into(), Setting::Nested(nested)));
        }
        if self.chance(2) {
            let option = self.pick(&["region", "credential_process"]);
            let nested = Setting::Nested(vec![("a".to_owned(), "b".to_owned())]);
            let section = self.section(File::Config, "profile", profile);
            section.settings.retain(|(name, _)| name != option);
            section.settings.push((option.to_owned(), nested));
        }
        if profile == "default" && self.chance(12) {
            self.rule("the last spelling wins");
            let at = self.random.below(self.config.len() + 1);
            let region = Setting::Text("eu-north-1".into());
            let settings = vec![("region".to_owned(), region)];
            self.config.insert(at, Section { kind: "default", name: "default".into(), settings });
        }
    }

    fn finish(mut self) -> Case {
        let (config, credentials) = (self.config.clone(), self.credentials.clone());
        let text = self.render(&config, File::Config);
        let path = self.path("AWS_CONFIG_FILE", "config");
        self.case.files.insert(path, text);
        let text = self.render(&credentials, File::Credentials);
        let path = self.path("AWS_SHARED_CREDENTIALS_FILE", "credentials");
        self.case.files.insert(path, text);
        self.case
    }

    /// Where a file is, and the variable that says so.
    fn path(&mut self, variable: &'static str, usual: &str) -> String {
        if self.chance(85) {
            return format!("{HOME}/.aws/{usual}");
        }
        self.rule(variable);
        if self.chance(50) {
            self.rule("paths are expanded");
        }
        if self.case.rules.contains("paths are expanded") {
            self.set_env("DIRECTORY", "/R/elsewhere");
            let (value, path) = self.pick(&[
                ("~/other", "/R/home/other"),
                ("$DIRECTORY/other", "/R/elsewhere/other"),
                ("${DIRECTORY}/x", "/R/elsewhere/x"),
                ("~/$UNSET/x", "/R/home/$UNSET/x"),
            ]);
            self.set_env(variable, format!("{value}-{usual}"));
            return format!("{path}-{usual}");
        }
        self.set_env(variable, format!("/R/plain-{usual}"));
        format!("/R/plain-{usual}")
    }

    fn render(&mut self, sections: &[Section], file: File) -> Vec<u8> {
        let mut text = String::new();
        // One mistake makes a whole file unreadable.
        let twice = (self.chance(2) && !sections.is_empty()).then(|| self.random.below(sections.len()));
        let indentation = if self.chance(30) { self.pick(&["  ", "    ", "\t"]) } else { "" };
        let ragged = self.chance(5);
        for (at, section) in sections.iter().enumerate() {
            self.comment(&mut text, indentation);
            let header = self.header(section, file);
            text += &header;
            text.push('\n');
            for (option, setting) in &section.settings {
                self.comment(&mut text, indentation);
                let mut indentation = indentation.to_owned();
                if ragged {
                    indentation = " ".repeat(self.random.below(4));
                }
                self.option(&mut text, &indentation, option, setting);
            }
            if twice == Some(at) {
                self.rule("nothing is there twice");
                match section.settings.first() {
                    Some((option, setting)) if self.chance(50) => {
                        self.option(&mut text, indentation, option, &setting.clone());
                    }
                    _ => text += &format!("{header}\n"),
                }
            }
            if self.chance(20) {
                text.push('\n');
            }
        }
        self.encode(text)
    }

    fn comment(&mut self, text: &mut String, indentation: &str) {
        if !self.chance(12) {
            return;
        }
        let (rule, sign) = self.pick(&[("semicolons begin comments", ';'), ("hashes begin comments", '#')]);
        self.rule(rule);
        let indentation = if self.chance(50) { indentation } else { "" };
        *text += &format!("{indentation}{sign} region = from-a-comment\n");
    }

    fn header(&mut self, section: &Section, file: File) -> String {
        let name = &section.name;
        let header = match (file, section.kind) {
            (File::Credentials, _) | (_, "") => format!("[{name}]"),
            (_, "default") => "[default]".to_owned(),
            (_, "profile") if name == "default" && self.chance(70) => "[default]".to_owned(),
            (_, kind) => {
                let kind = if self.chance(3) {
                    self.rule("the word may have a tail");
                    format!("{kind}s")
                } else {
                    kind.to_owned()
                };
                if !name.is_ascii() {
                    self.rule("names have any letter");
                }
                format!("[{kind} {}]", self.quoted(name))
            }
        };
        match self.random.below(30) {
            0 => {
                self.rule("text after a header");
                header + " /* note */"
            }
            1 => {
                self.rule("text after a header");
                header + "# note"
            }
            2 if self.chance(40) => {
                self.rule("a header ends at its last bracket");
                header + " # [note]"
            }
            _ => header,
        }
    }

    fn quoted(&mut self, name: &str) -> String {
        let plain = name.chars().all(|character| !" '\"\\".contains(character));
        if plain && !self.chance(15) {
            return name.to_owned();
        }
        if self.chance(4) {
            // A mistake that many make: two words.
            return name.to_owned();
        }
        self.rule("names are quoted");
        match self.random.below(3) {
            0 if !name.contains('\'') => format!("'{name}'"),
            1 => {
                let escape = |character: char| match character {
                    ' ' | '\'' | '"' | '\\' => format!("\\{character}"),
                    other => other.to_string(),
                };
                name.chars().map(escape).collect()
            }
            _ => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }

    fn option(&mut self, text: &mut String, indentation: &str, option: &str, setting: &Setting) {
        let mut name = option.to_owned();
        if self.chance(5) {
            self.rule("options have no case");
            name = name.to_uppercase();
        }
        let mut sign = " = ";
        if self.chance(6) {
            self.rule("colons are delimiters");
            sign = ": ";
        } else if self.chance(20) {
            sign = "=";
        }
        match setting {
            Setting::Text(value) => {
                let value = value.replace('\n', &format!("\n{indentation}  "));
                *text += &format!("{indentation}{name}{sign}{value}\n");
            }
            Setting::Nested(nested) => {
                *text += &format!("{indentation}{name}{}\n", sign.trim_end());
                for (name, value) in nested {
                    *text += &format!("{indentation}    {name} = {value}\n");
                }
            }
        }
    }

    fn encode(&mut self, text: String) -> Vec<u8> {
        match self.random.below(100) {
            0 => {
                self.rule("a byte order mark is no blank");
                format!("\u{feff}{text}").into_bytes()
            }
            1 => {
                self.rule("text is UTF-8");
                [b"# caf\xe9\n", text.as_bytes()].concat()
            }
            2 => {
                self.rule("a carriage return ends a line");
                text.replace('\n', "\r").into_bytes()
            }
            3..=7 => text.replace('\n', "\r\n").into_bytes(),
            _ => text.into_bytes(),
        }
    }
}
