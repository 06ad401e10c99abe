// SPDX-License-Identifier: Apache-2.0
//! Amounts as people say them: `14 seconds`, `1.24MB`, `2026-11-23 …`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{Timestamp, tz::TimeZone};

const DECIMAL: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
const BINARY: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// A span in one unit: `Less than a second`, `14 seconds`, `About an hour`,
/// `3 weeks`.
#[must_use]
pub fn duration(span: Duration) -> String {
    let seconds = span.as_secs();
    let minutes = seconds / 60;
    // Rounded to the nearest: 90 minutes are 2 hours.
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (0, ..) => "Less than a second".into(),
        (1, ..) => "1 second".into(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".into(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (_, _, 1) => "About an hour".into(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long before `now` something was; a clock that went back counts as 0.
#[must_use]
pub fn since(time: &prost_types::Timestamp, now: SystemTime) -> Duration {
    let then = Duration::new(
        u64::try_from(time.seconds).unwrap_or(0),
        u32::try_from(time.nanos).unwrap_or(0).min(999_999_999),
    );
    now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(then)
}

/// Bytes in decimal units and three digits: `1.24MB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, 3, &DECIMAL)
}

/// Bytes in decimal units and four digits, as progress shows them.
#[must_use]
pub fn size_precise(bytes: u64) -> String {
    scaled(bytes, 1000.0, 4, &DECIMAL)
}

/// Bytes in binary units and four digits: `23.43GiB`.
#[must_use]
pub fn size_binary(bytes: u64) -> String {
    scaled(bytes, 1024.0, 4, &BINARY)
}

fn scaled(bytes: u64, base: f64, digits: usize, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "at most four digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    loop {
        let text = significant(value, digits);
        // Rounding may have reached the next unit: 999.9kB is 1MB.
        let rounded = text.parse::<f64>().unwrap_or(value);
        if rounded < base || unit + 1 == units.len() {
            return format!("{text}{}", units[unit]);
        }
        value /= base;
        unit += 1;
    }
}

/// `value` with so many significant digits, without zeros at the end.
fn significant(value: f64, digits: usize) -> String {
    let before = match value {
        v if v >= 1000.0 => 4,
        v if v >= 100.0 => 3,
        v if v >= 10.0 => 2,
        _ => 1,
    };
    let text = format!("{value:.*}", digits.saturating_sub(before));
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

/// A moment of the API as jiff has it; `None` for one that is out of range.
fn moment(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// `2026-11-23T23:09:18.123456789Z`: UTC, always nine places.
#[must_use]
pub fn rfc3339(time: &prost_types::Timestamp) -> String {
    moment(time).map_or_else(String::new, |t| t.strftime("%Y-%m-%dT%H:%M:%S.%9fZ").to_string())
}

/// The same in whole seconds.
#[must_use]
pub fn rfc3339_seconds(time: &prost_types::Timestamp) -> String {
    moment(time).map_or_else(String::new, |t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// The same with the caller's own offset.
#[must_use]
pub fn rfc3339_local(time: &prost_types::Timestamp) -> String {
    let Some(moment) = moment(time) else { return String::new() };
    let zoned = moment.to_zoned(TimeZone::system());
    if zoned.offset().is_zero() {
        return rfc3339(time);
    }
    zoned.strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string()
}

/// `2026-11-23T23:09:18.5Z`: UTC with as many places as it needs; the zero
/// time for none.
#[must_use]
pub fn rfc3339_short(time: Option<&prost_types::Timestamp>) -> String {
    time.and_then(moment).map_or_else(|| "0001-01-01T00:00:00Z".into(), |t| t.to_string())
}

/// `2026-11-23 23:09:18 +0000 UTC`, in the caller's time zone.
#[must_use]
pub fn created_at(time: &prost_types::Timestamp) -> String {
    moment(time).map_or_else(String::new, |t| {
        t.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_in_one_unit() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (119, "About a minute"),
            (120, "2 minutes"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (5399, "About an hour"),
            (5400, "2 hours"),
            (47 * 3600, "47 hours"),
            (48 * 3600, "2 days"),
            (13 * 86400, "13 days"),
            (14 * 86400, "2 weeks"),
            (60 * 86400, "2 months"),
            (730 * 86400, "2 years"),
        ] {
            assert_eq!(duration(Duration::from_secs(seconds)), text, "{seconds}");
        }
    }

    #[test]
    fn sizes_have_few_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1_240_000, "1.24MB"),
            (13_256, "13.3kB"),
            (999_950, "1MB"),
            (117_000_000, "117MB"),
            (1_000_000_000, "1GB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
        assert_eq!(size_precise(3_145_728), "3.146MB");
        assert_eq!(size_binary(25_157_091_328), "23.43GiB");
        assert_eq!(size_binary(1023), "1023B");
    }

    #[test]
    fn times() {
        let time = prost_types::Timestamp { seconds: 1_763_939_358, nanos: 5 };
        assert_eq!(rfc3339(&time), "2025-11-23T23:09:18.000000005Z");
        assert_eq!(rfc3339_short(Some(&time)), "2025-11-23T23:09:18.000000005Z");
        assert_eq!(rfc3339_short(None), "0001-01-01T00:00:00Z");
        assert_eq!(since(&time, UNIX_EPOCH), Duration::ZERO);
        let later = UNIX_EPOCH + Duration::from_secs(1_763_939_360);
        assert_eq!(since(&time, later).as_secs(), 1);
    }
}
