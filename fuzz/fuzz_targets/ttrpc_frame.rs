// SPDX-License-Identifier: Apache-2.0
//! Bytes of a ttrpc connection, in pieces of any size: never a panic, and the
//! frames are the same however the bytes were cut.
#![no_main]

use berth::{api::task::CreateTaskRequest, ttrpc::frame};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

/// Frames up to the first error, and whether there was one.
fn frames(pieces: impl Iterator<Item = impl AsRef<[u8]>>) -> (Vec<frame::Frame>, bool) {
    let (mut buffer, mut frames) = (BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece.as_ref());
        loop {
            match frame::decode(&mut buffer) {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => return (frames, true),
            }
        }
    }
    (frames, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    let whole = frames(std::iter::once(bytes));
    assert_eq!(whole, frames(bytes.chunks(usize::from(step) + 1)));
    for frame in whole.0 {
        assert!(frame.payload.len() <= frame::MAX_MESSAGE);
        // What a shim does with it next.
        drop(CreateTaskRequest::decode(frame.payload));
    }
});
