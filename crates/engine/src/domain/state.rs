// SPDX-License-Identifier: Apache-2.0
//! Where a container is in its life, and how its first process ended.

use std::fmt;

use berth::bundle::ExitRecord;

use crate::error::{Error, Kind, Result};

/// Where a container is in its life, as the database keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The intent to make it; never shown.
    Creating,
    /// Made, never started.
    Created,
    /// A shim is being started for it; shown as it was before.
    Starting,
    /// Its first process runs.
    Running,
    /// Its first process has ended, or could not be started.
    Exited,
    /// On its way out.
    Removing,
}

impl Status {
    /// The word in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Exited => "exited",
            Self::Removing => "removing",
        }
    }

    /// Reads the word in the database.
    ///
    /// # Errors
    /// `DataLoss` for any other word.
    pub fn from_stored(word: &str) -> Result<Self> {
        Ok(match word {
            "creating" => Self::Creating,
            "created" => Self::Created,
            "starting" => Self::Starting,
            "running" => Self::Running,
            "exited" => Self::Exited,
            "removing" => Self::Removing,
            _ => {
                return Err(Error::new(
                    Kind::DataLoss,
                    format!("unknown container status {word:?} is stored"),
                ));
            }
        })
    }
}

/// A status as users see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shown {
    /// Made, never started.
    Created,
    /// Runs.
    Running,
    /// Runs, frozen.
    Paused,
    /// Has ended.
    Exited,
    /// Has ended, and its policy is about to have it started again.
    Restarting,
    /// Its shim doesn't answer.
    Unknown,
    /// On its way out.
    Removing,
}

impl Shown {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Created,
        Self::Running,
        Self::Paused,
        Self::Exited,
        Self::Restarting,
        Self::Unknown,
        Self::Removing,
    ];

    /// The word of filters.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Exited => "exited",
            Self::Restarting => "restarting",
            Self::Unknown => "unknown",
            Self::Removing => "removing",
        }
    }
}

/// How a container's first process ended.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exit {
    /// 0 to 255; 128+n for a signal n.
    pub code: u8,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
    /// The kernel's out-of-memory killer struck.
    pub oom_killed: bool,
    /// Why it could not be started, or why its status isn't known; else empty.
    pub error: String,
}

/// The exit code of a process whose end nobody saw.
pub const UNKNOWN_EXIT: u8 = 255;
const SIGKILL_EXIT: u8 = 137;

/// What the engine has learnt of an end, from whoever still knew.
#[derive(Debug, Clone, Default)]
pub struct ExitEvidence {
    /// The shim's record in the bundle.
    pub record: Option<ExitRecord>,
    /// The shim's answer to Wait: status and time.
    pub answer: Option<WaitAnswer>,
    /// The kernel's wait status of the first process.
    pub wait_status: Option<i32>,
    /// The engine killed what was left.
    pub killed: bool,
    /// When the end was noticed; nanoseconds since the Unix epoch.
    pub noticed_at: u64,
    /// Why nobody may know; shown when that is so.
    pub reason: String,
}

/// A shim's answer to Wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitAnswer {
    /// As a shell has it.
    pub exit_code: u8,
    /// Nanoseconds since the Unix epoch.
    pub at: u64,
}

impl ExitEvidence {
    /// Decides: record, then answer, then kernel, then that we killed it, else
    /// unknown.
    #[must_use]
    pub fn merge(self) -> Exit {
        if let Some(record) = self.record {
            return Exit {
                code: record.exit_code,
                at: record.exited_at,
                oom_killed: record.oom_killed,
                error: String::new(),
            };
        }
        if let Some(answer) = self.answer {
            return Exit { code: answer.exit_code, at: answer.at, ..Exit::default() };
        }
        let at = self.noticed_at;
        if let Some(status) = self.wait_status {
            return Exit { code: code_of_wait_status(status), at, ..Exit::default() };
        }
        if self.killed {
            return Exit { code: SIGKILL_EXIT, at, oom_killed: false, error: self.reason };
        }
        Exit { code: UNKNOWN_EXIT, at, oom_killed: false, error: self.reason }
    }
}

/// The exit code that a shell gives for the kernel's wait status: wait(2).
#[must_use]
pub fn code_of_wait_status(status: i32) -> u8 {
    let [low, high, ..] = status.to_le_bytes();
    match low & 0x7f {
        0 => high,
        signal => 128_u8.saturating_add(signal),
    }
}

/// An exit code that came as a wider number; out of range is unknown.
#[must_use]
pub fn code_of_wire(code: u32) -> u8 {
    u8::try_from(code).unwrap_or(UNKNOWN_EXIT)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn wait_statuses_become_shell_codes() {
        assert_eq!(code_of_wait_status(42 << 8), 42);
        assert_eq!(code_of_wait_status(9), 137);
        assert_eq!(code_of_wait_status(0x80 | 11), 139, "with a core dump");
        assert_eq!(code_of_wait_status(0), 0);
    }

    proptest! {
        #[test]
        fn the_best_witness_decides(record in any::<Option<u8>>(), answer in any::<Option<u8>>(), kernel in any::<Option<u8>>(), killed in any::<bool>()) {
            let exit = ExitEvidence {
                record: record.map(|exit_code| ExitRecord { pid: 1, exit_code, exited_at: 1, oom_killed: true }),
                answer: answer.map(|exit_code| WaitAnswer { exit_code, at: 2 }),
                wait_status: kernel.map(|code| i32::from(code) << 8),
                killed,
                noticed_at: 3,
                reason: "the shim has died".to_owned(),
            }
            .merge();
            let expected = record.or(answer).or(kernel).unwrap_or(if killed { 137 } else { 255 });
            prop_assert_eq!(exit.code, expected);
            prop_assert_eq!(exit.oom_killed, record.is_some());
            let known = record.is_some() || answer.is_some() || kernel.is_some();
            prop_assert_eq!(exit.error.is_empty(), known, "a reason is given just when nobody knew");
        }
    }
}
