//! Decides which profile, region, endpoints and credentials are used, from a snapshot of the environment and
//! before any source of credentials is used. (Pure, but for the reader of files that the caller passes in.)
//!
//! The reference is version 2 of the AWS CLI: the same identity, or an error, and never another identity. The
//! order of the sources is that of botocore's `create_credential_resolver`. Version 2 reads AWS_REGION before
//! AWS_DEFAULT_REGION and AWS_PROFILE before AWS_DEFAULT_PROFILE (`awscli/botocore/configprovider.py`). A
//! differential test compares this module with botocore (`tests/differential.rs`).

mod source;
mod sso;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

pub(crate) use self::source::{Keys, Role, RoleSource, Source, WebIdentity};
pub(crate) use self::sso::Sso;
use crate::aws::client::endpoint;
use crate::aws::credentials::configuration::ConfigurationError;
use crate::aws::credentials::ini::Value;
use crate::aws::credentials::profiles::{Profile, Profiles, ReadFile};
use crate::aws::credentials::sign_in::{Renewal, SignIn};
use crate::aws::credentials::variables::Variables;

/// The options of the command line that decide on the identity.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options<'a> {
    /// `--profile`. With it, credentials in the environment are ignored.
    pub(crate) profile: Option<&'a str>,
    /// `--region`.
    pub(crate) region: Option<&'a str>,
}

/// What environment, files and options decide.
#[derive(Debug)]
pub(crate) struct Identity {
    /// The profile. None if none was named: then it is the default one.
    pub(crate) profile: Option<String>,
    /// Whether the profile exists; the default one need not.
    pub(crate) has_profile: bool,
    /// The region. None if only this machine's metadata service may know one.
    pub(crate) region: Option<String>,
    /// The source of the credentials. None if there is none.
    pub(crate) source: Option<Source>,
    pub(crate) endpoints: ConfiguredEndpoints,
    /// Whether to use the endpoints for FIPS. None if it is not set.
    pub(crate) fips: Option<bool>,
    /// Whether to use the endpoints that have IPv6 as well. None if it is not set.
    pub(crate) dual_stack: Option<bool>,
    /// The metadata service. None if it is disabled.
    pub(crate) metadata: Option<MetadataService>,
    pub(crate) settings: SdkSettings,
}

/// The metadata service of the instance that this machine may be (IMDS).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct MetadataService {
    pub(crate) endpoint: String,
}

/// Settings of environment and profile that do not concern the identity.
#[derive(Clone, Debug, Default)]
pub(crate) struct SdkSettings {
    pub(crate) ca_bundle: Option<PathBuf>,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) retry_mode: Option<String>,
    /// `sdk_ua_app_id`.
    pub(crate) app_id: Option<String>,
}

impl Identity {
    /// Resolves options, environment and files to one identity.
    ///
    /// # Errors
    ///
    /// Where the AWS CLI would fail too, and where the environment names two profiles.
    pub(crate) fn resolve(
        options: Options<'_>,
        variables: &Variables,
        read: ReadFile<'_>,
    ) -> Result<Self, ConfigurationError> {
        let option = options.profile.filter(|name| !name.is_empty());
        let named = match option {
            Some(name) => Some(name.to_owned()),
            None => profile_of(variables)?,
        };
        let profiles = Profiles::read(variables, read)?;
        let selected = select(named.as_deref(), &profiles);
        // The order of these steps is that of the CLI: of several mistakes, both report the first.
        let metadata = match &selected {
            Ok(profile) => metadata(&Lookup { variables, profile: *profile })?,
            Err(_) => None,
        };
        let region = options.region.filter(|region| !region.is_empty()).map(str::to_owned);
        let region = region.or_else(|| variables.get("AWS_REGION"));
        let region = region.or_else(|| variables.get("AWS_DEFAULT_REGION"));
        check_region(region.as_deref())?;
        let selected = selected?;
        let lookup = Lookup { variables, profile: selected };
        let region = region.map_or_else(|| lookup.of_profile("region"), |region| Ok(Some(region)))?;
        check_region(region.as_deref())?;
        let chain = source::Chain {
            profiles: &profiles,
            variables,
            read,
            environment: option.is_none(),
            metadata: metadata.as_ref(),
        };
        let source = chain.source(named.as_deref().unwrap_or(DEFAULT_PROFILE))?;
        if let Some(profile) = selected {
            // The CLI looks for a bearer token at every call, even if the call needs none.
            sso::check_token_session(profile, &profiles)?;
        }
        let endpoints = ConfiguredEndpoints::read(&lookup, &profiles)?;
        Ok(Self {
            has_profile: selected.is_some(),
            region,
            source,
            endpoints,
            fips: lookup.truth("AWS_USE_FIPS_ENDPOINT", "use_fips_endpoint")?,
            dual_stack: lookup.truth("AWS_USE_DUALSTACK_ENDPOINT", "use_dualstack_endpoint")?,
            metadata,
            settings: settings(&lookup)?,
            profile: named,
        })
    }

    /// Where the credentials come from, through all roles.
    pub(crate) fn sign_in(&self) -> SignIn {
        let is_role = matches!(self.source, Some(Source::Role(_)));
        let renewal = match self.source.as_ref().map(Source::origin) {
            Some(Source::Environment(_)) if !is_role => return SignIn::Environment,
            Some(Source::Sso { .. }) => Renewal::Sso,
            Some(Source::AwsLogin { .. }) => Renewal::AwsLogin,
            Some(Source::Process { .. }) => Renewal::Process,
            _ if !self.has_profile => Renewal::Absent,
            _ => Renewal::Unknown,
        };
        SignIn::Profile { name: self.profile.clone(), renewal }
    }
}

/// The names of the user's profiles, sorted.
///
/// # Errors
///
/// Those of [`Profiles::read`].
pub(crate) fn profile_names(
    variables: &Variables,
    read: ReadFile<'_>,
) -> Result<Vec<String>, ConfigurationError> {
    Ok(Profiles::read(variables, read)?.names().map(str::to_owned).collect())
}

/// The profile that the environment names. Two different names are refused: one would be ignored silently.
fn profile_of(variables: &Variables) -> Result<Option<String>, ConfigurationError> {
    match (variables.get("AWS_PROFILE"), variables.get("AWS_DEFAULT_PROFILE")) {
        (Some(profile), Some(default)) if !default.is_empty() && profile != default => {
            Err(ConfigurationError::TwoProfiles { profile, default_profile: default })
        }
        (name, default) => Ok(name.or(default)),
    }
}

/// The profile whose options are used. Without a name it is the default one, which need not exist.
fn select<'a>(
    named: Option<&str>,
    profiles: &'a Profiles,
) -> Result<Option<Profile<'a>>, ConfigurationError> {
    let Some(name) = named else { return Ok(profiles.get(DEFAULT_PROFILE)) };
    let unknown = || match name {
        "" => ConfigurationError::EmptyProfile,
        _ => ConfigurationError::UnknownProfile {
            profile: name.to_owned(),
            section_of: profiles.bare_section(name).map(PathBuf::from),
        },
    };
    profiles.get(name).map(Some).ok_or_else(unknown)
}

fn check_region(region: Option<&str>) -> Result<(), ConfigurationError> {
    match region {
        // `Aws::load` refuses an empty name later: the CLI reports other mistakes first.
        Some(region) if !region.is_empty() && !endpoint::is_region(region) => {
            Err(ConfigurationError::BadRegion { region: region.to_owned() })
        }
        _ => Ok(()),
    }
}

/// Reads a setting: from the environment, or else from the selected profile.
#[derive(Clone, Copy)]
struct Lookup<'a> {
    variables: &'a Variables,
    profile: Option<Profile<'a>>,
}

impl Lookup<'_> {
    fn of_profile(&self, option: &'static str) -> Result<Option<String>, ConfigurationError> {
        self.profile.map_or(Ok(None), |profile| profile.owned(option))
    }

    /// A variable is used even if it is empty, as in the CLI.
    fn first(&self, names: &[&str], option: &'static str) -> Result<Option<String>, ConfigurationError> {
        match names.iter().find_map(|name| self.variables.get(name)) {
            Some(value) => Ok(Some(value)),
            None => self.of_profile(option),
        }
    }

    /// Only `true` is true, in any case of letters.
    fn truth(&self, name: &str, option: &'static str) -> Result<Option<bool>, ConfigurationError> {
        Ok(self.first(&[name], option)?.map(|value| value.eq_ignore_ascii_case("true")))
    }
}

fn metadata(lookup: &Lookup<'_>) -> Result<Option<MetadataService>, ConfigurationError> {
    let endpoint = lookup.first(&["AWS_EC2_METADATA_SERVICE_ENDPOINT"], "ec2_metadata_service_endpoint")?;
    let mode =
        lookup.first(&["AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"], "ec2_metadata_service_endpoint_mode")?;
    let six = match mode {
        Some(mode) if mode.eq_ignore_ascii_case("ipv6") => true,
        Some(mode) if mode.eq_ignore_ascii_case("ipv4") => false,
        Some(mode) => return Err(ConfigurationError::MetadataMode { mode }),
        None => lookup.truth("AWS_IMDS_USE_IPV6", "imds_use_ipv6")?.unwrap_or(false),
    };
    let disabled = lookup.variables.get("AWS_EC2_METADATA_DISABLED");
    if disabled.is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let usual = if six { "http://[fd00:ec2::254]/" } else { "http://169.254.169.254/" };
    let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty()).unwrap_or_else(|| usual.to_owned());
    Ok(Some(MetadataService { endpoint }))
}

fn settings(lookup: &Lookup<'_>) -> Result<SdkSettings, ConfigurationError> {
    let filled = |value: Option<String>| value.filter(|value| !value.is_empty());
    let attempts = lookup.first(&["AWS_MAX_ATTEMPTS"], "max_attempts")?;
    Ok(SdkSettings {
        ca_bundle: filled(lookup.of_profile("ca_bundle")?).map(PathBuf::from),
        max_attempts: attempts.and_then(|attempts| attempts.trim().parse().ok()),
        retry_mode: lookup.first(&["AWS_RETRY_MODE"], "retry_mode")?,
        app_id: filled(lookup.first(&["AWS_SDK_UA_APP_ID"], "sdk_ua_app_id")?),
    })
}

/// The endpoints that environment and profile configure.
#[derive(Clone, Default)]
pub(crate) struct ConfiguredEndpoints {
    /// `AWS_ENDPOINT_URL_<SERVICE>`, by service.
    of_service: BTreeMap<String, String>,
    /// `AWS_ENDPOINT_URL`.
    global: Option<String>,
    /// The endpoints in the profile's `services` section, by service.
    in_services: BTreeMap<String, String>,
    /// `endpoint_url` of the profile.
    in_profile: Option<String>,
}

impl ConfiguredEndpoints {
    fn read(lookup: &Lookup<'_>, profiles: &Profiles) -> Result<Self, ConfigurationError> {
        let ignored =
            lookup.truth("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "ignore_configured_endpoint_urls")?;
        if ignored == Some(true) {
            return Ok(Self::default());
        }
        let of_service = lookup.variables.with_prefix("AWS_ENDPOINT_URL_");
        let global = lookup.variables.filled("AWS_ENDPOINT_URL");
        let mut endpoints = Self { of_service, global, ..Self::default() };
        let Some(profile) = lookup.profile else { return Ok(endpoints) };
        endpoints.in_profile = profile.owned("endpoint_url")?.filter(|endpoint| !endpoint.is_empty());
        // The CLI does not read the section for a service whose endpoint is in the environment.
        let is_covered = |service: &&str| endpoints.of_service.contains_key(*service);
        let is_used = endpoints.global.is_none() && !CALLED.iter().all(is_covered);
        if let Some(name) = profile.text("services")?.filter(|_| is_used) {
            let section = profiles.services(name).filter(|section| !section.is_empty());
            let section = section.ok_or_else(|| ConfigurationError::MissingServices {
                profile: profile.name.to_owned(),
                services: name.to_owned(),
            })?;
            for (service, value) in section {
                if let Value::Nested(values) = value
                    && let Some(endpoint) = values.get("endpoint_url")
                {
                    endpoints.in_services.insert(service.clone(), endpoint.clone());
                }
            }
        }
        Ok(endpoints)
    }

    /// The endpoint of a service, by its service id.
    pub(crate) fn of(&self, service_id: &str) -> Option<&str> {
        let key = service_id.replace([' ', '-'], "_");
        let found = self
            .of_service
            .get(&key.to_uppercase())
            .or(self.global.as_ref())
            .or_else(|| self.in_services.get(&key.to_lowercase()).filter(|endpoint| !endpoint.is_empty()))
            .or(self.in_profile.as_ref());
        found.map(String::as_str)
    }
}

/// Shows nothing: an endpoint may have a password in it.
impl fmt::Debug for ConfiguredEndpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguredEndpoints").finish_non_exhaustive()
    }
}

/// The services that are called, as in `AWS_ENDPOINT_URL_<SERVICE>`.
const CALLED: [&str; 4] = ["SSM", "EC2_INSTANCE_CONNECT", "EC2", "STS"];

/// The profile that is used when none is named.
pub(crate) const DEFAULT_PROFILE: &str = "default";

#[cfg(test)]
mod tests;
