// SPDX-License-Identifier: Apache-2.0
//! How the engine has a short-lived process of the shim's program work on the
//! files of one container, and what they say to each other.
//!
//! ```text
//! berth-shim files
//! ```
//!
//! The process inherits [`SOCKET_FD`], a stream socket, and [`TARGET_FD`]: the
//! pidfd of the container's first process, or, when its layers are to be
//! mounted, a descriptor that carries a lock on them and is only held. It ends
//! with its work, and when the socket does.
//!
//! Frames are a type (one byte), a length (`u32`, big-endian) and that many
//! bytes, as on an attach socket.

use std::io::{self, Read, Write};

use bytes::{BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// The verb of the command line above.
pub const FILES: &str = "files";
/// Descriptor of the socket.
pub const SOCKET_FD: i32 = 3;
/// Descriptor of the container's first process, or of the lock.
pub const TARGET_FD: i32 = 4;
/// Largest payload of a frame.
pub const MAX_PAYLOAD: usize = 256 * 1024;

const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Engine, first: a `berth.shim.v1.FilesRequest`.
    Request = 1,
    /// Process: a `berth.shim.v1.FileStat`.
    Stat = 2,
    /// Either: bytes of an archive.
    Data = 3,
    /// Either: the archive, or the work, is complete. Empty.
    End = 4,
    /// Process, last: a `berth.shim.v1.FilesError`.
    Error = 5,
}

impl TryFrom<u8> for Kind {
    type Error = io::Error;

    fn try_from(byte: u8) -> io::Result<Self> {
        Ok(match byte {
            1 => Self::Request,
            2 => Self::Stat,
            3 => Self::Data,
            4 => Self::End,
            5 => Self::Error,
            _ => return Err(invalid(format!("unknown frame type {byte}"))),
        })
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it carries.
    pub kind: Kind,
    /// At most [`MAX_PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// A frame's bytes.
///
/// # Errors
/// `InvalidData` when `payload` is longer than [`MAX_PAYLOAD`].
pub fn encode(kind: Kind, payload: &[u8]) -> io::Result<BytesMut> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD);
    let length = length.ok_or_else(|| invalid(format!("a frame of {} bytes", payload.len())))?;
    let mut out = BytesMut::with_capacity(HEADER + payload.len());
    out.put_u8(kind as u8);
    out.put_u32(length);
    out.put_slice(payload);
    Ok(out)
}

fn header(bytes: [u8; HEADER]) -> io::Result<(Kind, usize)> {
    let kind = Kind::try_from(bytes[0])?;
    let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
    if length > MAX_PAYLOAD { Err(invalid(format!("a frame of {length} bytes"))) } else { Ok((kind, length)) }
}

/// Writes a frame; blocks.
///
/// # Errors
/// Those of the stream, and of [`encode`].
pub fn write(to: &mut impl Write, kind: Kind, payload: &[u8]) -> io::Result<()> {
    to.write_all(&encode(kind, payload)?)
}

/// Reads a frame; blocks.
///
/// # Errors
/// Those of the stream, `UnexpectedEof` at its end, `InvalidData`.
pub fn read(from: &mut impl Read) -> io::Result<Frame> {
    let mut bytes = [0; HEADER];
    from.read_exact(&mut bytes)?;
    let (kind, length) = header(bytes)?;
    let mut payload = vec![0; length];
    from.read_exact(&mut payload)?;
    Ok(Frame { kind, payload: payload.into() })
}

/// Reads a frame. Not cancel-safe: a frame that was begun is lost.
///
/// # Errors
/// As [`read`].
pub async fn receive(from: &mut (impl AsyncRead + Unpin)) -> io::Result<Frame> {
    let mut bytes = [0; HEADER];
    from.read_exact(&mut bytes).await?;
    let (kind, length) = header(bytes)?;
    let mut payload = BytesMut::zeroed(length);
    from.read_exact(&mut payload).await?;
    Ok(Frame { kind, payload: payload.freeze() })
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_and_long_ones_are_refused() {
        let mut wire = Vec::new();
        write(&mut wire, Kind::Data, b"abc").expect("write");
        write(&mut wire, Kind::End, b"").expect("write");
        let mut from = &wire[..];
        assert_eq!(read(&mut from).expect("read"), Frame { kind: Kind::Data, payload: "abc".into() });
        assert_eq!(read(&mut from).expect("read").kind, Kind::End);
        assert_eq!(read(&mut from).expect_err("the end").kind(), io::ErrorKind::UnexpectedEof);
        assert!(write(&mut wire, Kind::Data, &vec![0; MAX_PAYLOAD + 1]).is_err());
        assert!(read(&mut &[3, 0xff, 0, 0, 0][..]).is_err() && read(&mut &[9, 0, 0, 0, 0][..]).is_err());
    }
}
