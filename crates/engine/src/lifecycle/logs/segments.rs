// SPDX-License-Identifier: Apache-2.0
//! The files of a log: `path` is the current one, `path.1` the one before.
//! They may be rotated at any moment; a file that is open stays what it is.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

/// An open file of a log.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) file: File,
    pub(super) inode: u64,
}

/// Opens the files of the log, oldest first; with `after` given, those that
/// are younger than that one (all, when it has been rotated away).
pub(super) fn open(path: &Path, after: Option<u64>) -> io::Result<Vec<Segment>> {
    let mut found: Vec<Segment> = Vec::new();
    // Youngest first: rotation moves files this way, so that none is missed.
    for name in names(path)? {
        let file = match File::open(&name) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(e),
        };
        let inode = file.metadata()?.ino();
        if Some(inode) == after {
            break;
        }
        if found.iter().all(|other| other.inode != inode) {
            found.push(Segment { file, inode });
        }
    }
    found.reverse();
    Ok(found)
}

/// Whether the current file is another one than `inode`.
pub(super) fn has_rotated(path: &Path, inode: u64) -> io::Result<bool> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(metadata.ino() != inode),
        // Between two steps of a rotation, or removed with its container.
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e),
    }
}

/// The files' names, youngest first.
fn names(path: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(base)) = (path.parent(), path.file_name().and_then(|n| n.to_str())) else {
        return Ok(Vec::new());
    };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        let suffix = name.to_str().and_then(|name| name.strip_prefix(base)?.strip_prefix('.'));
        numbers.extend(suffix.and_then(|s| s.parse::<u32>().ok()));
    }
    // A rotation under way may shift them by one: look one further.
    let last = numbers.into_iter().max().map_or(1, |n| n.saturating_add(1));
    let older = (1..=last).map(|n| dir.join(format!("{base}.{n}")));
    Ok(std::iter::once(path.to_owned()).chain(older).collect())
}
