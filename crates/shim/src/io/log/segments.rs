// SPDX-License-Identifier: Apache-2.0
//! The files of a log, as they are written; [`berth::log`] says how they are
//! named. Old ones are removed when a new one begins. Compressing them is not
//! done here: it would hold the container up.

use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use berth::log;

use crate::io::diag;

/// Newest closed segments whose size may change: the engine compresses them.
const FRESH: usize = 16;

/// Where a log is and how large it may get.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// The name that the newest segment always has.
    pub path: PathBuf,
    /// Bytes of a segment before the next one is begun; 0: any number.
    pub max_size: u64,
    /// Segments kept in all; 0 counts as 1.
    pub max_files: u32,
    /// A segment is closed when its first record is as old as this, and
    /// removed when its last one is; zero: never.
    pub max_age: Duration,
    /// Bytes of all segments together, as they are on disk; 0: any number.
    pub max_total: u64,
}

/// The segments; only the newest one is open.
#[derive(Debug)]
pub struct Segments {
    limits: Limits,
    current: Option<Segment>,
    /// The closed ones, oldest first, and their bytes: a rotation costs the
    /// same however many there are.
    closed: VecDeque<(u64, u64)>,
    /// The next segment could not be begun: said once.
    stuck: bool,
}

#[derive(Debug)]
pub(super) struct Segment {
    file: File,
    number: u64,
    /// Bytes of whole records in it.
    size: u64,
    began: SystemTime,
}

impl Segments {
    /// A log that is there is continued; a new one begins with the first write.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let mut segments = Self { limits, current: None, closed: VecDeque::new(), stuck: false };
        if log::segments(segments.path()).is_ok_and(|found| !found.is_empty()) {
            // Tried again with the first write.
            segments.current = segments.open().ok();
        }
        segments
    }

    /// The path that the newest segment always has.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.limits.path
    }

    /// Other limits from now on. Where the log is doesn't change.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = Limits { path: std::mem::take(&mut self.limits.path), ..limits };
        if self.current.is_some() {
            let (number, size) = self.end();
            self.prune(number, size, 1);
        }
    }

    /// Where the next record will be: a segment and the bytes before it.
    #[must_use]
    pub fn end(&self) -> (u64, u64) {
        self.current.as_ref().map_or((1, 0), |segment| (segment.number, segment.size))
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
        if segment.size > 0 && self.is_over(&segment, length) {
            segment = self.next(segment);
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

    fn is_over(&self, segment: &Segment, length: u64) -> bool {
        let Limits { max_size, max_age, .. } = self.limits;
        (max_size > 0 && segment.size + length > max_size)
            || (!max_age.is_zero() && segment.began.elapsed().is_ok_and(|age| age >= max_age))
    }

    /// Closes `segment` and begins the one after it. While that can't be made
    /// the log goes on where it is: a segment that is too long is better than
    /// lines that are lost.
    fn next(&mut self, segment: Segment) -> Segment {
        // First, for its space.
        self.prune(segment.number, segment.size, 2);
        match self.begin(segment.number + 1) {
            Ok(next) => {
                self.stuck = false;
                next
            }
            Err(e) => {
                if !self.stuck {
                    diag::warn(format_args!("rotate {}: {e}", self.path().display()));
                }
                self.stuck = true;
                self.closed.pop_back_if(|(number, _)| *number == segment.number);
                segment
            }
        }
    }

    fn begin(&self, number: u64) -> io::Result<Segment> {
        let name = log::segment(&self.limits.path, number);
        let mut options = OpenOptions::new();
        let file = options.append(true).read(true).create_new(true).mode(0o640).open(&name)?;
        self.name_newest(&name);
        Ok(Segment { file, number, size: 0, began: SystemTime::now() })
    }

    /// Continues the newest segment, or begins one.
    fn open(&mut self) -> io::Result<Segment> {
        let found = log::segments(&self.limits.path)?;
        let Some((&number, forms)) = found.last_key_value() else { return self.begin(1) };
        if number == 0 {
            fs::hard_link(&self.limits.path, log::segment(&self.limits.path, 1))?;
            return self.open();
        }
        self.closed = found.keys().filter(|n| **n < number || !forms.plain).map(|n| (*n, 0)).collect();
        for at in 0..self.closed.len() {
            self.closed[at].1 = self.known(self.closed[at].0).map_or(0, |m| m.len());
        }
        if !forms.plain {
            return self.begin(number + 1);
        }
        let name = log::segment(&self.limits.path, number);
        let mut file = OpenOptions::new().append(true).read(true).open(&name)?;
        let metadata = file.metadata()?;
        let mut size = metadata.len();
        if fs::metadata(&self.limits.path).map_or(0, |m| m.ino()) != metadata.ino() {
            self.name_newest(&name);
        }
        // After a power cut it may end anywhere: that is one damaged record,
        // not two.
        let mut last = [b'\n'];
        if size > 0 && file.read_exact_at(&mut last, size - 1).is_ok() && last != [b'\n'] {
            file.write_all(b"\n")?;
            size += 1;
        }
        let began = metadata.created().or_else(|_| metadata.modified())?;
        Ok(Segment { file, number, size, began })
    }

    /// Gives the newest segment the name without a number, for others' tools:
    /// no reader of ours needs it, so a failure is no error.
    fn name_newest(&self, segment: &Path) {
        let mut temporary = OsString::from(&self.limits.path);
        temporary.push(".new");
        let _ = fs::remove_file(&temporary);
        let named = fs::hard_link(segment, &temporary).and_then(|()| fs::rename(&temporary, self.path()));
        if let Err(e) = named {
            diag::warn(format_args!("name {}: {e}", self.path().display()));
        }
    }

    /// Removes the oldest segments, so that with `reserved` more than those
    /// before `number` (whose own bytes are `size`) the limits hold. A segment
    /// that can't be removed is tried again by the next shim.
    fn prune(&mut self, number: u64, size: u64, reserved: usize) {
        let Limits { max_files, max_age, max_total, max_size, .. } = self.limits;
        let most = (max_files.max(1) as usize).saturating_sub(reserved);
        let more = size + if reserved > 1 { max_size } else { 0 };
        if max_total > 0 {
            // Those that may have been compressed since.
            let fresh = self.closed.len().saturating_sub(FRESH);
            for at in fresh..self.closed.len() {
                self.closed[at].1 = self.known(self.closed[at].0).map_or(0, |m| m.len());
            }
        }
        let mut total = more + self.closed.iter().map(|(_, bytes)| bytes).sum::<u64>();
        while let Some(&(oldest, bytes)) = self.closed.front() {
            let is_old = || {
                let written = self.known(oldest).and_then(|m| m.modified().ok());
                written.and_then(|at| at.elapsed().ok()).is_some_and(|age| age >= max_age)
            };
            let over = self.closed.len() > most || (max_total > 0 && total > max_total);
            if !over && (max_age.is_zero() || !is_old()) {
                break;
            }
            self.remove(oldest);
            self.closed.pop_front();
            total -= bytes;
        }
        // With one file the one that is full goes, too.
        if reserved > 1 {
            if max_files > 1 {
                self.closed.push_back((number, size));
            } else {
                self.remove(number);
            }
        }
    }

    fn known(&self, number: u64) -> Option<fs::Metadata> {
        let path = &self.limits.path;
        let plain = fs::metadata(log::segment(path, number));
        plain.or_else(|_| fs::metadata(log::compressed(path, number))).ok()
    }

    fn remove(&self, number: u64) {
        let path = &self.limits.path;
        for name in [log::segment(path, number), log::compressed(path, number)] {
            match fs::remove_file(&name) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    diag::warn(format_args!("remove {}: {e}", name.display()));
                }
                _ => {}
            }
        }
    }
}

#[cfg(test)]
impl Segments {
    /// Makes writes go to `path`; what was open comes back.
    pub(super) fn replace_file(&mut self, path: &str) -> Option<Segment> {
        let file = OpenOptions::new().write(true).open(path).expect("open");
        self.current.replace(Segment { file, number: 0, size: 0, began: SystemTime::now() })
    }

    pub(super) fn restore_file(&mut self, segment: Option<Segment>) {
        self.current = segment;
    }
}

#[cfg(test)]
mod tests {
    use std::fs::FileTimes;

    use super::*;

    /// The segments by number; and that the plain name is the newest one's.
    fn content(path: &Path) -> Vec<(u64, String)> {
        let found = log::segments(path).expect("list");
        let all: Vec<_> =
            found.keys().map(|n| (*n, fs::read_to_string(log::segment(path, *n)).expect("text"))).collect();
        if let Some((_, newest)) = all.last() {
            assert_eq!(fs::read_to_string(path).expect("newest"), *newest);
        }
        all
    }

    fn limits(dir: &tempfile::TempDir, max_files: u32) -> Limits {
        Limits { path: dir.path().join("log"), max_size: 4, max_files, ..Limits::default() }
    }

    fn write_all(max_files: u32, records: &[&str]) -> Vec<(u64, String)> {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut segments = Segments::new(limits(&dir, max_files));
        for record in records {
            segments.write(record.as_bytes()).expect("write");
        }
        content(segments.path())
    }

    fn pairs(list: &[(u64, &str)]) -> Vec<(u64, String)> {
        list.iter().map(|&(a, b)| (a, b.to_owned())).collect()
    }

    #[test]
    fn numbers_grow_and_the_oldest_goes() {
        let seen = write_all(3, &["a\n", "b\n", "c\n", "d\n", "e\n", "f\n", "g\n"]);
        assert_eq!(seen, pairs(&[(2, "c\nd\n"), (3, "e\nf\n"), (4, "g\n")]));
    }

    #[test]
    fn one_file_begins_anew() {
        assert_eq!(write_all(1, &["a\n", "b\n", "c\n"]), pairs(&[(2, "c\n")]));
        assert_eq!(write_all(0, &["a\n", "b\n", "c\n"]), pairs(&[(2, "c\n")]));
    }

    #[test]
    fn a_record_above_the_limit_gets_a_segment_of_its_own() {
        let seen = write_all(3, &["a\n", "0123456\n", "b\n"]);
        assert_eq!(seen, pairs(&[(1, "a\n"), (2, "0123456\n"), (3, "b\n")]));
    }

    #[test]
    fn a_log_is_continued_and_a_torn_record_stays_alone() {
        let dir = tempfile::tempdir().expect("tempdir");
        for text in ["a\n", "b\n", "c\n"] {
            Segments::new(limits(&dir, 2)).write(text.as_bytes()).expect("write");
        }
        let path = dir.path().join("log");
        assert_eq!(content(&path), pairs(&[(1, "a\nb\n"), (2, "c\n")]));
        fs::write(log::segment(&path, 2), "to").expect("tear");
        Segments::new(limits(&dir, 2)).write(b"d\n").expect("write");
        assert_eq!(content(&path), pairs(&[(2, "to\n"), (3, "d\n")]));
        // Compressed since: nothing is added to it.
        fs::rename(log::segment(&path, 3), log::compressed(&path, 3)).expect("rename");
        Segments::new(limits(&dir, 9)).write(b"e\n").expect("write");
        assert_eq!(log::segments(&path).expect("list").into_keys().collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn a_log_without_numbers_is_continued_with_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        fs::write(&path, "a\n").expect("write");
        let mut segments = Segments::new(limits(&dir, 5));
        for text in ["b\n", "c\n"] {
            segments.write(text.as_bytes()).expect("write");
        }
        assert_eq!(content(&path), pairs(&[(1, "a\nb\n"), (2, "c\n")]));
    }

    #[test]
    fn age_closes_and_removes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let max_age = Duration::from_secs(60);
        let mut segments = Segments::new(Limits { max_size: 0, max_age, ..limits(&dir, 9) });
        let long_ago = SystemTime::now() - Duration::from_secs(61);
        for text in [b"a\n", b"b\n", b"c\n"] {
            segments.write(text).expect("write");
            let current = segments.current.as_mut().expect("open");
            current.began = long_ago;
            if current.number == 1 {
                current.file.set_times(FileTimes::new().set_modified(long_ago)).expect("times");
            }
        }
        assert_eq!(content(segments.path()), pairs(&[(2, "b\n"), (3, "c\n")]));
    }

    #[test]
    fn all_together_have_a_bound_that_can_change() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut segments = Segments::new(Limits { max_total: 12, ..limits(&dir, 9) });
        for n in 0..10 {
            segments.write(format!("{n}\n").as_bytes()).expect("write");
        }
        assert_eq!(content(segments.path()), pairs(&[(3, "4\n5\n"), (4, "6\n7\n"), (5, "8\n9\n")]));
        segments.set_limits(Limits {
            path: "/ignored".into(),
            max_size: 4,
            max_files: 2,
            ..Limits::default()
        });
        assert_eq!(content(segments.path()), pairs(&[(4, "6\n7\n"), (5, "8\n9\n")]));
        segments.write(b"x\n").expect("write");
        assert_eq!(content(segments.path()), pairs(&[(5, "8\n9\n"), (6, "x\n")]));
    }
}
