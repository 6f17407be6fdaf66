//! Dates as AWS writes them, from and to wall time. No clock is read here, and no zone but UTC exists.

use std::time::{Duration, SystemTime};

/// Seconds since 1970 with their fraction, for the timestamps of the JSON APIs.
pub(crate) fn unix_seconds(time: SystemTime) -> f64 {
    since_1970(time).as_secs_f64()
}

/// `20260102T030405Z`, as in the header `X-Amz-Date`.
pub(crate) fn basic(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// `2026-01-02T03:04:05.000Z`, as in the EC2 API.
pub(crate) fn extended(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z")
}

/// `2026-01-02T03:04:05Z`, as in the STS API.
pub(crate) fn whole_seconds(time: SystemTime) -> String {
    extended(time).replace(".000Z", "Z")
}

/// `Fri, 02 Jan 2026 03:04:05 GMT`, as in the header `Date`.
pub(crate) fn http_date(time: SystemTime) -> String {
    let [year, month, day, hour, minute, second] = fields(time);
    let weekday = WEEKDAYS[usize::try_from(since_1970(time).as_secs() / 86_400 % 7).unwrap_or_default()];
    let month = MONTHS[usize::try_from(month - 1).unwrap_or_default()];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Reads what [`basic`] writes.
pub(crate) fn parse_basic(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || time.len() != 6 || !(date.bytes().chain(time.bytes())).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number = |digits: &str| digits.parse::<u64>().ok();
    let (year, month, day) = (number(&date[..4])?, number(&date[4..6])?, number(&date[6..])?);
    let (hour, minute, second) = (number(&time[..2])?, number(&time[2..4])?, number(&time[4..])?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// Reads what [`whole_seconds`] and [`extended`] write.
pub(crate) fn parse_extended(text: &str) -> Option<SystemTime> {
    let text = text.strip_suffix(".000Z").or_else(|| text.strip_suffix('Z'))?;
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if text.len() != 19 || marks.iter().any(|(at, mark)| text.as_bytes()[*at] != *mark) {
        return None;
    }
    parse_basic(&format!("{}Z", text.replace(['-', ':'], "")))
}

/// Times before 1970 count as 1970.
fn since_1970(time: SystemTime) -> Duration {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

fn fields(time: SystemTime) -> [u64; 6] {
    let seconds = since_1970(time).as_secs();
    let (mut day, second_of_day) = (seconds / 86_400, seconds % 86_400);
    let mut year = 1970;
    while day >= year_length(year) {
        day -= year_length(year);
        year += 1;
    }
    let mut month = 1;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    [year, month, day + 1, second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60]
}

/// Whole days from 1970-01-01.
fn days(year: u64, month: u64, day: u64) -> u64 {
    let years: u64 = (1970..year).map(year_length).sum();
    let months: u64 = (1..month).map(|month| month_length(year, month)).sum();
    years + months + day - 1
}

fn year_length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

/// From 1970-01-01 on.
const WEEKDAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

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
        for text in
            ["", "20260102", "20260102T030405", "20261302T030405Z", "2026０102T030405Z", "20260102T250405Z"]
        {
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
}
