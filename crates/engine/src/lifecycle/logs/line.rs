// SPDX-License-Identifier: Apache-2.0
//! One record of a log file, in either format. Damage is skipped, never
//! trusted: a line that can't be read is left out, and reading goes on after
//! it.

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

/// A line, or a part of a long one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Nanoseconds since the Unix epoch.
    pub time: u64,
    /// Where it came from.
    pub stream: Stream,
    /// The newline included, when it had one.
    pub data: Bytes,
}

#[derive(Deserialize)]
struct JsonLine<'a> {
    log: String,
    #[serde(borrow)]
    stream: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    time: std::borrow::Cow<'a, str>,
}

impl Format {
    /// Reads a record without its newline.
    #[must_use]
    pub fn parse(self, record: &[u8]) -> Option<Line> {
        // A hole that a power cut left may stand before a good record.
        let holes = record.iter().take_while(|b| **b == 0).count();
        let record = &record[holes..];
        match self {
            Self::Cri => cri(record),
            Self::Json => json(record),
        }
    }

    /// Whether a record ends a line, as opposed to being a part of one.
    #[must_use]
    pub fn ends_line(self, record: &[u8]) -> bool {
        match self {
            Self::Cri => record.splitn(4, |b| *b == b' ').nth(2) != Some(b"P"),
            Self::Json => self.parse(record).is_none_or(|line| line.data.ends_with(b"\n")),
        }
    }
}

fn cri(record: &[u8]) -> Option<Line> {
    let mut parts = record.splitn(4, |b| *b == b' ');
    let (time, stream, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let mut data = Vec::with_capacity(text.len() + 1);
    data.extend_from_slice(text);
    match tag {
        b"F" => data.push(b'\n'),
        b"P" => {}
        _ => return None,
    }
    let (time, stream) = (timestamp(std::str::from_utf8(time).ok()?)?, of_name(stream)?);
    Some(Line { time, stream, data: data.into() })
}

fn json(record: &[u8]) -> Option<Line> {
    let line: JsonLine<'_> = serde_json::from_slice(record).ok()?;
    Some(Line {
        time: timestamp(&line.time)?,
        stream: of_name(line.stream.as_bytes())?,
        data: line.log.into_bytes().into(),
    })
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
    fn damage_is_left_out_and_a_hole_before_a_record_is_not_in_its_way() {
        for bad in
            [&b"rubbish"[..], b"", b"2026-11-23T23:09:18Z stdin F x", b"2026-11-23T23:09:18Z stdout X x"]
        {
            assert_eq!(Format::Cri.parse(bad), None);
        }
        assert!(Format::Cri.parse(b"\0\0\x002026-11-23T23:09:18Z stdout F x").is_some());
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
