//! The user's AWS profiles, read as the AWS CLI reads them. (Pure, but for the reader of files that the
//! caller passes in.)
//!
//! The SDK's own parser refuses files that the CLI reads, and finds other profiles in some. It is not used.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::aws::credentials::configuration::ConfigurationError;
use crate::aws::credentials::ini::{self, Section, Value};
use crate::aws::credentials::process;
use crate::aws::credentials::variables::Variables;

/// Reads a file. None if it is not a regular file: the CLI ignores a pipe or a device.
pub(crate) type ReadFile<'a> = &'a dyn Fn(&Path) -> io::Result<Option<Vec<u8>>>;

/// The sections of both files.
#[derive(Clone, Default)]
pub(crate) struct Profiles {
    /// The profiles of both files; the credentials file wins, option by option.
    profiles: BTreeMap<String, Section>,
    /// The profiles of the config file alone.
    config: BTreeMap<String, Section>,
    /// All sections of the credentials file.
    credentials: BTreeMap<String, Section>,
    sso_sessions: BTreeMap<String, Section>,
    services: BTreeMap<String, Section>,
    /// The other sections of the config file, which the CLI ignores.
    other: Vec<String>,
    config_path: Option<PathBuf>,
}

impl Profiles {
    /// Reads both files; each may be absent.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::OtherHome`], [`ConfigurationError::Unreadable`], [`ConfigurationError::Syntax`].
    pub(crate) fn read(variables: &Variables, read: ReadFile<'_>) -> Result<Self, ConfigurationError> {
        let mut found = Self::default();
        if let Some(path) = variables.path("AWS_CONFIG_FILE", ".aws/config")? {
            for (header, section) in sections(&path, read)?.unwrap_or_default() {
                found.add(header, section);
            }
            found.config_path = Some(path);
        }
        found.profiles = found.config.clone();
        if let Some(path) = variables.path("AWS_SHARED_CREDENTIALS_FILE", ".aws/credentials")? {
            for (name, section) in sections(&path, read)?.unwrap_or_default() {
                found.profiles.entry(name.clone()).or_default().extend(section.clone());
                found.credentials.insert(name, section);
            }
        }
        Ok(found)
    }

    /// Adds a section of the config file. Of one profile in two spellings only the second is kept.
    fn add(&mut self, header: String, section: Section) {
        let kinds = [
            ("profile", &mut self.config),
            ("sso-session", &mut self.sso_sessions),
            ("services", &mut self.services),
        ];
        for (kind, sections) in kinds {
            if header.starts_with(kind) {
                // botocore checks only how the first word begins: `[profiles x]` is the profile x.
                if let Ok([_, name]) = process::split(&header).as_deref() {
                    sections.insert(name.clone(), section);
                }
                return;
            }
        }
        if header == "default" {
            self.config.insert(header, section);
        } else {
            self.other.push(header);
        }
    }

    /// The names of all profiles, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.profiles.keys().map(String::as_str)
    }

    pub(crate) fn get(&self, name: &str) -> Option<Profile<'_>> {
        let (name, section) = self.profiles.get_key_value(name)?;
        Some(Profile { name, section })
    }

    /// A profile as the config file alone has it.
    pub(crate) fn in_config(&self, name: &str) -> Option<Profile<'_>> {
        let (name, section) = self.config.get_key_value(name)?;
        Some(Profile { name, section })
    }

    /// A section of the credentials file.
    pub(crate) fn in_credentials(&self, name: &str) -> Option<Profile<'_>> {
        let (name, section) = self.credentials.get_key_value(name)?;
        Some(Profile { name, section })
    }

    pub(crate) fn sso_session(&self, name: &str) -> Option<&Section> {
        self.sso_sessions.get(name)
    }

    pub(crate) fn services(&self, name: &str) -> Option<&Section> {
        self.services.get(name)
    }

    /// The config file, if it has a section of this name without the word `profile`.
    pub(crate) fn bare_section(&self, name: &str) -> Option<&Path> {
        self.other.iter().any(|header| header == name).then_some(self.config_path.as_deref()?)
    }
}

/// Shows no values: keys are among them.
impl fmt::Debug for Profiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.profiles.keys()).finish()
    }
}

/// One profile.
#[derive(Clone, Copy)]
pub(crate) struct Profile<'a> {
    pub(crate) name: &'a str,
    section: &'a Section,
}

impl<'a> Profile<'a> {
    /// Whether an option is set, to any value.
    pub(crate) fn has(&self, option: &str) -> bool {
        self.section.contains_key(option)
    }

    /// An option's value.
    pub(crate) fn value(&self, option: &str) -> Option<&'a Value> {
        self.section.get(option)
    }

    /// An option's text.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::NotText`] if lines are nested below it.
    pub(crate) fn text(&self, option: &'static str) -> Result<Option<&'a str>, ConfigurationError> {
        let text = |value: &'a Value| {
            value.text().ok_or_else(|| ConfigurationError::NotText { profile: self.name.to_owned(), option })
        };
        self.section.get(option).map(text).transpose()
    }

    /// [`Self::text`], as a `String`.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::NotText`].
    pub(crate) fn owned(&self, option: &'static str) -> Result<Option<String>, ConfigurationError> {
        Ok(self.text(option)?.map(str::to_owned))
    }
}

/// One section of another file with the same grammar. None if the file or the section does not exist.
///
/// # Errors
///
/// As [`Profiles::read`].
pub(crate) fn section_of(
    path: &Path,
    name: &str,
    read: ReadFile<'_>,
) -> Result<Option<Section>, ConfigurationError> {
    let sections = sections(path, read)?.unwrap_or_default();
    Ok(sections.into_iter().find(|(header, _)| header == name).map(|(_, section)| section))
}

/// The sections of a file. None if it does not exist.
fn sections(path: &Path, read: ReadFile<'_>) -> Result<Option<Vec<(String, Section)>>, ConfigurationError> {
    let unreadable = |source| ConfigurationError::Unreadable { path: path.to_owned(), source };
    let Some(bytes) = read(path).map_err(unreadable)? else { return Ok(None) };
    let syntax = |source| ConfigurationError::Syntax { path: path.to_owned(), source };
    ini::parse(&bytes).map(Some).map_err(syntax)
}

#[cfg(test)]
mod tests;
