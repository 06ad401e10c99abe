// SPDX-License-Identifier: Apache-2.0
//! An archive on its way through frames.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
};

use berth::files::{self, Kind, MAX_PAYLOAD};
use bytes::{Buf as _, Bytes};

/// What comes from the engine.
#[derive(Debug)]
pub(super) struct Incoming<'a> {
    socket: &'a UnixStream,
    piece: Bytes,
    ended: bool,
}

impl<'a> Incoming<'a> {
    pub(super) fn new(socket: &'a UnixStream) -> Self {
        Self { socket, piece: Bytes::new(), ended: false }
    }
}

impl Read for Incoming<'_> {
    /// The archive's end is what the engine says it is, never the socket's: a
    /// copy that was broken off isn't mistaken for a whole one.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            let frame = files::read(&mut { self.socket })?;
            match frame.kind {
                Kind::Data => self.piece = frame.payload,
                Kind::End => self.ended = true,
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        let length = self.piece.len().min(buffer.len());
        self.piece.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// What goes to it.
#[derive(Debug)]
pub(super) struct Outgoing<'a> {
    socket: &'a UnixStream,
}

impl<'a> Outgoing<'a> {
    pub(super) fn new(socket: &'a UnixStream) -> Self {
        Self { socket }
    }
}

impl Write for Outgoing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(MAX_PAYLOAD);
        files::write(&mut { self.socket }, Kind::Data, &bytes[..length])?;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
