//! Strings as SSH sends and stores them: a length of four bytes, and the bytes (RFC 4251, section 5). (Pure.)
//!
//! Lengths come from others and are checked: a string that is cut short is none.

/// The string at the front of `bytes`, and the bytes after it.
pub(crate) fn take_string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The strings that `bytes` consist of. None if anything is left over.
pub(crate) fn strings(mut bytes: &[u8]) -> Option<Vec<&[u8]>> {
    let mut strings = Vec::new();
    while !bytes.is_empty() {
        let (string, rest) = take_string(bytes)?;
        strings.push(string);
        bytes = rest;
    }
    Some(strings)
}

/// Appends a string, which is far shorter than 4 GiB.
pub(crate) fn push_string(buffer: &mut Vec<u8>, string: &[u8]) {
    let length = u32::try_from(string.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&length.to_be_bytes());
    buffer.extend_from_slice(string);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_read_as_they_were_written() {
        let mut bytes = Vec::new();
        for string in [&b"one"[..], b"", b"three"] {
            push_string(&mut bytes, string);
        }
        assert_eq!(bytes[..7], *b"\0\0\0\x03one");
        assert_eq!(strings(&bytes).unwrap(), [&b"one"[..], b"", b"three"]);
        assert_eq!(take_string(&bytes).unwrap(), (&b"one"[..], &bytes[7..]));
        assert_eq!(strings(b""), Some(Vec::new()));
    }

    #[test]
    fn a_string_that_is_cut_short_is_none() {
        let whole = b"\0\0\0\x03one";
        for end in 0..whole.len() {
            assert_eq!(take_string(&whole[..end]), None, "{end}");
        }
        assert_eq!(take_string(b"\xff\xff\xff\xffone"), None);
        assert_eq!(strings(b"\0\0\0\x03one\0"), None);
    }
}
