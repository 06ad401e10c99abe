// SPDX-License-Identifier: Apache-2.0
//! Between archives, which block, and streams of messages, which don't: a
//! queue of pieces, read at one end and written at the other.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use tokio::sync::mpsc;

/// Pieces on their way.
const QUEUE: usize = 4;
/// Bytes of a piece: a gRPC message should stay well below 4 MiB.
const PIECE: usize = 128 << 10;

/// A queue for archives.
pub(super) fn queue() -> (mpsc::Sender<Bytes>, mpsc::Receiver<Bytes>) {
    mpsc::channel(QUEUE)
}

/// What comes out of the queue, to be read where blocking is fine. It ends
/// with the queue.
#[derive(Debug)]
pub(super) struct Source {
    queue: mpsc::Receiver<Bytes>,
    piece: Bytes,
}

impl Source {
    pub(super) fn new(queue: mpsc::Receiver<Bytes>) -> Self {
        Self { queue, piece: Bytes::new() }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.queue.blocking_recv() {
                Some(piece) => self.piece = piece,
                None => return Ok(0),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// What goes into the queue, written where blocking is fine.
#[derive(Debug)]
pub(super) struct Sink {
    queue: mpsc::Sender<Bytes>,
    piece: Vec<u8>,
}

impl Sink {
    pub(super) fn new(queue: mpsc::Sender<Bytes>) -> Self {
        Self { queue, piece: Vec::new() }
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..length]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let piece = std::mem::take(&mut self.piece);
        // The engine takes no more, and says why elsewhere.
        self.queue.blocking_send(piece.into()).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_out_whole() {
        let bytes: Vec<u8> = (0..600_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let (sender, receiver) = queue();
        let expected = bytes.clone();
        let writer = std::thread::spawn(move || {
            let mut sink = Sink::new(sender);
            sink.write_all(&bytes).and_then(|()| sink.flush())
        });
        let mut read = Vec::new();
        Source::new(receiver).read_to_end(&mut read).expect("read");
        writer.join().expect("join").expect("write");
        assert!(read == expected);
    }
}
