// SPDX-License-Identifier: Apache-2.0
//! The archive that a layer is when nothing is compressed any more: hashed and
//! counted as it is read, and decompressed by a thread of its own, which is a
//! few pieces ahead of whoever reads. Decompressing takes about as long as all
//! the rest, so a layer by itself keeps two processors busy.

use std::{
    io::{self, BufRead, Read},
    mem,
    thread::{self, Scope},
};

use tokio::sync::mpsc;

use crate::{
    domain::digest::{Algorithm, Digest, Hasher},
    error::{Context as _, Result},
};

/// Size of a piece, and so of most writes.
const PIECE: usize = 256 << 10;
/// Pieces of a layer in memory.
const PIECES: usize = 4;

/// What is read of a layer.
pub(super) struct Plain<'a> {
    full: mpsc::Receiver<io::Result<Vec<u8>>>,
    empty: mpsc::Sender<Vec<u8>>,
    piece: Vec<u8>,
    at: usize,
    hasher: Hasher,
    total: u64,
    limit: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> Plain<'a> {
    /// Of what `source` decompresses to, which may be `limit` bytes. `progress`
    /// is told how many there were.
    pub(super) fn start<'scope>(
        scope: &'scope Scope<'scope, '_>,
        source: impl Read + Send + 'scope,
        limit: u64,
        progress: &'a mut dyn FnMut(u64),
    ) -> Result<Self> {
        let (fill, full) = mpsc::channel(PIECES);
        let (empty, emptied) = mpsc::channel(PIECES);
        for _ in 0..PIECES {
            // There is room, and the other end is here.
            let _room = empty.try_send(Vec::new());
        }
        thread::Builder::new()
            .name("decompress".to_owned())
            .spawn_scoped(scope, move || decompress(source, emptied, &fill))
            .context("start a thread")?;
        let hasher = Hasher::new(Algorithm::Sha256);
        Ok(Self { full, empty, piece: Vec::new(), at: 0, hasher, total: 0, limit, progress })
    }

    /// Digest of everything, once everything was read.
    pub(super) fn digest(self) -> Digest {
        self.hasher.finish()
    }

    /// Exchanges the piece that was read for the next one, if there is one.
    fn turn(&mut self) -> io::Result<()> {
        let Some(next) = self.full.blocking_recv() else { return Ok(()) };
        let read = mem::replace(&mut self.piece, next?);
        // It has ended when nobody takes it.
        let _ended = self.empty.try_send(read);
        self.at = 0;
        self.hasher.update(&self.piece);
        self.total += self.piece.len() as u64;
        if self.total > self.limit {
            let words = format!("layer unfolds to more than {} bytes", self.limit);
            return Err(io::Error::new(io::ErrorKind::InvalidData, words));
        }
        (self.progress)(self.total);
        Ok(())
    }
}

/// Until the end, an error, or nobody reads any more.
fn decompress(
    mut source: impl Read,
    mut emptied: mpsc::Receiver<Vec<u8>>,
    fill: &mpsc::Sender<io::Result<Vec<u8>>>,
) -> Option<()> {
    loop {
        let mut piece = emptied.blocking_recv()?;
        piece.resize(PIECE, 0);
        let (mut filled, mut end) = (0, None);
        while end.is_none() && filled < PIECE {
            match source.read(&mut piece[filled..]) {
                Ok(0) => end = Some(Ok(())),
                Ok(read) => filled += read,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => end = Some(Err(e)),
            }
        }
        piece.truncate(filled);
        // Nobody may take nothing for the end when an error follows.
        if filled > 0 {
            fill.blocking_send(Ok(piece)).ok()?;
        }
        match end {
            None => {}
            Some(Ok(())) => return None,
            Some(Err(e)) => return fill.blocking_send(Err(e)).ok(),
        }
    }
}

impl BufRead for Plain<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at == self.piece.len() {
            self.turn()?;
        }
        Ok(&self.piece[self.at..])
    }

    fn consume(&mut self, amount: usize) {
        self.at = self.piece.len().min(self.at + amount);
    }
}

impl Read for Plain<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let piece = self.fill_buf()?;
        let length = piece.len().min(buffer.len());
        buffer[..length].copy_from_slice(&piece[..length]);
        self.consume(length);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives bytes by twos and threes, and then an error.
    struct Fails(usize);

    impl Read for Fails {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::Error::other("the disk is gone"));
            }
            let read = (2 + self.0 % 2).min(self.0).min(buffer.len());
            buffer[..read].fill(7);
            self.0 -= read;
            Ok(read)
        }
    }

    #[test]
    fn everything_is_read_and_hashed_before_an_error_is_told() {
        for length in [0, 1, PIECE - 1, PIECE, 3 * PIECE, 9 * PIECE + 5] {
            let (mut told, mut bytes) = (0, Vec::new());
            let mut progress = |total| told = total;
            thread::scope(|scope| {
                let mut plain = Plain::start(scope, Fails(length), u64::MAX, &mut progress).expect("start");
                let error = plain.read_to_end(&mut bytes).expect_err("an error");
                assert_eq!(error.to_string(), "the disk is gone");
                assert!(plain.digest().matches(&vec![7; length]), "{length}");
            });
            assert_eq!((bytes.len(), told), (length, length as u64));
        }
    }

    #[test]
    fn what_has_no_end_is_read_to_the_limit() {
        let (mut progress, limit) = (|_| {}, 10 * PIECE as u64);
        thread::scope(|scope| {
            let mut plain = Plain::start(scope, io::repeat(1), limit, &mut progress).expect("start");
            let error = io::copy(&mut plain, &mut io::sink()).expect_err("too much");
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            // Nobody reads on, and still this ends.
        });
    }
}
