// SPDX-License-Identifier: Apache-2.0
//! Values with rules, checked while they are read.

use std::{
    fmt,
    path::{Component, Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

pub use crate::domain::record::parse_cgroup_parent;
use crate::error::{Error, Kind};

/// Longest path of a unix socket: `sun_path` of unix(7) less its NUL.
const SOCKET_PATH_MAX: usize = 107;

/// Most threads that may serve requests.
const WORKERS_MAX: usize = 64;

/// The path of a unix socket, written `unix:///path` or `/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// The engine's socket in `dir`.
    ///
    /// # Errors
    /// `InvalidArgument` when the path is too long for a socket.
    pub fn in_dir(dir: &Path) -> Result<Self, Error> {
        let path = dir.join("berth.sock");
        path.to_string_lossy().parse().map_err(|e: String| Error::new(Kind::InvalidArgument, e))
    }

    /// The path itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for SocketPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

impl FromStr for SocketPath {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let path = s.strip_prefix("unix://").unwrap_or(s);
        if !path.starts_with('/') || path.ends_with('/') {
            return Err(format!("{s:?} is not the address of a unix socket: expected unix:///path"));
        }
        if path.len() > SOCKET_PATH_MAX {
            return Err(format!(
                "{s:?} is longer than a unix socket's path may be ({SOCKET_PATH_MAX} bytes)"
            ));
        }
        Ok(Self(path.into()))
    }
}

impl Serialize for SocketPath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SocketPath {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A number of bytes, written as Docker's log options write it: `20m`, `1g`,
/// `512k`, `1000`. A unit is a power of 1024.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSize(u64);

impl ByteSize {
    pub(super) const fn mebibytes(n: u64) -> Self {
        Self(n * 1024 * 1024)
    }

    /// The number of bytes; never 0.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

const UNITS: [(char, u64); 3] = [('g', 1 << 30), ('m', 1 << 20), ('k', 1 << 10)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match UNITS.iter().find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((letter, unit)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let lower = s.to_ascii_lowercase();
        let (digits, unit) = UNITS
            .iter()
            .find_map(|(letter, unit)| lower.strip_suffix(*letter).map(|digits| (digits, *unit)))
            .unwrap_or((&lower, 1));
        digits
            .parse::<u64>()
            .ok()
            .filter(|n| *n > 0 && digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|n| n.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| format!("invalid size: {s:?}: expected a number above 0 and k, m or g"))
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

/// A size, or an empty text for none.
pub(super) mod optional_size {
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::ByteSize;

    pub(in super::super) fn serialize<S: Serializer>(
        size: &Option<ByteSize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        size.map(|size| size.to_string()).unwrap_or_default().serialize(to)
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<ByteSize>, D::Error> {
        let text = String::deserialize(from)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
    }
}

pub(super) fn absolute_path<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    checked_path(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn absolute_paths<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<PathBuf>, D::Error> {
    let all = Vec::<String>::deserialize(from)?;
    all.iter().map(|text| checked_path(text)).collect::<Result<_, _>>().map_err(D::Error::custom)
}

/// An empty path is none.
pub(super) fn optional_path<'de, D: Deserializer<'de>>(from: D) -> Result<Option<PathBuf>, D::Error> {
    let text = String::deserialize(from)?;
    if text.is_empty() { Ok(None) } else { checked_path(&text).map(Some).map_err(D::Error::custom) }
}

pub(super) fn checked_path(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("{text:?} is not an absolute path"));
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return Err(format!("{text:?} must not contain .."));
    }
    Ok(path.components().collect())
}

/// `/name[/name…]`: never the root of a hierarchy itself, never outside (D16).
pub(super) fn cgroup_parent<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    parse_cgroup_parent(&String::deserialize(from)?).map_err(D::Error::custom)
}

pub(super) fn workers<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
    let workers = usize::deserialize(from)?;
    if (1..=WORKERS_MAX).contains(&workers) {
        Ok(workers)
    } else {
        Err(D::Error::custom(format!("{workers} is not between 1 and {WORKERS_MAX}")))
    }
}

pub(super) fn positive<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    match u32::deserialize(from)? {
        0 => Err(D::Error::custom("must be at least 1")),
        n => Ok(n),
    }
}

pub(super) fn log_level<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    parse_log_level(&String::deserialize(from)?).map_err(D::Error::custom)
}

/// The rule of [`super::Log::level`].
///
/// # Errors
/// A sentence that says what was expected.
pub fn parse_log_level(text: &str) -> Result<String, String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    // A bare word that is no level would be taken for the name of a module.
    let known = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part));
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) if known => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is not a log level: expected error, warn, info, debug or trace")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_back_as_they_are_written() {
        for (text, bytes) in [("1", 1), ("10k", 10 << 10), ("20m", 20 << 20), ("3g", 3 << 30), ("1023", 1023)]
        {
            let size: ByteSize = text.parse().expect("size");
            assert_eq!((size.bytes(), size.to_string().as_str()), (bytes, text));
        }
        assert_eq!("20M".parse::<ByteSize>().expect("size").bytes(), 20 << 20);
        for bad in ["", "0", "m", "-1", "+1", "1.5m", "20mm", "20 m", "99999999999g"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_socket_has_an_absolute_path_that_fits() {
        for good in ["unix:///run/b.sock", "/run/b.sock"] {
            assert_eq!(good.parse::<SocketPath>().expect(good).path(), Path::new("/run/b.sock"));
        }
        let long = format!("/{}", "a".repeat(SOCKET_PATH_MAX));
        for bad in ["", "run/b.sock", "unix://run/b.sock", "tcp://1.2.3.4:5", "unix:///", long.as_str()] {
            assert!(bad.parse::<SocketPath>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cgroup_parent_stays_below_the_root() {
        assert!(parse_cgroup_parent("/berth").is_ok());
        assert!(parse_cgroup_parent("/a.slice/berth").is_ok());
        for bad in ["", "/", "berth", "/a/", "//a", "/a/..", "/./a"] {
            assert!(parse_cgroup_parent(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_log_level_is_a_level_or_directives() {
        for good in ["info", "off", "info,berth_engine::image=debug"] {
            assert!(parse_log_level(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,loud", "a=loud"] {
            assert!(parse_log_level(bad).is_err(), "{bad}");
        }
    }
}
