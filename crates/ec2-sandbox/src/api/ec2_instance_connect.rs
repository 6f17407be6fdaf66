//! EC2 Instance Connect: takes public keys for a minute. It never looks inside the instance, so success does
//! not mean that the key will be honoured.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Deserialize;
use serde_json::json;

use super::{Call, error::ApiError};
use crate::world::InstanceState;

/// Performs `operation`; `None` if there is no such operation.
pub(super) fn perform(call: &Call<'_>, operation: &str, body: &[u8]) -> Option<Result<String, ApiError>> {
    (operation == "SendSSHPublicKey").then(|| {
        let input: SendSshPublicKey = serde_json::from_slice(body)
            .map_err(|error| ApiError::coral("SerializationException", error.to_string()))?;
        send_ssh_public_key(call, &input)
    })
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct SendSshPublicKey {
    instance_id: Option<String>,
    #[serde(rename = "InstanceOSUser")]
    instance_os_user: Option<String>,
    #[serde(rename = "SSHPublicKey")]
    ssh_public_key: Option<String>,
    availability_zone: Option<String>,
}

fn send_ssh_public_key(call: &Call<'_>, input: &SendSshPublicKey) -> Result<String, ApiError> {
    let id = checked(input.instance_id.as_deref(), "InstanceId", is_instance_id)?;
    let user = checked(input.instance_os_user.as_deref(), "InstanceOSUser", is_os_user)?;
    let key = checked(input.ssh_public_key.as_deref(), "SSHPublicKey", is_public_key)?;
    let instance = call.instance(id).ok_or_else(|| {
        ApiError::new("EC2InstanceNotFoundException", format!("Instance {id} could not be found."))
    })?;
    if !call.permits(ACTION, instance) {
        return Err(call.denied(ACTION, &call.instance_arn(id)));
    }
    if instance.state() != InstanceState::Running {
        let message = format!("Instance is not in a valid state: it is {}.", instance.state());
        return Err(ApiError::new("EC2InstanceStateInvalidException", message));
    }
    if input.availability_zone.as_deref().is_some_and(|zone| zone != instance.availability_zone) {
        return Err(invalid("AvailabilityZone"));
    }
    call.world.push_key(id, user, key, call.now);
    Ok(json!({"RequestId": call.request_id, "Success": true}).to_string())
}

fn checked<'a>(value: Option<&'a str>, name: &str, accepts: fn(&str) -> bool) -> Result<&'a str, ApiError> {
    value.filter(|value| accepts(value)).ok_or_else(|| invalid(name))
}

fn invalid(name: &str) -> ApiError {
    ApiError::new("InvalidArgsException", format!("The value of {name} is missing or not valid."))
}

/// `^i-[a-f0-9]+$`, 10 to 32 characters, as in the service model.
fn is_instance_id(id: &str) -> bool {
    let is_hex = |digits: &str| digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (10..=32).contains(&id.len()) && id.strip_prefix("i-").is_some_and(is_hex)
}

/// Letters, digits and `_.@-`, with `$` at the end only, 1 to 32 characters, not digits alone; it starts with
/// a letter, a digit or `_`.
fn is_os_user(user: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'@' | b'-');
    let Some(((&last, rest), &first)) = user.as_bytes().split_last().zip(user.as_bytes().first()) else {
        return false;
    };
    user.len() <= 32
        && (first.is_ascii_alphanumeric() || first == b'_')
        && rest.iter().all(|byte| plain(*byte))
        && (last.is_ascii_alphanumeric() || matches!(last, b'_' | b'-' | b'$'))
        && !user.bytes().all(|byte| byte.is_ascii_digit())
}

/// One line of 80 to 4096 characters with an RSA or Ed25519 key whose blob names the same type.
fn is_public_key(key: &str) -> bool {
    let mut words = key.trim().split(' ');
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else { return false };
    let Ok(blob) = STANDARD.decode(blob) else { return false };
    let named = blob.split_first_chunk::<4>().is_some_and(|(length, rest)| {
        u32::from_be_bytes(*length) as usize == kind.len() && rest.starts_with(kind.as_bytes())
    });
    (80..=4096).contains(&key.len())
        && !key.trim().contains(['\r', '\n'])
        && matches!(kind, "ssh-ed25519" | "ssh-rsa")
        && named
}

const ACTION: &str = "ec2-instance-connect:SendSSHPublicKey";

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ1yIq8JQTmR8cYqk0kWkKqk9m0nNQ0yqGq5mJm1oGxk";

    #[test]
    fn public_keys_are_one_line_of_a_known_type() {
        assert!(is_public_key(KEY));
        assert!(is_public_key(&format!("{KEY} a comment\n")));
        for key in [
            "",
            "ssh-ed25519",
            &KEY.replace("ssh-ed25519", "ssh-rsa"),
            &KEY.replace("ssh-ed25519", "ecdsa-sha2-nistp256"),
            &KEY.replace("AAAAC3", "!AAAC3"),
            &format!("{KEY}\n{KEY}"),
            &format!("{KEY} {}", "x".repeat(4096)),
        ] {
            assert!(!is_public_key(key), "{key}");
        }
    }

    #[test]
    fn users_follow_the_pattern_of_the_model() {
        for user in ["ec2-user", "root", "a", "_svc$", "first.last@example.com", "0day"] {
            assert!(is_os_user(user), "{user}");
        }
        for user in ["", "1234", "a b", "$a", "a$b", "-a", "a.", &"a".repeat(33)] {
            assert!(!is_os_user(user), "{user}");
        }
    }

    #[test]
    fn instance_ids_have_their_pattern() {
        assert!(is_instance_id("i-0decaf00000000001"));
        for id in ["i-", "i-0DECAF00000000001", "mi-0decaf0000000001", "i-0decaf", "0decaf00000000001"] {
            assert!(!is_instance_id(id), "{id}");
        }
    }
}
