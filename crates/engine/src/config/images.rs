// SPDX-License-Identifier: Apache-2.0
//! Images on this machine: what is loaded at the start, and what goes by
//! itself when the disk fills up.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::value::{self, ByteSize};
use crate::error::{Error, Kind, Result};

/// Images on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Images {
    /// A directory of archives that are loaded at the start; empty: none.
    #[serde(with = "or_empty")]
    pub preload: Option<Directory>,
    /// A disk that is fuller begins a collection; none: never.
    #[serde(with = "or_empty")]
    pub gc_high: Option<Mark>,
    /// A collection ends when the disk is as full as this.
    #[serde(with = "or_empty")]
    pub gc_low: Option<Mark>,
    /// Seconds that an image has to be of no use.
    pub gc_min_age: u64,
    /// Seconds between two looks at the disk.
    #[serde(deserialize_with = "value::positive")]
    pub gc_interval: u32,
    /// Only log what would be removed.
    pub gc_dry_run: bool,
}

impl Default for Images {
    fn default() -> Self {
        Self {
            preload: None,
            gc_high: None,
            gc_low: None,
            gc_min_age: 24 * 3600,
            gc_interval: 60,
            gc_dry_run: false,
        }
    }
}

impl Images {
    pub(super) fn validate(&self) -> Result<()> {
        let wrong = match (self.gc_high, self.gc_low) {
            (None, None) => return Ok(()),
            (Some(high), Some(low)) => match (high, low) {
                (Mark::Percent(high), Mark::Percent(low)) => low >= high,
                (Mark::Bytes(high), Mark::Bytes(low)) => low.bytes() >= high.bytes(),
                _ => true,
            },
            _ => true,
        };
        if !wrong {
            return Ok(());
        }
        let words = "gc_high and gc_low must be set together, both as percent or both as bytes, gc_low lower";
        Err(Error::new(Kind::InvalidArgument, format!("images: {words}")))
    }

    /// The marks of the automatic collection, where there is one.
    #[must_use]
    pub fn marks(&self) -> Option<(Mark, Mark)> {
        self.gc_high.zip(self.gc_low)
    }

    /// How long an image has to be of no use.
    #[must_use]
    pub fn min_age(&self) -> Duration {
        Duration::from_secs(self.gc_min_age)
    }

    /// Between two looks at the disk.
    #[must_use]
    pub fn interval(&self) -> Duration {
        Duration::from_secs(self.gc_interval.into())
    }
}

/// How full a disk is: `85%` of it, or `40g` used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Of the whole disk.
    Percent(u8),
    /// Used bytes.
    Bytes(ByteSize),
}

impl Mark {
    /// Bytes that are used at this mark of a disk of `size` bytes.
    #[must_use]
    pub fn used(self, size: u64) -> u64 {
        match self {
            Self::Percent(percent) => size / 100 * u64::from(percent),
            Self::Bytes(bytes) => bytes.bytes(),
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => write!(f, "{bytes}"),
        }
    }
}

impl FromStr for Mark {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(percent) = text.strip_suffix('%') else { return text.parse().map(Self::Bytes) };
        let percent = percent.parse().ok().filter(|percent| (1..=99).contains(percent));
        percent.map(Self::Percent).ok_or_else(|| format!("{text:?} is neither 1% to 99% nor bytes"))
    }
}

/// An absolute path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directory(PathBuf);

impl Directory {
    /// The path itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.display().fmt(f)
    }
}

impl FromStr for Directory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        value::checked_path(text).map(Self)
    }
}

/// Settings whose empty text is none.
mod or_empty {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &Option<T>, to: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err = String>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(from)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn images(high: &str, low: &str) -> Result<Images, String> {
        let mark = |text: &str| if text.is_empty() { Ok(None) } else { text.parse().map(Some) };
        Ok(Images { gc_high: mark(high)?, gc_low: mark(low)?, ..Images::default() })
    }

    #[test]
    fn marks_go_together() {
        for (high, low) in [("", ""), ("90%", "80%"), ("40g", "100m")] {
            images(high, low).expect("marks").validate().expect("valid");
        }
        for (high, low) in [("90%", ""), ("", "80%"), ("80%", "80%"), ("1g", "50%"), ("1g", "2g")] {
            assert!(images(high, low).expect("marks").validate().is_err(), "{high} {low}");
        }
        for bad in ["0%", "100%", "-1%", "x", "%"] {
            assert!(images(bad, "").is_err(), "{bad}");
        }
    }

    #[test]
    fn a_mark_is_a_number_of_bytes() {
        let mark = |text: &str| text.parse::<Mark>().expect("a mark");
        assert_eq!((mark("85%").used(1000), mark("2k").used(1000)), (850, 2048));
        assert_eq!((mark("85%").to_string(), mark("2k").to_string()), ("85%".into(), "2k".into()));
    }
}
