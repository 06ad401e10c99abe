// SPDX-License-Identifier: Apache-2.0
//! How a command ends when it doesn't end well: a line and an exit code.
//!
//! Exit codes are Docker's: 1 for a failed command, 125 when `run` itself
//! failed, 126 and 127 when the container's command couldn't be executed,
//! else the container's own.

use std::{error::Error as StdError, fmt, io};

use berth::{ConnectError, EXIT_CODE_METADATA};
use tonic::{Code, Status};

/// The exit code of a command that failed.
pub const FAILED: u8 = 1;
/// The exit code when `berth run` itself failed, and for unknown flags.
pub const BERTH_FAILED: u8 = 125;

/// A command's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a command ends, and with what.
#[derive(Debug)]
pub struct Error {
    message: String,
    code: u8,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Found out here.
    Local,
    /// The engine's answer.
    Engine(Code),
    /// The engine, or the way to it, went away during a call.
    Lost,
    /// The reader of our output went away.
    BrokenPipe,
    /// The end of a session that had begun: no mistake in how it was called.
    Session,
}

impl Error {
    /// A failure with the exit code 1. `message` is for the user.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: FAILED, kind: Kind::Local }
    }

    /// Nothing more to say: everything was said already.
    #[must_use]
    pub fn silent(code: u8) -> Self {
        Self::new("").with_code(code)
    }

    /// The end of a session that had begun.
    #[must_use]
    pub fn session(message: String, code: u8) -> Self {
        Self { message, code, kind: Kind::Session }
    }

    /// What the kernel refused, in its words.
    pub fn io(what: impl fmt::Display, error: &io::Error) -> Self {
        Self::new(format!("{what}: {}", os_words(error)))
    }

    /// Ends with another exit code.
    #[must_use]
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// What the process exits with.
    #[must_use]
    pub fn code(&self) -> u8 {
        self.code
    }

    /// Whether the engine answered with this code.
    #[must_use]
    pub fn is(&self, code: Code) -> bool {
        self.kind == Kind::Engine(code)
    }

    /// Whether the engine, or the container's shim, can't be reached any
    /// more: the call may be repeated.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.kind == Kind::Lost || self.is(Code::Unavailable)
    }

    /// Whether the reader of our output went away.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        self.kind == Kind::BrokenPipe
    }

    /// As an error of `berth run`: a container's own exit code stays, every
    /// other is 125, and the message says where help is to be had.
    #[must_use]
    pub fn of_run(mut self, verb: &str) -> Self {
        if self.kind == Kind::Session {
            return self;
        }
        if self.code == FAILED {
            self.code = BERTH_FAILED;
        }
        if !self.message.is_empty() && !self.is_broken_pipe() {
            self.message =
                format!("berth: {}\n\nRun 'berth {verb} --help' for more information", self.message);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl StdError for Error {}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            // What a shell reports for a process that SIGPIPE has killed.
            return Self { kind: Kind::BrokenPipe, ..Self::silent(128 + 13) };
        }
        Self::new(os_words(&error))
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        // Only a status that was made on this side has a source: the
        // transport's error.
        if let Some(source) = status.source() {
            let message = format!("connection to the engine lost: {}", root_cause(source));
            return Self { kind: Kind::Lost, ..Self::new(message) };
        }
        let code = status
            .metadata()
            .get(EXIT_CODE_METADATA)
            .and_then(|value| value.to_str().ok()?.parse().ok())
            .unwrap_or(FAILED);
        Self {
            message: format!("Error response from engine: {}", status.message()),
            code,
            kind: Kind::Engine(status.code()),
        }
    }
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        let ConnectError::Unreachable { address, source } = &error else {
            return Self::new(error.to_string());
        };
        let message = match source.downcast_ref::<io::Error>().map(io::Error::kind) {
            Some(io::ErrorKind::PermissionDenied) => format!(
                "permission denied while trying to connect to the berth engine socket at {address}: \
                 run as root, or as a member of the socket's group"
            ),
            Some(io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) | None => {
                format!("Cannot connect to the berth engine at {address}. Is berthd running?")
            }
            Some(_) => {
                format!("Cannot connect to the berth engine at {address}: {}", root_cause(source.as_ref()))
            }
        };
        Self { kind: Kind::Lost, ..Self::new(message) }
    }
}

/// What the kernel said, in lower case and without Rust's `(os error 2)`.
#[must_use]
pub fn os_words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.find(" (os error ") {
        Some(end) => text[..end].to_lowercase(),
        None => text,
    }
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.downcast_ref::<io::Error>().map_or_else(|| cause.to_string(), os_words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engines_exit_code_is_kept() {
        let mut status = Status::failed_precondition("exec: \"x\": executable file not found in $PATH");
        status.metadata_mut().insert(EXIT_CODE_METADATA, "127".parse().expect("ascii"));
        let error = Error::from(status);
        assert!(error.is(Code::FailedPrecondition) && !error.is_lost());
        let error = error.of_run("run");
        assert_eq!(error.code(), 127);
        assert_eq!(
            error.to_string(),
            "berth: Error response from engine: exec: \"x\": executable file not found in $PATH\n\n\
             Run 'berth run --help' for more information"
        );
    }

    #[test]
    fn run_fails_with_125() {
        assert_eq!(Error::from(Status::not_found("No such image: x")).of_run("run").code(), 125);
        assert_eq!(Error::silent(3).of_run("run").code(), 3);
    }

    #[test]
    fn who_can_not_be_reached_is_said() {
        let error = |kind: io::ErrorKind| {
            Error::from(ConnectError::Unreachable {
                address: "unix:///x".into(),
                source: io::Error::from(kind).into(),
            })
            .to_string()
        };
        assert_eq!(
            error(io::ErrorKind::NotFound),
            "Cannot connect to the berth engine at unix:///x. Is berthd running?"
        );
        assert!(
            error(io::ErrorKind::PermissionDenied).starts_with("permission denied while trying to connect")
        );
    }

    #[test]
    fn a_reader_that_left_is_no_news() {
        let error = Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert!(error.is_broken_pipe());
        assert_eq!((error.code(), error.to_string().as_str()), (141, ""));
    }
}
