//! AssumeRoleWithWebIdentity: STS returns a role's credentials for a token from a file.
//!
//! The SDK's provider takes the endpoint of STS from the environment alone, and not from the profile.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use aws_credential_types::Credentials;
use roxmltree::Document;

use crate::aws::client::query::{child, child_text};
use crate::aws::credentials::expiry;
use crate::aws::credentials::identity::WebIdentity;
use crate::aws::credentials::sign_in::SignIn;
use crate::aws::credentials::sts_client::{self, StsClient, default_session_name};
use crate::aws::error::AwsError;

/// A role that is assumed with a token.
pub(crate) struct WebIdentityRole {
    web_identity: WebIdentity,
    sts: StsClient,
}

impl WebIdentityRole {
    pub(crate) fn new(web_identity: WebIdentity, sts: StsClient) -> Self {
        Self { web_identity, sts }
    }

    /// Exchanges the token that is in the file now.
    ///
    /// # Errors
    ///
    /// [`AwsError::WebIdentityToken`], and those of a call.
    pub(crate) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let WebIdentity { token_file, role_arn, session_name } = self.web_identity.clone();
        let parameters = [
            ("RoleArn", Some(role_arn)),
            ("RoleSessionName", Some(session_name.unwrap_or_else(default_session_name))),
            ("WebIdentityToken", Some(token(&token_file)?)),
        ];
        let called = self.sts.call(ASSUME_ROLE_WITH_WEB_IDENTITY, parameters, None).await?;
        let response = called.map_err(|response| AwsError::Credentials {
            sign_in: sign_in.clone(),
            source: response.into(),
        })?;
        read(&response.body).ok_or_else(|| sts_client::no_credentials(ASSUME_ROLE_WITH_WEB_IDENTITY))
    }
}

/// The credentials in a response.
fn read(body: &[u8]) -> Option<Credentials> {
    let document = Document::parse(std::str::from_utf8(body).ok()?).ok()?;
    let result = child(document.root_element(), "AssumeRoleWithWebIdentityResult")?;
    let credentials = child(result, "Credentials")?;
    let text = |name| child_text(credentials, name).map(str::to_owned);
    let expires = expiry::read(&text("Expiration")?)?;
    let (id, secret) = (text("AccessKeyId")?, text("SecretAccessKey")?);
    Some(Credentials::new(id, secret, Some(text("SessionToken")?), Some(expires), "web identity"))
}

/// The token, byte for byte as it is in the file, of which at most [`LIMIT`] bytes are read.
fn token(path: &Path) -> Result<String, AwsError> {
    let failed = |source: io::Error| AwsError::WebIdentityToken { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text)).map_err(failed)?;
    if text.trim().is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is empty")));
    }
    Ok(text)
}

const ASSUME_ROLE_WITH_WEB_IDENTITY: &str = "AssumeRoleWithWebIdentity";
/// The most bytes that are read from the token's file. STS accepts tokens of up to 20,000 characters
/// (AssumeRoleWithWebIdentity).
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
            let error = token(path).unwrap_err();
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
        assert_eq!(token(&path).unwrap(), "eyJ.eyJ.sig\n");
    }

    #[test]
    fn the_credentials_of_an_answer_are_read() {
        // The form of the example in the reference of STS's API.
        let answer = |expiration| {
            format!(
                "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
                 <AssumeRoleWithWebIdentityResult><Credentials><SessionToken>t</SessionToken>\
                 <SecretAccessKey>s</SecretAccessKey>{expiration}<AccessKeyId>ASIA</AccessKeyId></Credentials>\
                 </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            )
        };
        let found = read(answer("<Expiration>2014-10-24T23:00:23Z</Expiration>").as_bytes()).unwrap();
        assert_eq!(
            (found.access_key_id(), found.secret_access_key(), found.session_token()),
            ("ASIA", "s", Some("t"))
        );
        assert_eq!(found.expiry(), expiry::read("2014-10-24T23:00:23Z"));
        assert!(read(answer("").as_bytes()).is_none() && read(b"<html/>").is_none());
    }
}
