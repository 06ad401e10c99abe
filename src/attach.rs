// SPDX-License-Identifier: Apache-2.0
//! The protocol on a shim's attach socket: frames of a type (one byte), a
//! length (`u32`, big-endian) and that many bytes.
//!
//! The client sends [`Kind::Open`] (an `AttachOpen` message), the shim answers
//! [`Kind::Attached`] with one byte, 1 when the container has a terminal.
//! From then on no output is missed but what [`Kind::Missed`] tells of. The shim closes the connection when the
//! container's output has ended.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest payload of a frame.
pub const MAX_PAYLOAD: usize = 64 * 1024;

const HEADER: usize = 5;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: an encoded `berth.shim.v1.AttachOpen`.
    Open = 1,
    /// Client: bytes for the container's stdin.
    Stdin = 2,
    /// Client: no more input. Empty.
    StdinClosed = 3,
    /// Client: rows and columns of its terminal, two `u16`, big-endian.
    Resize = 4,
    /// Shim: the subscription is in place. One byte: 1 with a terminal. To one
    /// who asked for it, where in the log this is: a segment and an offset,
    /// two `u64`, big-endian.
    Attached = 5,
    /// Shim: bytes from the container's stdout, or its terminal.
    Stdout = 6,
    /// Shim: bytes from the container's stderr.
    Stderr = 7,
    /// Shim, last: why this client is dropped, as text.
    Error = 8,
    /// Shim: so many bytes of output are missing here, a `u64`, big-endian.
    Missed = 9,
}

impl TryFrom<u8> for Kind {
    type Error = io::Error;

    fn try_from(byte: u8) -> io::Result<Self> {
        Ok(match byte {
            1 => Self::Open,
            2 => Self::Stdin,
            3 => Self::StdinClosed,
            4 => Self::Resize,
            5 => Self::Attached,
            6 => Self::Stdout,
            7 => Self::Stderr,
            8 => Self::Error,
            9 => Self::Missed,
            _ => return Err(invalid(format!("unknown attach frame type {byte}"))),
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

/// Appends a frame to `out`.
///
/// # Panics
/// When `payload` is longer than [`MAX_PAYLOAD`]: callers split.
pub fn encode(out: &mut BytesMut, kind: Kind, payload: &[u8]) {
    assert!(payload.len() <= MAX_PAYLOAD, "attach payload of {} bytes", payload.len());
    out.reserve(HEADER + payload.len());
    out.put_u8(kind as u8);
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_PAYLOAD")]
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
}

/// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// `InvalidData` for an unknown type or a length above [`MAX_PAYLOAD`].
pub fn decode(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let kind = Kind::try_from(header[0])?;
    let length = u32::from_be_bytes([header[1], header[2], header[3], header[4]]) as usize;
    if length > MAX_PAYLOAD {
        return Err(invalid(format!("attach frame of {length} bytes")));
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(Frame { kind, payload: buffer.split_to(length).freeze() }))
}

/// Reads the next frame; `None` at the end of the stream between two frames.
/// Cancel-safe: what was read stays in `buffer`.
///
/// # Errors
/// Those of the stream, of [`decode`], and `UnexpectedEof` inside a frame.
pub async fn read(stream: &mut (impl AsyncRead + Unpin), buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = decode(buffer)? {
            return Ok(Some(frame));
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_survive_any_split(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8), step in 1_usize..64) {
            let mut wire = BytesMut::new();
            for p in &payloads {
                encode(&mut wire, Kind::Stdout, p);
            }
            let mut buffer = BytesMut::new();
            let mut seen = Vec::new();
            for chunk in wire.chunks(step) {
                buffer.extend_from_slice(chunk);
                while let Some(frame) = decode(&mut buffer).expect("valid") {
                    seen.push(frame.payload.to_vec());
                }
            }
            prop_assert_eq!(seen, payloads);
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }

    #[test]
    fn a_length_above_the_limit_is_refused() {
        let mut buffer = BytesMut::from(&[6, 0xff, 0xff, 0xff, 0xff][..]);
        assert!(decode(&mut buffer).is_err());
    }
}
