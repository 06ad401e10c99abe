// SPDX-License-Identifier: Apache-2.0
//! The text format of Kubernetes' container runtime interface:
//! `<time> <stdout|stderr> <F|P> <bytes>`, F for a full line, P for a part.
//! Tags may follow, separated by colons: ours is for what is missing.

use berth::log::GAP_TAG;

use super::{clock::Timestamp, splitter::End};
use crate::io::Stream;

/// Appends one record.
pub fn write(out: &mut Vec<u8>, time: &Timestamp, stream: Stream, line: &[u8], end: End) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(match end {
        End::Newline => b" F ",
        End::Cut => b" P ",
    });
    out.extend_from_slice(line);
    out.push(b'\n');
}

/// Appends a record that says what could not be written. Its tag is one that
/// no container can put there: kubelet's readers skip it.
pub fn write_gap(out: &mut Vec<u8>, time: &Timestamp, lines: u64, bytes: u64) {
    out.extend_from_slice(time.as_bytes());
    out.extend_from_slice(format!(" stderr F:{GAP_TAG} {lines} lines, {bytes} bytes\n").as_bytes());
}
