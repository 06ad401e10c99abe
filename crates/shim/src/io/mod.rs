// SPDX-License-Identifier: Apache-2.0
//! Bytes to and from the container's first process.
//!
//! ```text
//! stdout, stderr ─ pump ─┬─ log        (never blocks, never stops)
//!  (or a terminal)       ├─ files      (containerd's file://)
//!                        └─ subscribers: attached clients, FIFOs
//! stdin ── input ─────────── attached clients, a FIFO
//! ```
//!
//! One thread: state is shared through `Rc<RefCell<…>>` and no borrow lives
//! across an await. What a process is and when it ends is the supervisor's
//! business.

pub mod attach;
pub mod diag;
pub mod fifo;
pub mod input;
pub mod log;
pub mod output;
pub mod queue;
pub mod stdio;

/// Which of the container's two outputs; a terminal has only the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output, or the terminal.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both, in the order of their indices.
    pub const ALL: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The name that log formats use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }

    /// Position in arrays that hold one thing per stream.
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
