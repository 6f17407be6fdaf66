//! A client's first message on its websocket, with its id and token.
//!
//! AWS names the message `OpenDataChannelInput`. AWS does not document how its gateway refuses a wrong one;
//! this one closes the websocket with code 1008. The fields are those that AWS's plugin sends
//! (`session-manager-plugin`, `src/service/model.go`), in all versions since 1.2.677.0.

use serde_json::{Map, Value};

/// Why a first message is refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum FirstMessageError {
    #[error("the first message is not text")]
    Binary,
    #[error("the first message is not a JSON object")]
    NotJson,
    #[error("{0} is missing from the first message, or wrong")]
    Field(&'static str),
    #[error("only SSM agents send ClientInstanceId")]
    SsmAgent,
}

/// Checks all fields of a first message and returns its token.
pub(super) fn token(text: &str) -> Result<String, FirstMessageError> {
    let Ok(Value::Object(message)) = serde_json::from_str(text) else {
        return Err(FirstMessageError::NotJson);
    };
    field(&message, "MessageSchemaVersion", |version| version == "1.0")?;
    field(&message, "RequestId", is_uuid)?;
    field(&message, "ClientId", |id| !id.is_empty())?;
    field(&message, "ClientVersion", is_version)?;
    if message.contains_key("ClientInstanceId") {
        return Err(FirstMessageError::SsmAgent);
    }
    field(&message, "TokenValue", |token| !token.is_empty()).map(str::to_owned)
}

fn field<'a>(
    message: &'a Map<String, Value>,
    name: &'static str,
    accepts: fn(&str) -> bool,
) -> Result<&'a str, FirstMessageError> {
    let value = message.get(name).and_then(Value::as_str);
    value.filter(|value| accepts(value)).ok_or(FirstMessageError::Field(name))
}

/// Five groups of hexadecimal digits.
fn is_uuid(text: &str) -> bool {
    let groups: Vec<_> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Up to four numbers with dots between.
fn is_version(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split('.').count() <= 4 && text.split('.').all(is_number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// As AWS's plugin 1.2.677.0 sends it, with a shorter token.
    fn message() -> Value {
        json!({
            "MessageSchemaVersion": "1.0",
            "RequestId": "03f311e8-3f85-4ad9-b8d6-37c9111355a4",
            "TokenValue": "AAEAAbc/dE+==",
            "ClientId": "5795be64-bb70-418b-8b54-53abe3d8f694",
            "ClientVersion": "1.2.677.0",
        })
    }

    #[test]
    fn the_message_of_aws_plugin_shows_its_token() {
        assert_eq!(token(&message().to_string()), Ok("AAEAAbc/dE+==".to_owned()));
    }

    #[test]
    fn each_field_has_to_be_there_and_right() {
        for (name, wrong) in [
            ("MessageSchemaVersion", "1.00"),
            ("RequestId", "03f311e83f854ad9b8d637c9111355a4"),
            ("TokenValue", ""),
            ("ClientId", ""),
            ("ClientVersion", "1.2.3.4.5"),
            ("ClientVersion", "1..2"),
        ] {
            for value in [json!(wrong), json!(1.0), Value::Null] {
                let mut message = message();
                message[name] = value;
                assert_eq!(token(&message.to_string()), Err(FirstMessageError::Field(name)), "{message}");
            }
        }
        for text in ["", "[]", "\"AAEAAbc\"", "{} {}"] {
            assert_eq!(token(text), Err(FirstMessageError::NotJson), "{text}");
        }
        let mut message = message();
        message["ClientInstanceId"] = json!("i-0decaf00000000001");
        assert_eq!(token(&message.to_string()), Err(FirstMessageError::SsmAgent));
    }
}
