// SPDX-License-Identifier: Apache-2.0
//! Filters of the container list. Values of one key are alternatives, keys
//! add up.

use std::collections::BTreeMap;

use super::{health, state::Shown};
use crate::error::{Error, Kind, Result};

/// A parsed set of filters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerFilter {
    /// Prefixes of ids.
    pub id: Vec<String>,
    /// Parts of names; `^` and `$` anchor.
    pub name: Vec<String>,
    /// `name` or `name=value`; unlike the others, all must hold.
    pub label: Vec<String>,
    /// Statuses.
    pub status: Vec<Shown>,
    /// Exit codes.
    pub exited: Vec<u8>,
    /// Images, as the user wrote them.
    pub ancestor: Vec<String>,
    /// Containers; older ones than this match.
    pub before: Vec<String>,
    /// Containers; younger ones than this match.
    pub since: Vec<String>,
    /// States of health; `None` is that of one without a check.
    pub health: Vec<Option<health::Status>>,
}

/// What a filter looks at, `ancestor`, `before` and `since` excepted: those
/// need the store.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Full id.
    pub id: &'a str,
    /// Name.
    pub name: &'a str,
    /// Labels in force.
    pub labels: &'a BTreeMap<String, String>,
    /// As users see it.
    pub status: Shown,
    /// Of an exited one.
    pub exit_code: u8,
    /// None without a check.
    pub health: Option<health::Status>,
}

impl ContainerFilter {
    /// Reads `key=value` pairs.
    ///
    /// # Errors
    /// `InvalidArgument`, in Docker's words, for an unknown key or value.
    pub fn parse<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self> {
        let mut filter = Self::default();
        for (key, value) in pairs {
            let own = value.to_owned();
            match key {
                "id" => filter.id.push(own),
                "name" => filter.name.push(own),
                "label" => filter.label.push(own),
                "status" => filter.status.push(status(value)?),
                "exited" => {
                    filter.exited.push(value.parse().map_err(|_| invalid(&format!("exited={value}")))?);
                }
                "ancestor" => filter.ancestor.push(own),
                "before" => filter.before.push(own),
                "since" => filter.since.push(own),
                "health" => filter.health.push(health(value)?),
                _ => return Err(invalid(key)),
            }
        }
        Ok(filter)
    }

    /// Whether it speaks of containers that don't run, so that a list of
    /// running ones would make no sense.
    #[must_use]
    pub fn wants_all(&self) -> bool {
        !self.status.is_empty() || !self.exited.is_empty()
    }

    /// Whether `subject` passes.
    #[must_use]
    pub fn matches(&self, subject: &Subject<'_>) -> bool {
        any(&self.id, |prefix| subject.id.starts_with(prefix.as_str()))
            && any(&self.name, |pattern| name_matches(pattern, subject.name))
            && self.label.iter().all(|wanted| label_matches(wanted, subject.labels))
            && any(&self.status, |status| *status == subject.status)
            && any(&self.health, |health| *health == subject.health)
            && (self.exited.is_empty()
                || (subject.status == Shown::Exited && self.exited.contains(&subject.exit_code)))
    }
}

fn any<T>(wanted: &[T], test: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(test)
}

fn invalid(what: &str) -> Error {
    Error::new(Kind::InvalidArgument, format!("invalid filter '{}'", what.escape_debug()))
}

fn status(word: &str) -> Result<Shown> {
    Shown::ALL
        .into_iter()
        .find(|status| status.as_str() == word)
        .ok_or_else(|| invalid(&format!("status={word}")))
}

fn health(word: &str) -> Result<Option<health::Status>> {
    match (word, health::Status::of_word(word)) {
        ("none", _) => Ok(None),
        (_, Some(status)) => Ok(Some(status)),
        _ => Err(invalid(&format!("health={word}"))),
    }
}

fn name_matches(pattern: &str, name: &str) -> bool {
    // Docker's names begin with a slash; its users write it now and then.
    let pattern = pattern.strip_prefix('/').unwrap_or(pattern);
    let (pattern, start) = pattern.strip_prefix('^').map_or((pattern, false), |rest| (rest, true));
    let pattern = if start { pattern.strip_prefix('/').unwrap_or(pattern) } else { pattern };
    let (pattern, end) = pattern.strip_suffix('$').map_or((pattern, false), |rest| (rest, true));
    match (start, end) {
        (true, true) => name == pattern,
        (true, false) => name.starts_with(pattern),
        (false, true) => name.ends_with(pattern),
        (false, false) => name.contains(pattern),
    }
}

/// Whether labels have `name`, or `name=value`.
#[must_use]
pub fn label_matches(wanted: &str, labels: &BTreeMap<String, String>) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => labels.get(name).is_some_and(|v| v == value),
        None => labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(pairs: &[(&str, &str)]) -> bool {
        let labels = [("tier".to_owned(), "web".to_owned())].into();
        let subject = Subject {
            id: "abcdef",
            name: "bold_curie",
            labels: &labels,
            status: Shown::Exited,
            exit_code: 3,
            health: Some(health::Status::Healthy),
        };
        ContainerFilter::parse(pairs.iter().copied()).expect("valid").matches(&subject)
    }

    #[test]
    fn each_key_decides() {
        for (pair, expected) in [
            (("id", "abc"), true),
            (("id", "bc"), false),
            (("name", "curie"), true),
            (("name", "^curie"), false),
            (("name", "^/bold_curie$"), true),
            (("name", "bold$"), false),
            (("label", "tier"), true),
            (("label", "tier=web"), true),
            (("label", "tier=db"), false),
            (("label", "web"), false),
            (("status", "exited"), true),
            (("status", "running"), false),
            (("exited", "3"), true),
            (("exited", "0"), false),
            (("health", "healthy"), true),
            (("health", "none"), false),
        ] {
            assert_eq!(passes(&[pair]), expected, "{pair:?}");
        }
    }

    #[test]
    fn values_are_alternatives_and_keys_and_labels_add_up() {
        assert!(passes(&[("id", "x"), ("id", "a")]));
        assert!(!passes(&[("id", "a"), ("name", "x")]));
        assert!(!passes(&[("label", "tier"), ("label", "other")]));
        assert!(passes(&[]));
    }

    #[test]
    fn unknown_keys_and_values_are_refused() {
        for pair in
            [("colour", "red"), ("status", "dozing"), ("exited", "-1"), ("exited", "x"), ("health", "ill")]
        {
            let error = ContainerFilter::parse([pair]).expect_err("invalid");
            assert!(error.to_string().starts_with("invalid filter '"), "{error}");
        }
    }
}
