// SPDX-License-Identifier: Apache-2.0
//! One record of a log file, in either format. Damage is never trusted: a
//! record that can't be read is counted by its bytes, and reading goes on
//! after it.

use berth::log::GAP_TAG;
use bytes::Bytes;
use serde::Deserialize;

/// The format of a log file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `<RFC 3339> stdout|stderr F|P <text>`
    Cri,
    /// `{"log":"text\n","stream":"stdout","time":"<RFC 3339>"}`
    Json,
}

/// Where output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line, or a part of a long one; or, instead, what is missing here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Where it came from.
    pub stream: Stream,
    /// The newline included, when it had one. Empty where something is missing.
    pub data: Bytes,
    /// What is missing.
    pub gap: Option<Gap>,
    /// Where the next one begins.
    pub next: Place,
}

/// Something that isn't in a log and should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gap {
    /// Could not be written: its disk was full.
    Dropped {
        /// Lines, or parts of long ones.
        lines: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Can't be read; so many bytes of a file, 0: nobody knows how many.
    Damaged(u64),
    /// So many segments were removed before they were read.
    Rotated(u64),
}

/// A place in a log, which stays what it is when the log is rotated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Number of a segment.
    pub segment: u64,
    /// Bytes of it, uncompressed, before the place.
    pub offset: u64,
}

#[derive(Deserialize)]
struct JsonLine<'a> {
    log: String,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
    gap: Option<JsonGap>,
}

#[derive(Deserialize)]
struct JsonGap {
    lines: u64,
    bytes: u64,
}

impl Format {
    /// Reads a record without its newline.
    #[must_use]
    pub fn parse(self, record: &[u8]) -> Option<Line> {
        match self {
            Self::Cri => cri(record),
            Self::Json => json(record),
        }
    }

    /// Whether a record ends a line, as opposed to being a part of one.
    #[must_use]
    pub fn ends_line(self, record: &[u8]) -> bool {
        match self {
            Self::Cri => record.splitn(4, |b| *b == b' ').nth(2).is_none_or(|tags| first(tags) != b"P"),
            Self::Json => self.parse(record).is_none_or(|line| line.data.ends_with(b"\n")),
        }
    }
}

fn cri(record: &[u8]) -> Option<Line> {
    let mut parts = record.splitn(4, |b| *b == b' ');
    let (time, stream, tags, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let (time, stream) = (timestamp(std::str::from_utf8(time).ok()?)?, of_name(stream)?);
    let more = tags.get(1..).and_then(|rest| rest.strip_prefix(b":"));
    if more == Some(GAP_TAG.as_bytes()) {
        return Some(Line { gap: Some(gap(text)?), ..Line::new(time, stream, Bytes::new()) });
    }
    let mut data = Vec::with_capacity(text.len() + 1);
    data.extend_from_slice(text);
    match first(tags) {
        b"F" => data.push(b'\n'),
        b"P" => {}
        _ => return None,
    }
    Some(Line::new(time, stream, data.into()))
}

/// The first of the tags, which are separated by colons.
fn first(tags: &[u8]) -> &[u8] {
    tags.split(|b| *b == b':').next().unwrap_or_default()
}

/// `N lines, N bytes`.
fn gap(text: &[u8]) -> Option<Gap> {
    let (lines, bytes) = std::str::from_utf8(text).ok()?.split_once(" lines, ")?;
    let bytes = bytes.strip_suffix(" bytes")?;
    Some(Gap::Dropped { lines: lines.parse().ok()?, bytes: bytes.parse().ok()? })
}

fn json(record: &[u8]) -> Option<Line> {
    let line: JsonLine<'_> = serde_json::from_slice(record).ok()?;
    let (time, stream) = (timestamp(&line.time)?, of_name(line.stream.as_bytes())?);
    let gap = line.gap.map(|JsonGap { lines, bytes }| Gap::Dropped { lines, bytes });
    Some(Line { gap, ..Line::new(time, stream, line.log.into_bytes().into()) })
}

impl Line {
    fn new(time: u64, stream: Stream, data: Bytes) -> Self {
        Self { time, stream, data, gap: None, next: Place::default() }
    }

    /// No line, only where the next one begins.
    pub(super) fn nothing(next: Place) -> Self {
        Self { next, ..Self::new(0, Stream::Stdout, Bytes::new()) }
    }

    /// Something is missing at `time`, before `next`.
    pub(super) fn missing(gap: Gap, time: u64, next: Place) -> Self {
        Self { gap: Some(gap), next, ..Self::new(time, Stream::Stderr, Bytes::new()) }
    }
}

fn timestamp(text: &str) -> Option<u64> {
    let time: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

fn of_name(name: &[u8]) -> Option<Stream> {
    match name {
        b"stdout" => Some(Stream::Stdout),
        b"stderr" => Some(Stream::Stderr),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_formats_are_read() {
        let line = Format::Cri.parse(b"2026-11-23T23:09:18.123456789Z stdout F a b").expect("cri");
        assert_eq!((line.stream, &line.data[..]), (Stream::Stdout, &b"a b\n"[..]));
        assert_eq!(line.time % 1_000_000_000, 123_456_789);
        let part = Format::Cri.parse(b"2026-11-23T23:09:18Z stderr P ").expect("part");
        assert_eq!((part.stream, &part.data[..]), (Stream::Stderr, &b""[..]));
        let json = br#"{"log":"x\n","stream":"stderr","time":"2026-11-23T23:09:18.5Z"}"#;
        assert_eq!(&Format::Json.parse(json).expect("json").data[..], b"x\n");
        assert!(!Format::Cri.ends_line(b"2026-11-23T23:09:18Z stderr P x") && Format::Json.ends_line(json));
    }

    #[test]
    fn damage_is_nothing_and_a_gap_is_what_no_text_of_a_container_is() {
        for bad in
            [&b"rubbish"[..], b"", b"2026-11-23T23:09:18Z stdin F x", b"2026-11-23T23:09:18Z stdout X x"]
        {
            assert_eq!(Format::Cri.parse(bad), None);
        }
        let gap = |format: Format, record: &[u8]| format.parse(record).and_then(|line| line.gap);
        let dropped = Some(Gap::Dropped { lines: 3, bytes: 40 });
        assert_eq!(gap(Format::Cri, b"2026-11-23T23:09:18Z stderr F:gap 3 lines, 40 bytes"), dropped);
        assert_eq!(gap(Format::Cri, b"2026-11-23T23:09:18Z stderr F F:gap 3 lines, 40 bytes"), None);
        assert_eq!(gap(Format::Cri, b"2026-11-23T23:09:18Z stderr F:gap x lines, 40 bytes"), None);
        let json =
            br#"{"log":"","stream":"stderr","gap":{"lines":3,"bytes":40},"time":"2026-11-23T23:09:18Z"}"#;
        assert_eq!(gap(Format::Json, json), dropped);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            for format in [Format::Cri, Format::Json] {
                let _ = (format.parse(&bytes), format.ends_line(&bytes));
            }
        }
    }
}
