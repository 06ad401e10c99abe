// SPDX-License-Identifier: Apache-2.0
//! Amounts: bytes of memory (`512m`, binary units) and fractions of a CPU.

use super::Parsed;

const NANO: i64 = 1_000_000_000;

/// Bytes, in binary units: `100`, `100b`, `512k`, `1.5g`, `2GiB`.
///
/// # Errors
/// `invalid size: 'x'`.
pub fn memory(text: &str) -> Parsed<i64> {
    parse_memory(text).ok_or_else(|| format!("invalid size: '{text}'"))
}

/// Like [`memory`]; `-1` is no limit.
///
/// # Errors
/// `invalid size: 'x'`.
pub fn memory_or_unlimited(text: &str) -> Parsed<i64> {
    if text == "-1" { Ok(-1) } else { memory(text) }
}

fn parse_memory(text: &str) -> Option<i64> {
    let split = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let unit = 1_i128 << shift;
    let mut bytes = whole.parse::<i128>().ok()?.checked_mul(unit)?;
    if !fraction.is_empty() {
        let digits = u32::try_from(fraction.len()).ok().filter(|n| *n <= 18)?;
        bytes += fraction.parse::<i128>().ok()? * unit / 10_i128.pow(digits);
    }
    i64::try_from(bytes).ok()
}

/// A number of CPUs in thousand-millionths: `1.5` is 1,500,000,000.
///
/// # Errors
/// When it isn't a positive decimal with at most nine places.
pub fn cpus(text: &str) -> Parsed<i64> {
    let invalid = || format!("failed to parse {text} as a rational number");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return Err(invalid());
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 9 {
        return Err("value is too precise".to_owned());
    }
    let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().map_err(|_| invalid())? };
    let part = format!("{fraction:0<9}").parse::<i64>().map_err(|_| invalid())?;
    whole.checked_mul(NANO).and_then(|n| n.checked_add(part)).ok_or_else(invalid)
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn units_are_binary_and_case_does_not_matter() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("100b", 100),
            ("1k", 1024),
            ("512m", 512 << 20),
            ("512M", 512 << 20),
            ("1.5g", 3 << 29),
            ("2GiB", 2 << 30),
            ("2 gb", 2 << 30),
            ("1t", 1 << 40),
        ] {
            assert_eq!(memory(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn nonsense_is_named() {
        for bad in ["", "m", "-1", "1x", "1..5m", "1m5", ".5m", "99999999999p", "ä", "1e3"] {
            assert_eq!(memory(bad), Err(format!("invalid size: '{bad}'")));
        }
        assert_eq!(memory_or_unlimited("-1"), Ok(-1));
        assert!(memory_or_unlimited("-2").is_err());
    }

    #[test]
    fn cpus_keep_nine_places() {
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus("1.5"), Ok(1_500_000_000));
        assert_eq!(cpus(".25"), Ok(250_000_000));
        assert_eq!(cpus("0.0000000010"), Ok(1));
        assert_eq!(cpus("0.0000000001"), Err("value is too precise".to_owned()));
        for bad in ["", ".", "a", "-1", "1.5.2", "99999999999999"] {
            assert!(cpus(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn rubbish_never_panics(text in "\\PC{0,24}") {
            let _ = memory(&text);
            let _ = cpus(&text);
        }
    }
}
