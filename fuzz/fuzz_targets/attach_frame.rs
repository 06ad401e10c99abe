// SPDX-License-Identifier: Apache-2.0
//! Bytes of an attach connection: never a panic, and what was decoded is what
//! encoding it again gives.
#![no_main]

use berth::{api::shim::AttachOpen, attach};
use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|bytes: &[u8]| {
    let (mut buffer, mut again) = (BytesMut::from(bytes), BytesMut::new());
    while let Ok(Some(frame)) = attach::decode(&mut buffer) {
        attach::encode(&mut again, frame.kind, &frame.payload);
        if frame.kind == attach::Kind::Open {
            drop(AttachOpen::decode(frame.payload));
        }
    }
    assert_eq!(again, bytes[..again.len()]);
});
