// SPDX-License-Identifier: Apache-2.0
//! What could not be written to the log, counted, and kept where the engine
//! reads it: in the bundle, which is on another disk than the log.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use berth::log::Dropped;

use crate::io::diag;

/// Bytes of the file. It is always overwritten as a whole, so that once it is
/// there it takes no more space and no reader sees half of it.
const LENGTH: usize = 192;

/// The count of one life of a container.
#[derive(Debug)]
pub struct Drops {
    count: Dropped,
    path: Option<PathBuf>,
    /// Made with the first line that is dropped.
    file: Option<File>,
}

impl Drops {
    /// Nothing was dropped yet; `untold` is left from before.
    #[must_use]
    pub fn new(path: Option<PathBuf>, (untold_lines, untold_bytes): (u64, u64)) -> Self {
        let count = Dropped { untold_lines, untold_bytes, ..Dropped::default() };
        let mut drops = Self { count, path, file: None };
        if untold_lines > 0 {
            drops.save();
        }
        drops
    }

    /// So many more were dropped.
    pub fn add(&mut self, lines: u64, bytes: u64) {
        let count = &mut self.count;
        for (sum, more) in [
            (&mut count.lines, lines),
            (&mut count.untold_lines, lines),
            (&mut count.bytes, bytes),
            (&mut count.untold_bytes, bytes),
        ] {
            *sum = sum.saturating_add(more);
        }
        self.save();
    }

    /// Lines and bytes that the log doesn't tell of yet; `None`: there are none.
    #[must_use]
    pub fn untold(&self) -> Option<(u64, u64)> {
        (self.count.untold_lines > 0).then_some((self.count.untold_lines, self.count.untold_bytes))
    }

    /// The log tells of all.
    pub fn told(&mut self) {
        (self.count.untold_lines, self.count.untold_bytes) = (0, 0);
        self.save();
    }

    /// Where that fails the log still tells, later.
    fn save(&mut self) {
        let Some(path) = &self.path else { return };
        let Ok(mut text) = serde_json::to_vec(&self.count) else { return };
        text.resize(LENGTH.max(text.len() + 1) - 1, b' ');
        text.push(b'\n');
        if let Some(file) = &self.file {
            let _ = file.write_all_at(&text, 0);
            return;
        }
        match create(path, &text) {
            Ok(file) => self.file = Some(file),
            Err(e) => {
                diag::warn(format_args!("write {}: {e}", path.display()));
                // Said once.
                self.path = None;
            }
        }
    }
}

/// The name is what the engine waits for: it comes with all of the text.
fn create(path: &Path, text: &[u8]) -> io::Result<File> {
    let temporary = path.with_extension("new");
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all_at(text, 0)?;
    fs::rename(&temporary, path)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_count_fits_the_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("dropped");
        let mut drops = Drops::new(Some(path.clone()), (0, 0));
        assert!(!path.exists(), "before the first");
        drop(Drops::new(Some(path.clone()), (5, 7)));
        let text = std::fs::read(&path).expect("read");
        assert_eq!(serde_json::from_slice::<Dropped>(&text).expect("JSON").untold_bytes, 7);
        drops.add(1, 2);
        drops.add(u64::MAX, u64::MAX);
        let text = std::fs::read(&path).expect("read");
        assert_eq!(text.len(), LENGTH);
        let all = u64::MAX;
        let expected = Dropped { lines: all, bytes: all, untold_lines: all, untold_bytes: all };
        assert_eq!(serde_json::from_slice::<Dropped>(&text).expect("JSON"), expected);
        drops.told();
        let text = std::fs::read(&path).expect("read");
        assert_eq!(serde_json::from_slice::<Dropped>(&text).expect("JSON").untold_lines, 0);
    }
}
