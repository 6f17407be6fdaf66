//! Binary messages in the gateway: it reads the type of those that it relays, and writes three types itself.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use sha2::{Digest, Sha256};

pub(super) fn is_acknowledgement(record: &[u8]) -> bool {
    record.get(4..16) == Some(b"acknowledge ")
}

/// Whether a message resets the idle time of its session: stream messages do, acknowledgements do not.
pub(super) fn is_stream_data(record: &[u8]) -> bool {
    matches!(record.get(4..16), Some(b"input_stream" | b"output_strea"))
}

/// A message that the gateway makes. Its type is padded with NULs, not with spaces as by clients and SSM
/// agents.
pub(super) fn gateway_record(message_type: &str, payload: &[u8], now: SystemTime) -> Bytes {
    let unix_time = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut record = BytesMut::with_capacity(120 + payload.len());
    record.put_u32(116);
    record.put_slice(message_type.as_bytes());
    record.put_bytes(0, 32 - message_type.len());
    record.put_u32(1);
    record.put_u64(u64::try_from(unix_time.as_millis()).unwrap_or(1));
    record.put_i64(0);
    record.put_u64(0);
    record.put_bytes(7, 16);
    record.put_slice(&Sha256::digest(payload));
    record.put_u32(0);
    record.put_u32(u32::try_from(payload.len()).unwrap_or(0));
    record.put_slice(payload);
    record.freeze()
}

/// Bytes of the header of a message.
pub(super) const HEADER_LENGTH: usize = 120;
