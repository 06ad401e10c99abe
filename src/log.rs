// SPDX-License-Identifier: Apache-2.0
//! The files of a container's log, as shim and engine agree on them.
//!
//! ```text
//! container.log              another name of the newest segment
//! container.log.0000000007   a segment: its number only grows
//! container.log.0000000006.gz   a segment that was closed, and compressed
//! ```
//!
//! A log from before there were numbers is segment 0, which has the name
//! without one alone.
//!
//! The shim writes, begins new segments and removes old ones; the engine
//! compresses and reads. A place in a log is a segment's number and the bytes
//! of it (uncompressed) before that place, so it stays what it is however
//! often the log is rotated.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// Digits of a segment's number: names sort as their numbers do.
const DIGITS: usize = 10;

/// What follows the name of a compressed segment.
const COMPRESSED: &str = ".gz";

/// A record of the bundle: [`Dropped`].
pub const DROPPED_RECORD: &str = "log.dropped";

/// The tag that marks a record of the text format as a gap.
pub const GAP_TAG: &str = "gap";

/// What could not be written to the log, of one life of a container.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// Lines, or parts of long ones.
    pub lines: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of `lines` that no record in the log tells of yet.
    pub untold_lines: u64,
    /// Those of `bytes` likewise.
    pub untold_bytes: u64,
}

/// The forms in which a segment is there; both for a moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    /// As it was written.
    pub plain: bool,
    /// As the engine has compressed it.
    pub compressed: bool,
}

/// The path of segment `number` of the log at `path`.
#[must_use]
pub fn segment(path: &Path, number: u64) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    with_suffix(path, &format!(".{number:0DIGITS$}"))
}

/// The path of segment `number` once it is compressed.
#[must_use]
pub fn compressed(path: &Path, number: u64) -> PathBuf {
    with_suffix(path, &format!(".{number:0DIGITS$}{COMPRESSED}"))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

/// The segments of the log at `path` that are there; none without its
/// directory.
///
/// # Errors
/// Those of the file system.
pub fn segments(path: &Path) -> io::Result<BTreeMap<u64, Forms>> {
    let mut found: BTreeMap<u64, Forms> = BTreeMap::new();
    let (Some(dir), Some(base)) = (path.parent(), path.file_name()) else { return Ok(found) };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for entry in entries {
        if let Some((number, is_compressed)) = parse(base, &entry?.file_name()) {
            let forms = found.entry(number).or_default();
            *(if is_compressed { &mut forms.compressed } else { &mut forms.plain }) = true;
        }
    }
    if found.is_empty() && fs::metadata(path).is_ok_and(|m| m.is_file()) {
        found.insert(0, Forms { plain: true, compressed: false });
    }
    Ok(found)
}

/// A segment's number, and whether it is compressed, from a file's name.
fn parse(base: &OsStr, name: &OsStr) -> Option<(u64, bool)> {
    let rest = name.as_bytes().strip_prefix(base.as_bytes())?.strip_prefix(b".")?;
    let rest = std::str::from_utf8(rest).ok()?;
    let (digits, is_compressed) = match rest.strip_suffix(COMPRESSED) {
        Some(digits) => (digits, true),
        None => (rest, false),
    };
    let whole = digits.len() >= DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    let number = whole.then(|| digits.parse().ok()).flatten().filter(|number| *number > 0)?;
    Some((number, is_compressed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_numbers_and_nothing_else_is_a_segment() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("container.log");
        for name in [
            segment(&path, 7),
            compressed(&path, 6),
            segment(&path, 6),
            segment(&path, 12_345_678_901),
            path.clone(),
            dir.path().join("container.log.1"),
            dir.path().join("container.log.000000000x"),
            dir.path().join("container.log.0000000009.gz.tmp"),
            dir.path().join("other.log.0000000003"),
        ] {
            fs::write(name, "").expect("write");
        }
        let found: Vec<_> = segments(&path).expect("list").into_iter().collect();
        let plain = Forms { plain: true, compressed: false };
        let both = Forms { plain: true, compressed: true };
        assert_eq!(found, [(6, both), (7, plain), (12_345_678_901, plain)]);
        assert!(segments(&dir.path().join("none/container.log")).expect("list").is_empty());
        let old = dir.path().join("old.log");
        assert!(segments(&old).expect("list").is_empty());
        fs::write(&old, "").expect("write");
        assert_eq!(segments(&old).expect("list").into_iter().collect::<Vec<_>>(), [(0, plain)]);
        assert_eq!(segment(&old, 0), old);
    }
}
