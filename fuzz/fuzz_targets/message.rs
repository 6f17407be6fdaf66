//! A message that can be read can be written, and is read as equal again.

#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use sha2::{Digest, Sha256};
use ssm_channel::{Message, MessageType};

fuzz_target!(|record: &[u8]| {
    round_trip(record);
    // The fuzzer cannot guess a digest, so most inputs would be refused there.
    if let Some(record) = with_digest(record) {
        round_trip(&record);
    }
});

fn round_trip(record: &[u8]) {
    let Ok(message) = Message::parse(Bytes::copy_from_slice(record)) else { return };
    let encoded = message.encode();
    let again = Message::parse(encoded.clone()).expect("what was written can be read");
    assert_eq!(again, message);
    assert_eq!(again.encode(), encoded);
    // Writing a known type changes its padding; an unknown one stays as it is.
    if let MessageType::Unknown(_) = message.header.message_type
        && is_plain(record)
    {
        assert_eq!(encoded, record);
    }
}

/// Whether the fields that are not stored have the values that are written.
fn is_plain(record: &[u8]) -> bool {
    let payload = &record[HEADER..];
    record[..4] == HEADER_LENGTH.to_be_bytes()
        && record[36..40] == 1_u32.to_be_bytes()
        && record[80..112] == Sha256::digest(payload)[..]
        && u32::from_be_bytes(record[116..120].try_into().unwrap()) as usize == payload.len()
}

fn with_digest(record: &[u8]) -> Option<Vec<u8>> {
    let mut record = record.to_vec();
    let payload = record.get(HEADER..)?;
    let (digest, length) = (Sha256::digest(payload), u32::try_from(payload.len()).ok()?);
    record[..4].copy_from_slice(&HEADER_LENGTH.to_be_bytes());
    record[36..40].copy_from_slice(&1_u32.to_be_bytes());
    record[80..112].copy_from_slice(&digest);
    record[116..120].copy_from_slice(&length.to_be_bytes());
    Some(record)
}

const HEADER: usize = 120;
const HEADER_LENGTH: u32 = 116;
