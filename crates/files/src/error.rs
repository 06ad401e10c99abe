// SPDX-License-Identifier: Apache-2.0
//! What goes wrong with files: what was being done, and the kernel's answer.

use std::{error::Error as StdError, fmt, io};

/// The results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, and what was being done.
///
/// The source's kind tells whose fault it is: an errno is the host's,
/// `InvalidData` and `UnexpectedEof` a damaged archive's, `InvalidInput` that
/// of content that is refused.
#[derive(Debug)]
pub struct Error {
    context: String,
    source: io::Error,
}

impl Error {
    /// `context` is verb and object.
    pub fn new(context: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self { context: context.into(), source: source.into() }
    }

    /// Content that can't be meant well. `words` are the whole message.
    pub fn refused(words: impl fmt::Display) -> Self {
        Self::new("", io::Error::new(io::ErrorKind::InvalidInput, words.to_string()))
    }

    /// The cause.
    #[must_use]
    pub fn source_io(&self) -> &io::Error {
        &self.source
    }

    /// Takes it apart: what was being done (empty where the cause says all),
    /// and the cause.
    #[must_use]
    pub fn into_parts(self) -> (String, io::Error) {
        (self.context, self.source)
    }

    /// Says where, in front of what it says already.
    #[must_use]
    pub fn at(mut self, place: impl fmt::Display) -> Self {
        self.context =
            if self.context.is_empty() { place.to_string() } else { format!("{place}: {}", self.context) };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.source.to_string();
        // The kernel's words, without Rust's number.
        let words = text.split(" (os error ").next().unwrap_or_default();
        let words = if self.source.raw_os_error().is_some() { words.to_lowercase() } else { text.clone() };
        if self.context.is_empty() { f.write_str(&words) } else { write!(f, "{}: {words}", self.context) }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// `.context("verb object")` on what the kernel and the archive answer.
pub(crate) trait Context<T> {
    fn context(self, what: &str) -> Result<T>;
    fn with_context(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn context(self, what: &str) -> Result<T> {
        self.with_context(|| what.to_owned())
    }

    fn with_context(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| Error::new(what(), e))
    }
}
