//! Errors with hints for users of plain ssh, which does not have this program's options: the host name has
//! the region there, and the installed block of ssh_config the other options.

use std::error::Error;
use std::fmt;
use std::time::SystemTime;

use super::Failure;
use crate::aws::{AwsError, ConfigurationError};
use crate::doctor::diagnosis::Diagnosis;
use crate::instances::resolve::ResolveError;
use crate::system::explain::{Anchor, Explain};

/// The host on the command line of plain ssh.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct PlainHost {
    /// The part that names the instance.
    pub name: String,
    /// The region, if the host has one.
    pub region: Option<String>,
    /// The suffix of the installed block, without the dot.
    pub suffix: String,
}

impl PlainHost {
    /// The same host in another region.
    fn in_region(&self, region: &str) -> String {
        format!("{}.{region}.{}", self.name, self.suffix)
    }

    /// Another instance in the same region.
    fn of(&self, name: &str) -> String {
        match &self.region {
            Some(region) => format!("{name}.{region}.{}", self.suffix),
            None => format!("{name}.{}", self.suffix),
        }
    }

    /// The command that installs the block for such hosts with one more option.
    fn install(&self, option: &str) -> String {
        match self.suffix.as_str() {
            DEFAULT_SUFFIX => format!("`ssh_ec2 {option} config --install`"),
            suffix => format!("`ssh_ec2 {option} config --install --suffix {suffix}`"),
        }
    }
}

/// An error of a connection that the user began with plain ssh.
#[derive(Debug)]
pub(crate) struct PlainSsh {
    pub(super) error: Failure,
    host: PlainHost,
}

impl Failure {
    /// The same error, with hints for plain ssh.
    #[must_use]
    pub(crate) fn in_plain_ssh(self, host: &PlainHost) -> Self {
        Self::PlainSsh(Box::new(PlainSsh { error: self, host: host.clone() }))
    }
}

impl fmt::Display for PlainSsh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for PlainSsh {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl Explain for PlainSsh {
    fn hints(&self) -> Vec<String> {
        match &self.error {
            Failure::Aws(error) | Failure::Resolve(ResolveError::Aws(error)) => self.of_aws(error),
            Failure::Diagnosed(cause) => self.of_diagnosis(cause),
            Failure::KeyRefused(refused) => refused.hints_with(&self.rsa_key()),
            Failure::Resolve(error) => self.of_resolve(error),
            error => error.hints(),
        }
    }

    fn anchor(&self) -> Option<Anchor> {
        self.error.anchor()
    }

    fn details(&self, now: SystemTime) -> Vec<String> {
        self.error.details(now)
    }
}

impl PlainSsh {
    fn of_resolve(&self, error: &ResolveError) -> Vec<String> {
        let host = &self.host;
        match error {
            ResolveError::NotFound { elsewhere, .. } if !elsewhere.is_empty() => elsewhere
                .iter()
                .map(|(region, id)| format!("{id} in {region} is: `ssh {}`", host.in_region(region)))
                .collect(),
            ResolveError::NotFound { target, .. } => {
                if let Some((name, region)) = target.name_and_region() {
                    let host = PlainHost { name: name.to_owned(), ..host.clone() }.in_region(region);
                    return vec![format!(
                        "with a region, a host ends in `.{}`: `ssh {host}`",
                        self.host.suffix
                    )];
                }
                let look = format!(
                    "`ssh_ec2 list` lists the instances; `ssh {}` searches another region",
                    host.in_region("REGION")
                );
                // Only the first hint names options of `ssh_ec2`.
                [look].into_iter().chain(error.hints().into_iter().skip(1)).collect()
            }
            ResolveError::Several { candidates, .. } => {
                let hosts: Vec<_> = candidates
                    .iter()
                    .take(SHOWN_HOSTS)
                    .map(|found| format!("`ssh {}`", host.of(found.id.as_str())))
                    .collect();
                let more = if candidates.len() > SHOWN_HOSTS { ", and so on" } else { "" };
                vec![format!("name one by its id: {}{more}", hosts.join(" or "))]
            }
            error => error.hints(),
        }
    }

    fn of_aws(&self, error: &AwsError) -> Vec<String> {
        use ConfigurationError::{EmptyProfile, TwoProfiles};
        match error {
            AwsError::BadRegion { .. }
            | AwsError::NoRegion
            | AwsError::Configuration(ConfigurationError::BadRegion { .. }) => vec![format!(
                "name the region in the host, `ssh {}`, with AWS_REGION, or with `region` in the profile",
                self.host.in_region("REGION")
            )],
            AwsError::Configuration(EmptyProfile | TwoProfiles { .. }) => vec![format!(
                "unset the variable, or name the profile in the block of ssh_config: {}",
                self.host.install("--profile NAME")
            )],
            AwsError::NoCredentials { .. } => {
                let profile = self.host.install("--profile NAME");
                vec![format!(
                    "sign in with `aws configure sso` or `aws login`, or name a profile with AWS_PROFILE, or in the block of ssh_config: {profile}"
                )]
            }
            error => error.hints(),
        }
    }

    fn of_diagnosis(&self, cause: &Diagnosis) -> Vec<String> {
        match cause {
            Diagnosis::Algorithm { algorithm, .. } if algorithm == "ssh-rsa" => vec![format!(
                "use a key of another type: {}, or {}",
                self.host.install("--key-type ed25519"),
                self.host.install("--key-file FILE")
            )],
            Diagnosis::Algorithm { .. } => vec![self.rsa_key()],
            Diagnosis::NotFound { elsewhere: Some(region), instance, .. } => {
                let host = PlainHost { name: instance.to_string(), ..self.host.clone() };
                vec![format!("name the region: `ssh {}`", host.in_region(region))]
            }
            Diagnosis::NotInstalled { .. } => vec![format!(
                "install the package ec2-instance-connect there, or use a key that is in the user's authorized_keys: {}",
                self.host.install("--key-file FILE")
            )],
            cause => cause.hints(),
        }
    }

    fn rsa_key(&self) -> String {
        format!("use a one-time RSA key: {}", self.host.install("--key-type rsa"))
    }
}

/// The suffix of `ssh_ec2 config --install` without `--suffix`.
const DEFAULT_SUFFIX: &str = "ec2";
/// More do not fit in a line.
const SHOWN_HOSTS: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::resolve::Candidate;

    fn hints(error: impl Into<Failure>, host: PlainHost) -> Vec<String> {
        error.into().in_plain_ssh(&host).hints()
    }

    fn host(name: &str, region: Option<&str>, suffix: &str) -> PlainHost {
        PlainHost { name: name.into(), region: region.map(str::to_owned), suffix: suffix.into() }
    }

    #[test]
    fn a_region_stands_in_the_host() {
        let id: crate::target::InstanceId = "i-0a1b2c3d".parse().unwrap();
        let elsewhere = vec![("eu-west-1".to_owned(), id.clone())];
        let target = || "web".parse().unwrap();
        let error = ResolveError::NotFound { target: target(), region: "us-east-1".into(), elsewhere };
        assert_eq!(
            hints(error, host("web", None, "ec2")),
            ["i-0a1b2c3d in eu-west-1 is: `ssh web.eu-west-1.ec2`"]
        );
        let error =
            || ResolveError::NotFound { target: target(), region: "us-east-1".into(), elsewhere: Vec::new() };
        let hints_ = hints(error(), host("web", Some("us-east-1"), "prod.ec2"));
        assert!(hints_[0].ends_with("`ssh web.REGION.prod.ec2` searches another region"), "{hints_:?}");
        assert_eq!(hints_.len(), 2);
        let cause = Diagnosis::NotFound {
            instance: id,
            region: "us-east-1".into(),
            elsewhere: Some("eu-west-1".into()),
        };
        let hints_ = hints(cause, host("i-0a1b2c3d", None, "ec2"));
        assert_eq!(hints_, ["name the region: `ssh i-0a1b2c3d.eu-west-1.ec2`"]);
    }

    #[test]
    fn several_instances_are_distinguished_by_their_ids() {
        let candidate = |id: &str| Candidate {
            id: id.parse().unwrap(),
            name: "worker".into(),
            availability_zone: "eu-west-1a".into(),
            launched: None,
        };
        let candidates = ["i-00000001", "i-00000002"].map(candidate).to_vec();
        let error = ResolveError::Several { target: "worker".parse().unwrap(), candidates };
        assert_eq!(
            hints(error, host("worker", Some("eu-west-1"), "ec2")),
            ["name one by its id: `ssh i-00000001.eu-west-1.ec2` or `ssh i-00000002.eu-west-1.ec2`"]
        );
    }

    /// A hint may name our options only in a command of `ssh_ec2`.
    #[test]
    fn no_hint_names_an_option_that_ssh_does_not_have() {
        let instance = || "i-0a1b2c3d".parse().unwrap();
        let errors: Vec<Failure> = vec![
            AwsError::NoRegion.into(),
            AwsError::BadRegion { region: "x".into() }.into(),
            AwsError::Configuration(ConfigurationError::EmptyProfile).into(),
            Diagnosis::NotInstalled { instance: instance() }.into(),
            Diagnosis::Algorithm {
                instance: instance(),
                algorithm: "ssh-ed25519".into(),
                reason: "it is in FIPS mode".into(),
            }
            .into(),
            Diagnosis::Algorithm {
                instance: instance(),
                algorithm: "ssh-rsa".into(),
                reason: "its crypto policy leaves them out".into(),
            }
            .into(),
        ];
        for error in errors {
            let hints_ = hints(error, host("web", None, "prod.ec2")).join("\n");
            for option in ["--region", "--profile", "--newest", "--any", "--key-file", "--key-type"] {
                let stands_alone = format!("`{option}");
                assert!(!hints_.contains(&stands_alone), "{hints_}");
            }
            assert!(
                !hints_.contains("config --install") || hints_.contains("--suffix prod.ec2`"),
                "{hints_}"
            );
        }
    }
}
