//! Keys in the environment that end at some time.

use std::time::{Duration, SystemTime};

use super::super::*;

fn resolve(expiration: &str, options: &[(&str, &str)]) -> Result<Identity, ConfigurationError> {
    let keys =
        [("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_CONFIG_FILE", "/config")];
    let keys =
        keys.into_iter().chain([("AWS_CREDENTIAL_EXPIRATION", expiration)]).chain(options.iter().copied());
    let variables = Variables::new(keys.map(|(name, value)| (name.into(), value.into())), None);
    let read = |_: &std::path::Path| {
        Ok(Some(b"[profile role]\nrole_arn = r\ncredential_source = Environment\n".to_vec()))
    };
    Identity::resolve(Options::default(), &variables, &read)
}

fn expiry(identity: &Identity) -> Option<SystemTime> {
    match identity.source.as_ref().unwrap().origin() {
        Source::Environment(keys) => keys.expires,
        other => panic!("{other:?}"),
    }
}

#[test]
fn keys_end_when_the_environment_says() {
    let day = SystemTime::UNIX_EPOCH + Duration::from_secs(86_400);
    for (text, expected) in
        [("1970-01-02T00:00:00Z", Some(day)), ("1970-01-02 01:00:00+0100", Some(day)), ("", None)]
    {
        assert_eq!(expiry(&resolve(text, &[]).unwrap()), expected, "{text}");
    }
}

#[test]
fn an_end_that_is_no_time_is_refused() {
    for text in ["soon", " ", "2099-01-01T00:00:00"] {
        let error = resolve(text, &[]).unwrap_err();
        assert!(matches!(&error, ConfigurationError::BadExpiration { time } if time == text), "{error}");
        let error = resolve(text, &[("AWS_PROFILE", "role")]).unwrap_err();
        assert!(matches!(error, ConfigurationError::BadExpiration { .. }), "{error}");
    }
}
