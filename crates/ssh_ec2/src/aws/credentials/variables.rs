//! A snapshot of the environment. (Pure.)

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::aws::credentials::configuration::ConfigurationError;

/// Environment variables and the home directory.
#[derive(Clone, Default)]
pub(crate) struct Variables {
    values: BTreeMap<String, OsString>,
    home: Option<PathBuf>,
}

impl Variables {
    /// A snapshot, without variables whose names are not UTF-8: those of AWS's tools are.
    pub(crate) fn new(values: impl IntoIterator<Item = (OsString, OsString)>, home: Option<PathBuf>) -> Self {
        let values =
            values.into_iter().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect();
        Self { values, home }
    }

    /// A variable, even an empty one. Bytes that are not UTF-8 become U+FFFD, which is in no profile's name.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.values.get(name).map(|value| value.to_string_lossy().into_owned())
    }

    /// A variable that is not empty.
    pub(crate) fn filled(&self, name: &str) -> Option<String> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All variables that are not empty and whose names begin with `prefix`, by the rest of the name.
    pub(crate) fn with_prefix(&self, prefix: &str) -> BTreeMap<String, String> {
        let rest = |(name, value): (&String, &OsString)| {
            let name = name.strip_prefix(prefix)?.to_owned();
            Some((name, value.to_string_lossy().into_owned())).filter(|(_, value)| !value.is_empty())
        };
        self.values.iter().filter_map(rest).collect()
    }

    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// The path in a variable, or else `default` in the home directory. `$NAME`, `${NAME}` and a leading `~`
    /// are replaced, as in botocore. None if the path is empty, or there is no home directory.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::OtherHome`].
    pub(crate) fn path(&self, name: &str, default: &str) -> Result<Option<PathBuf>, ConfigurationError> {
        let Some(value) = self.values.get(name) else {
            return Ok(self.home.as_ref().map(|home| home.join(default)));
        };
        match value.to_str() {
            Some(text) => self.expand(text),
            None => Ok(Some(value.into())),
        }
    }

    /// Replaces `$NAME`, `${NAME}` and a leading `~` in a path.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::OtherHome`].
    pub(crate) fn expand(&self, path: &str) -> Result<Option<PathBuf>, ConfigurationError> {
        self.expand_home(&self.expand_variables(path))
    }

    /// Replaces a leading `~` in a path.
    ///
    /// # Errors
    ///
    /// [`ConfigurationError::OtherHome`] for `~name`. The AWS CLI looks up that user's home directory.
    /// Without that no file would be found, and perhaps another identity be used.
    pub(crate) fn expand_home(&self, path: &str) -> Result<Option<PathBuf>, ConfigurationError> {
        match path.strip_prefix('~') {
            Some("") => Ok(self.home.clone()),
            Some(rest) if rest.starts_with('/') => {
                Ok(self.home.as_ref().map(|home| home.join(rest.trim_start_matches('/'))))
            }
            Some(_) => Err(ConfigurationError::OtherHome { path: path.to_owned() }),
            None => Ok(Some(path.into()).filter(|path: &PathBuf| !path.as_os_str().is_empty())),
        }
    }

    fn expand_variables(&self, text: &str) -> String {
        let mut expanded = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            expanded.push_str(before);
            let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
            let (name, length) = match after.strip_prefix('{').and_then(|after| after.split_once('}')) {
                Some((name, _)) => (name, name.len() + 2),
                None => {
                    let length = after.find(|character| !is_word(character)).unwrap_or(after.len());
                    (&after[..length], length)
                }
            };
            match self.get(name).filter(|_| !name.is_empty()) {
                Some(value) => expanded.push_str(&value),
                None => expanded.push_str(&rest[before.len()..=before.len() + length]),
            }
            rest = &after[length..];
        }
        expanded + rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_expanded_as_pythons_os_path_does() {
        let values = [("A", "a"), ("FILE", "~/x/${A}"), ("EMPTY", ""), ("PLAIN", "/etc/$A$NO${NO}$/${A")];
        let values = values.map(|(name, value)| (name.into(), value.into()));
        let variables = Variables::new(values, Some("/home/me".into()));
        let path = |name| variables.path(name, ".aws/config").unwrap().map(|path| path.display().to_string());
        assert_eq!(path("UNSET").as_deref(), Some("/home/me/.aws/config"));
        assert_eq!(path("FILE").as_deref(), Some("/home/me/x/a"));
        assert_eq!(path("PLAIN").as_deref(), Some("/etc/a$NO${NO}$/${A"));
        assert_eq!(path("EMPTY"), None);
        assert_eq!(variables.expand("~").unwrap().as_deref(), Some(Path::new("/home/me")));
    }

    #[test]
    fn the_home_directory_of_another_user_is_refused() {
        let values = [("CONFIG", "~you/config"), ("WHO", "~you"), ("MADE", "${TILDE}you/x"), ("TILDE", "~")];
        let values = values.map(|(name, value)| (name.into(), value.into()));
        let variables = Variables::new(values, Some("/home/me".into()));
        for (name, path) in [("CONFIG", "~you/config"), ("WHO", "~you"), ("MADE", "~you/x")] {
            let error = variables.path(name, ".aws/config").unwrap_err();
            assert!(error.to_string().contains(&format!("`{path}`")), "{error}");
        }
    }
}
