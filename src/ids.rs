// SPDX-License-Identifier: Apache-2.0
//! Identifiers that are checked once, when they are built.
//!
//! An id becomes part of a path only after it went through here (D15).

use std::{error::Error, fmt, str::FromStr};

/// Why a string is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidId {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl fmt::Display for InvalidId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {} ({}), {}", self.what, self.value.escape_debug(), self.rule)
    }
}

impl Error for InvalidId {}

/// Whether `s` is `[a-zA-Z0-9][a-zA-Z0-9_.-]{min-1,127}`.
fn is_name(s: &str, min: usize) -> bool {
    let bytes = s.as_bytes();
    (min..=128).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $min:literal, $rule:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The checked text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(s: &str) -> Result<Self, InvalidId> {
                if is_name(s, $min) {
                    Ok(Self(s.to_owned()))
                } else {
                    Err(InvalidId { what: $what, value: s.chars().take(200).collect(), rule: $rule })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    };
}

id!(
    /// A container's id. Our own engine makes 64 hex digits; another engine
    /// that drives our shim may choose its own.
    ContainerId, "container id", 1, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 128"
);
id!(
    /// A container's name, unique within its namespace.
    ContainerName, "container name", 2, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
);
id!(
    /// A process that was started in a container beside its first one.
    ExecId, "exec id", 1, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 128"
);
id!(
    /// The tenant that containers, names and images belong to.
    Namespace, "namespace", 1, "only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at most 128"
);

impl ContainerId {
    /// The first 12 characters: what tables and default host names show.
    #[must_use]
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(crate::DEFAULT_NAMESPACE.to_owned())
    }
}

impl Namespace {
    /// The namespace of a request: empty means the default one.
    ///
    /// # Errors
    /// When `s` is neither empty nor a valid namespace.
    pub fn of_request(s: &str) -> Result<Self, InvalidId> {
        if s.is_empty() { Ok(Self::default()) } else { s.parse() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_leave_a_directory_are_refused() {
        for bad in ["", ".", "..", "../x", "a/b", "-a", "_a", "a b", "a\0", "ä", "a\n"] {
            assert!(bad.parse::<ContainerId>().is_err(), "{bad:?}");
        }
        assert!("a".repeat(129).parse::<ContainerId>().is_err());
        for good in ["a", "0", "a.b-c_d", &"f".repeat(64), &"a".repeat(128)] {
            assert!(good.parse::<ContainerId>().is_ok(), "{good:?}");
        }
    }

    #[test]
    fn a_name_has_two_characters() {
        assert!("a".parse::<ContainerName>().is_err());
        assert!("ab".parse::<ContainerName>().is_ok());
    }

    #[test]
    fn short_is_twelve_characters_or_all() {
        let id: ContainerId = "0123456789abcdef".parse().expect("valid");
        assert_eq!(id.short(), "0123456789ab");
        let id: ContainerId = "abc".parse().expect("valid");
        assert_eq!(id.short(), "abc");
    }

    #[test]
    fn an_empty_namespace_is_the_default() {
        assert_eq!(Namespace::of_request("").expect("valid").as_str(), "default");
        assert!(Namespace::of_request("a/b").is_err());
    }
}
