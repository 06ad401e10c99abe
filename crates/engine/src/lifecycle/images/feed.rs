// SPDX-License-Identifier: Apache-2.0
//! The compressed bytes of a layer on their way to the unpacker: from the
//! network or an archive, and into the content store as they pass.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt as _,
    sync::Arc,
};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

use crate::{
    error::{Error, Result},
    store::content::Ingest,
};

/// Part of a file, read without moving its position.
#[derive(Debug, Clone)]
pub(super) struct Section {
    pub(super) file: Arc<File>,
    pub(super) offset: u64,
    pub(super) length: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.length).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.offset)?;
        self.offset += read as u64;
        self.length -= read as u64;
        Ok(read)
    }
}

/// Where the bytes come from.
#[derive(Debug)]
pub(super) enum Input {
    Network(mpsc::Receiver<Bytes>),
    Archive(Section),
}

/// Reads a layer and stores it at once.
#[derive(Debug)]
pub(super) struct Feed {
    /// What an earlier attempt left, to be read first.
    kept: Option<File>,
    input: Input,
    chunk: Bytes,
    /// What of a chunk isn't in the store yet: nothing, but after an error.
    unstored: Bytes,
    ingest: Ingest,
    size: u64,
    /// The input ended before the layer did.
    broken: bool,
}

impl Feed {
    /// Of `size` bytes in all.
    pub(super) fn new(input: Input, mut ingest: Ingest, size: u64) -> Result<Self> {
        let resumable = matches!(input, Input::Network(_)) && ingest.offset() <= size;
        if !resumable {
            ingest.restart()?;
        }
        let kept = (ingest.offset() > 0).then(|| ingest.kept()).transpose()?;
        let (chunk, unstored) = (Bytes::new(), Bytes::new());
        Ok(Self { kept, input, chunk, unstored, ingest, size, broken: false })
    }

    /// Reads to the end and makes what was read a blob.
    pub(super) fn finish(mut self) -> Result<()> {
        let mut rest = vec![0_u8; 64 << 10];
        loop {
            match self.read(&mut rest) {
                Ok(0) => return self.ingest.commit(self.size),
                Ok(_) => {}
                // The digest is what counts now; it will say what is missing.
                Err(_) if self.broken => return self.ingest.commit(self.size),
                Err(e) => {
                    self.keep();
                    return Err(Error::io("read layer", e));
                }
            }
        }
    }

    /// The host failed, not the layer: what has come is kept to continue, also
    /// what is on its way here. As much of it as can be stored now, that is.
    pub(super) fn keep(mut self) {
        if let Input::Network(network) = &mut self.input {
            network.close();
        }
        while self.store().is_ok() {
            let Input::Network(network) = &mut self.input else { return };
            let Some(chunk) = network.blocking_recv() else { return };
            self.unstored = chunk;
        }
    }

    fn store(&mut self) -> Result<()> {
        let before = self.ingest.offset();
        let stored = self.ingest.write(&self.unstored);
        let written = self.ingest.offset() - before;
        self.unstored.advance(usize::try_from(written).unwrap_or(usize::MAX).min(self.unstored.len()));
        stored
    }

    /// The layer couldn't be unpacked. What broke off is kept to continue, what
    /// is whole and wrong isn't.
    pub(super) fn give_up(mut self) -> Result<()> {
        if self.broken { Ok(()) } else { self.ingest.restart() }
    }

    fn read_kept(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(kept) = &mut self.kept else { return Ok(0) };
        let read = kept.read(buffer)?;
        self.ingest.absorb(&buffer[..read]);
        if read == 0 {
            self.kept = None;
        }
        Ok(read)
    }

    fn read_network(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.chunk.is_empty() {
            let Input::Network(network) = &mut self.input else { return Ok(0) };
            match network.blocking_recv() {
                Some(chunk) => {
                    self.unstored = chunk.clone();
                    self.store().map_err(io::Error::other)?;
                    self.chunk = chunk;
                }
                None if self.ingest.offset() < self.size => {
                    self.broken = true;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                None => return Ok(0),
            }
        }
        let length = self.chunk.len().min(buffer.len());
        self.chunk.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

impl Read for Feed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let kept = self.read_kept(buffer)?;
        if kept > 0 {
            return Ok(kept);
        }
        if let Input::Archive(section) = &mut self.input {
            let read = section.read(buffer)?;
            self.ingest.write(&buffer[..read]).map_err(io::Error::other)?;
            return Ok(read);
        }
        self.read_network(buffer)
    }
}
