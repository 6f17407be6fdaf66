//! The file with a web identity token, which is exchanged for a role's credentials.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use super::error::AwsError;

/// Refuses a file that has no token: AWS, and the SDK, would not say which file it was.
///
/// # Errors
///
/// [`AwsError::WebIdentityToken`].
pub(super) fn check(path: &Path) -> Result<(), AwsError> {
    let failed = |source: io::Error| AwsError::WebIdentityToken { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text)).map_err(failed)?;
    if text.trim().is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is empty")));
    }
    Ok(())
}

/// AWS takes tokens of up to 20,000 characters (STS, AssumeRoleWithWebIdentity).
const LIMIT: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_file_without_a_token_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let error = |path: &Path| {
            let error = check(path).unwrap_err();
            assert!(error.to_string().contains(&path.display().to_string()), "{error}");
            std::error::Error::source(&error).unwrap().to_string()
        };
        assert_eq!(error(&path), "No such file or directory (os error 2)");
        assert_eq!(error(directory.path()), "Is a directory (os error 21)");
        for text in ["", " \n"] {
            fs::write(&path, text).unwrap();
            assert_eq!(error(&path), "it is empty");
        }
        fs::write(&path, "eyJ.eyJ.sig\n").unwrap();
        assert!(check(&path).is_ok());
    }
}
