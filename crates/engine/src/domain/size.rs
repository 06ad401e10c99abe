// SPDX-License-Identifier: Apache-2.0
//! Sizes as people write them: `64m`, `1g`, `512`.

/// Bytes of `text`: a whole number with an optional k, m, g or t (powers of
/// 1024), itself with an optional `b` or `ib`. `None` when it is none.
#[must_use]
pub fn parse(text: &str) -> Option<u64> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = lower.split_at(digits);
    let shift = match unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit) {
        "" if unit != "ib" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("10"), Some(10));
        assert_eq!(parse("10b"), Some(10));
        assert_eq!(parse("2k"), Some(2048));
        assert_eq!(parse("20M"), Some(20 << 20));
        assert_eq!(parse("1GiB"), Some(1 << 30));
        for bad in ["", "k", "-1", "1x", "1ib", "99999999999t", "1.5m"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
