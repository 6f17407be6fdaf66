//! The expiry times of credentials and tokens, in the forms that programs and the AWS CLI write. (Pure.)

use std::time::SystemTime;

use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// Reads a time with an offset from UTC. A time without one is refused: any guess could be wrong by hours.
///
/// These variants of RFC 3339 are read as well: a space for the `T`, `UTC` for the `Z` (earlier versions of
/// the AWS CLI), and an offset without a colon (`date +%z`).
pub(crate) fn read(text: &str) -> Option<SystemTime> {
    let mut text = text.trim().to_owned();
    if let Some(time) = text.strip_suffix("UTC") {
        text = format!("{}Z", time.trim_end());
    }
    if text.as_bytes().get(DATE_LENGTH) == Some(&b' ') {
        text.replace_range(DATE_LENGTH..=DATE_LENGTH, "T");
    }
    let offset = text.len().checked_sub(OFFSET_LENGTH).and_then(|at| text.get(at..));
    if let Some([b'+' | b'-', digits @ ..]) = offset.map(str::as_bytes)
        && digits.iter().all(u8::is_ascii_digit)
    {
        text.insert(text.len() - 2, ':');
    }
    let time = DateTime::from_str(&text, Format::DateTimeWithOffset).ok()?;
    SystemTime::try_from(time).ok()
}

/// The length of `2026-01-01`.
const DATE_LENGTH: usize = 10;
/// The length of `+0100`.
const OFFSET_LENGTH: usize = 5;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_is_read_in_all_its_forms() {
        let expected = read("2026-01-01T00:00:00Z").unwrap();
        for text in [
            "2026-01-01T00:00:00UTC",
            " 2026-01-01 00:00:00 UTC",
            "2026-01-01T02:00:00+02:00",
            "2026-01-01T02:00:00+0200",
            "2025-12-31 19:00:00-0500",
            "2026-01-01T00:00:00.000Z",
            "2026-01-01T00:00:00.000000+00:00",
        ] {
            assert_eq!(read(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn a_time_without_an_offset_is_none() {
        for text in ["2026-01-01T00:00:00", "2026-01-01", "soon", "", "+0000", "é+0000", "1767225600"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
