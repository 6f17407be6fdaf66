//! Errors of the user's AWS configuration: of the files, of the variables, and of their combination.
//!
//! In each case the AWS CLI fails as well, or would use an identity that the user may not expect. The message
//! names the profile, option or variable; no error here has the value of a key.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::aws::credentials::ini::SyntaxError;
use crate::system::explain::{Anchor, Explain};

/// Environment and profiles do not determine one identity.
#[derive(Debug, Error)]
pub(crate) enum ConfigurationError {
    /// The expiry time of the keys in the environment cannot be read.
    #[error("AWS_CREDENTIAL_EXPIRATION is {time:?}, which is not a time with an offset from UTC")]
    BadExpiration {
        /// The value of the variable.
        time: String,
    },
    /// The region's name cannot be part of a host name.
    #[error("{region:?} is not the name of a region")]
    BadRegion {
        /// The name, as it was set.
        region: String,
    },
    /// A role has two sources.
    #[error("profile {profile} has both `source_profile` and `credential_source`")]
    BothSources {
        /// The name of the profile.
        profile: String,
    },
    /// The variable is set and empty.
    #[error("AWS_PROFILE or AWS_DEFAULT_PROFILE is set, but empty, and no profile has an empty name")]
    EmptyProfile,
    /// The source that a role names has no credentials.
    #[error("`credential_source` of profile {profile} is {credential_source}, which has no credentials here")]
    EmptySource {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        credential_source: String,
    },
    /// Profiles name each other as source.
    #[error("profile {profile} has the `source_profile` {source_profile}, which leads back to it")]
    Loop {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        source_profile: String,
    },
    /// The mode of the metadata service's endpoint is unknown.
    #[error("`ec2_metadata_service_endpoint_mode` is {mode}, and can only be IPv4 or IPv6")]
    MetadataMode {
        /// The value of the option or its variable.
        mode: String,
    },
    /// The `services` section that a profile names does not exist.
    #[error("profile {profile} has `services = {services}`, and there is no such section")]
    MissingServices {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        services: String,
    },
    /// The `source_profile` of a role does not exist.
    #[error("profile {profile} has the `source_profile` {source_profile}, which does not exist")]
    MissingSourceProfile {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        source_profile: String,
    },
    /// The `sso-session` section that a profile names does not exist.
    #[error("profile {profile} has `sso_session = {session}`, and there is no such section")]
    MissingSsoSession {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        session: String,
    },
    /// A role has no source.
    #[error("profile {profile} has a `role_arn`, but neither `source_profile` nor `credential_source`")]
    NoSource {
        /// The name of the profile.
        profile: String,
    },
    /// An option has nested lines instead of a value.
    #[error("`{option}` of profile {profile} has indented lines below it instead of a value beside it")]
    NotText {
        /// The name of the profile.
        profile: String,
        /// The option's name.
        option: &'static str,
    },
    /// A path begins with `~NAME`, the home directory of another user.
    #[error("the path `{path}` begins in the home directory of another user")]
    OtherHome {
        /// The path, as it was set.
        path: String,
    },
    /// An access key id without its secret key.
    #[error("there is only half of an access key in {location}: {missing} is missing")]
    PartialKey {
        /// Where the other half is.
        location: KeyLocation,
        /// The variable or option that is missing.
        missing: &'static str,
    },
    /// The `source_profile` of a role has no credentials.
    #[error("profile {profile} has the `source_profile` {source_profile}, which has no credentials")]
    SourceWithoutCredentials {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        source_profile: String,
    },
    /// The profile and its `sso-session` have different values.
    #[error("profile {profile} and its sso-session {session} differ in {}", .options.join(", "))]
    SsoConflict {
        /// The name of the profile.
        profile: String,
        /// The name of the section.
        session: String,
        /// The options that differ.
        options: Vec<String>,
    },
    /// Options for IAM Identity Center are missing.
    #[error("profile {profile} signs in with IAM Identity Center, but lacks {}", .missing.join(", "))]
    SsoIncomplete {
        /// The name of the profile.
        profile: String,
        /// The options that are missing.
        missing: Vec<&'static str>,
    },
    /// A file has a syntax error.
    #[error("cannot read the AWS configuration in {}", .path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, and what is wrong with it.
        source: SyntaxError,
    },
    /// Both variables are set, to different names.
    #[error("AWS_PROFILE is {profile}, and AWS_DEFAULT_PROFILE is {default_profile}")]
    TwoProfiles {
        /// The value of AWS_PROFILE.
        profile: String,
        /// The value of AWS_DEFAULT_PROFILE.
        default_profile: String,
    },
    /// The `credential_source` is unknown.
    #[error("`credential_source` of profile {profile} is {credential_source}, which is not a valid value")]
    UnknownCredentialSource {
        /// The name of the profile.
        profile: String,
        /// The value of the option.
        credential_source: String,
    },
    /// The profile that was asked for is not in the configuration.
    #[error("no AWS profile is named {profile}{}", bare(.section_of.as_ref()))]
    UnknownProfile {
        /// The name of the profile.
        profile: String,
        /// The config file, if it has a section of that name without the word `profile`.
        section_of: Option<PathBuf>,
    },
    /// A file cannot be read.
    #[error("cannot read the AWS configuration in {}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A web identity token has no role.
    #[error(
        "there is a `web_identity_token_file` for {}, and no `role_arn` to assume with it",
        profile_or_environment(.profile.as_ref())
    )]
    WebIdentityWithoutRole {
        /// The profile with the option. None if it is a variable.
        profile: Option<String>,
    },
}

/// Where a part of an access key is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum KeyLocation {
    /// In AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY.
    Environment,
    /// In a file of EC2's first command line tools, or of boto.
    File(PathBuf),
    /// In the profile of this name.
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
            Self::BothSources { .. } => "remove one of the two".into(),
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
                format!("add a section `[services {services}]` to the config file, or remove `services`")
            }
            Self::MissingSourceProfile { source_profile, .. } => format!(
                "correct `source_profile`, or add a section `[profile {source_profile}]`; its name must match exactly"
            ),
            Self::MissingSsoSession { session, .. } => {
                format!("add a section `[sso-session {session}]` to the config file: `aws configure sso-session`")
            }
            Self::NotText { option, .. } => format!("write `{option} = …` in one line"),
            Self::OtherHome { .. } => "write the whole path into the variable".into(),
            Self::PartialKey { location: KeyLocation::Environment, .. } => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY together, or unset both to use a profile".into()
            }
            Self::PartialKey { missing, .. } => format!("add `{missing}`, or remove the other half"),
            Self::SourceWithoutCredentials { source_profile, .. } => {
                format!("add credentials to profile {source_profile}: keys, a sign-in or a `credential_process`")
            }
            Self::SsoConflict { options, .. } => format!("remove {} from the profile", options.join(" and ")),
            Self::SsoIncomplete { missing, .. } => {
                format!("add {} to the profile or its `sso-session`", missing.join(" and "))
            }
            Self::Syntax { .. } => {
                "correct the file, or point AWS_CONFIG_FILE or AWS_SHARED_CREDENTIALS_FILE at another one".into()
            }
            Self::TwoProfiles { .. } => "unset one of the two, or name the profile with `--profile`".into(),
            Self::UnknownCredentialSource { .. } => {
                "set it to Environment, EcsContainer or Ec2InstanceMetadata, in this spelling".into()
            }
            Self::UnknownProfile { profile, section_of: Some(_) } => {
                format!("write `[profile {profile}]` instead")
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
