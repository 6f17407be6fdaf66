//! Where credentials come from, in the order of botocore's providers: decided before any source is used.
//! (Pure, but for the reader of files that the caller passes in.)

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::{MetadataService, Sso};
use crate::aws::credentials::configuration::{ConfigurationError, KeyLocation};
use crate::aws::credentials::expiry;
use crate::aws::credentials::profiles::{self, Profile, Profiles, ReadFile};
use crate::aws::credentials::variables::Variables;

/// A source of credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Source {
    /// The endpoint that the container's environment names.
    Container,
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment(Keys),
    /// Keys in a file.
    Keys(Keys),
    /// The tokens of `aws login`.
    AwsLogin {
        profile: String,
        /// `login_session`, an ARN.
        session: String,
    },
    /// The instance profile of this machine, from the metadata service.
    Metadata(MetadataService),
    /// The program of `credential_process`.
    Process {
        profile: String,
        /// The command line.
        command: String,
    },
    /// AssumeRole of STS, with credentials from another source.
    Role(Box<RoleSource>),
    /// IAM Identity Center.
    Sso { profile: String, sso: Sso },
    /// AssumeRoleWithWebIdentity of STS, with a token from a file.
    WebIdentity(WebIdentity),
}

impl Source {
    /// The source at the end of a chain of roles; the source itself if it is not a role.
    pub(crate) fn origin(&self) -> &Self {
        match self {
            Self::Role(role) => role.source.origin(),
            other => other,
        }
    }
}

/// An access key. Its `Debug` shows the id alone.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct Keys {
    pub(crate) id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    pub(crate) expires: Option<SystemTime>,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A role, and the source of the credentials that assume it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct RoleSource {
    /// The profile that has the role.
    pub(crate) profile: String,
    pub(crate) role: Role,
    pub(crate) source: Source,
}

/// A role, with the options of its profile.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Role {
    pub(crate) arn: String,
    pub(crate) session_name: Option<String>,
    pub(crate) external_id: Option<String>,
    pub(crate) mfa_serial: Option<String>,
    pub(crate) duration_seconds: Option<u32>,
}

/// A role that is assumed with a token.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct WebIdentity {
    pub(crate) token_file: PathBuf,
    pub(crate) role_arn: String,
    pub(crate) session_name: Option<String>,
}

type Result<T> = std::result::Result<T, ConfigurationError>;

/// The inputs of the decision.
pub(super) struct Chain<'a> {
    pub(super) profiles: &'a Profiles,
    pub(super) variables: &'a Variables,
    pub(super) read: ReadFile<'a>,
    /// Whether credentials in the environment are used: not if the command line names a profile.
    pub(super) environment: bool,
    pub(super) metadata: Option<&'a MetadataService>,
}

impl Chain<'_> {
    /// The source of credentials for a profile. The default profile need not exist.
    pub(super) fn source(&self, name: &str) -> Result<Option<Source>> {
        if self.environment
            && let Some(keys) = self.environment_keys()?
        {
            return Ok(Some(Source::Environment(keys)));
        }
        if let Some(profile) = self.profiles.get(name).filter(is_role) {
            // No other source is tried: it is an error if the role's source has no credentials.
            return self.role(profile, &mut vec![name.to_owned()]).map(Some);
        }
        if let Some(source) = self.of_profile(name, self.environment)? {
            return Ok(Some(source));
        }
        if let Some(keys) = self.legacy_keys()? {
            return Ok(Some(Source::Keys(keys)));
        }
        if self.has_container() {
            return Ok(Some(Source::Container));
        }
        Ok(self.metadata.cloned().map(Source::Metadata))
    }

    /// The source that a profile has itself: any but a role that other credentials assume.
    fn of_profile(&self, name: &str, environment: bool) -> Result<Option<Source>> {
        let profile = self.profiles.get(name);
        if let Some(web_identity) = self.web_identity(name, profile, environment)? {
            return Ok(Some(Source::WebIdentity(web_identity)));
        }
        if let Some(profile) = profile
            && let Some(sso) = Sso::of_profile(profile, self.profiles)?
        {
            return Ok(Some(Source::Sso { profile: name.to_owned(), sso }));
        }
        // A key must be whole in one file: the credentials file is read here, the config file below.
        if let Some(keys) = keys_in(self.profiles.in_credentials(name))? {
            return Ok(Some(Source::Keys(keys)));
        }
        if let Some(profile) = profile {
            if let Some(session) = profile.owned("login_session")? {
                return Ok(Some(Source::AwsLogin { profile: name.to_owned(), session }));
            }
            if let Some(command) = profile.owned("credential_process")? {
                return Ok(Some(Source::Process { profile: name.to_owned(), command }));
            }
        }
        Ok(keys_in(self.profiles.in_config(name))?.map(Source::Keys))
    }

    /// A profile's role. `visited` are the profiles that led here, with this one.
    fn role(&self, profile: Profile<'_>, visited: &mut Vec<String>) -> Result<Source> {
        let owner = || profile.name.to_owned();
        let source = match (profile.text("source_profile")?, profile.text("credential_source")?) {
            (Some(_), Some(_)) => return Err(ConfigurationError::BothSources { profile: owner() }),
            (None, None) => return Err(ConfigurationError::NoSource { profile: owner() }),
            (None, Some(name)) => self.named_source(profile, name)?,
            (Some(name), None) => self.source_profile(profile, name, visited)?,
        };
        // A value that is not a number is ignored, as in botocore.
        let seconds = profile.text("duration_seconds")?.and_then(|seconds| seconds.trim().parse().ok());
        let role = Role {
            arn: profile.owned("role_arn")?.unwrap_or_default(),
            session_name: filled(profile.owned("role_session_name")?),
            external_id: profile.owned("external_id")?,
            mfa_serial: profile.owned("mfa_serial")?,
            duration_seconds: seconds,
        };
        Ok(Source::Role(Box::new(RoleSource { profile: owner(), role, source })))
    }

    fn source_profile(&self, profile: Profile<'_>, name: &str, visited: &mut Vec<String>) -> Result<Source> {
        let (owner, named) = (profile.name.to_owned(), name.to_owned());
        let Some(source) = self.profiles.get(name) else {
            return Err(ConfigurationError::MissingSourceProfile { profile: owner, source_profile: named });
        };
        let has_keys = source.has("aws_access_key_id") || source.has("aws_secret_access_key");
        // A profile with keys may name itself as their source.
        if visited.iter().any(|visited| visited == name) && (name != profile.name || !has_keys) {
            return Err(ConfigurationError::Loop { profile: owner, source_profile: named });
        }
        visited.push(named.clone());
        if is_role(&source) && !has_keys {
            return self.role(source, visited);
        }
        self.of_profile(name, false)?
            .ok_or(ConfigurationError::SourceWithoutCredentials { profile: owner, source_profile: named })
    }

    fn named_source(&self, profile: Profile<'_>, name: &str) -> Result<Source> {
        let (owner, named) = (profile.name.to_owned(), name.to_owned());
        let found = match name {
            "Environment" => self.environment_keys()?.map(Source::Environment),
            "EcsContainer" => Some(Source::Container).filter(|_| self.has_container()),
            "Ec2InstanceMetadata" => self.metadata.cloned().map(Source::Metadata),
            _ => {
                return Err(ConfigurationError::UnknownCredentialSource {
                    profile: owner,
                    credential_source: named,
                });
            }
        };
        found.ok_or(ConfigurationError::EmptySource { profile: owner, credential_source: named })
    }

    /// The keys in the environment. An id without a secret is an error; a secret without an id is ignored.
    fn environment_keys(&self) -> Result<Option<Keys>> {
        let Some(id) = self.variables.filled("AWS_ACCESS_KEY_ID") else { return Ok(None) };
        let Some(secret) = self.variables.filled("AWS_SECRET_ACCESS_KEY") else {
            let missing = "AWS_SECRET_ACCESS_KEY";
            return Err(ConfigurationError::PartialKey { location: KeyLocation::Environment, missing });
        };
        let tokens = ["AWS_SECURITY_TOKEN", "AWS_SESSION_TOKEN"];
        let token = tokens.into_iter().find_map(|name| self.variables.filled(name));
        let expires = match self.variables.filled("AWS_CREDENTIAL_EXPIRATION") {
            Some(time) => Some(expiry::read(&time).ok_or(ConfigurationError::BadExpiration { time })?),
            None => None,
        };
        Ok(Some(Keys { id, secret, token, expires }))
    }

    fn has_container(&self) -> bool {
        let names = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
        names.into_iter().any(|name| self.variables.get(name).is_some())
    }

    fn web_identity(
        &self,
        name: &str,
        profile: Option<Profile<'_>>,
        environment: bool,
    ) -> Result<Option<WebIdentity>> {
        let get = |variable: &str, option: &'static str| match self.variables.get(variable) {
            Some(value) if environment => Ok(Some(value)),
            _ => profile.map_or(Ok(None), |profile| profile.owned(option)),
        };
        let file = filled(get("AWS_WEB_IDENTITY_TOKEN_FILE", "web_identity_token_file")?);
        let Some(file) = file else { return Ok(None) };
        let Some(role_arn) = filled(get("AWS_ROLE_ARN", "role_arn")?) else {
            let profile = profile.map(|_| name.to_owned());
            return Err(ConfigurationError::WebIdentityWithoutRole { profile });
        };
        let session_name = filled(get("AWS_ROLE_SESSION_NAME", "role_session_name")?);
        Ok(Some(WebIdentity { token_file: file.into(), role_arn, session_name }))
    }

    /// The keys in a file of EC2's first command line tools, or of boto: botocore still reads both.
    fn legacy_keys(&self) -> Result<Option<Keys>> {
        if let Some(path) = self.variables.get("AWS_CREDENTIAL_FILE") {
            let path = self.variables.expand_home(&path)?.unwrap_or_default();
            let unreadable = |source| ConfigurationError::Unreadable { path: path.clone(), source };
            let missing = || unreadable(std::io::ErrorKind::NotFound.into());
            let text = (self.read)(&path).map_err(unreadable)?.ok_or_else(missing)?;
            let text = String::from_utf8_lossy(&text).into_owned();
            let pairs = text.lines().filter_map(|line| line.split_once('=')).rev();
            let value = |name: &str| {
                let (_, value) = pairs.clone().find(|(key, _)| key.trim() == name)?;
                Some(value.trim().to_owned())
            };
            if let Some(id) = value("AWSAccessKeyId") {
                let location = KeyLocation::File(path.clone());
                let secret = value("AWSSecretKey")
                    .ok_or(ConfigurationError::PartialKey { location, missing: "AWSSecretKey" })?;
                return Ok(Some(Keys { id, secret, token: None, expires: None }));
            }
        }
        let files = match self.variables.get("BOTO_CONFIG") {
            Some(path) => vec![self.variables.expand(&path)?],
            None => vec![Some("/etc/boto.cfg".into()), self.variables.expand("~/.boto")?],
        };
        for path in files.into_iter().flatten() {
            if let Some(keys) = self.boto_keys(&path)? {
                return Ok(Some(keys));
            }
        }
        Ok(None)
    }

    fn boto_keys(&self, path: &Path) -> Result<Option<Keys>> {
        let section = profiles::section_of(path, "Credentials", self.read)?;
        let text = |option| Some(section.as_ref()?.get(option)?.text()?.to_owned());
        let Some(id) = text("aws_access_key_id") else { return Ok(None) };
        let missing = "aws_secret_access_key";
        let location = KeyLocation::File(path.to_owned());
        let secret = text(missing).ok_or(ConfigurationError::PartialKey { location, missing })?;
        Ok(Some(Keys { id, secret, token: None, expires: None }))
    }
}

fn filled(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.is_empty())
}

/// Whether a profile has a role that other credentials assume.
fn is_role(profile: &Profile<'_>) -> bool {
    profile.has("role_arn") && !profile.has("web_identity_token_file")
}

/// The keys in one profile of one file.
fn keys_in(profile: Option<Profile<'_>>) -> Result<Option<Keys>> {
    let Some(profile) = profile else { return Ok(None) };
    let Some(id) = profile.owned("aws_access_key_id")? else { return Ok(None) };
    let missing = "aws_secret_access_key";
    let partial = || {
        let location = KeyLocation::Profile(profile.name.to_owned());
        ConfigurationError::PartialKey { location, missing }
    };
    let secret = profile.owned(missing)?.ok_or_else(partial)?;
    let token = match profile.owned("aws_security_token")? {
        Some(token) => Some(token),
        None => profile.owned("aws_session_token")?,
    };
    Ok(Some(Keys { id, secret, token, expires: None }))
}
