// SPDX-License-Identifier: Apache-2.0
//! The container's log: lines out of output, one `write` per batch.
//!
//! A log that can't be written neither stops nor blocks the container: what
//! doesn't fit is counted, and one record tells how much when writing works
//! again.

pub mod clock;
pub mod cri;
pub mod dropped;
pub mod json_file;
pub mod replay;
pub mod segments;
pub mod splitter;

use std::{collections::BTreeMap, io, path::PathBuf};

use self::{
    clock::Timestamp,
    dropped::Drops,
    replay::{Mark, Replay, Step},
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

/// Which log is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How a line looks.
    pub format: Format,
    /// Where it is and how large it gets.
    pub limits: Limits,
    /// What each of the JSON lines says besides.
    pub attributes: BTreeMap<String, String>,
    /// The file that says what could not be written; none: nobody is told.
    pub dropped: Option<PathBuf>,
    /// Lines and bytes that were dropped before, of which no record tells yet.
    pub untold: (u64, u64),
}

/// What of it can change while it is written.
#[derive(Debug)]
pub struct Settings {
    /// How large it gets; where it is stays.
    pub limits: Limits,
    /// What each of the JSON lines says besides.
    pub attributes: BTreeMap<String, String>,
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
    /// The attributes as they stand in a record.
    attributes: Vec<u8>,
    segments: Segments,
    batch: Vec<u8>,
    /// Records in `batch`.
    records: u64,
    /// Bytes that the container wrote for them.
    bytes: u64,
    /// Most bytes of a batch: a segment never grows past its limit by more
    /// than one record.
    batch_limit: usize,
    drops: Drops,
}

impl Log {
    /// Opens or continues the log at `limits.path`. A file that can't be
    /// opened is tried again with each batch.
    #[must_use]
    pub fn new(config: LogConfig) -> Self {
        let LogConfig { format, limits, attributes, dropped, untold } = config;
        let writer = Writer {
            format,
            attributes: json_file::attributes(&attributes),
            batch_limit: batch_limit(&limits),
            segments: Segments::new(limits),
            batch: Vec::new(),
            records: 0,
            bytes: 0,
            drops: Drops::new(dropped, untold),
        };
        Self { splitters: [Splitter::default(), Splitter::default()], writer }
    }

    /// Where a client stands that has all that was written so far; `None`
    /// where it can't go on from there.
    #[must_use]
    pub fn mark(&self) -> Option<Mark> {
        let (segment, offset) = self.place();
        let had = Stream::ALL.map(|stream| self.splitters[stream.index()].pending().len());
        (self.writer.format == Format::Cri).then_some(Mark { segment, offset, had })
    }

    /// Where the next record will be: a segment and the bytes before it.
    #[must_use]
    pub fn place(&self) -> (u64, u64) {
        self.writer.segments.end()
    }

    /// Takes what comes next of a replay; at its end, the beginnings of lines.
    pub fn replay(&self, replay: &mut Replay, mut emit: impl FnMut(Stream, &[u8])) -> Step {
        let step = replay.step(self.writer.segments.path(), self.place(), &mut emit);
        if let Step::End(had) = step {
            for stream in Stream::ALL {
                let pending = self.splitters[stream.index()].pending();
                emit(stream, pending.get(had[stream.index()]..).unwrap_or_default());
            }
        }
        step
    }

    /// The beginning of a line that isn't written yet.
    #[must_use]
    pub fn pending(&self, stream: Stream) -> &[u8] {
        self.splitters[stream.index()].pending()
    }

    /// Other settings from now on. Where the log is doesn't change.
    pub fn set(&mut self, settings: Settings) {
        self.writer.batch_limit = batch_limit(&settings.limits);
        self.writer.segments.set_limits(settings.limits);
        self.writer.attributes = json_file::attributes(&settings.attributes);
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

    /// The stream has ended: writes an unterminated last line, and what is
    /// missing before the end.
    pub fn finish(&mut self, stream: Stream) {
        let time = Timestamp::now();
        let Self { splitters, writer } = self;
        splitters[stream.index()].finish(|line, end| writer.record(&time, stream, line, end));
        writer.flush(&time);
        writer.tell(&time);
    }
}

fn batch_limit(limits: &Limits) -> usize {
    match usize::try_from(limits.max_size) {
        Ok(size @ 1..BATCH) => size,
        _ => BATCH,
    }
}

impl Writer {
    fn record(&mut self, time: &Timestamp, stream: Stream, line: &[u8], end: End) {
        let start = self.batch.len();
        match self.format {
            Format::Cri => cri::write(&mut self.batch, time, stream, line, end),
            Format::JsonFile => {
                json_file::write(&mut self.batch, time, stream, line, end, &self.attributes);
            }
        }
        if self.batch.len() > self.batch_limit && start > 0 {
            let last = self.batch.split_off(start);
            self.flush(time);
            self.batch = last;
        }
        self.records += 1;
        self.bytes += line.len() as u64 + u64::from(end == End::Newline);
    }

    fn flush(&mut self, time: &Timestamp) {
        if self.batch.is_empty() {
            return;
        }
        // With what comes after it, in one write: alone it would fit where
        // nothing else does, and be told again and again.
        let gap = self.gap(time);
        let written = match &gap {
            None => self.segments.write(&self.batch),
            Some(gap) => self.segments.write(&[gap, &self.batch[..]].concat()),
        };
        match written {
            Ok(()) if gap.is_some() => self.drops.told(),
            Ok(()) => {}
            Err(e) => self.drop_batch(&e),
        }
        (self.records, self.bytes) = (0, 0);
        self.batch.clear();
        self.batch.shrink_to(self.batch_limit.min(8 * 1024));
    }

    /// Writes down what is missing at the end, if anything is.
    fn tell(&mut self, time: &Timestamp) {
        if let Some(gap) = self.gap(time)
            && self.segments.write(&gap).is_ok()
        {
            self.drops.told();
        }
    }

    /// The record that tells what is missing here.
    fn gap(&self, time: &Timestamp) -> Option<Vec<u8>> {
        let (lines, bytes) = self.drops.untold()?;
        let mut record = Vec::new();
        match self.format {
            Format::Cri => cri::write_gap(&mut record, time, lines, bytes),
            Format::JsonFile => json_file::write_gap(&mut record, time, lines, bytes),
        }
        Some(record)
    }

    fn drop_batch(&mut self, error: &io::Error) {
        if self.drops.untold().is_none() {
            diag::warn(format_args!("write {}: {error}; lines are dropped", self.segments.path().display()));
        }
        self.drops.add(self.records, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use berth::log::Dropped;
    use proptest::prelude::*;

    use super::*;

    fn config(format: Format, path: PathBuf, max_size: u64) -> LogConfig {
        let dropped = path.with_file_name("dropped");
        let limits = Limits { path, max_size, max_files: 100, ..Limits::default() };
        LogConfig { format, limits, attributes: BTreeMap::new(), dropped: Some(dropped), untold: (0, 0) }
    }

    fn open(dir: &tempfile::TempDir) -> Log {
        Log::new(config(Format::Cri, dir.path().join("log"), 0))
    }

    fn text(dir: &tempfile::TempDir) -> String {
        fs::read_to_string(dir.path().join("log")).expect("log")
    }

    #[test]
    fn what_was_lost_on_a_full_disk_is_told_once_it_works_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = open(&dir);
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
        let gap = "stderr F:gap 3 lines, 6 bytes";
        assert_eq!(lines, ["stdout F kept", gap, "stdout F back", "stdout F more"]);
        assert_eq!(dropped(&dir), Dropped { lines: 3, bytes: 6, untold_lines: 0, untold_bytes: 0 });
    }

    fn dropped(dir: &tempfile::TempDir) -> Dropped {
        let text = fs::read(dir.path().join("dropped")).expect("dropped");
        serde_json::from_slice(&text).expect("a record")
    }

    #[test]
    fn what_is_missing_at_the_end_is_told_when_the_stream_ends() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = open(&dir);
        log.append(Stream::Stdout, b"kept\n");
        let good = log.writer.segments.replace_file("/dev/full");
        log.append(Stream::Stdout, b"abc\nno end");
        log.finish(Stream::Stdout);
        assert_eq!(dropped(&dir), Dropped { lines: 2, bytes: 10, untold_lines: 2, untold_bytes: 10 });
        log.writer.segments.restore_file(good);
        log.finish(Stream::Stderr);
        assert!(text(&dir).ends_with("stderr F:gap 2 lines, 10 bytes\n"));
        assert_eq!(dropped(&dir).untold_lines, 0);
    }

    #[test]
    fn a_file_that_cannot_be_opened_yet_is_tried_again() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("later/log");
        let mut log = Log::new(config(Format::Cri, path.clone(), 0));
        log.append(Stream::Stdout, b"lost\n");
        fs::create_dir(dir.path().join("later")).expect("mkdir");
        log.append(Stream::Stdout, b"found\n");
        let text = fs::read_to_string(path).expect("log");
        assert!(
            text.contains("stderr F:gap 1 lines, 5 bytes\n") && text.ends_with("stdout F found\n"),
            "{text}"
        );
    }

    #[test]
    fn an_unterminated_last_line_is_partial() {
        let dir = tempfile::tempdir().expect("tempdir");
        let mut log = open(&dir);
        log.append(Stream::Stdout, b"$ ");
        assert!(!dir.path().join("log").exists());
        log.finish(Stream::Stdout);
        assert!(text(&dir).ends_with(" stdout P $ \n"));
    }

    #[test]
    fn no_segment_is_longer_than_its_limit_and_nothing_is_lost_between_them() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("log");
        let mut log = Log::new(config(Format::Cri, path.clone(), 1000));
        let input: String = (0..300).map(|i| format!("line {i}\n")).collect();
        log.append(Stream::Stdout, input.as_bytes());
        let mut lines = Vec::new();
        for n in berth::log::segments(&path).expect("list").into_keys() {
            let text = fs::read_to_string(berth::log::segment(&path, n)).expect("text");
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
                let mut log = Log::new(config(format, dir.path().join("log"), 0));
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
