// SPDX-License-Identifier: Apache-2.0
//! Points in time: `--since` and `--until`.
//!
//! Accepted: RFC 3339 (`2026-11-23T23:09:18.5Z`, with or without an offset),
//! a date or a part of the time, with or without one (`2026-11-23`,
//! `2026-11-23T23:09`, `2026-11-23+02:00`), seconds since 1970
//! (`1763939358.5`), and a duration before now (`42m`, `1h30m`; `-10m` is to
//! come). All of Docker's.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::{
    Timestamp, civil,
    tz::{Offset, TimeZone},
};

use super::Parsed;

/// A point in time as the API wants it.
///
/// # Errors
/// When `text` has none of the accepted forms.
pub fn point(text: &str) -> Parsed<prost_types::Timestamp> {
    point_at(text, SystemTime::now())
}

fn point_at(text: &str, now: SystemTime) -> Parsed<prost_types::Timestamp> {
    let invalid =
        || format!("invalid time '{text}': expected RFC 3339, seconds since 1970, or a duration such as 10m");
    let (to_come, length) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if let Some(length) = duration(length) {
        let now = now.duration_since(UNIX_EPOCH).map_err(|_| invalid())?;
        let then = if to_come { now.saturating_add(length) } else { now.saturating_sub(length) };
        return Ok(timestamp(then.as_secs(), then.subsec_nanos()));
    }
    if let Some((seconds, nanos)) = unix(text) {
        return Ok(timestamp(seconds, nanos));
    }
    let moment = text.parse::<Timestamp>().ok().or_else(|| civil(text)).ok_or_else(invalid)?;
    Ok(prost_types::Timestamp { seconds: moment.as_second(), nanos: moment.subsec_nanosecond() })
}

fn timestamp(seconds: u64, nanos: u32) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(seconds).unwrap_or(i64::MAX),
        nanos: i32::try_from(nanos).unwrap_or(0),
    }
}

/// A date, perhaps a part of the time, perhaps an offset. One without is the
/// caller's own.
fn civil(text: &str) -> Option<Timestamp> {
    let (moment, offset) = offset(text);
    let rest = match moment.len() {
        10 => "T00:00:00",
        13 => ":00:00",
        16 => ":00",
        _ => "",
    };
    let moment: civil::DateTime = format!("{moment}{rest}").parse().ok()?;
    let zone = offset.map_or_else(TimeZone::system, TimeZone::fixed);
    Some(moment.to_zoned(zone).ok()?.timestamp())
}

/// Splits `Z`, `+02:00` or `-02:00` off the end.
fn offset(text: &str) -> (&str, Option<Offset>) {
    if let Some(moment) = text.strip_suffix('Z') {
        return (moment, Some(Offset::UTC));
    }
    let found = text.len().checked_sub(6).and_then(|at| text.split_at_checked(at));
    let Some((moment, tail)) = found.filter(|(moment, _)| moment.len() >= 10) else { return (text, None) };
    let sign = match tail.as_bytes()[0] {
        b'+' => 1,
        b'-' => -1,
        _ => return (text, None),
    };
    let parsed = tail[1..].split_once(':').and_then(|(hours, minutes)| {
        let digits = |s: &str| s.len() == 2 && s.bytes().all(|b| b.is_ascii_digit());
        let (hours, minutes) = (digits(hours).then_some(hours)?, digits(minutes).then_some(minutes)?);
        let seconds = hours.parse::<i32>().ok()? * 3600 + minutes.parse::<i32>().ok()? * 60;
        Offset::from_seconds(sign * seconds).ok()
    });
    if parsed.is_some() { (moment, parsed) } else { (text, None) }
}

/// `seconds[.fraction]`.
fn unix(text: &str) -> Option<(u64, u32)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if seconds.is_empty() || fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some((seconds.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

/// A duration as Go writes it, in nanoseconds.
///
/// # Errors
/// In Docker's words.
pub fn nanos(text: &str) -> Parsed<i64> {
    let invalid = || format!("time: invalid duration \"{text}\"");
    let duration = if text == "0" { Some(Duration::ZERO) } else { duration(text) };
    duration.and_then(|duration| i64::try_from(duration.as_nanos()).ok()).ok_or_else(invalid)
}

/// A duration as Go writes it: `300ms`, `1.5h`, `1h30m`. `None` when it isn't
/// one.
#[must_use]
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = 0.0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        total += number * unit;
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> (i64, i32) {
        let t = point_at(text, UNIX_EPOCH + Duration::from_secs(10_000)).expect(text);
        (t.seconds, t.nanos)
    }

    #[test]
    fn a_duration_counts_back_from_now() {
        assert_eq!(at("1h30m"), (10_000 - 5400, 0));
        assert_eq!(at("1.5s"), (9998, 500_000_000));
        assert_eq!(at("999h"), (0, 0));
        assert_eq!(at("-10m"), (10_600, 0));
    }

    #[test]
    fn seconds_may_have_a_fraction() {
        assert_eq!(at("1763939358"), (1_763_939_358, 0));
        assert_eq!(at("1.000000005"), (1, 5));
    }

    #[test]
    fn rfc_3339_keeps_nanoseconds_and_offset() {
        assert_eq!(at("1970-01-01T00:00:01.000000001Z"), (1, 1));
        assert_eq!(at("1970-01-01T01:00:01+01:00"), (1, 0));
    }

    #[test]
    fn a_date_alone_is_midnight_here() {
        let midnight = civil::date(2026, 11, 23).at(0, 0, 0, 0).to_zoned(TimeZone::system()).expect("valid");
        assert_eq!(at("2026-11-23").0, midnight.timestamp().as_second());
        assert_eq!(at("2026-11-23T00:01").0, midnight.timestamp().as_second() + 60);
        assert_eq!(at("2026-11-23T01").0, midnight.timestamp().as_second() + 3600);
        assert_eq!(at("2026-11-23T00:00:00.000000001").1, 1);
    }

    #[test]
    fn any_part_of_a_time_may_have_an_offset() {
        for (text, seconds) in [
            ("1970-01-02Z", 86_400),
            ("1970-01-02+01:00", 82_800),
            ("1970-01-02-01:30", 91_800),
            ("1970-01-01T01Z", 3600),
            ("1970-01-01T01:01Z", 3660),
            ("1970-01-01T02:00+02:00", 0),
        ] {
            assert_eq!(at(text), (seconds, 0), "{text}");
        }
        for bad in
            ["1970-01-01T", "1970-01-01+1:00", "1970-01-01T25", "1970-01", "1970-01-01+99:00", "ääää-aa"]
        {
            assert!(point(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_as_go_writes_them() {
        assert_eq!(duration("300ms"), Some(Duration::from_millis(300)));
        assert_eq!(duration("2h45m"), Some(Duration::from_secs(9900)));
        for bad in ["", "5", "m", "1d", "1h30", "x1m"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text in "\\PC{0,32}") {
            let _ = point(&text);
        }
    }
}
