//! For any request, the key agent's response is one complete frame, and a signature is from its own key.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use ssh_ec2::key::agent::protocol::{Request, answer, refusal};
use ssh_ec2::key::one_time::{KeyType, OneTimeKey};

fuzz_target!(|body: &[u8]| {
    ask(body);
    // The key is new in each run, so no stored input contains it.
    if let [SIGN_REQUEST, rest @ ..] = body {
        let blob = key().public_blob();
        let mut body = vec![SIGN_REQUEST];
        body.extend_from_slice(&u32::try_from(blob.len()).unwrap().to_be_bytes());
        body.extend_from_slice(&blob);
        body.extend_from_slice(rest);
        ask(&body);
    }
});

fn ask(body: &[u8]) {
    let request = Request::parse(body);
    let frame = answer(&request, key());
    let (length, answer) = frame.split_first_chunk::<4>().unwrap();
    assert_eq!(u32::from_be_bytes(*length) as usize, answer.len());
    match request {
        Request::List => assert_eq!(answer[0], 12),
        Request::Sign { key: wanted, data, flags } if wanted == key().public_blob() => {
            assert_eq!(answer[0], 14);
            assert!(answer.ends_with(&key().sign(data, flags).unwrap()));
        }
        Request::Sign { .. } | Request::BindForwarded | Request::Unsupported => {
            assert_eq!(frame, refusal());
        }
    }
}

fn key() -> &'static OneTimeKey {
    static KEY: OnceLock<OneTimeKey> = OnceLock::new();
    KEY.get_or_init(|| OneTimeKey::generate(KeyType::Ed25519).unwrap())
}

const SIGN_REQUEST: u8 = 13;
