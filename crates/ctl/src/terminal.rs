// SPDX-License-Identifier: Apache-2.0
//! The user's terminal: its size, and raw mode that is always undone.

use std::{
    io::{self, IsTerminal as _, Stdin},
    os::fd::AsFd,
};

use berth::api::v1::TtySize;
use nix::sys::termios::{self, LocalFlags, SetArg, Termios};

use crate::{kernel::tty, output::progress::Style};

/// Raw mode of the terminal on stdin: bytes go through as they are typed.
///
/// Dropping it restores the terminal, also while a panic unwinds. Signals
/// that end the program are caught for as long as it exists (by
/// [`crate::session`]), so that it is dropped then as well.
#[derive(Debug)]
pub struct RawMode {
    stdin: Stdin,
    before: Termios,
}

impl RawMode {
    /// Switches the terminal on stdin to raw mode.
    ///
    /// # Errors
    /// When stdin isn't a terminal.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // Nobody is left to tell when the terminal is gone.
        let _ = termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before);
    }
}

/// The terminal on stdin without echo, for a password. Dropping it restores
/// the terminal.
#[derive(Debug)]
pub struct Hidden {
    stdin: Stdin,
    before: Termios,
}

impl Hidden {
    /// Stops the echo.
    ///
    /// # Errors
    /// When stdin isn't a terminal.
    pub fn enter() -> io::Result<Self> {
        let stdin = io::stdin();
        let before = termios::tcgetattr(&stdin)?;
        let mut hidden = before.clone();
        hidden.local_flags.remove(LocalFlags::ECHO);
        termios::tcsetattr(&stdin, SetArg::TCSAFLUSH, &hidden)?;
        Ok(Self { stdin, before })
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        // Nobody is left to tell when the terminal is gone.
        let _ = termios::tcsetattr(&self.stdin, SetArg::TCSADRAIN, &self.before);
    }
}

/// The size of the user's terminal, when there is one on stdout or stdin.
#[must_use]
pub fn size() -> Option<TtySize> {
    let (rows, columns) = tty::size(io::stdout()).or_else(|_| tty::size(io::stdin())).ok()?;
    if rows == 0 || columns == 0 {
        return None;
    }
    Some(TtySize { rows: rows.into(), columns: columns.into() })
}

/// How progress looks on stdout, or on stderr for `run`.
#[must_use]
pub fn progress_style(stream: &(impl io::IsTerminal + AsFd)) -> Style {
    match tty::size(stream) {
        Ok((rows, columns)) if stream.is_terminal() && rows > 0 && columns > 0 => {
            Style::Live { columns: columns.into(), rows: rows.into() }
        }
        _ => Style::Lines,
    }
}

/// Whether stdin is a terminal.
#[must_use]
pub fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Whether standard output is a terminal.
#[must_use]
pub fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}
