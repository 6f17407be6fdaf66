//! The options of a profile for IAM Identity Center. (Pure.)

use crate::aws::credentials::configuration::ConfigurationError;
use crate::aws::credentials::ini::Section;
use crate::aws::credentials::profiles::{Profile, Profiles};

/// A role in an account, and the sign-in that gives its credentials.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Sso {
    pub(crate) start_url: String,
    pub(crate) region: String,
    pub(crate) account_id: String,
    pub(crate) role_name: String,
    /// The `sso-session` section. The file of the token is named after it, or else after the start URL.
    pub(crate) session: Option<String>,
    /// `sso_registration_scopes`.
    pub(crate) scopes: Option<String>,
}

impl Sso {
    /// The options of a profile. None if it has neither account nor role.
    pub(super) fn of_profile(
        profile: Profile<'_>,
        profiles: &Profiles,
    ) -> Result<Option<Self>, ConfigurationError> {
        if !profile.has("sso_role_name") && !profile.has("sso_account_id") {
            return Ok(None);
        }
        let session = match profile.text("sso_session")? {
            Some(name) => Some((name, session(profile, name, profiles)?)),
            None => None,
        };
        if let Some((name, section)) = session {
            check_agreement(profile, name, section)?;
        }
        let mut missing = Vec::new();
        let mut text = |option: &'static str| -> Result<String, ConfigurationError> {
            let in_section = session.and_then(|(_, section)| section.get(option)?.text());
            match profile.text(option)?.or(in_section) {
                Some(text) => Ok(text.to_owned()),
                None => {
                    missing.push(option);
                    Ok(String::new())
                }
            }
        };
        let found = Self {
            role_name: text("sso_role_name")?,
            account_id: text("sso_account_id")?,
            start_url: text("sso_start_url")?,
            region: text("sso_region")?,
            session: session.map(|(name, _)| name.to_owned()),
            scopes: session
                .and_then(|(_, section)| section.get("sso_registration_scopes")?.text())
                .map(str::to_owned),
        };
        if missing.is_empty() {
            check_token_session(profile, profiles)?;
            return Ok(Some(found));
        }
        Err(ConfigurationError::SsoIncomplete { profile: profile.name.to_owned(), missing })
    }
}

/// Refuses a profile whose sso-session does not exist or is incomplete, even if its token is not used.
pub(super) fn check_token_session(
    profile: Profile<'_>,
    profiles: &Profiles,
) -> Result<(), ConfigurationError> {
    let Some(name) = profile.text("sso_session")? else { return Ok(()) };
    let section = session(profile, name, profiles)?;
    if section.is_empty() {
        let (profile, session) = (profile.name.to_owned(), name.to_owned());
        return Err(ConfigurationError::MissingSsoSession { profile, session });
    }
    let lacks = |option: &&'static str| !section.contains_key(*option);
    let missing: Vec<_> = ["sso_start_url", "sso_region"].into_iter().filter(lacks).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(ConfigurationError::SsoIncomplete { profile: profile.name.to_owned(), missing })
}

fn session<'a>(
    profile: Profile<'_>,
    name: &str,
    profiles: &'a Profiles,
) -> Result<&'a Section, ConfigurationError> {
    profiles.sso_session(name).ok_or_else(|| ConfigurationError::MissingSsoSession {
        profile: profile.name.to_owned(),
        session: name.to_owned(),
    })
}

/// Refuses a profile that has other values than its sso-session. It may repeat them.
fn check_agreement(profile: Profile<'_>, name: &str, section: &Section) -> Result<(), ConfigurationError> {
    let differs = |(option, value): &(&String, _)| profile.value(option).is_some_and(|own| own != *value);
    let options: Vec<_> = section.iter().filter(differs).map(|(option, _)| option.clone()).collect();
    if options.is_empty() {
        return Ok(());
    }
    Err(ConfigurationError::SsoConflict {
        profile: profile.name.to_owned(),
        session: name.to_owned(),
        options,
    })
}
