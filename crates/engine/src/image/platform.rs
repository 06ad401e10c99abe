// SPDX-License-Identifier: Apache-2.0
//! Platforms: what an image was built for, and which of several to take.

use std::{fmt, str::FromStr};

use crate::error::{Error, Kind, Result};

/// `os/architecture[/variant]`, in the words of the Go tool chain.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`, ….
    pub architecture: String,
    /// `v8`, …; empty for none.
    pub variant: String,
}

impl Platform {
    /// The engine's own.
    #[must_use]
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            other => other,
        };
        Self::new("linux", architecture, "")
    }

    /// With the usual spellings brought to one: `x86_64` is `amd64`, `arm64`'s
    /// `v8` is what `arm64` means anyway, 32-bit `arm` means `v7`.
    #[must_use]
    pub fn new(os: &str, architecture: &str, variant: &str) -> Self {
        let architecture = architecture.to_ascii_lowercase();
        let (architecture, variant) = match (architecture.as_str(), variant) {
            ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
            ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
            ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
            ("aarch64" | "arm64", variant) => ("arm64", variant),
            ("i386" | "i686" | "386", variant) => ("386", variant),
            ("armhf", "") => ("arm", "v7"),
            ("armel", "") => ("arm", "v6"),
            ("arm", "" | "7") => ("arm", "v7"),
            (other, variant) => (other, variant),
        };
        Self {
            os: os.to_ascii_lowercase(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        }
    }

    /// The platform of a request; empty is the engine's own.
    ///
    /// # Errors
    /// `InvalidArgument` for what isn't `os/architecture[/variant]`.
    pub fn of_request(s: &str) -> Result<Self> {
        if s.is_empty() { Ok(Self::host()) } else { s.parse() }
    }

    /// How well an image for `offered` serves who wants `self`: 0 is best,
    /// `None` is not at all.
    #[must_use]
    pub fn match_of(&self, offered: &Self) -> Option<u32> {
        if self.os != offered.os || self.architecture != offered.architecture {
            return None;
        }
        if self.variant == offered.variant {
            return Some(0);
        }
        // An older variant of the same architecture runs on a newer one.
        let (want, have) = (level(&self.variant)?, level(&offered.variant)?);
        want.checked_sub(have)
    }
}

/// `v7` is 7; none is the baseline.
fn level(variant: &str) -> Option<u32> {
    if variant.is_empty() { Some(0) } else { variant.strip_prefix('v')?.parse().ok() }
}

impl FromStr for Platform {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let parts: Vec<&str> = s.split('/').collect();
        let is_word = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
        };
        match parts.as_slice() {
            [os, architecture] if parts.iter().all(is_word) => Ok(Self::new(os, architecture, "")),
            [os, architecture, variant] if parts.iter().all(is_word) => {
                Ok(Self::new(os, architecture, variant))
            }
            _ => Err(Error::new(
                Kind::InvalidArgument,
                format!("invalid platform {s:?}: want os/architecture[/variant], e.g. linux/amd64"),
            )),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(f, "/{}", self.variant) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(s: &str) -> Platform {
        s.parse().expect(s)
    }

    #[test]
    fn spellings_of_one_platform_are_equal() {
        for (a, b) in [
            ("linux/x86_64", "linux/amd64"),
            ("linux/aarch64", "linux/arm64/v8"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/AMD64", "linux/amd64"),
        ] {
            assert_eq!(platform(a), platform(b));
        }
        assert_eq!(platform("linux/arm64/v8").to_string(), "linux/arm64");
        for bad in ["linux", "linux/", "/amd64", "a/b/c/d", "linux/a b", ""] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn older_variants_run_on_newer_ones_and_nothing_else_does() {
        let v7 = platform("linux/arm/v7");
        assert_eq!(v7.match_of(&platform("linux/arm/v7")), Some(0));
        assert_eq!(v7.match_of(&platform("linux/arm/v6")), Some(1));
        assert_eq!(platform("linux/arm/v6").match_of(&v7), None);
        assert_eq!(v7.match_of(&platform("linux/arm64")), None);
        assert_eq!(platform("linux/amd64").match_of(&platform("windows/amd64")), None);
        assert_eq!(platform("linux/amd64").match_of(&platform("linux/amd64/v3")), None);
    }
}
