// SPDX-License-Identifier: Apache-2.0
//! Times as logs carry them: RFC 3339 in UTC with nine digits of a second.

use std::{fmt, time::SystemTime};

const SECONDS_PER_DAY: i64 = 86_400;

/// A time, already as text: it is written once per line.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Timestamp {
    text: [u8; LENGTH],
}

/// Bytes of `2026-11-23T23:09:18.123456789Z`.
const LENGTH: usize = 30;

impl Timestamp {
    /// The present.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self::of(i64::try_from(since.as_secs()).unwrap_or(0), since.subsec_nanos())
    }

    /// `seconds` and `nanos` after the Unix epoch.
    #[must_use]
    pub fn of(seconds: i64, nanos: u32) -> Self {
        let Date { year, month, day } = Date::of(seconds.div_euclid(SECONDS_PER_DAY));
        let second = seconds.rem_euclid(SECONDS_PER_DAY);
        let mut text = *b"0000-00-00T00:00:00.000000000Z";
        let fields = [
            (0..4, year),
            (5..7, month),
            (8..10, day),
            (11..13, second / 3600),
            (14..16, second / 60 % 60),
            (17..19, second % 60),
            (20..29, i64::from(nanos)),
        ];
        for (place, mut value) in fields {
            for digit in text[place].iter_mut().rev() {
                *digit = b'0' + u8::try_from(value % 10).unwrap_or(0);
                value /= 10;
            }
        }
        Self { text }
    }

    /// The text, ASCII.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.text
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.text))
    }
}

struct Date {
    year: i64,
    month: i64,
    day: i64,
}

impl Date {
    /// The Gregorian date, counted from 1 March of year 0 so that the leap
    /// day is the last of its year and months have lengths of a regular
    /// pattern: 153 days for every five from March on.
    fn of(days_since_1970: i64) -> Self {
        const DAYS_FROM_MARCH_0_TO_1970: i64 = 719_468;
        const DAYS_PER_ERA: i64 = 146_097; // 400 years
        let days = days_since_1970 + DAYS_FROM_MARCH_0_TO_1970;
        let day_of_era = days.rem_euclid(DAYS_PER_ERA);
        let year_of_era =
            (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let months_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * months_from_march + 2) / 5 + 1;
        let month = if months_from_march < 10 { months_from_march + 3 } else { months_from_march - 9 };
        let year = days.div_euclid(DAYS_PER_ERA) * 400 + year_of_era + i64::from(month <= 2);
        Self { year, month, day }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        for (seconds, nanos, text) in [
            (0, 0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400, 1, "2000-02-29T00:00:00.000000001Z"),
            (1_709_251_199, 999_999_999, "2024-02-29T23:59:59.999999999Z"),
            (1_709_251_200, 0, "2024-03-01T00:00:00.000000000Z"),
            (1_795_475_358, 123_456_789, "2026-11-23T23:09:18.123456789Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00.000000000Z"),
            (4_107_542_399, 0, "2100-02-28T23:59:59.000000000Z"),
        ] {
            assert_eq!(format!("{:?}", Timestamp::of(seconds, nanos)), text);
        }
    }
}
