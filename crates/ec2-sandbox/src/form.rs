//! `application/x-www-form-urlencoded` text and percent-encoding, byte for byte.

/// Takes form data apart: pairs at `&`, `+` for a space, `%41` for a byte. Broken escapes stay as they are.
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

/// Undoes percent-encoding; a `+` stays one.
pub(crate) fn decode(data: &[u8]) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(data.len());
    let mut rest = data;
    while let [first, tail @ ..] = rest {
        let escaped = tail.first_chunk::<2>().and_then(|[high, low]| Some(digit(*high)? * 16 + digit(*low)?));
        match escaped {
            Some(byte) if *first == b'%' => {
                decoded.push(byte);
                rest = &tail[2..];
            }
            _ => {
                decoded.push(*first);
                rest = tail;
            }
        }
    }
    decoded
}

/// Percent-encodes all but the unreserved characters of RFC 3986.
pub(crate) fn encode(data: &[u8]) -> String {
    data.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
        text
    })
}

fn decode_plus(data: &[u8]) -> Vec<u8> {
    decode(&data.iter().map(|&byte| if byte == b'+' { b' ' } else { byte }).collect::<Vec<_>>())
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

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
}
