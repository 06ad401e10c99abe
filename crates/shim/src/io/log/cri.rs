// SPDX-License-Identifier: Apache-2.0
//! The text format of Kubernetes' container runtime interface:
//! `<time> <stdout|stderr> <F|P> <bytes>`, F for a full line, P for a part.

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
