//! One thing at a time: rules that would seldom decide where everything goes together.

use super::{Draft, File, Section, Setting};

impl Draft {
    /// A profile that is named plainly, with a region and one thing more.
    pub(super) fn focus(&mut self) {
        let name = self.pick(&["dev", "My Co", "münchen"]);
        self.selected = name.to_owned();
        if self.chance(50) {
            self.set_env("AWS_PROFILE", name);
        } else {
            self.case.profile = Some(name.to_owned());
        }
        let region = self.some_region();
        self.set(File::Config, name, "region", region);
        match self.random.below(47) {
            0 | 30 => self.ec2_file(),
            1 | 31 => self.boto_file(),
            2 | 3 | 32..=34 => self.focus_on_the_machine(name),
            4 | 41 => {
                self.rule("a container");
                self.rule("a container before the machine");
                self.set_env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://localhost/c");
            }
            5..=7 | 35 => self.focus_on_sessions(name),
            8..=10 | 36..=37 | 42..=44 => self.focus_on_order(name),
            11 | 12 | 38 => self.focus_on_endpoints(name),
            13 => self.focus_on_web_identity(name),
            14 => {
                self.rule("[DEFAULT] is for all");
                let value = Setting::Text("of-all".into());
                self.section(File::Config, "", "DEFAULT").settings.push(("credential_process".into(), value));
            }
            15 | 40 | 45 => {
                self.rule("roles");
                self.set(File::Config, name, "role_arn", "arn:aws:iam::1:role/r");
                self.named_source(name, &["Environment", "EcsContainer"]);
            }
            16 => {
                self.rule("services");
                self.rule("a services section exists");
                self.keys(File::Config, name, "keys in the config file");
                self.set(File::Config, name, "services", "gone");
            }
            17 => self.half_key(name),
            18 => {
                let (first, second) = (self.some_region(), self.some_region());
                self.rule("AWS_REGION before AWS_DEFAULT_REGION");
                self.set_env("AWS_REGION", first);
                self.set_env("AWS_DEFAULT_REGION", second);
            }
            19..=21 => self.focus_on_mistakes(name),
            22 => {
                self.rule("a mode that is none");
                self.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "IPv5");
            }
            23 => {
                self.rule("a header needs the word profile");
                self.config.iter_mut().for_each(|section| section.kind = "");
            }
            24 | 39 => {
                self.rule("the last spelling wins");
                self.case.profile = None;
                self.case.env.remove("AWS_PROFILE");
                self.set(File::Config, "default", "region", "eu-north-1");
                let settings = vec![("region".to_owned(), Setting::Text("eu-south-1".into()))];
                self.config.push(Section { kind: "default", name: "default".into(), settings });
            }
            25 => self.focus_on_half_sign_ins(name),
            26..=28 => self.focus_on_order_of_endpoints(name),
            _ => {
                self.rule("the machine's region");
                self.section(File::Config, "profile", name).settings.clear();
            }
        }
    }

    fn focus_on_mistakes(&mut self, name: &str) {
        let (rules, options): (&[_], &[_]) = match self.random.below(7) {
            0 => (&["two sources"], &["source_profile", "credential_source"]),
            1 => (&["no source"], &[]),
            2 => (&["unknown sources", "sources have a case"], &[]),
            3 => (&["a missing source profile"], &["source_profile"]),
            4 => (&["a web identity needs a role"], &["web_identity_token_file"]),
            5 => (&["circles"], &[]),
            _ => (&["a source without credentials"], &[]),
        };
        rules.iter().for_each(|rule| self.rule(rule));
        if rules != ["a web identity needs a role"] {
            self.set(File::Config, name, "role_arn", "arn:aws:iam::1:role/r");
        }
        for option in options {
            self.set(File::Config, name, option, format!("of-{option}"));
        }
        match rules {
            ["unknown sources", ..] => {
                self.set_key_env();
                self.case.env.remove("AWS_PROFILE");
                self.case.profile = Some(name.to_owned());
                self.set(File::Config, name, "credential_source", "environment");
            }
            ["circles"] => self.set(File::Config, name, "source_profile", name),
            ["a source without credentials"] => {
                self.set(File::Config, name, "source_profile", "empty");
                self.set(File::Config, "empty", "region", "eu-west-3");
            }
            _ => {}
        }
    }

    fn focus_on_half_sign_ins(&mut self, name: &str) {
        let all = ["sso_account_id", "sso_role_name", "sso_start_url", "sso_region"];
        let missing = self.random.below(4);
        self.rule(if missing < 2 {
            "half of Identity Center"
        } else {
            "nothing is missing for Identity Center"
        });
        for (at, option) in all.into_iter().enumerate() {
            if at != missing {
                self.set(File::Config, name, option, format!("of-{option}"));
            }
        }
    }

    fn focus_on_order_of_endpoints(&mut self, name: &str) {
        self.keys(File::Credentials, name, "keys in the credentials file");
        if self.chance(50) {
            self.rule("a service's variable before the one of all");
            self.set_env("AWS_ENDPOINT_URL_SSM", "http://ssm.env");
            self.set_env("AWS_ENDPOINT_URL", "http://all.env");
        } else {
            self.rule("services before endpoint_url");
            self.set(File::Config, name, "services", "s");
            self.set(File::Config, name, "endpoint_url", "http://all.profile");
            let nested = vec![("endpoint_url".to_owned(), "http://ec2.services".to_owned())];
            let section = self.section(File::Config, "services", "s");
            section.settings.push(("ec2".into(), Setting::Nested(nested)));
        }
    }

    fn focus_on_the_machine(&mut self, name: &str) {
        self.rule("the machine");
        match self.random.below(4) {
            0 => {
                self.rule("AWS_EC2_METADATA_DISABLED");
                self.set_env("AWS_EC2_METADATA_DISABLED", "True");
            }
            1 => {
                self.rule("AWS_EC2_METADATA_SERVICE_ENDPOINT");
                self.set_env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1338/");
            }
            2 => {
                self.rule("ec2_metadata_service_endpoint");
                self.set(File::Config, name, "ec2_metadata_service_endpoint", "http://127.0.0.1:1339/");
            }
            _ => {
                self.rule("the mode of the metadata service");
                self.set(File::Config, name, "ec2_metadata_service_endpoint_mode", "IPv6");
            }
        }
    }

    fn focus_on_sessions(&mut self, name: &str) {
        self.rule("Identity Center");
        for (option, value) in [("sso_account_id", "1"), ("sso_role_name", "r"), ("sso_session", "s")] {
            self.set(File::Config, name, option, value);
        }
        let url = "https://start.example/";
        let which = self.random.below(5);
        if which == 0 {
            self.rule("a session exists");
            return;
        }
        self.rule("sso_session");
        let section = self.section(File::Config, "sso-session", "s");
        section.settings.push(("sso_start_url".into(), Setting::Text(url.into())));
        if which == 1 || which == 4 {
            // The profile has what the section lacks, which is enough for credentials and not for a token.
            self.rule("a session is whole");
            self.set(File::Config, name, "sso_region", "eu-west-1");
            return;
        }
        section.settings.push(("sso_region".into(), Setting::Text("eu-west-1".into())));
        if which == 2 {
            self.rule("a session may be repeated");
            self.set(File::Config, name, "sso_start_url", url);
        } else {
            self.rule("a session is not contradicted");
            self.set(File::Config, name, "sso_start_url", "https://other.example/");
        }
    }

    /// Two sources, of which the first counts.
    fn focus_on_order(&mut self, name: &str) {
        let (rule, options): (_, &[_]) = match self.random.below(5) {
            0 => {
                self.keys(File::Credentials, name, "keys in the credentials file");
                ("keys before login", &["login_session"])
            }
            1 => ("login before a process", &["login_session", "credential_process"]),
            2 => {
                self.keys(File::Config, name, "keys in the config file");
                ("a process before the config file's keys", &["credential_process"])
            }
            3 => {
                self.keys(File::Credentials, name, "keys in the credentials file");
                ("Identity Center before keys", &TWO_SIGN_INS[2..])
            }
            _ => ("web identity before Identity Center", &TWO_SIGN_INS),
        };
        self.rule(rule);
        for option in options {
            self.set(File::Config, name, option, format!("/{option}"));
        }
    }

    fn focus_on_endpoints(&mut self, name: &str) {
        self.keys(File::Credentials, name, "keys in the credentials file");
        if self.chance(50) {
            self.rule("AWS_ENDPOINT_URL");
            self.set_env("AWS_ENDPOINT_URL", "http://all.env");
        } else {
            self.rule("endpoint_url");
            self.set(File::Config, name, "endpoint_url", "http://all.profile");
        }
        let value = self.pick(&["true", "TRUE", "no"]);
        if self.chance(50) {
            self.rule("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
            self.set_env("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", value);
        } else {
            self.rule("ignore_configured_endpoint_urls");
            self.set(File::Config, name, "ignore_configured_endpoint_urls", value);
        }
    }

    fn focus_on_web_identity(&mut self, name: &str) {
        self.case.profile = None;
        self.set_env("AWS_PROFILE", name);
        self.rule("web identity in the environment");
        self.rule("AWS_ROLE_ARN");
        self.rule("AWS_ROLE_SESSION_NAME");
        self.set_env("AWS_WEB_IDENTITY_TOKEN_FILE", "/env/token");
        self.set_env("AWS_ROLE_ARN", "arn:aws:iam::1:role/env");
        self.set_env("AWS_ROLE_SESSION_NAME", "env-session");
    }
}

const TWO_SIGN_INS: [&str; 6] =
    ["web_identity_token_file", "role_arn", "sso_account_id", "sso_role_name", "sso_start_url", "sso_region"];
