// SPDX-License-Identifier: Apache-2.0
//! What a container has printed, from its log, byte for byte: for a client
//! that didn't keep up. The text format alone holds it so.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path};

use berth::log;

use super::splitter::MAX_LINE;
use crate::io::Stream;

/// Bytes of the log that are read at once: no step takes long.
const CHUNK: usize = 64 * 1024;

/// Where the stream of a client stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// A segment.
    pub segment: u64,
    /// Bytes of it.
    pub offset: u64,
    /// Bytes of the next lines of either stream that the client has already.
    pub had: [usize; 2],
}

/// The way from a mark to the end of the log.
#[derive(Debug)]
pub struct Replay {
    mark: Mark,
    file: Option<File>,
}

/// What a step came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more.
    More,
    /// All whole lines were taken; so many bytes of the next ones the client
    /// has already.
    End([usize; 2]),
    /// The log doesn't have it any more.
    Lost,
}

impl Replay {
    /// Begins at `mark`.
    #[must_use]
    pub fn new(mark: Mark) -> Self {
        Self { mark, file: None }
    }

    /// Takes the next lines of the log at `path`, whose end is `end`.
    pub fn step(&mut self, path: &Path, end: (u64, u64), emit: impl FnMut(Stream, &[u8])) -> Step {
        self.read(path, end, emit).unwrap_or(Step::Lost)
    }

    fn read(
        &mut self,
        path: &Path,
        end: (u64, u64),
        mut emit: impl FnMut(Stream, &[u8]),
    ) -> io::Result<Step> {
        let Mark { segment, offset, .. } = self.mark;
        if (segment, offset) == end {
            return Ok(Step::End(self.mark.had));
        }
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(File::open(log::segment(path, segment))?),
        };
        let mut chunk = vec![0; CHUNK];
        let count = file.read_at(&mut chunk, offset)?;
        if count == 0 {
            if segment >= end.0 {
                return Ok(Step::Lost);
            }
            self.mark = Mark { segment: segment + 1, offset: 0, ..self.mark };
            self.file = None;
            return Ok(Step::More);
        }
        // A record is shorter than a chunk.
        const { assert!(CHUNK > MAX_LINE + 100) };
        let Some(last) = chunk[..count].iter().rposition(|b| *b == b'\n') else { return Ok(Step::Lost) };
        for record in chunk[..last].split(|b| *b == b'\n') {
            if let Some((stream, text, whole)) = parse(record) {
                let had = &mut self.mark.had[stream.index()];
                let skip = (*had).min(text.len());
                *had -= skip;
                emit(stream, &text[skip..]);
                if whole {
                    emit(stream, b"\n");
                }
            }
        }
        self.mark.offset += last as u64 + 1;
        Ok(Step::More)
    }
}

/// Stream, text, and whether a newline follows; `None` for a gap.
fn parse(record: &[u8]) -> Option<(Stream, &[u8], bool)> {
    let mut parts = record.splitn(4, |b| *b == b' ');
    let (_, name, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let stream = Stream::ALL.into_iter().find(|stream| stream.name().as_bytes() == name)?;
    match tag {
        b"F" => Some((stream, text, true)),
        b"P" => Some((stream, text, false)),
        _ => None,
    }
}
