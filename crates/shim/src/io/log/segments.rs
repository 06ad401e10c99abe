// SPDX-License-Identifier: Apache-2.0
//! The files of a log: `path` is written, `path.1` is the newest full one,
//! the oldest is removed.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Where a log is and how large it may get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The current segment.
    pub path: PathBuf,
    /// Bytes of a segment before the next one is begun; 0 never rotates.
    pub max_size: u64,
    /// Segments kept in all; 0 counts as 1.
    pub max_files: u32,
}

/// The segments; only the current one is open.
#[derive(Debug)]
pub struct Segments {
    limits: Limits,
    current: Option<Segment>,
}

#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    /// Bytes of whole records in it.
    size: u64,
}

impl Segments {
    /// Nothing is opened before the first write.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, current: None }
    }

    /// The path of the current segment.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.limits.path
    }

    /// Writes all of `records` or nothing, into one segment.
    ///
    /// # Errors
    /// Those of the file system; the next call tries anew.
    pub fn write(&mut self, records: &[u8]) -> io::Result<()> {
        let mut segment = match self.current.take() {
            Some(segment) => segment,
            None => self.open()?,
        };
        let length = records.len() as u64;
        if self.limits.max_size > 0 && segment.size > 0 && segment.size + length > self.limits.max_size {
            self.rotate()?;
            segment = self.open()?;
        }
        let written = segment.file.write_all(records);
        match &written {
            Ok(()) => segment.size += length,
            // Half a record must not stay; shortening a file needs no space.
            // Where even that fails the next record continues a broken line.
            Err(_) => drop(segment.file.set_len(segment.size)),
        }
        self.current = Some(segment);
        written
    }

    fn open(&self) -> io::Result<Segment> {
        let file = OpenOptions::new().append(true).create(true).mode(0o640).open(&self.limits.path)?;
        let size = file.metadata()?.len();
        Ok(Segment { file, size })
    }

    /// Moves every segment one number up; the last falls off.
    fn rotate(&self) -> io::Result<()> {
        let last = self.limits.max_files.saturating_sub(1);
        if last == 0 {
            return fs::remove_file(&self.limits.path);
        }
        for number in (1..last).rev() {
            match fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        fs::rename(&self.limits.path, self.numbered(1))
    }

    fn numbered(&self, number: u32) -> PathBuf {
        let mut name = OsString::from(&self.limits.path);
        name.push(format!(".{number}"));
        name.into()
    }
}

#[cfg(test)]
impl Segments {
    /// Makes writes go to `path`; what was open comes back.
    pub(super) fn replace_file(&mut self, path: &str) -> Option<Segment> {
        let file = OpenOptions::new().write(true).open(path).expect("open");
        self.current.replace(Segment { file, size: 0 })
    }

    pub(super) fn restore_file(&mut self, segment: Option<Segment>) {
        self.current = segment;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<(String, String)> {
        let mut names: Vec<_> = fs::read_dir(dir)
            .expect("list")
            .map(|entry| {
                let entry = entry.expect("entry");
                let text = fs::read_to_string(entry.path()).expect("text");
                (entry.file_name().into_string().expect("name"), text)
            })
            .collect();
        names.sort();
        names
    }

    fn write_all(max_files: u32, records: &[&str]) -> Vec<(String, String)> {
        let dir = tempfile::tempdir().expect("tempdir");
        let limits = Limits { path: dir.path().join("log"), max_size: 4, max_files };
        let mut segments = Segments::new(limits);
        for record in records {
            segments.write(record.as_bytes()).expect("write");
        }
        names(dir.path())
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|&(a, b)| (a.to_owned(), b.to_owned())).collect()
    }

    #[test]
    fn the_newest_of_the_full_ones_is_number_one_and_the_oldest_goes() {
        let seen = write_all(3, &["a\n", "b\n", "c\n", "d\n", "e\n", "f\n", "g\n"]);
        assert_eq!(seen, pairs(&[("log", "g\n"), ("log.1", "e\nf\n"), ("log.2", "c\nd\n")]));
    }

    #[test]
    fn one_file_begins_anew() {
        assert_eq!(write_all(1, &["a\n", "b\n", "c\n"]), pairs(&[("log", "c\n")]));
        assert_eq!(write_all(0, &["a\n", "b\n", "c\n"]), pairs(&[("log", "c\n")]));
    }

    #[test]
    fn a_record_above_the_limit_gets_a_segment_of_its_own() {
        assert_eq!(
            write_all(3, &["a\n", "0123456\n", "b\n"]),
            pairs(&[("log", "b\n"), ("log.1", "0123456\n"), ("log.2", "a\n")])
        );
    }

    #[test]
    fn a_log_is_continued() {
        let dir = tempfile::tempdir().expect("tempdir");
        for text in ["a\n", "b\n", "c\n"] {
            let limits = Limits { path: dir.path().join("log"), max_size: 4, max_files: 2 };
            Segments::new(limits).write(text.as_bytes()).expect("write");
        }
        assert_eq!(names(dir.path()), pairs(&[("log", "c\n"), ("log.1", "a\nb\n")]));
    }
}
