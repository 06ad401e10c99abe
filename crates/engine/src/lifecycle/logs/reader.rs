// SPDX-License-Identifier: Apache-2.0
//! Reads a log's files in order, over rotations, from where it left off.
//! Everything here blocks.

use std::{
    collections::VecDeque,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    line::{Format, Line},
    segments::{self, Segment},
    tail::Tail,
};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Longest record: 16 KiB of a line, escaped six-fold in JSON, and its frame.
/// What is longer isn't a record, and is skipped.
const MAX_RECORD: usize = 256 * 1024;

/// A position in a log.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    format: Format,
    current: Option<Segment>,
    /// Younger ones than the current.
    next: VecDeque<Segment>,
    /// Read, and not yet a whole record.
    buffer: Vec<u8>,
}

impl Reader {
    /// Opens the log, at its start or at its last `tail` lines. A log without
    /// files is empty.
    pub(super) fn open(path: &Path, format: Format, tail: Option<u64>) -> io::Result<Self> {
        let mut segments: VecDeque<_> = segments::open(path, None)?.into();
        if let Some(wanted) = tail {
            let mut counter = Tail::new(format, wanted);
            let mut index = segments.len();
            while index > 0 {
                index -= 1;
                if let Some(start) = counter.start_in(&segments[index].file)? {
                    segments.drain(..index);
                    segments[0].file.seek(SeekFrom::Start(start))?;
                    break;
                }
            }
        }
        let current = segments.pop_front();
        Ok(Self { path: path.to_owned(), format, current, next: segments, buffer: Vec::new() })
    }

    /// The next lines; none when there are no more for now.
    pub(super) fn next_batch(&mut self) -> io::Result<Vec<Line>> {
        loop {
            let read = self.fill()?;
            let lines = self.take_lines();
            if !lines.is_empty() {
                return Ok(lines);
            }
            if read == 0 && !self.advance()? {
                return Ok(Vec::new());
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        if self.buffer.len() > MAX_RECORD {
            self.buffer.clear();
        }
        (&mut current.file).take(CHUNK as u64).read_to_end(&mut self.buffer)
    }

    fn take_lines(&mut self) -> Vec<Line> {
        let Some(end) = self.buffer.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let records = self.buffer[..end].split(|b| *b == b'\n');
        let lines = records.filter_map(|record| self.format.parse(record)).collect();
        self.buffer.drain(..=end);
        lines
    }

    /// Goes on to the next file; false when the current one is the youngest.
    fn advance(&mut self) -> io::Result<bool> {
        if self.next.is_empty() {
            let inode = self.current.as_ref().map(|segment| segment.inode);
            if let Some(inode) = inode
                && !segments::has_rotated(&self.path, inode)?
            {
                return Ok(false);
            }
            self.next = segments::open(&self.path, inode)?.into();
            if self.next.is_empty() {
                return Ok(false);
            }
            // It has been rotated away since its end was seen: what was
            // written to it in between comes first.
            if self.fill()? > 0 {
                return Ok(true);
            }
        }
        // A record that was cut off stays cut off.
        self.buffer.clear();
        self.current = self.next.pop_front();
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write as _};

    struct Log {
        _dir: tempfile::TempDir,
        path: PathBuf,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join("container.log");
            Self { _dir: dir, path }
        }

        fn write(&self, text: &str) {
            let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.path).expect("open");
            for part in text.split_inclusive('\n') {
                let (tag, body) = part.strip_suffix('\n').map_or(("P", part), |body| ("F", body));
                writeln!(file, "2026-11-23T23:09:18Z stdout {tag} {body}").expect("write");
            }
        }

        fn rotate(&self, keep: u32) {
            let name = |n: u32| self.path.with_file_name(format!("container.log.{n}"));
            for n in (1..keep).rev() {
                drop(fs::rename(name(n), name(n + 1)));
            }
            fs::rename(&self.path, name(1)).expect("rotate");
        }

        fn open(&self, tail: Option<u64>) -> Reader {
            Reader::open(&self.path, Format::Cri, tail).expect("open")
        }
    }

    fn drain(reader: &mut Reader) -> String {
        let mut text = Vec::new();
        loop {
            let lines = reader.next_batch().expect("read");
            if lines.is_empty() {
                return String::from_utf8(text).expect("utf-8");
            }
            text.extend(lines.iter().flat_map(|line| line.data.to_vec()));
        }
    }

    #[test]
    fn segments_are_read_oldest_first() {
        let log = Log::new();
        assert_eq!(drain(&mut log.open(None)), "");
        log.write("a\nb\n");
        log.rotate(5);
        log.write("c\n");
        log.rotate(5);
        log.write("d\npart");
        assert_eq!(drain(&mut log.open(None)), "a\nb\nc\nd\npart");
    }

    #[test]
    fn a_follower_goes_on_over_rotations() {
        let log = Log::new();
        let mut reader = log.open(None);
        log.write("1\n");
        assert_eq!(drain(&mut reader), "1\n", "a log that began after it was opened");
        log.write("2\n");
        log.rotate(5);
        log.write("3\n");
        log.rotate(5);
        log.write("4\n");
        assert_eq!(drain(&mut reader), "2\n3\n4\n");
        assert_eq!(drain(&mut reader), "");
        log.write("5\n");
        assert_eq!(drain(&mut reader), "5\n");
    }

    #[test]
    fn a_record_is_not_seen_before_it_is_whole() {
        let log = Log::new();
        log.write("1\n");
        let mut file = fs::OpenOptions::new().append(true).open(&log.path).expect("open");
        file.write_all(b"2026-11-23T23:09:18Z stdout F ha").expect("write");
        let mut reader = log.open(None);
        assert_eq!(drain(&mut reader), "1\n");
        file.write_all(b"lf\n").expect("write");
        assert_eq!(drain(&mut reader), "half\n");
    }

    #[test]
    fn a_tail_counts_lines_over_segments_and_not_their_parts() {
        let log = Log::new();
        log.write("a\nb\n");
        log.rotate(5);
        // A long line in two parts.
        log.write("c");
        log.write("c\nd\n");
        for (wanted, expected) in [
            (0, ""),
            (1, "d\n"),
            (2, "cc\nd\n"),
            (3, "b\ncc\nd\n"),
            (4, "a\nb\ncc\nd\n"),
            (9, "a\nb\ncc\nd\n"),
        ] {
            assert_eq!(drain(&mut log.open(Some(wanted))), expected, "{wanted}");
        }
    }

    #[test]
    fn a_tail_is_found_beyond_the_first_chunk() {
        let log = Log::new();
        let lines: Vec<_> = (0..5000).map(|n| format!("line {n} {}\n", "x".repeat(n % 50))).collect();
        log.write(&lines.concat());
        assert_eq!(drain(&mut log.open(Some(4000))), lines[1000..].concat());
    }

    #[test]
    fn rubbish_is_skipped() {
        let log = Log::new();
        log.write("a\n");
        let mut file = fs::OpenOptions::new().append(true).open(&log.path).expect("open");
        file.write_all(&vec![b'x'; MAX_RECORD * 2]).expect("write");
        file.write_all(b"\n\0\0\0").expect("write");
        log.write("b\n");
        assert_eq!(drain(&mut log.open(None)), "a\nb\n");
    }
}
