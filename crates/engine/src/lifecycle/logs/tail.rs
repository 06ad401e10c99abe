// SPDX-License-Identifier: Apache-2.0
//! Where the last lines of a log begin, found from its end.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead as _, BufReader},
    os::unix::fs::FileExt as _,
};

use super::{line::Format, source::Source};

const CHUNK: u64 = 64 * 1024;

/// Counts lines from the end of a log's segments, youngest segment first.
#[derive(Debug)]
pub(super) struct Tail {
    format: Format,
    wanted: u64,
    seen: u64,
    /// The youngest record of all has been looked at.
    begun: bool,
}

impl Tail {
    pub(super) fn new(format: Format, wanted: u64) -> Self {
        Self { format, wanted, seen: 0, begun: false }
    }

    /// Looks at one segment; the offset at which the wanted lines begin when
    /// it lies in this one.
    pub(super) fn start_in(&mut self, source: Source) -> io::Result<Option<u64>> {
        match source {
            Source::Plain(file) => self.start_in_file(&file),
            Source::Compressed(_) => self.start_in_stream(source),
        }
    }

    /// From the end of the file.
    fn start_in_file(&mut self, file: &File) -> io::Result<Option<u64>> {
        let length = file.metadata()?.len();
        let mut base = length;
        // The bytes from `base` on, up to the record looked at last.
        let mut bytes: Vec<u8> = Vec::new();
        loop {
            while let Some(newline) = last_newline(&bytes) {
                let start = newline + 1;
                if let Some(end) = self.count(&bytes[start..], base + start as u64) {
                    return Ok(Some(end));
                }
                bytes.truncate(start);
            }
            if base == 0 {
                return Ok(self.count(&bytes, 0));
            }
            let step = CHUNK.min(base);
            base -= step;
            let mut chunk = vec![0; usize::try_from(step).map_err(io::Error::other)?];
            file.read_exact_at(&mut chunk, base)?;
            chunk.extend_from_slice(&bytes);
            bytes = chunk;
        }
    }

    /// What can be read in one direction only: in one pass, which remembers as
    /// many places as there are lines wanted.
    fn start_in_stream(&mut self, source: Source) -> io::Result<Option<u64>> {
        let left = self.wanted - self.seen;
        // Behind each record that ends a line; at most one more than is left.
        let mut ends: VecDeque<u64> = VecDeque::new();
        let mut lines = 0_u64;
        let mut reader = BufReader::new(source);
        let (mut offset, mut record, mut open) = (0_u64, Vec::new(), false);
        loop {
            record.clear();
            // A damaged one ends early: what can be read counts.
            let read = reader.read_until(b'\n', &mut record).unwrap_or(0);
            if read == 0 {
                break;
            }
            offset += read as u64;
            let Some(text) = record.strip_suffix(b"\n") else { break };
            open = !self.format.ends_line(text);
            if !open {
                lines += 1;
                ends.push_back(offset);
                if ends.len() as u64 > left + 1 {
                    ends.pop_front();
                }
            }
        }
        if open && !self.begun {
            // The last line of all has no end.
            lines += 1;
            ends.push_back(offset);
        }
        self.begun |= offset > 0;
        if lines <= left {
            self.seen += lines;
            return Ok(None);
        }
        self.seen = self.wanted;
        let back = usize::try_from(left).map_err(io::Error::other)?;
        Ok(ends.len().checked_sub(back + 1).and_then(|at| ends.get(at)).copied())
    }

    /// Counts a record (with its newline) at `at`; the offset behind it when
    /// it is the first one too many.
    fn count(&mut self, record: &[u8], at: u64) -> Option<u64> {
        let Some(text) = record.strip_suffix(b"\n") else {
            // Nothing, or a record that is being written.
            return None;
        };
        let ends_line = self.format.ends_line(text);
        if ends_line || !self.begun {
            self.seen += 1;
        }
        self.begun = true;
        (self.seen > self.wanted).then_some(at + record.len() as u64)
    }
}

/// The newline before the last record of `bytes`.
fn last_newline(bytes: &[u8]) -> Option<usize> {
    let before_end = bytes.len().checked_sub(1)?;
    bytes[..before_end].iter().rposition(|b| *b == b'\n')
}
