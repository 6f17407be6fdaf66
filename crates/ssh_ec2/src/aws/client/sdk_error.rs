//! The errors of the SDK's credential providers, as one line of text.
//!
//! These errors are chains: wrappers that say nothing ("service error") and, for an exception that the SDK's
//! models do not have, a text in the form of Rust's `Debug`.

use std::error::Error;
use std::iter::successors;

use aws_smithy_types::error::ErrorMetadata;

use crate::system::text::foreign_text;

/// The chain as one text, without the wrappers.
pub(crate) fn in_words(error: &(dyn Error + 'static)) -> String {
    let mut words = String::new();
    for cause in successors(Some(error), |error| (*error).source()) {
        let text = match cause.downcast_ref::<ErrorMetadata>() {
            Some(metadata) => {
                let code = metadata.code().unwrap_or("an error without a code");
                metadata.message().map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"))
            }
            None => status_in_words(cause.to_string()),
        };
        if EMPTY.iter().any(|empty| text.starts_with(empty)) || words.contains(&text) {
            continue;
        }
        if !words.is_empty() {
            words.push_str(": ");
        }
        words.push_str(&text);
    }
    foreign_text(&words, SHOWN)
}

/// `StatusCode(500)`, which the SDK writes in the middle of a sentence, as "status 500".
fn status_in_words(text: String) -> String {
    let status =
        text.split_once("StatusCode(").and_then(|(before, rest)| Some((before, rest.split_once(')')?)));
    match status {
        Some((before, (number, after))) => format!("{before}status {number}{after}"),
        None => text,
    }
}

/// The beginnings of the wrappers' texts; the next error in the chain has the cause.
const EMPTY: [&str; 7] = [
    "an error occurred while loading credentials",
    "dispatch failure",
    "io error",
    "request has timed out",
    "service error",
    "unexpected credentials error",
    "unhandled error",
];
/// The most characters that are shown, as for other messages from AWS.
const SHOWN: usize = 600;

#[cfg(test)]
mod tests {
    use aws_credential_types::provider::error::CredentialsError;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Layer(&'static str, #[source] Box<dyn Error + Send + Sync>);

    #[test]
    fn a_chain_says_what_happened_and_nothing_else() {
        let metadata = ErrorMetadata::builder().code("AccessDenied").message("Not for you").build();
        let unhandled = Layer("unhandled error (AccessDenied)", metadata.into());
        let error = CredentialsError::provider_error(Layer("service error", unhandled.into()));
        assert_eq!(in_words(&error), "AccessDenied: Not for you");

        let error = Layer("dns error", "no such name".into());
        let error = CredentialsError::provider_error(Layer("dispatch failure", error.into()));
        assert_eq!(in_words(&error), "dns error: no such name");
        let error = Layer("io error", "Connection refused".into());
        assert_eq!(in_words(&CredentialsError::unhandled(error)), "Connection refused");
        let error = CredentialsError::provider_error("No success: StatusCode(500), twice");
        assert_eq!(in_words(&error), "No success: status 500, twice");
        assert_eq!(in_words(&CredentialsError::provider_error("no \u{1b}[1mtoken")), "no [1mtoken");
    }
}
