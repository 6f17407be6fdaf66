//! `application/x-www-form-urlencoded` text and percent-encoding, byte for byte.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// Splits form data: pairs at `&`, `+` for a space, `%41` for a byte. Broken escapes stay as they are.
pub(crate) fn parse(data: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pairs = data.split(|byte| *byte == b'&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=').unwrap_or(pair.len());
            let value = pair.get(at + 1..).unwrap_or_default();
            (decode_plus(&pair[..at]), decode_plus(value))
        })
        .collect()
}

/// Undoes percent-encoding; a `+` stays one, and so does a broken escape.
pub(crate) fn decode(data: &[u8]) -> Vec<u8> {
    percent_decode(data).collect()
}

/// Percent-encodes all but the unreserved characters of RFC 3986, in upper case, as Signature Version 4
/// demands.
pub(crate) fn encode(data: &[u8]) -> String {
    percent_encode(data, RESERVED).to_string()
}

fn decode_plus(data: &[u8]) -> Vec<u8> {
    decode(&data.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect::<Vec<_>>())
}

const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn form_data_is_taken_apart() {
        let pairs = parse(b"a=1+2&b=%2B%3d&c&=d&&e=f=g");
        let text: Vec<_> =
            pairs.iter().map(|(n, v)| (str::from_utf8(n).unwrap(), str::from_utf8(v).unwrap())).collect();
        assert_eq!(text, [("a", "1 2"), ("b", "+="), ("c", ""), ("", "d"), ("e", "f=g")]);
    }

    #[test]
    fn broken_escapes_stay() {
        assert_eq!(decode(b"%4"), b"%4");
        assert_eq!(decode(b"100%zz%41"), b"100%zzA");
    }

    #[test]
    fn encoding_spares_only_unreserved_characters() {
        assert_eq!(encode("aZ09-._~ /+é".as_bytes()), "aZ09-._~%20%2F%2B%C3%A9");
    }

    #[test]
    fn every_byte_is_encoded_as_signatures_demand() {
        for byte in 0..=u8::MAX {
            let unreserved = byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            let expected = if unreserved { char::from(byte).to_string() } else { format!("%{byte:02X}") };
            assert_eq!(encode(&[byte]), expected);
            assert_eq!(decode(expected.as_bytes()), [byte]);
            if !unreserved {
                assert_eq!(decode(expected.to_lowercase().as_bytes()), [byte]);
            }
        }
    }
}
