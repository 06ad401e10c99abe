// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code, reason = "TIOCGWINSZ has no safe wrapper in nix")]
//! The size of a terminal.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

nix::ioctl_read_bad!(tiocgwinsz, libc::TIOCGWINSZ, libc::winsize);

/// Rows and columns of a terminal.
///
/// # Errors
/// `ENOTTY` when it isn't one.
pub(crate) fn size(terminal: impl AsFd) -> io::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open for the whole call, and the kernel writes
    // one winsize to the address given.
    unsafe { tiocgwinsz(terminal.as_fd().as_raw_fd(), &raw mut size) }?;
    Ok((size.ws_row, size.ws_col))
}
