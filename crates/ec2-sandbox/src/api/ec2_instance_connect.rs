//! EC2 Instance Connect: accepts public keys for a minute. It does not check the instance, so success does
//! not mean that sshd will accept the key.

use russh::keys::{PublicKey, ssh_key::public::KeyData};
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

/// The pattern of the service model and its 1 to 32 characters:
/// `(^[A-Za-z_][A-Za-z0-9\@\._-]{0,30}[A-Za-z0-9\$_-]?$)` or
/// `(^(?=.{2,32}$)[0-9]{1,32}[A-Za-z\@\._-][A-Za-z0-9\@\._-]*[A-Za-z0-9\$_-]?$)`.
fn is_os_user(user: &str) -> bool {
    let user = user.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_alphanumeric() || b"@._-".contains(byte);
    // The last character is optional in both, so the characters of the middle part may also be last.
    let ends = |rest: &[u8]| match rest.split_last() {
        Some((b'$', rest)) => rest.iter().all(inner),
        _ => rest.iter().all(inner),
    };
    let digits = user.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match user {
        [] => false,
        [first, rest @ ..] if first.is_ascii_alphabetic() || *first == b'_' => {
            let last_is_inside = rest.len() <= 30 || rest.last().is_some_and(|byte| !b"@.".contains(byte));
            user.len() <= 32 && ends(rest) && last_is_inside
        }
        _ => match &user[digits..] {
            [next, rest @ ..] => digits > 0 && user.len() <= 32 && *next != b'$' && inner(next) && ends(rest),
            [] => false,
        },
    }
}

/// One line of 80 to 4096 characters with an Ed25519 key, or an RSA key of at least 2048 bits, as documented:
/// without options before it, and without bytes after the key in its blob.
fn is_public_key(key: &str) -> bool {
    let line = key.trim();
    if !(80..=4096).contains(&key.len()) || line.contains(['\r', '\n']) {
        return false;
    }
    match PublicKey::from_openssh(line).as_ref().map(PublicKey::key_data) {
        Ok(KeyData::Ed25519(_)) => true,
        Ok(KeyData::Rsa(key)) => key.key_size() >= LEAST_RSA_BITS,
        _ => false,
    }
}

const ACTION: &str = "ec2-instance-connect:SendSSHPublicKey";
const LEAST_RSA_BITS: u32 = 2048;

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
            &format!("no-pty {KEY}"),
        ] {
            assert!(!is_public_key(key), "{key}");
        }
    }

    #[test]
    fn users_follow_the_pattern_of_the_model() {
        for user in ["ec2-user", "root", "a", "_svc$", "first.last@example.com", "0day"] {
            assert!(is_os_user(user), "{user}");
        }
        for user in ["a.", "a@", "0.", "1.$", "a-", &"a".repeat(32), &format!("0{}@", "a".repeat(30))] {
            assert!(is_os_user(user), "{user}");
        }
        for user in ["", "1234", "a b", "$a", "a$b", "-a", "0$", "$", ".a", "é", &"a".repeat(33)] {
            assert!(!is_os_user(user), "{user}");
        }
        // The 32nd character is the optional last one, unless the name begins with digits.
        for (last, accepted) in [('a', true), ('$', true), ('-', true), ('.', false), ('@', false)] {
            assert_eq!(is_os_user(&format!("{}{last}", "a".repeat(31))), accepted, "{last}");
        }
    }

    /// The expected numbers are from Python's `re` with the pattern of the model, on all texts of these
    /// lengths.
    #[test]
    fn as_many_short_names_are_users_as_the_pattern_accepts() {
        let mut names = vec![String::new()];
        for accepted in [2, 19, 124, 754, 4534] {
            let longer =
                names.iter().flat_map(|name| "a0_.@-$".chars().map(move |last| format!("{name}{last}")));
            names = longer.collect();
            assert_eq!(names.iter().filter(|name| is_os_user(name)).count(), accepted);
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
