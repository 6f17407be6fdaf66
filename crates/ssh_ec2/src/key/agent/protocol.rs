//! The part of the agent protocol (draft-ietf-sshm-ssh-agent) that an agent with one key needs. No I/O.
//!
//! A frame is a length and a body; the first byte of a body is the message's number. Two requests are
//! answered: 11 lists the identities (12), 13 signs (14). All else gets 5, "failure", after which OpenSSH
//! goes on. That includes `session-bind@openssh.com`, whose failure it only logs (`sshconnect2.c`).

use crate::key::one_time::{COMMENT, OneTimeKey};
use crate::ssh::wire::{push_string, take_string};

/// A request of a client.
#[derive(Debug, Eq, PartialEq)]
pub enum Request<'a> {
    /// Lists the keys.
    List,
    /// Signs data with a key.
    Sign {
        /// The public half of the key, in the encoding of RFC 8709, or of RFC 4253 for RSA.
        key: &'a [u8],
        /// The data to sign.
        data: &'a [u8],
        /// The flags, which choose the hash of an RSA signature.
        flags: u32,
    },
    /// Announces that later requests on this connection come from the server, to which ssh forwards its agent
    /// (OpenSSH's `PROTOCOL.agent`).
    BindForwarded,
    /// A request that this agent does not support, or that is malformed.
    Unsupported,
}

impl<'a> Request<'a> {
    /// Reads the body of a frame. No body is an error: a malformed one is [`Unsupported`](Self::Unsupported).
    pub fn parse(body: &'a [u8]) -> Self {
        match body {
            [REQUEST_IDENTITIES] => Self::List,
            [SIGN_REQUEST, rest @ ..] => Self::parse_sign(rest).unwrap_or(Self::Unsupported),
            [EXTENSION, rest @ .., 1] if take_string(rest).is_some_and(|(name, _)| name == BIND) => {
                Self::BindForwarded
            }
            _ => Self::Unsupported,
        }
    }

    fn parse_sign(body: &'a [u8]) -> Option<Self> {
        let (key, rest) = take_string(body)?;
        let (data, flags) = take_string(rest)?;
        let flags = u32::from_be_bytes(flags.try_into().ok()?);
        Some(Self::Sign { key, data, flags })
    }
}

/// The response to a request, as a frame.
pub fn answer(request: &Request<'_>, key: &OneTimeKey) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    match request {
        Request::List => {
            body.push(IDENTITIES_ANSWER);
            body.extend_from_slice(&1_u32.to_be_bytes());
            push_string(&mut body, &key.public_blob());
            push_string(&mut body, COMMENT.as_bytes());
        }
        Request::Sign { key: wanted, data, flags } if *wanted == key.public_blob() => {
            match key.sign(data, *flags) {
                Some(signature) => {
                    body.push(SIGN_RESPONSE);
                    push_string(&mut body, &signature);
                }
                None => body.push(FAILURE),
            }
        }
        Request::Sign { .. } | Request::BindForwarded | Request::Unsupported => body.push(FAILURE),
    }
    let mut frame = Vec::with_capacity(body.len() + 4);
    push_string(&mut frame, &body);
    frame
}

/// Whether a response is a signature.
pub(crate) fn is_signature(frame: &[u8]) -> bool {
    frame.get(4) == Some(&SIGN_RESPONSE)
}

/// The answer when the key could not be pushed: "failure", to a list too. ssh then treats the agent as one
/// without keys, and goes on to its next key or method.
pub fn refusal() -> Vec<u8> {
    let mut frame = Vec::with_capacity(5);
    push_string(&mut frame, &[FAILURE]);
    frame
}

/// OpenSSH's own limit for a frame (`AGENT_MAX_LEN`).
pub(crate) const FRAME_LIMIT: usize = 256 * 1024;
const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;
const EXTENSION: u8 = 27;
const BIND: &[u8] = b"session-bind@openssh.com";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::one_time::KeyType;

    fn sign_request(key: &[u8], data: &[u8]) -> Vec<u8> {
        let mut body = vec![SIGN_REQUEST];
        push_string(&mut body, key);
        push_string(&mut body, data);
        body.extend_from_slice(&[0; 4]);
        body
    }

    #[test]
    fn the_list_holds_the_one_key() {
        let key = OneTimeKey::generate(KeyType::Ed25519).unwrap();
        let frame = answer(&Request::parse(&[REQUEST_IDENTITIES]), &key);
        let blob = key.public_blob();
        assert_eq!(frame[4..9], [IDENTITIES_ANSWER, 0, 0, 0, 1]);
        assert_eq!(frame[13..13 + blob.len()], blob);
        assert!(frame.ends_with(b"ssh_ec2"));
    }

    #[test]
    fn a_sign_request_is_answered_with_a_signature() {
        let key = OneTimeKey::generate(KeyType::Ed25519).unwrap();
        let body = sign_request(&key.public_blob(), b"data");
        let frame = answer(&Request::parse(&body), &key);
        assert!(is_signature(&frame));
        assert!(frame.ends_with(&key.sign(b"data", 0).unwrap()));
    }

    #[test]
    fn the_flags_choose_the_hash_of_an_rsa_signature() {
        let key = OneTimeKey::generate(KeyType::Rsa).unwrap();
        let mut body = sign_request(&key.public_blob(), b"data");
        assert_eq!(answer(&Request::parse(&body), &key), refusal(), "without flags it would be SHA-1");
        for (flag, algorithm) in [(2, "rsa-sha2-256"), (4, "rsa-sha2-512")] {
            *body.last_mut().unwrap() = flag;
            let frame = answer(&Request::parse(&body), &key);
            assert!(is_signature(&frame) && frame[13..].starts_with(algorithm.as_bytes()), "{algorithm}");
        }
    }

    #[test]
    fn sign_request_for_unknown_key_is_refused() {
        let (key, other) = (
            OneTimeKey::generate(KeyType::Ed25519).unwrap(),
            OneTimeKey::generate(KeyType::Ed25519).unwrap(),
        );
        let body = sign_request(&other.public_blob(), b"data");
        assert_eq!(answer(&Request::parse(&body), &key), refusal());
    }

    #[test]
    fn everything_else_is_refused() {
        let key = OneTimeKey::generate(KeyType::Ed25519).unwrap();
        let whole = sign_request(&key.public_blob(), b"data");
        let truncated = &whole[..whole.len() - 1];
        let trailing = [&whole[..], &[0]].concat();
        let absurd = [&[SIGN_REQUEST][..], &[0xff; 8]].concat();
        for body in
            [&b""[..], &[0], &[17, 1, 2], &[27], &[REQUEST_IDENTITIES, 0], truncated, &trailing, &absurd]
        {
            assert_eq!(answer(&Request::parse(body), &key), refusal(), "{body:?}");
        }
    }
}
