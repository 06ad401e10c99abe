// SPDX-License-Identifier: Apache-2.0
//! `--filter key=value`. The engine knows which keys there are.

use berth::api::v1::Filter;

use super::Parsed;

/// One filter.
///
/// # Errors
/// When it isn't `name=value`.
pub fn filter(text: &str) -> Parsed<Filter> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => {
            Ok(Filter { key: key.trim().to_ascii_lowercase(), value: value.trim().to_owned() })
        }
        _ => Err("bad format of filter (expected name=value)".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_filter_keeps_its_own_equals_sign() {
        assert_eq!(filter("label=a=b"), Ok(Filter { key: "label".into(), value: "a=b".into() }));
        assert_eq!(filter("Status = exited"), Ok(Filter { key: "status".into(), value: "exited".into() }));
        assert!(filter("status").is_err());
        assert!(filter("=x").is_err());
    }
}
