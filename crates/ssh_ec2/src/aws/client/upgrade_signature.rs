//! The signature on a websocket upgrade: SigV4 in headers, for the service `ssmmessages`.
//!
//! The service checks it as AWS's Go signer makes it: the query is decoded as a form, so a raw `+` is signed
//! as `%20`, while the request itself still has `+`. The SDK's signer reads the query the same way.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::{HeaderName, HeaderValue};

use crate::aws::Aws;
use crate::aws::client::service::SSM_MESSAGES;
use crate::aws::error::AwsError;
use crate::net::websocket::{StreamUrl, Transport};

impl Aws {
    /// The headers that sign a websocket upgrade at `url`. They are good for one attempt within five minutes.
    /// Empty if the URL is signed itself.
    ///
    /// # Errors
    ///
    /// [`AwsError::UntrustedStreamUrl`], as from [`Aws::check_stream_url`]; those of finding credentials; and
    /// [`AwsError::Signing`].
    pub(crate) async fn sign_upgrade(
        &self,
        url: &StreamUrl,
    ) -> Result<Vec<(HeaderName, HeaderValue)>, AwsError> {
        self.check_stream_url(url)?;
        let credentials = self.credentials.resolve().await?;
        upgrade_headers(&credentials, self.region(), self.client.now(), url)
    }
}

fn upgrade_headers(
    credentials: &Credentials,
    region: &str,
    time: SystemTime,
    url: &StreamUrl,
) -> Result<Vec<(HeaderName, HeaderValue)>, AwsError> {
    let target = url.path_and_query();
    if is_signed(&target) {
        return Ok(Vec::new());
    }
    let identity = credentials.clone().into();
    let parameters = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(SSM_MESSAGES.prefix)
        .time(time)
        .settings(SigningSettings::default())
        .build()
        .map_err(signing)?
        .into();
    // The signer accepts the HTTP schemes only. The scheme is not signed, but decides whether the port is.
    let scheme = match url.transport() {
        Transport::Plain => "http",
        Transport::Tls => "https",
    };
    let signed_url = format!("{scheme}://{}{target}", url.authority());
    let request = SignableRequest::new("GET", signed_url, std::iter::empty(), SignableBody::Bytes(b""))
        .map_err(signing)?;
    let (instructions, _) = sign(request, &parameters).map_err(signing)?.into_parts();
    instructions
        .headers()
        .map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(signing)?;
            let mut value = HeaderValue::from_str(value).map_err(signing)?;
            value.set_sensitive(true);
            Ok((name, value))
        })
        .collect()
}

fn is_signed(target: &str) -> bool {
    let query = target.split_once('?').map_or("", |(_, query)| query);
    query
        .split('&')
        .filter_map(|pair| pair.split('=').next())
        .any(|name| SIGNATURE_PARAMETERS.contains(&name))
}

fn signing(source: impl std::error::Error + Send + Sync + 'static) -> AwsError {
    AwsError::Signing { source: Box::new(source) }
}

/// A URL with one of these is signed already; a second signature would invalidate the first.
const SIGNATURE_PARAMETERS: [&str; 7] = [
    "X-Amz-Algorithm",
    "X-Amz-Credential",
    "X-Amz-Date",
    "X-Amz-Expires",
    "X-Amz-Security-Token",
    "X-Amz-Signature",
    "X-Amz-SignedHeaders",
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, UNIX_EPOCH};

    const URL: &str = "wss://ssmmessages.us-west-2.amazonaws.com/v1/data-channel/user-0123456789abcdef0\
                       ?role=publish_subscribe&cell-number=AAEAAd+bc/dE==";

    fn headers(token: Option<&str>, url: &str) -> Vec<(String, String)> {
        let credentials = Credentials::new(
            "AKIDEXAMPLE",
            "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
            token.map(str::to_owned),
            None,
            "test",
        );
        // 2026-01-02T03:04:05Z
        let time = UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        let headers =
            upgrade_headers(&credentials, "us-west-2", time, &StreamUrl::new(url).unwrap()).unwrap();
        let mut headers: Vec<_> = headers
            .into_iter()
            .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
            .collect();
        headers.sort();
        headers
    }

    fn expected(signed_headers: &str, signature: &str) -> (String, String) {
        let value = format!(
            "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260102/us-west-2/ssmmessages/aws4_request, \
             SignedHeaders={signed_headers}, Signature={signature}"
        );
        ("authorization".to_owned(), value)
    }

    #[test]
    fn raw_plus_in_the_query_is_signed_as_space() {
        assert_eq!(
            headers(None, URL),
            [
                expected(
                    "host;x-amz-date",
                    "7cccc17d66deb4b70714a2858ec908826a14f414c9cad1acbd20be7dfbacf49c"
                ),
                ("x-amz-date".into(), "20260102T030405Z".into()),
            ]
        );
    }

    #[test]
    fn the_session_token_is_signed_with_the_rest() {
        assert_eq!(
            headers(Some("TOKEN/EX+AMPLE=="), URL),
            [
                expected(
                    "host;x-amz-date;x-amz-security-token",
                    "87b60aaaabd97a008b844baa627c070ddc12eabc05da0219c50fa79b9231317f"
                ),
                ("x-amz-date".into(), "20260102T030405Z".into()),
                ("x-amz-security-token".into(), "TOKEN/EX+AMPLE==".into()),
            ]
        );
    }

    #[test]
    fn a_signed_url_is_left_alone() {
        assert_eq!(headers(None, "wss://a.b/v1?x=1&X-Amz-Signature=00"), []);
        assert_eq!(headers(None, "wss://a.b/v1?x=X-Amz-Signature").len(), 2);
    }
}
