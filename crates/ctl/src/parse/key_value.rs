// SPDX-License-Identifier: Apache-2.0
//! `key=value` arguments: labels, sysctls, log options, environment.

use super::Parsed;

/// `key=value`, both sides kept as they are; the key isn't empty.
///
/// # Errors
/// When there is no `=` or nothing before it.
pub fn pair(text: &str) -> Parsed<(String, String)> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("invalid value '{text}': expected key=value")),
    }
}

/// A label: `key=value`, or `key` with an empty value.
///
/// # Errors
/// When the key is empty.
pub fn label(text: &str) -> Parsed<(String, String)> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(format!("invalid label '{text}': empty name"));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// An environment variable of `--env`: `NAME=value` as it is; `NAME` alone
/// takes the value that `lookup` knows, and removes the image's variable when
/// it knows none.
///
/// # Errors
/// When the name is empty.
pub fn env(text: &str, lookup: impl Fn(&str) -> Option<String>) -> Parsed<String> {
    if text.is_empty() || text.starts_with('=') {
        return Err(format!("invalid environment variable: {text}"));
    }
    if text.contains('=') {
        return Ok(text.to_owned());
    }
    Ok(lookup(text).map_or_else(|| text.to_owned(), |value| format!("{text}={value}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_may_hold_equals_signs() {
        assert_eq!(pair("a=b=c"), Ok(("a".into(), "b=c".into())));
        assert_eq!(pair("a="), Ok(("a".into(), String::new())));
        assert!(pair("a").is_err());
        assert!(pair("=a").is_err());
    }

    #[test]
    fn a_label_needs_no_value() {
        assert_eq!(label("a"), Ok(("a".into(), String::new())));
        assert_eq!(label("a=b"), Ok(("a".into(), "b".into())));
        assert!(label("=b").is_err());
    }

    #[test]
    fn a_bare_name_takes_the_callers_value() {
        let lookup = |name: &str| (name == "HOME").then(|| "/me".to_owned());
        assert_eq!(env("HOME", lookup), Ok("HOME=/me".into()));
        assert_eq!(env("GONE", lookup), Ok("GONE".into()));
        assert_eq!(env("HOME=", lookup), Ok("HOME=".into()));
        assert!(env("=x", lookup).is_err());
        assert!(env("", lookup).is_err());
    }
}
