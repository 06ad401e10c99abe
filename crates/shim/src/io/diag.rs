// SPDX-License-Identifier: Apache-2.0
//! The shim's own diagnostics: single lines on standard error.
//!
//! A log that can't be written is no reason to fail, and `eprintln!` would
//! panic: errors of the write are dropped here, on purpose.

use std::{fmt, io::Write as _};

/// Something is wrong that the container's owner should know.
pub fn warn(message: fmt::Arguments<'_>) {
    // One write per line, so that lines of several shims don't mix.
    let line = format!("berth-shim[{}]: {message}\n", std::process::id());
    let _ = std::io::stderr().write_all(line.as_bytes());
}
