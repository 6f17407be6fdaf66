//! The environment, endpoints, the machine, and sections that are not what they seem.

use super::{Draft, File, HOME, Section, Setting};

impl Draft {
    pub(super) fn environment(&mut self) {
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

    pub(super) fn metadata(&mut self, profile: &str) {
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

    pub(super) fn endpoints(&mut self, profile: &str) {
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
            if self.chance(7) {
                self.rule(name);
                self.set_env(name, value);
            }
            if self.chance(7) {
                self.rule(option);
                self.set_somewhere(profile, option, value);
            }
        }
    }

    /// Files that only the oldest tools have.
    pub(super) fn legacy_files(&mut self) {
        if self.chance(3) {
            self.ec2_file();
        }
        if self.chance(6) {
            self.boto_file();
        }
    }

    pub(super) fn ec2_file(&mut self) {
        self.rule("AWS_CREDENTIAL_FILE");
        self.set_env("AWS_CREDENTIAL_FILE", "~/ec2");
        let text = "AWSAccessKeyId = EC2OLD\nother\nAWSSecretKey=s\n";
        self.case.files.insert(format!("{HOME}/ec2"), text.into());
    }

    pub(super) fn boto_file(&mut self) {
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

    /// Sections that mean nothing, or something else than they seem to.
    pub(super) fn oddities(&mut self, profile: &str) {
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
}
