// SPDX-License-Identifier: Apache-2.0
//! What goes wrong in the runtime, in the shim or in a container's init.

use std::fmt;

use crate::kernel::SysError;

/// What went wrong, as far as a caller can act on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The program doesn't exist: exit code 127.
    ExecNotFound,
    /// The program can't be executed: exit code 126.
    ExecNotPermitted,
    /// The specification contradicts itself, the image, or the host.
    InvalidSpec,
    /// The container's first process has ended.
    NotRunning,
    /// The specification asks for what this version doesn't do.
    Unsupported,
    /// A system call failed.
    Os,
}

/// An error of the runtime: a kind, and one line for the user. The line of a
/// failed system call ends as strace has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: Kind,
    message: String,
}

/// What the runtime returns.
pub type Result<T> = std::result::Result<T, Error>;

impl From<berth::failpoint::Failed> for Error {
    fn from(failed: berth::failpoint::Failed) -> Self {
        Self::new(Kind::Os, failed.to_string())
    }
}

impl Error {
    /// An error with a line of its own.
    #[must_use]
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidSpec, message)
    }

    /// `field` as the specification spells it.
    pub(crate) fn unsupported(field: &str) -> Self {
        Self::new(Kind::Unsupported, format!("{field} is not supported yet"))
    }

    /// What can be done about it.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Puts what was being done in front.
    #[must_use]
    pub(crate) fn during(mut self, step: &str) -> Self {
        self.message = format!("{step}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl From<SysError> for Error {
    fn from(e: SysError) -> Self {
        Self::new(Kind::Os, e.to_string())
    }
}

/// Names the step that failed: verb and object, "mount /proc".
pub(crate) trait During<T> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T>;
}

impl<T, E: Into<Error>> During<T> for std::result::Result<T, E> {
    fn during(self, step: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|e| e.into().during(&step()))
    }
}
