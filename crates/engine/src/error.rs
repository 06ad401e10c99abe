// SPDX-License-Identifier: Apache-2.0
//! The engine's one error type: a kind, what was being done, and the cause.
//!
//! Kinds are mapped to each protocol's codes once, in `api::status`.

use std::{error::Error as StdError, fmt, io};

/// What kind of failure, independent of any protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// What was asked for doesn't exist.
    NotFound,
    /// What was to be made exists.
    AlreadyExists,
    /// The request can't be honoured, whatever the state.
    InvalidArgument,
    /// The request can't be honoured in this state.
    FailedPrecondition,
    /// Something outside doesn't answer; the call may be repeated.
    Unavailable,
    /// Disk, memory, descriptors or a registry's patience have run out.
    ResourceExhausted,
    /// Known and not supported.
    Unimplemented,
    /// Refused by the host or a registry, whoever asks.
    PermissionDenied,
    /// A registry wants to know who asks.
    Unauthenticated,
    /// The caller went away.
    Cancelled,
    /// It took longer than was allowed.
    DeadlineExceeded,
    /// Content isn't what its digest says.
    DataLoss,
    /// A bug, or a host that is broken.
    Internal,
}

/// A failure on its way to whoever handles it.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    exit_code: Option<u8>,
}

/// The engine's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<berth::failpoint::Failed> for Error {
    fn from(failed: berth::failpoint::Failed) -> Self {
        Self::new(Kind::Internal, failed.to_string())
    }
}

impl Error {
    /// A failure without an underlying cause. `context` is a sentence for the
    /// user: what was wrong and, where it helps, what to do.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, context: context.into(), source: None, exit_code: None }
    }

    /// Adds the cause. `context` is then verb + object: "mount overlay for X".
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds the exit code that a command line should end with (126, 127).
    #[must_use]
    pub fn with_exit_code(mut self, code: u8) -> Self {
        self.exit_code = Some(code);
        self
    }

    /// An operation on the host that failed; the kind follows the errno.
    pub fn io(context: impl Into<String>, source: io::Error) -> Self {
        Self::new(kind_of_io(&source), context).with_source(source)
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The exit code that a command line should end with, where one is known.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        self.exit_code
    }

    /// The whole chain on one line, for the edge: `context: cause: cause`.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.context.clone();
        let mut next = self.source();
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

fn kind_of_io(e: &io::Error) -> Kind {
    match e.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
            Kind::ResourceExhausted
        }
        _ => Kind::Internal,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.context)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|e| e as _)
    }
}

/// `.context("verb object")` on the results of the host and of libraries.
pub trait Context<T> {
    /// Turns the error into an [`Error`] that says what was being done.
    ///
    /// # Errors
    /// The error, wrapped.
    fn context(self, what: impl Into<String>) -> Result<T>;

    /// As [`Context::context`], with the text made only when it is needed.
    ///
    /// # Errors
    /// The error, wrapped.
    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

/// Causes that [`Context`] knows the kind of.
pub trait Cause: StdError + Send + Sync + 'static {
    /// The kind of this cause.
    fn kind(&self) -> Kind;
}

impl Cause for io::Error {
    fn kind(&self) -> Kind {
        kind_of_io(self)
    }
}

impl Cause for nix::errno::Errno {
    fn kind(&self) -> Kind {
        kind_of_io(&io::Error::from(*self))
    }
}

impl Cause for rusqlite::Error {
    fn kind(&self) -> Kind {
        match self.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => Kind::ResourceExhausted,
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase) => Kind::DataLoss,
            _ => Kind::Internal,
        }
    }
}

impl Cause for serde_json::Error {
    fn kind(&self) -> Kind {
        Kind::Internal
    }
}

impl Cause for tokio::task::JoinError {
    fn kind(&self) -> Kind {
        Kind::Internal
    }
}

impl<T, E: Cause> Context<T> for Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.with_context(|| what)
    }

    fn with_context<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| Error::new(e.kind(), what()).with_source(e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_the_context_alone_and_the_chain_has_the_cause() {
        let cause = io::Error::from_raw_os_error(libc::ENOSPC);
        let error = Error::io("write blob", cause);
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        assert_eq!(error.to_string(), "write blob");
        assert!(error.chain().starts_with("write blob: No space left on device"));
    }
}
