// SPDX-License-Identifier: Apache-2.0
//! Reads a log's segments in order, over rotations, from where it left off,
//! and says what is missing. Everything here blocks.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use berth::log;

use super::{
    line::{Format, Gap, Line, Place},
    source::Source,
    tail::Tail,
};

/// Bytes read at once.
const CHUNK: usize = 64 * 1024;

/// Longest record: 16 KiB of a line, escaped six-fold in JSON, and its frame,
/// with attributes. What is longer isn't a record.
const MAX_RECORD: usize = 1024 * 1024;

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The oldest record.
    Start,
    /// So many lines from the end.
    Tail(u64),
    /// There, where somebody has left off.
    Place(Place),
}

/// A position in a log.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    format: Format,
    current: Option<Source>,
    /// Of what was read and taken.
    place: Place,
    /// Read, and not yet a whole record.
    buffer: Vec<u8>,
    /// Bytes that were no record, since the last one that was.
    damaged: u64,
    /// In the middle of something that is too long for a record.
    overlong: bool,
    /// When the last record was written.
    time: u64,
    /// What came of the current one before this is read first.
    failed: Option<io::Error>,
    /// The segment that it is to read the rest of is gone.
    lost: bool,
}

impl Reader {
    /// Opens the log. A log without files is empty.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn open(path: &Path, format: Format, from: From) -> io::Result<Self> {
        let mut reader = Self {
            path: path.to_owned(),
            format,
            current: None,
            place: Place::default(),
            buffer: Vec::new(),
            damaged: 0,
            overlong: false,
            time: 0,
            failed: None,
            lost: false,
        };
        match from {
            From::Start => {}
            From::Tail(wanted) => reader.seek_tail(wanted)?,
            From::Place(place) => reader.seek(place)?,
        }
        Ok(reader)
    }

    fn seek_tail(&mut self, wanted: u64) -> io::Result<()> {
        let mut tail = Tail::new(self.format, wanted);
        for number in log::segments(&self.path)?.into_keys().rev() {
            let Some(source) = Source::open(&self.path, number)? else { continue };
            if let Some(offset) = tail.start_in(source)? {
                return self.seek(Place { segment: number, offset });
            }
        }
        Ok(())
    }

    /// Where that segment is gone, the next one is gone on with, and what is
    /// missing is told.
    fn seek(&mut self, mut place: Place) -> io::Result<()> {
        if place == Place::default() {
            return Ok(());
        }
        if place.segment == 0 && !log::segments(&self.path)?.contains_key(&0) {
            // It has a number now.
            place.segment = 1;
        }
        self.place = place;
        self.current = Source::open(&self.path, place.segment)?;
        if let Some(source) = &mut self.current {
            // Shorter than it was: a power cut took what had been read before.
            self.place.offset = source.skip(place.offset).unwrap_or(place.offset);
        } else {
            self.lost = true;
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place
    }

    /// When the last record was written; 0: nothing was read.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.time
    }

    /// The next lines; none when there are no more for now.
    ///
    /// # Errors
    /// Those of the file system. Damage is no error.
    pub fn next_batch(&mut self) -> io::Result<Vec<Line>> {
        loop {
            let mut lines = Vec::new();
            let read = self.fill();
            self.take_lines(&mut lines);
            let over = match read {
                Ok(0) => !self.advance(&mut lines)?,
                Ok(_) => false,
                // What is compressed and can't be unpacked any further.
                Err(e) if matches!(self.current, Some(Source::Compressed(_))) => {
                    tracing::debug!(error = %e, "a compressed segment of a log is damaged");
                    (self.buffer, self.damaged) = (Vec::new(), 0);
                    self.current = None;
                    lines.push(Line::missing(Gap::Damaged(0), self.time, self.place));
                    !self.advance(&mut lines)?
                }
                Err(e) => return Err(e),
            };
            if over || !lines.is_empty() {
                return Ok(lines);
            }
        }
    }

    fn fill(&mut self) -> io::Result<usize> {
        let Some(current) = &mut self.current else { return Ok(0) };
        if self.buffer.len() > MAX_RECORD {
            self.damaged += self.buffer.len() as u64;
            self.place.offset += self.buffer.len() as u64;
            self.buffer.clear();
            self.overlong = true;
        }
        if let Some(e) = self.failed.take() {
            return Err(e);
        }
        let before = self.buffer.len();
        match current.take(CHUNK as u64).read_to_end(&mut self.buffer) {
            Err(e) if self.buffer.len() > before => {
                self.failed = Some(e);
                Ok(self.buffer.len() - before)
            }
            read => read,
        }
    }

    fn take_lines(&mut self, lines: &mut Vec<Line>) {
        let mut start = 0;
        while let Some(length) = self.buffer[start..].iter().position(|b| *b == b'\n') {
            let record = &self.buffer[start..start + length];
            start += length + 1;
            let next = Place { offset: self.place.offset + start as u64, ..self.place };
            // A hole that a power cut left may stand before a good record.
            let hole = record.iter().take_while(|b| **b == 0).count();
            let line = self.format.parse(&record[hole..]).filter(|_| !self.overlong);
            self.overlong = false;
            let Some(line) = line else {
                self.damaged += record.len() as u64 + 1;
                continue;
            };
            self.damaged += hole as u64;
            if self.damaged > 0 {
                let behind = next.offset - (record.len() - hole) as u64 - 1;
                let next = Place { offset: behind, ..next };
                lines.push(Line::missing(Gap::Damaged(self.damaged), line.time, next));
                self.damaged = 0;
            }
            self.time = line.time;
            lines.push(Line { next, ..line });
        }
        self.buffer.drain(..start);
        self.place.offset += start as u64;
    }

    /// Goes on to the next segment; false when the current one is the newest.
    fn advance(&mut self, lines: &mut Vec<Line>) -> io::Result<bool> {
        let Place { segment, .. } = self.place;
        let unread = self.current.is_none() && self.place == Place::default();
        let is_next = |number: &u64| *number > segment || (unread && *number == segment);
        let later = log::segments(&self.path)?.into_keys().find(is_next);
        let Some(next) = later else {
            if let Some(current) = &mut self.current
                && current.was_cut(self.place.offset + self.buffer.len() as u64)?
            {
                (self.buffer, self.place.offset) = (Vec::new(), 0);
                return Ok(true);
            }
            return Ok(false);
        };
        if (segment, next) == (0, 1) && self.current.is_some() {
            // The same one, which has a number now.
            self.place.segment = 1;
            return Ok(true);
        }
        // It was written to its end before the next one was begun, and perhaps
        // after its end was seen here.
        if matches!(self.current, Some(Source::Plain(_))) && self.fill()? > 0 {
            return Ok(true);
        }
        self.damaged += self.buffer.len() as u64;
        self.place.offset += self.buffer.len() as u64;
        if self.damaged > 0 {
            lines.push(Line::missing(Gap::Damaged(self.damaged), self.time, self.place));
        }
        (self.buffer, self.damaged, self.overlong) = (Vec::new(), 0, false);
        let opened = Source::open(&self.path, next)?;
        // From the beginning of a log nothing is missing: old segments go.
        let begun = self.place != Place::default();
        let beyond = (next - segment).saturating_sub(u64::from(opened.is_some()));
        let skipped = beyond + u64::from(self.lost);
        if begun && skipped > 0 {
            let place = Place { segment: next, offset: 0 };
            lines.push(Line::missing(Gap::Rotated(skipped), self.time, place));
        }
        self.place = Place { segment: next, offset: 0 };
        (self.current, self.lost, self.failed) = (opened, false, None);
        Ok(true)
    }

    /// What is damaged at the very end; with `closed`, where nothing is added
    /// any more, a record that has no end is.
    pub fn rest(&mut self, closed: bool) -> Option<Line> {
        if closed {
            let torn = std::mem::take(&mut self.buffer).len() as u64;
            (self.damaged, self.place.offset) = (self.damaged + torn, self.place.offset + torn);
        }
        let damaged = std::mem::take(&mut self.damaged);
        (damaged > 0).then(|| Line::missing(Gap::Damaged(damaged), self.time, self.place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        io::Write as _,
        sync::atomic::{AtomicU64, Ordering},
    };

    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;

    struct Log {
        _dir: tempfile::TempDir,
        path: PathBuf,
        number: AtomicU64,
    }

    impl Log {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("tempdir");
            let path = dir.path().join("container.log");
            Self { _dir: dir, path, number: AtomicU64::new(1) }
        }

        fn number(&self) -> u64 {
            self.number.load(Ordering::Relaxed)
        }

        fn raw(&self, bytes: &[u8]) {
            let path = log::segment(&self.path, self.number());
            let mut file = fs::OpenOptions::new().create(true).append(true).open(path).expect("open");
            file.write_all(bytes).expect("write");
        }

        fn write(&self, text: &str) {
            for part in text.split_inclusive('\n') {
                let (tag, body) = part.strip_suffix('\n').map_or(("P", part), |body| ("F", body));
                self.raw(format!("2026-11-23T23:09:18Z stdout {tag} {body}\n").as_bytes());
            }
        }

        fn rotate(&self) {
            self.number.fetch_add(1, Ordering::Relaxed);
        }

        fn remove(&self, number: u64) {
            fs::remove_file(log::segment(&self.path, number)).expect("remove");
        }

        /// Compresses segment `number`, with `change` made to the result.
        fn compress(&self, number: u64, change: impl FnOnce(&mut Vec<u8>)) {
            let text = fs::read(log::segment(&self.path, number)).expect("read");
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(&text).expect("compress");
            let mut bytes = encoder.finish().expect("compress");
            change(&mut bytes);
            fs::write(log::compressed(&self.path, number), bytes).expect("write");
            self.remove(number);
        }

        fn open(&self, from: From) -> Reader {
            Reader::open(&self.path, Format::Cri, from).expect("open")
        }

        fn tail(&self, lines: u64) -> String {
            drain(&mut self.open(From::Tail(lines)))
        }
    }

    fn batch(reader: &mut Reader) -> Vec<Line> {
        let mut all = Vec::new();
        loop {
            let lines = reader.next_batch().expect("read");
            if lines.is_empty() {
                all.extend(reader.rest(false));
                return all;
            }
            all.extend(lines);
        }
    }

    /// The text, with gaps as `<...>`.
    fn drain(reader: &mut Reader) -> String {
        let text = |line: &Line| match line.gap {
            None => String::from_utf8_lossy(&line.data).into_owned(),
            Some(Gap::Dropped { lines, bytes }) => format!("<dropped {lines} {bytes}>"),
            Some(Gap::Damaged(bytes)) => format!("<damaged {bytes}>"),
            Some(Gap::Rotated(segments)) => format!("<rotated {segments}>"),
        };
        batch(reader).iter().map(text).collect()
    }

    #[test]
    fn segments_are_read_oldest_first() {
        let log = Log::new();
        assert_eq!(drain(&mut log.open(From::Start)), "");
        log.write("a\nb\n");
        log.rotate();
        log.write("c\n");
        log.rotate();
        log.write("d\npart");
        assert_eq!(drain(&mut log.open(From::Start)), "a\nb\nc\nd\npart");
        log.compress(1, |_| ());
        log.compress(2, |_| ());
        assert_eq!(drain(&mut log.open(From::Start)), "a\nb\nc\nd\npart");
        // What is long gone isn't missing.
        fs::remove_file(log::compressed(&log.path, 1)).expect("remove");
        assert_eq!(drain(&mut log.open(From::Start)), "c\nd\npart");
    }

    #[test]
    fn a_log_without_numbers_is_read_too() {
        let log = Log::new();
        log.write("a\nb\nc\n");
        fs::rename(log::segment(&log.path, 1), &log.path).expect("rename");
        let mut reader = log.open(From::Start);
        assert_eq!((drain(&mut reader), log.tail(2)), ("a\nb\nc\n".to_owned(), "b\nc\n".to_owned()));
        // A new shim goes on with it.
        fs::hard_link(&log.path, log::segment(&log.path, 1)).expect("link");
        let places: Vec<_> = batch(&mut log.open(From::Start)).iter().map(|line| line.next.segment).collect();
        assert_eq!(places, [1, 1, 1]);
        log.write("d\n");
        assert_eq!(drain(&mut reader), "d\n");
        let place = Place { segment: 0, offset: reader.place().offset };
        log.write("e\n");
        assert_eq!(drain(&mut log.open(From::Place(place))), "e\n");
    }

    #[test]
    fn a_follower_goes_on_over_rotations_and_is_told_what_it_missed() {
        let log = Log::new();
        let mut reader = log.open(From::Start);
        log.write("1\n");
        assert_eq!(drain(&mut reader), "1\n", "a log that began after it was opened");
        log.write("2\n");
        log.rotate();
        log.write("3\n");
        log.rotate();
        log.write("4\n");
        log.compress(2, |_| ());
        assert_eq!(drain(&mut reader), "2\n3\n4\n");
        assert_eq!(drain(&mut reader), "");
        log.write("5\n");
        assert_eq!(drain(&mut reader), "5\n");
        for line in ["6\n", "7\n", "8\n"] {
            log.rotate();
            log.write(line);
        }
        log.remove(4);
        log.remove(5);
        assert_eq!(drain(&mut reader), "<rotated 2>8\n");
    }

    #[test]
    fn any_place_can_be_gone_on_from_whatever_was_done_to_the_log_since() {
        let log = Log::new();
        for n in 0..30 {
            log.write(&format!("{n}\n"));
            if n % 7 == 6 {
                log.rotate();
            }
        }
        let lines = batch(&mut log.open(From::Start));
        let text = |lines: &[Line]| lines.iter().flat_map(|l| l.data.to_vec()).collect::<Vec<_>>();
        let check = |log: &Log| {
            for (n, line) in lines.iter().enumerate() {
                let rest = drain(&mut log.open(From::Place(line.next)));
                assert_eq!(rest.as_bytes(), text(&lines[n + 1..]), "after line {n}");
            }
        };
        check(&log);
        log.compress(1, |_| ());
        log.compress(2, |_| ());
        check(&log);
        fs::remove_file(log::compressed(&log.path, 1)).expect("remove");
        assert!(drain(&mut log.open(From::Place(lines[0].next))).starts_with("<rotated 1>7\n"));
        fs::remove_file(log::compressed(&log.path, 2)).expect("remove");
        assert!(drain(&mut log.open(From::Place(lines[0].next))).starts_with("<rotated 2>14\n"));
        // One that never was there, or isn't any more after a power cut.
        let far = Place { segment: log.number(), offset: 1 << 40 };
        assert_eq!(drain(&mut log.open(From::Place(far))), "");
        assert_eq!(drain(&mut log.open(From::Place(Place { segment: u64::MAX, offset: 7 }))), "");
    }

    #[test]
    fn a_log_that_is_cut_short_by_hand_is_followed_from_its_new_start() {
        let log = Log::new();
        let mut reader = log.open(From::Start);
        log.write("1\n2\n3\n");
        assert_eq!(drain(&mut reader), "1\n2\n3\n");
        fs::write(log::segment(&log.path, 1), "").expect("cut");
        assert_eq!(drain(&mut reader), "");
        log.write("4\n");
        assert_eq!(drain(&mut reader), "4\n");
    }

    #[test]
    fn a_record_is_not_seen_before_it_is_whole() {
        let log = Log::new();
        log.write("1\n");
        log.raw(b"2026-11-23T23:09:18Z stdout F ha");
        let mut reader = log.open(From::Start);
        assert_eq!(drain(&mut reader), "1\n");
        log.raw(b"lf\n");
        assert_eq!(drain(&mut reader), "half\n");
        log.raw(b"2026-11-23T23:09:18Z stdout F to");
        assert_eq!(drain(&mut reader), "");
        assert_eq!(reader.rest(true).and_then(|line| line.gap), Some(Gap::Damaged(32)));
        assert_eq!(reader.rest(true), None, "said once");
    }

    #[test]
    fn a_tail_counts_lines_over_segments_and_not_their_parts() {
        let log = Log::new();
        log.write("a\nb\n");
        log.rotate();
        // A long line in two parts.
        log.write("c");
        log.write("c\nd\n");
        let check = || {
            for (wanted, expected) in [
                (0, ""),
                (1, "d\n"),
                (2, "cc\nd\n"),
                (3, "b\ncc\nd\n"),
                (4, "a\nb\ncc\nd\n"),
                (9, "a\nb\ncc\nd\n"),
            ] {
                assert_eq!(log.tail(wanted), expected, "{wanted}");
            }
        };
        check();
        log.compress(1, |_| ());
        check();
        log.compress(2, |_| ());
        check();
    }

    #[test]
    fn the_last_line_of_all_counts_without_its_end() {
        for compress in [false, true] {
            let log = Log::new();
            log.write("a\nb\nc");
            if compress {
                log.compress(1, |_| ());
            }
            assert_eq!([log.tail(1), log.tail(2)], ["c", "b\nc"].map(str::to_owned));
        }
    }

    #[test]
    fn a_tail_is_found_beyond_the_first_chunk() {
        let log = Log::new();
        let lines: Vec<_> = (0..5000).map(|n| format!("line {n} {}\n", "x".repeat(n % 50))).collect();
        log.write(&lines.concat());
        assert_eq!(log.tail(4000), lines[1000..].concat());
        log.compress(1, |_| ());
        assert_eq!(log.tail(4000), lines[1000..].concat());
    }

    #[test]
    fn damage_is_told_and_the_rest_is_read() {
        let log = Log::new();
        log.write("a\n");
        log.raw(&vec![b'x'; MAX_RECORD * 2]);
        log.raw(b"\n\0\0\0");
        log.write("b\n");
        log.raw(b"torn");
        log.rotate();
        log.write("c\n");
        log.raw(b"2026-11-23T23:09:18Z stderr F:gap 3 lines, 40 bytes\n");
        log.raw(b"rubbish\n");
        let huge = MAX_RECORD * 2 + 4;
        let expected = format!("a\n<damaged {huge}>b\n<damaged 4>c\n<dropped 3 40><damaged 8>");
        assert_eq!(drain(&mut log.open(From::Start)), expected);
        assert_eq!(log.tail(3), "<damaged 4>c\n<dropped 3 40><damaged 8>");
    }

    #[test]
    fn a_compressed_segment_that_is_damaged_is_read_as_far_as_can_be() {
        let whole: String = (0..20_000).map(|n| format!("{n}\n")).collect();
        for cut in [0, 5, 20_000] {
            let log = Log::new();
            log.write(&whole);
            log.rotate();
            log.write("next\n");
            log.compress(1, |bytes| bytes.truncate(cut));
            let seen = drain(&mut log.open(From::Start));
            let rest = seen.strip_suffix("<damaged 0>next\n").unwrap_or_else(|| panic!("{cut}: no end"));
            assert!(whole.starts_with(rest) && (cut < 100 || rest.len() > 1000), "{cut}: {}", rest.len());
            assert!(log.tail(1).ends_with("next\n"));
        }
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        let line = |stream: &str, tag: &str, text: &str| {
            format!("2026-11-23T23:09:18.5Z {stream} {tag} {text}\n").into_bytes()
        };
        prop_oneof![
            6 => "[a-z]{0,20}".prop_map(move |text| line("stdout", "F", &text)),
            2 => "[a-z]{0,20}".prop_map(move |text| line("stderr", "P", &text)),
            1 => Just(line("stderr", "F:gap", "3 lines, 40 bytes")),
            1 => prop::collection::vec(any::<u8>(), 0..30),
            1 => (0_usize..40).prop_map(|n| vec![0; n]),
        ]
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_in_one_order_from_anywhere(
            segments in prop::collection::vec(
                (prop::collection::vec(piece(), 0..12), any::<bool>(), prop::option::of(0_usize..200)), 0..4),
            place in 0_usize..20,
            tail in 0_u64..20,
        ) {
            let log = Log::new();
            for (pieces, compress, cut) in &segments {
                log.raw(&pieces.concat());
                if *compress {
                    log.compress(log.number(), |bytes| bytes.truncate(cut.unwrap_or(usize::MAX)));
                }
                log.rotate();
            }
            let is_line = |line: &Line| line.gap.is_none();
            let all = batch(&mut log.open(From::Start));
            prop_assert!(all.is_sorted_by_key(|line| line.next));
            let lines: Vec<_> = all.into_iter().filter(is_line).collect();
            if let Some(line) = lines.get(place) {
                let rest = batch(&mut log.open(From::Place(line.next)));
                let rest: Vec<_> = rest.into_iter().filter(is_line).collect();
                prop_assert_eq!(&rest[..], &lines[place + 1..]);
            }
            let end = batch(&mut log.open(From::Tail(tail)));
            let end: Vec<_> = end.into_iter().filter(is_line).collect();
            prop_assert!(lines.ends_with(&end));
        }
    }
}
