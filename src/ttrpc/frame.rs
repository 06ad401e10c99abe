// SPDX-License-Identifier: Apache-2.0
//! The codec: frames out of bytes and back.

use std::io;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Largest message, as containerd's implementation has it.
pub const MAX_MESSAGE: usize = 4 * 1024 * 1024;

const HEADER: usize = 10;

/// What a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A call.
    Request = 1,
    /// The answer to one.
    Response = 2,
    /// Part of a stream; not used by the Task service.
    Data = 3,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Odd; chosen by the caller, echoed by the answer.
    pub stream: u32,
    /// The frame's type byte, known or not.
    pub kind: u8,
    /// Stream control; 0 for unary calls.
    pub flags: u8,
    /// A protobuf message.
    pub payload: Bytes,
}

/// Appends a frame to `out`.
///
/// # Errors
/// `InvalidInput` when the payload is above [`MAX_MESSAGE`].
pub fn encode(out: &mut BytesMut, stream: u32, kind: Kind, payload: &[u8]) -> io::Result<()> {
    if payload.len() > MAX_MESSAGE {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("message of {} bytes, at most {MAX_MESSAGE} are allowed", payload.len()),
        ));
    }
    out.reserve(HEADER + payload.len());
    #[expect(clippy::cast_possible_truncation, reason = "at most MAX_MESSAGE")]
    out.put_u32(payload.len() as u32);
    out.put_u32(stream);
    out.put_u8(kind as u8);
    out.put_u8(0);
    out.put_slice(payload);
    Ok(())
}

/// Takes the first whole frame off `buffer`; `None` when more bytes are needed.
///
/// # Errors
/// `InvalidData` for a length above [`MAX_MESSAGE`]: the connection is beyond
/// repair.
pub fn decode(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(header) = buffer.first_chunk::<HEADER>() else { return Ok(None) };
    let length = u32::from_be_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let stream = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
    let (kind, flags) = (header[8], header[9]);
    if length > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("ttrpc frame of {length} bytes")));
    }
    if buffer.len() < HEADER + length {
        return Ok(None);
    }
    buffer.advance(HEADER);
    Ok(Some(Frame { stream, kind, flags, payload: buffer.split_to(length).freeze() }))
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_header_is_ten_bytes_big_endian() {
        let mut wire = BytesMut::new();
        encode(&mut wire, 0x0102_0305, Kind::Request, b"ab").expect("small");
        assert_eq!(&wire[..], &[0, 0, 0, 2, 1, 2, 3, 5, 1, 0, b'a', b'b']);
    }

    #[test]
    fn too_long_is_refused_both_ways() {
        let mut out = BytesMut::new();
        assert!(encode(&mut out, 1, Kind::Request, &vec![0; MAX_MESSAGE + 1]).is_err());
        let mut buffer = BytesMut::from(&[0x00, 0x40, 0x00, 0x01, 0, 0, 0, 1, 1, 0][..]);
        assert!(decode(&mut buffer).is_err());
    }

    proptest! {
        #[test]
        fn frames_survive_any_split(payload in prop::collection::vec(any::<u8>(), 0..300), stream in any::<u32>(), step in 1_usize..40) {
            let mut wire = BytesMut::new();
            encode(&mut wire, stream, Kind::Response, &payload).expect("small");
            let mut buffer = BytesMut::new();
            let mut seen = None;
            for chunk in wire.chunks(step) {
                prop_assert!(seen.is_none());
                buffer.extend_from_slice(chunk);
                seen = decode(&mut buffer).expect("valid");
            }
            let frame = seen.expect("whole");
            prop_assert_eq!(frame.stream, stream);
            prop_assert_eq!(&frame.payload[..], &payload[..]);
        }

        #[test]
        fn rubbish_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = decode(&mut buffer) {}
        }
    }
}
