//! Where a profile gets credentials from, and what is wrong with it.

use super::{Draft, File, MAX_DEPTH, Setting};

impl Draft {
    /// Gives a profile somewhere to get credentials from, or nothing.
    pub(super) fn source(&mut self, profile: &str, depth: usize) {
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

    pub(super) fn keys(&mut self, file: File, profile: &str, rule: &'static str) {
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

    pub(super) fn half_key(&mut self, profile: &str) {
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

    pub(super) fn process(&mut self, profile: &str) {
        self.rule("credential_process");
        let program = self.fresh("/bin/cp");
        let arguments = ["", " a", " 'b c'", " \"d e\" f", " g\\ h"];
        let mut command = program + self.pick(&arguments);
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

    pub(super) fn web_identity(&mut self, profile: &str) {
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

    pub(super) fn single_sign_on(&mut self, profile: &str) {
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

    pub(super) fn role(&mut self, profile: &str, depth: usize) {
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
                let value = match option {
                    "duration_seconds" if self.chance(10) => "an hour",
                    "external_id" if self.chance(20) => {
                        self.rule("deeper lines continue a value");
                        self.rule("blank lines belong to values");
                        "x\n\ny"
                    }
                    _ => value,
                };
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

    pub(super) fn named_source(&mut self, profile: &str, names: &[&str]) {
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

    pub(super) fn set_key_env(&mut self) {
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
}
