//! The UUID in each header.

use std::fmt;

/// The UUID of a message, in the byte order of RFC 4122.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct MessageId([u8; 16]);

impl MessageId {
    /// Sixteen bytes as RFC 4122 orders them.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The textual form, in lower case. By a table, since each acknowledgement has one: with `format!` it
    /// took a measurable part of a download's time.
    pub(crate) fn hyphenated(self) -> [u8; 36] {
        let mut text = [b'-'; 36];
        let mut places = text.iter_mut();
        for (index, byte) in self.0.into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                places.next();
            }
            for digit in [byte >> 4, byte & 15] {
                if let (Some(place), Some(digit)) = (places.next(), HEX.get(usize::from(digit))) {
                    *place = *digit;
                }
            }
        }
        text
    }

    pub(super) fn from_wire(bytes: [u8; 16]) -> Self {
        Self(Self(bytes).to_wire())
    }

    /// The order on the wire: bytes 8 to 15 come first.
    pub(super) fn to_wire(self) -> [u8; 16] {
        u128::from_be_bytes(self.0).rotate_right(64).to_be_bytes()
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.hyphenated()).unwrap_or_default())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

const HEX: [u8; 16] = *b"0123456789abcdef";
