// SPDX-License-Identifier: Apache-2.0
//! `--ulimit name=soft[:hard]`.

use berth::api::v1::Ulimit;

use super::Parsed;

/// getrlimit(2), in lower case and without `RLIMIT_`.
const NAMES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `nofile=1024:2048`; without the second number both are the first. `-1` is
/// unlimited.
///
/// # Errors
/// When the form, the name or the order of the two numbers is wrong.
pub fn ulimit(text: &str) -> Parsed<Ulimit> {
    let invalid = || format!("invalid ulimit argument: {text}");
    let (name, limits) = text.split_once('=').ok_or_else(invalid)?;
    if !NAMES.contains(&name) {
        return Err(format!("invalid ulimit type: {name}"));
    }
    let number = |s: &str| s.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(invalid);
    let (soft, hard) = match limits.split_once(':') {
        Some((soft, hard)) => (number(soft)?, number(hard)?),
        None => (number(limits)?, number(limits)?),
    };
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
    }
    Ok(Ulimit { name: name.to_owned(), soft, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_both() {
        assert_eq!(ulimit("nofile=1024"), Ok(Ulimit { name: "nofile".into(), soft: 1024, hard: 1024 }));
        assert_eq!(ulimit("nofile=1:2"), Ok(Ulimit { name: "nofile".into(), soft: 1, hard: 2 }));
        assert_eq!(ulimit("core=-1"), Ok(Ulimit { name: "core".into(), soft: -1, hard: -1 }));
        assert_eq!(ulimit("core=5:-1"), Ok(Ulimit { name: "core".into(), soft: 5, hard: -1 }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(ulimit("x"), Err("invalid ulimit argument: x".into()));
        assert_eq!(ulimit("foo=1"), Err("invalid ulimit type: foo".into()));
        assert_eq!(ulimit("nofile=a"), Err("invalid ulimit argument: nofile=a".into()));
        assert_eq!(ulimit("nofile=1:"), Err("invalid ulimit argument: nofile=1:".into()));
        assert_eq!(
            ulimit("nofile=3:2"),
            Err("ulimit soft limit must be less than or equal to hard limit: 3 > 2".into())
        );
        assert!(ulimit("nofile=-1:2").is_err());
    }
}
