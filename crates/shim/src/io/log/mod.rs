// SPDX-License-Identifier: Apache-2.0
//! The container's log: lines out of output, one `write` per batch.
//!
//! A log that can't be written neither stops nor blocks the container: what
//! doesn't fit is counted, and one line tells how much when writing works
//! again.

pub mod clock;
pub mod cri;
pub mod json_file;
pub mod segments;
pub mod splitter;

use std::io;

use self::{
    clock::Timestamp,
    segments::{Limits, Segments},
    splitter::{End, Splitter},
};
use super::Stream;
use crate::io::diag;

/// Formatted bytes that are gathered before they are written.
const BATCH: usize = 64 * 1024;

/// How a line is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// CRI text; see [`cri`].
    Cri,
    /// Docker's JSON lines; see [`json_file`].
    JsonFile,
}

/// The log of one container.
#[derive(Debug)]
pub struct Log {
    splitters: [Splitter; 2],
    writer: Writer,
}

/// Whole records on their way to the file.
#[derive(Debug)]
struct Writer {
    format: Format,
    segments: Segments,
    batch: Vec<u8>,
    /// Records in `batch`.
    records: u64,
    /// Most bytes of a batch: a segment never grows past its limit by more
    /// than one record.
    batch_limit: usize,
    /// Records lost since the last write that succeeded.
    dropped: u64,
}

impl Log {
    /// Opens or continues the log at `limits.path`. A file that can't be
    /// opened is tried again with each batch.
    #[must_use]
    pub fn new(format: Format, limits: Limits) -> Self {
        let batch_limit = match usize::try_from(limits.max_size) {
            Ok(1..BATCH) => usize::try_from(limits.max_size).unwrap_or(BATCH),
            _ => BATCH,
        };
        let writer = Writer {
            format,
            segments: Segments::new(limits),
            batch: Vec::new(),
            records: 0,
            batch_limit,
            dropped: 0,
        };
        Self { splitters: [Splitter::default(), Splitter::default()], writer }
    }

    /// Writes the lines that `bytes` completes, all with one time.
    pub fn append(&mut self, stream: Stream, bytes: &[u8]) {
        self.append_at(Timestamp::now(), stream, bytes);
    }

    fn append_at(&mut self, time: Timestamp, stream: Stream, bytes: &[u8]) {
        let Self { splitters, writer } = self;
        splitters[stream.index()].push(bytes, |line, end| writer.record(&time, stream, line, end));
        writer.flush(&time);
    }

    /// The stream has ended: writes an unterminated last line.
    pub fn finish(&mut self, stream: Stream) {
        let time = Timestamp::now();
        let Self { splitters, writer } = self;
        splitters[stream.index()].finish(|line, end| writer.record(&time, stream, line, end));
        writer.flush(&time);
    }
}

impl Writer {
    fn record(&mut self, time: &Timestamp, stream: Stream, line: &[u8], end: End) {
        let start = self.batch.len();
        self.format(time, stream, line, end);
        if self.batch.len() > self.batch_limit && start > 0 {
            let last = self.batch.split_off(start);
            self.flush(time);
            self.batch = last;
        }
        self.records += 1;
    }

    fn format(&mut self, time: &Timestamp, stream: Stream, line: &[u8], end: End) {
        match self.format {
            Format::Cri => cri::write(&mut self.batch, time, stream, line, end),
            Format::JsonFile => json_file::write(&mut self.batch, time, stream, line, end),
        }
    }

    fn flush(&mut self, time: &Timestamp) {
        if self.batch.is_empty() {
            return;
        }
        if self.dropped > 0 {
            self.prepend_marker(time);
        }
        match self.segments.write(&self.batch) {
            Ok(()) => self.dropped = 0,
            Err(e) => self.count_dropped(&e),
        }
        self.records = 0;
        self.batch.clear();
        self.batch.shrink_to(self.batch_limit.min(8 * 1024));
    }

    fn prepend_marker(&mut self, time: &Timestamp) {
        let batch = std::mem::take(&mut self.batch);
        let text = format!("dropped {} lines", self.dropped);
        self.format(time, Stream::Stderr, text.as_bytes(), End::Newline);
        self.batch.extend_from_slice(&batch);
    }

    fn count_dropped(&mut self, error: &io::Error) {
        if self.dropped == 0 {
            diag::warn(format_args!("write {}: {error}; lines are dropped", self.segments.path().display()));
        }
        self.dropped += self.records;
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn limits(dir: &tempfile::TempDir) -> Limits {
        Limits { path: dir.path().join("log"), max_size: 0, max_files: 1 }
    }

    fn text(dir: &tempfile::TempDir) -> String {
        fs::read_to_string(dir.path().join("log")).expect("log")
    }

    #[test]
    fn what_was_lost_on_a_full_disk_is_told_once_it_works_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = Log::new(Format::Cri, limits(&dir));
        let time = Timestamp::of(0, 0);
        log.append_at(time, Stream::Stdout, b"kept\n");
        let good = log.writer.segments.replace_file("/dev/full");
        log.append_at(time, Stream::Stdout, b"a\nb\n");
        log.append_at(time, Stream::Stderr, b"c\n");
        log.writer.segments.restore_file(good);
        log.append_at(time, Stream::Stdout, b"back\n");
        log.append_at(time, Stream::Stdout, b"more\n");
        let lines: Vec<_> =
            text(&dir).lines().map(|l| l["1970-01-01T00:00:00.000000000Z ".len()..].to_owned()).collect();
        assert_eq!(lines, ["stdout F kept", "stderr F dropped 3 lines", "stdout F back", "stdout F more"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_yet_is_tried_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("later/log");
        let mut log = Log::new(Format::Cri, Limits { path: path.clone(), max_size: 0, max_files: 1 });
        log.append(Stream::Stdout, b"lost\n");
        fs::create_dir(dir.path().join("later")).expect("mkdir");
        log.append(Stream::Stdout, b"found\n");
        let text = fs::read_to_string(path).expect("log");
        assert!(text.contains("stderr F dropped 1 lines\n") && text.ends_with("stdout F found\n"), "{text}");
    }

    #[test]
    fn an_unterminated_last_line_is_partial() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = Log::new(Format::Cri, limits(&dir));
        log.append(Stream::Stdout, b"$ ");
        assert_eq!(fs::metadata(dir.path().join("log")).map_or(0, |m| m.len()), 0);
        log.finish(Stream::Stdout);
        assert!(text(&dir).ends_with(" stdout P $ \n"));
    }

    #[test]
    fn no_segment_is_longer_than_its_limit_and_nothing_is_lost_between_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let mut log = Log::new(Format::Cri, Limits { path: path.clone(), max_size: 1000, max_files: 100 });
        let input: String = (0..300).map(|i| format!("line {i}\n")).collect();
        log.append(Stream::Stdout, input.as_bytes());
        let mut lines = Vec::new();
        for n in (0..100).rev() {
            let name = if n == 0 { path.clone() } else { dir.path().join(format!("log.{n}")) };
            let Ok(text) = fs::read_to_string(name) else { continue };
            assert!(text.len() <= 1000, "segment {n} has {} bytes", text.len());
            lines.extend(text.lines().map(|l| format!("{}\n", l.split_once(" F ").expect("full").1)));
        }
        assert_eq!(lines.concat(), input);
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_log(
            parts in prop::collection::vec(prop_oneof![
                prop::collection::vec(any::<u8>(), 0..50),
                Just(b"\n".to_vec()),
                (16_370_usize..16_400).prop_map(|n| vec![b'x'; n]),
                (5_400_usize..5_500).prop_map(|n| "€".repeat(n).into_bytes()),
            ], 0..8),
            step in 1_usize..40_000,
            json in any::<bool>(),
        ) {
            let input = parts.concat();
            let format = if json { Format::JsonFile } else { Format::Cri };
            let logs: Vec<_> = [step, usize::MAX].into_iter().map(|step| {
                let dir = tempfile::tempdir().expect("tempdir");
                let mut log = Log::new(format, limits(&dir));
                for chunk in input.chunks(step) {
                    log.append_at(Timestamp::of(1, 2), Stream::Stdout, chunk);
                }
                let Log { splitters, writer } = &mut log;
                splitters[0].finish(|line, end| writer.record(&Timestamp::of(1, 2), Stream::Stdout, line, end));
                writer.flush(&Timestamp::of(1, 2));
                fs::read(dir.path().join("log")).unwrap_or_default()
            }).collect();
            prop_assert!(logs[0] == logs[1]);
        }
    }
}
