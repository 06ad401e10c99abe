// SPDX-License-Identifier: Apache-2.0
//! The bytes of one segment, compressed or not, from a place in it on.
//! Everything here blocks.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use berth::log;
use flate2::bufread::MultiGzDecoder;

/// An open segment. It stays what it is when its name goes.
#[derive(Debug)]
pub(super) enum Source {
    /// Perhaps still being written.
    Plain(File),
    /// Closed for good.
    Compressed(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Source {
    /// Opens segment `number` of the log at `path`; `None` when it isn't there.
    pub(super) fn open(path: &Path, number: u64) -> io::Result<Option<Self>> {
        // In this order: the one is there before the other goes.
        if let Some(file) = there(File::open(log::segment(path, number)))? {
            return Ok(Some(Self::Plain(file)));
        }
        let file = there(File::open(log::compressed(path, number)))?;
        Ok(file.map(|file| Self::Compressed(Box::new(MultiGzDecoder::new(BufReader::new(file))))))
    }

    /// Goes `offset` bytes forward from the start, or to the end where there
    /// are fewer; how far it came.
    pub(super) fn skip(&mut self, offset: u64) -> io::Result<u64> {
        match self {
            Self::Plain(file) => file.seek(SeekFrom::Start(offset.min(file.metadata()?.len()))),
            Self::Compressed(decoder) => io::copy(&mut decoder.take(offset), &mut io::sink()),
        }
    }

    /// Whether it was cut to less than `offset` bytes, by somebody who wanted
    /// their space: what is written from then on begins at its start.
    pub(super) fn was_cut(&mut self, offset: u64) -> io::Result<bool> {
        let Self::Plain(file) = self else { return Ok(false) };
        let cut = file.metadata()?.len() < offset;
        if cut {
            file.rewind()?;
        }
        Ok(cut)
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.read(buffer),
            Self::Compressed(decoder) => decoder.read(buffer),
        }
    }
}

fn there(opened: io::Result<File>) -> io::Result<Option<File>> {
    match opened {
        Ok(file) => Ok(Some(file)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}
