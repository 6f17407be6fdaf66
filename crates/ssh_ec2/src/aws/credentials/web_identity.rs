//! A role for a web identity: a token from a file, which STS exchanges for the role's credentials.
//!
//! The SDK's provider would find an endpoint for STS in the environment alone, and none that the profile has.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::SystemTime;

use aws_credential_types::Credentials;
use roxmltree::Document;

use crate::aws::client::endpoint::{self, Protocol, STS};
use crate::aws::client::operation::{Call, Client, Failure};
use crate::aws::client::query::{child, child_text, form};
use crate::aws::credentials::cache::SignIn;
use crate::aws::credentials::expiry;
use crate::aws::credentials::identity::WebIdentity;
use crate::aws::error::AwsError;

/// The role, and where it is granted.
pub(in crate::aws) struct WebIdentityRole {
    pub(in crate::aws) web_identity: WebIdentity,
    pub(in crate::aws) client: Client,
    pub(in crate::aws) endpoint: String,
}

impl WebIdentityRole {
    /// Exchanges the token that the file has now.
    ///
    /// # Errors
    ///
    /// [`AwsError::WebIdentityToken`], and those of a call.
    pub(in crate::aws) async fn credentials(&self, sign_in: &SignIn) -> Result<Credentials, AwsError> {
        let WebIdentity { token_file, role_arn, session_name } = &self.web_identity;
        let Protocol::Query { version } = STS.protocol else { unreachable!("STS has one protocol") };
        let token = token(token_file)?;
        endpoint::check_endpoint(&STS, &self.endpoint)?;
        let default_name = || {
            let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            format!("ssh_ec2-session-{}", since.as_secs())
        };
        let parameters = [
            ("RoleArn", role_arn.clone()),
            ("RoleSessionName", session_name.clone().unwrap_or_else(default_name)),
            ("WebIdentityToken", token),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        let call = Call {
            service: &STS,
            operation: OPERATION,
            endpoint: &self.endpoint,
            credentials: None,
            body: form(OPERATION, version, &parameters),
        };
        let malformed = |source| AwsError::Malformed { action: format!("sts:{OPERATION}"), source };
        let answer = match self.client.invoke(call).await {
            Ok(answer) => answer,
            Err(Failure::Malformed(source)) => return Err(malformed(source)),
            Err(Failure::Network(error)) => return Err(AwsError::Network(error)),
            Err(Failure::Refused(refusal)) => {
                return Err(AwsError::Credentials { sign_in: sign_in.clone(), source: refusal.into() });
            }
            Err(Failure::Unreachable(source)) => {
                let host = endpoint::host_of(&self.endpoint).unwrap_or_else(|| self.endpoint.clone());
                return Err(AwsError::Unreachable { host, source });
            }
        };
        read(&answer.body).ok_or_else(|| malformed("it holds no credentials".into()))
    }
}

/// The credentials in an answer.
fn read(body: &[u8]) -> Option<Credentials> {
    let document = Document::parse(std::str::from_utf8(body).ok()?).ok()?;
    let result = child(document.root_element(), "AssumeRoleWithWebIdentityResult")?;
    let credentials = child(result, "Credentials")?;
    let text = |name| child_text(credentials, name).map(str::to_owned);
    let expires = expiry::read(&text("Expiration")?)?;
    let (id, secret) = (text("AccessKeyId")?, text("SecretAccessKey")?);
    Some(Credentials::new(id, secret, Some(text("SessionToken")?), Some(expires), "web identity"))
}

/// The token, as it stands in the file.
fn token(path: &Path) -> Result<String, AwsError> {
    let failed = |source: io::Error| AwsError::WebIdentityToken { path: path.to_owned(), source };
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(LIMIT).read_to_string(&mut text)).map_err(failed)?;
    if text.trim().is_empty() {
        return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "it is empty")));
    }
    Ok(text)
}

const OPERATION: &str = "AssumeRoleWithWebIdentity";
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
