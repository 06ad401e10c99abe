// SPDX-License-Identifier: Apache-2.0
//! What users read: tables, templates, JSON, progress, human amounts.
//!
//! Everything here makes text from values and writes nothing, except
//! [`print()`] and [`warn()`]. Called by [`crate::command`].

pub mod human;
pub mod json;
pub mod listing;
pub mod progress;
pub mod table;
pub mod template;
mod template_parse;
pub mod text;

use std::io::{self, Write as _};

use crate::error::Result;

/// Writes the whole of `text` to stdout.
///
/// # Errors
/// Those of the write; a reader that has gone away ends the program quietly.
pub fn print(text: &str) -> Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}

/// Writes a line to stderr, with control characters made visible: messages
/// can hold text from registries and images. That stderr is gone is no
/// reason to stop.
pub fn warn(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{}", text::visible(line));
}
