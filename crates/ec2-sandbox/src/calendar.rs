//! Dates as AWS writes them, from and to wall time. No clock is read here, and no zone but UTC exists.

use std::time::{Duration, SystemTime};

use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::StaticFormatDescription,
    macros::format_description,
};

/// Seconds since 1970 with their fraction, for the timestamps of the JSON APIs.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    since_1970(time).as_secs_f64()
}

/// `20260102T030405Z`, as in the header `X-Amz-Date`.
pub(crate) fn basic(time: SystemTime) -> String {
    format(time, BASIC)
}

/// `2026-01-02T03:04:05.000Z`, as in the EC2 API.
pub(crate) fn extended(time: SystemTime) -> String {
    format(time, EXTENDED)
}

/// `2026-01-02T03:04:05Z`, as in the STS API.
pub(crate) fn whole_seconds(time: SystemTime) -> String {
    format(time, WHOLE_SECONDS)
}

/// `Fri, 02 Jan 2026 03:04:05 GMT`, as in the header `Date`.
pub(crate) fn http_date(time: SystemTime) -> String {
    format(time, HTTP_DATE)
}

/// Reads what [`basic`] writes.
pub(crate) fn parse_basic(text: &str) -> Option<SystemTime> {
    parse(text, BASIC)
}

/// Reads what [`whole_seconds`] and [`extended`] write.
pub(crate) fn parse_extended(text: &str) -> Option<SystemTime> {
    parse(text, WHOLE_SECONDS).or_else(|| parse(text, EXTENDED))
}

/// Times before 1970 count as 1970.
fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// None of the formats can fail: each has only fields that a date in UTC has.
fn format(time: SystemTime, format: Format) -> String {
    let time = OffsetDateTime::UNIX_EPOCH + since_1970(time);
    time.format(format).unwrap_or_default()
}

fn parse(text: &str, format: Format) -> Option<SystemTime> {
    // The library would take a sign before the year.
    let time = PrimitiveDateTime::parse(text, format).ok().filter(|_| !text.starts_with(['+', '-']))?;
    Some(SystemTime::from(time.assume_utc())).filter(|time| *time >= SystemTime::UNIX_EPOCH)
}

type Format = StaticFormatDescription;

const BASIC: Format = format_description!("[year][month][day]T[hour][minute][second]Z");
const EXTENDED: Format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].000Z");
const WHOLE_SECONDS: Format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
const HTTP_DATE: Format =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_survives_being_written_and_read() {
        // The seconds are those of `date -u -d … +%s`.
        for (text, seconds) in [
            ("19700101T000000Z", 0),
            ("20000229T235959Z", 951_868_799),
            ("20231114T221320Z", 1_700_000_000),
            ("20260102T030405Z", 1_767_323_045),
        ] {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(parse_basic(text), Some(time));
            assert_eq!(basic(time), text);
        }
    }

    #[test]
    fn what_is_no_date_is_refused() {
        for text in [
            "",
            "20260102",
            "20260102T030405",
            "20261302T030405Z",
            "2026０102T030405Z",
            "20260102T250405Z",
            "20260231T000000Z",
            "+2026102T030405Z",
            "19691231T235959Z",
            "20260102T030405Z ",
        ] {
            assert_eq!(parse_basic(text), None, "{text}");
        }
    }

    #[test]
    fn each_protocol_writes_dates_in_its_own_way() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(extended(time), "2026-01-02T03:04:05.000Z");
        assert_eq!(whole_seconds(time), "2026-01-02T03:04:05Z");
        assert_eq!(http_date(time), "Fri, 02 Jan 2026 03:04:05 GMT");
        assert_eq!(http_date(SystemTime::UNIX_EPOCH), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[test]
    fn dates_are_read_with_and_without_milliseconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_323_045);
        assert_eq!(parse_extended(&extended(time)), Some(time));
        assert_eq!(parse_extended(&whole_seconds(time)), Some(time));
        for text in
            ["2026-01-02T03:04:05", "2026-01-02 03:04:05Z", "20260102T030405Z", "2026-01-02T03:04:05.500Z"]
        {
            assert_eq!(parse_extended(text), None, "{text}");
        }
    }
}
