//! What can be wrong with the AWS configuration of the user: files, variables, and how they go together.
//!
//! In each case the AWS CLI fails as well, or would use an identity that the user may not expect. The message
//! names the profile, option or variable; nothing here has the value of a key.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::aws::credentials::ini::SyntaxError;
use crate::system::explain::{Anchor, Explain};

/// Environment and profiles say nothing, or two different things.
#[derive(Debug, Error)]
pub enum ConfigurationError {
    /// A variable that should say when the keys beside it end.
    #[error("AWS_CREDENTIAL_EXPIRATION is {time:?}, which is no time with an offset from UTC")]
    BadExpiration {
        /// What was set.
        time: String,
    },
    /// The region's name cannot be part of a host name.
    #[error("{region:?} is not the name of a region")]
    BadRegion {
        /// The region.
        region: String,
    },
    /// A role with two sources.
    #[error("profile {profile} has both `source_profile` and `credential_source`")]
    BothSources {
        /// The profile.
        profile: String,
    },
    /// The variable is set and empty.
    #[error("AWS_PROFILE or AWS_DEFAULT_PROFILE is set, but empty, and no profile has an empty name")]
    EmptyProfile,
    /// The source that a role is to be assumed with has no credentials.
    #[error("`credential_source` of profile {profile} is {credential_source}, which has no credentials here")]
    EmptySource {
        /// The profile.
        profile: String,
        /// What it names.
        credential_source: String,
    },
    /// Profiles that lead to each other.
    #[error("profile {profile} has the `source_profile` {source_profile}, which leads back to it")]
    Loop {
        /// The profile.
        profile: String,
        /// What it names.
        source_profile: String,
    },
    /// How to reach the metadata service.
    #[error("{mode} is no mode of the metadata service's endpoint")]
    MetadataMode {
        /// What was set.
        mode: String,
    },
    /// A `services` section that is not there.
    #[error("profile {profile} has `services = {services}`, and there is no such section")]
    MissingServices {
        /// The profile.
        profile: String,
        /// What it names.
        services: String,
    },
    /// A `source_profile` that is not there.
    #[error("profile {profile} has the `source_profile` {source_profile}, which does not exist")]
    MissingSourceProfile {
        /// The profile.
        profile: String,
        /// What it names.
        source_profile: String,
    },
    /// An `sso-session` that is not there.
    #[error("profile {profile} has `sso_session = {session}`, and there is no such section")]
    MissingSsoSession {
        /// The profile.
        profile: String,
        /// What it names.
        session: String,
    },
    /// A role without a source.
    #[error("profile {profile} has a `role_arn`, but neither `source_profile` nor `credential_source`")]
    NoSource {
        /// The profile.
        profile: String,
    },
    /// Lines where one word belongs.
    #[error("`{option}` of profile {profile} has lines below it, and should have a value beside it")]
    NotText {
        /// The profile.
        profile: String,
        /// The option.
        option: &'static str,
    },
    /// A path below the home directory of a user with that name.
    #[error("the path `{path}` begins in the home directory of another user")]
    OtherHome {
        /// The path, as it was set.
        path: String,
    },
    /// Half of a key.
    #[error("there is only half of an access key in {place}: {missing} is missing")]
    PartialKey {
        /// Where the other half is.
        place: KeyLocation,
        /// The variable or option that is missing.
        missing: &'static str,
    },
    /// A source profile without credentials.
    #[error("profile {profile} has the `source_profile` {source_profile}, which has no credentials")]
    SourceWithoutCredentials {
        /// The profile.
        profile: String,
        /// What it names.
        source_profile: String,
    },
    /// The profile and its `sso-session` say different things.
    #[error("profile {profile} and its sso-session {session} differ in {}", .options.join(", "))]
    SsoConflict {
        /// The profile.
        profile: String,
        /// The section.
        session: String,
        /// The options.
        options: Vec<String>,
    },
    /// Something is missing for Identity Center.
    #[error("profile {profile} is to sign in with IAM Identity Center, but lacks {}", .missing.join(", "))]
    SsoIncomplete {
        /// The profile.
        profile: String,
        /// The options that are missing.
        missing: Vec<&'static str>,
    },
    /// A file cannot be understood.
    #[error("cannot read the AWS configuration in {}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SyntaxError,
    },
    /// Both variables are set.
    #[error("AWS_PROFILE is {profile}, and AWS_DEFAULT_PROFILE is {default_profile}")]
    TwoProfiles {
        /// The first one.
        profile: String,
        /// The second one.
        default_profile: String,
    },
    /// An unknown `credential_source`.
    #[error("`credential_source` of profile {profile} is {credential_source}, which is not known")]
    UnknownCredentialSource {
        /// The profile.
        profile: String,
        /// What it names.
        credential_source: String,
    },
    /// The profile that was asked for is not in the configuration.
    #[error("no AWS profile is named {profile}{}", bare(.section_of.as_ref()))]
    UnknownProfile {
        /// The profile.
        profile: String,
        /// The file that has a section of that name, but without the word `profile`.
        section_of: Option<PathBuf>,
    },
    /// A file cannot be read.
    #[error("cannot read the AWS configuration in {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A web identity without a role.
    #[error(
        "there is a `web_identity_token_file` for {}, and no `role_arn` to assume with it",
        profile_or_environment(.profile.as_ref())
    )]
    WebIdentityWithoutRole {
        /// The profile, if one was named.
        profile: Option<String>,
    },
}

/// Where half of a key is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum KeyLocation {
    /// The variables.
    Environment,
    /// A file of EC2's first command line tools, or of boto.
    File(PathBuf),
    /// A profile.
    Profile(String),
}

impl std::fmt::Display for KeyLocation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Profile(name) => write!(f, "profile {name}"),
        }
    }
}

impl Explain for ConfigurationError {
    fn hints(&self) -> Vec<String> {
        let hint = match self {
            Self::BadExpiration { .. } => {
                "renew the keys in the environment, or unset AWS_CREDENTIAL_EXPIRATION".into()
            }
            Self::BadRegion { .. } => {
                "name the region with `--region`, AWS_REGION, or `region` in the profile".into()
            }
            Self::BothSources { .. } => "take out one of the two".into(),
            Self::EmptyProfile => {
                "unset the variable, or name a profile with it or with `--profile`".into()
            }
            Self::EmptySource { .. } | Self::NoSource { .. } => {
                "name a profile that has credentials as `source_profile`".into()
            }
            Self::Loop { .. } => {
                "end the chain with a profile that has credentials and no `role_arn`".into()
            }
            Self::MetadataMode { .. } => "set `ec2_metadata_service_endpoint_mode` to IPv4 or IPv6".into(),
            Self::MissingServices { services, .. } => {
                format!("add a section `[services {services}]` to the config file, or take out `services`")
            }
            Self::MissingSourceProfile { source_profile, .. } => format!(
                "correct `source_profile`, or add a section `[profile {source_profile}]`; its name must match exactly"
            ),
            Self::MissingSsoSession { session, .. } => {
                format!("add a section `[sso-session {session}]` to the config file: `aws configure sso-session`")
            }
            Self::NotText { option, .. } => format!("write `{option} = …` in one line"),
            Self::OtherHome { .. } => "write the whole path into the variable".into(),
            Self::PartialKey { place: KeyLocation::Environment, .. } => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together, or unset both to use a profile".into()
            }
            Self::PartialKey { missing, .. } => format!("add `{missing}`, or take out the other half"),
            Self::SourceWithoutCredentials { source_profile, .. } => {
                format!("add credentials to profile {source_profile}: keys, a sign-in or a `credential_process`")
            }
            Self::SsoConflict { options, .. } => format!("take {} out of the profile", options.join(" and ")),
            Self::SsoIncomplete { missing, .. } => {
                format!("add {} to the profile or its `sso-session`", missing.join(" and "))
            }
            Self::Syntax { .. } => {
                "correct the file, or point AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE at another one".into()
            }
            Self::TwoProfiles { .. } => "unset one of the two, or name the profile with `--profile`".into(),
            Self::UnknownCredentialSource { .. } => {
                "set it to Environment, EcsContainer or Ec2InstanceMetadata, spelled exactly so".into()
            }
            Self::UnknownProfile { profile, section_of: Some(_) } => {
                format!("write `[profile {profile}]` in its place")
            }
            Self::UnknownProfile { .. } => "`aws configure list-profiles` lists the profiles".into(),
            Self::Unreadable { .. } => {
                "make the file readable, or point AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE at another one".into()
            }
            Self::WebIdentityWithoutRole { .. } => "set AWS_ROLE_ARN, or `role_arn` in the profile".into(),
        };
        vec![hint]
    }

    fn anchor(&self) -> Option<Anchor> {
        Some(match self {
            Self::BadRegion { .. } => Anchor::Region,
            _ => Anchor::AwsConfiguration,
        })
    }
}

fn bare(file: Option<&PathBuf>) -> String {
    let header = |file: &PathBuf| {
        format!("; {} has such a section, but its header lacks the word `profile`", file.display())
    };
    file.map(header).unwrap_or_default()
}

fn profile_or_environment(profile: Option<&String>) -> String {
    profile.map_or_else(
        || "the default profile or the environment".into(),
        |profile| format!("profile {profile}"),
    )
}
