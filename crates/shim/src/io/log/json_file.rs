// SPDX-License-Identifier: Apache-2.0
//! Docker's json-file format: one JSON object per line,
//! `{"log":"text\n","stream":"stdout","time":"…"}`. A part of a line has no
//! newline in its text.

use std::collections::BTreeMap;

use super::{clock::Timestamp, splitter::End};
use crate::io::Stream;

/// Appends one record; `attributes` as [`attributes`] makes them.
pub fn write(out: &mut Vec<u8>, time: &Timestamp, stream: Stream, line: &[u8], end: End, attributes: &[u8]) {
    out.extend_from_slice(b"{\"log\":\"");
    escape(out, line);
    if end == End::Newline {
        out.extend_from_slice(b"\\n");
    }
    out.extend_from_slice(b"\",\"stream\":\"");
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(b"\",");
    out.extend_from_slice(attributes);
    out.extend_from_slice(b"\"time\":\"");
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// `"attrs":{…},`, as it stands in every record; empty without any.
#[must_use]
pub fn attributes(map: &BTreeMap<String, String>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in map {
        out.extend_from_slice(if out.is_empty() { b"\"attrs\":{\"" } else { b",\"" });
        escape(&mut out, name.as_bytes());
        out.extend_from_slice(b"\":\"");
        escape(&mut out, value.as_bytes());
        out.push(b'"');
    }
    if !out.is_empty() {
        out.extend_from_slice(b"},");
    }
    out
}

/// Appends a record that says what could not be written: an empty text, and
/// numbers where a container can't put any.
pub fn write_gap(out: &mut Vec<u8>, time: &Timestamp, lines: u64, bytes: u64) {
    out.extend_from_slice(
        format!(
            "{{\"log\":\"\",\"stream\":\"stderr\",\"gap\":{{\"lines\":{lines},\"bytes\":{bytes}}},\"time\":\""
        )
        .as_bytes(),
    );
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(b"\"}\n");
}

/// Appends `bytes` as the inside of a JSON string; what isn't UTF-8 becomes
/// U+FFFD.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        for &byte in chunk.valid().as_bytes() {
            escape_ascii(out, byte);
        }
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// RFC 8259, section 7: quotation mark, reverse solidus and control characters
/// have to be escaped.
fn escape_ascii(out: &mut Vec<u8>, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    match byte {
        b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        0..0x20 => {
            out.extend_from_slice(b"\\u00");
            out.extend_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        _ => out.push(byte),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn parse(line: &[u8], end: End) -> Value {
        let mut out = Vec::new();
        write(&mut out, &Timestamp::of(0, 0), Stream::Stderr, line, end, b"");
        assert_eq!(out.iter().filter(|&&b| b == b'\n').count(), 1, "one line");
        serde_json::from_slice(&out).expect("JSON")
    }

    #[test]
    fn a_record_has_three_fields() {
        let value = parse(b"a \"b\" \\ \x1b[0m", End::Newline);
        assert_eq!(value["log"], "a \"b\" \\ \u{1b}[0m\n");
        assert_eq!(value["stream"], "stderr");
        assert_eq!(value["time"], "1970-01-01T00:00:00.000000000Z");
        assert_eq!(value.as_object().map(serde_json::Map::len), Some(3));
    }

    #[test]
    fn attributes_and_gaps_are_docker_readable() {
        let map = [("a\"b", "1"), ("c", "\u{1}")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        let mut out = Vec::new();
        write(&mut out, &Timestamp::of(0, 0), Stream::Stdout, b"x", End::Newline, &attributes(&map));
        let value: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["attrs"], serde_json::json!({"a\"b": "1", "c": "\u{1}"}));
        let mut out = Vec::new();
        write_gap(&mut out, &Timestamp::of(0, 0), 3, 40);
        let value: Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!((value["log"].as_str(), value["gap"]["bytes"].as_u64()), (Some(""), Some(40)));
    }

    proptest! {
        #[test]
        fn text_comes_back_as_it_was(text in "\\PC{0,40}[\u{0}-\u{1f}\"\\\\€😀]{0,10}") {
            let value = parse(text.as_bytes(), End::Cut);
            prop_assert_eq!(value["log"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn any_bytes_are_valid_json(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let text = String::from_utf8_lossy(&bytes).into_owned();
            let value = parse(&bytes, End::Cut);
            prop_assert_eq!(value["log"].as_str(), Some(text.as_str()));
        }
    }
}
