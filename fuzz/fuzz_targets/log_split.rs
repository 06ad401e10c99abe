// SPDX-License-Identifier: Apache-2.0
//! What a container prints, in pieces of any size: every byte arrives once and
//! in order, no piece is too long, and the cuts depend on the bytes alone.
#![no_main]

use berth_shim::io::log::splitter::{End, MAX_LINE, Splitter};
use libfuzzer_sys::fuzz_target;

fn pieces<'a>(chunks: impl Iterator<Item = &'a [u8]>) -> Vec<(Vec<u8>, End)> {
    let (mut splitter, mut pieces) = (Splitter::default(), Vec::new());
    for chunk in chunks {
        splitter.push(chunk, |piece, end| pieces.push((piece.to_vec(), end)));
    }
    splitter.finish(|piece, end| pieces.push((piece.to_vec(), end)));
    pieces
}

fuzz_target!(|input: (u16, u16, &[u8])| {
    // Repeated, so that few bytes of input make long lines.
    let (step, times, seed) = input;
    let bytes = seed.repeat(usize::from(times) % 2048 + 1);
    let whole = pieces(std::iter::once(&bytes[..]));
    assert_eq!(whole, pieces(bytes.chunks(usize::from(step) + 1)));
    let mut again = Vec::new();
    for (piece, end) in &whole {
        assert!(piece.len() <= MAX_LINE);
        again.extend_from_slice(piece);
        if *end == End::Newline {
            again.push(b'\n');
        }
    }
    assert_eq!(again, bytes);
});
