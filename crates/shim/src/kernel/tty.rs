// SPDX-License-Identifier: Apache-2.0
//! Pseudo-terminals: ioctls only.
#![allow(unsafe_code, reason = "ioctls")]

use std::{
    ffi::c_int,
    os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd},
};

use nix::errno::Errno;

use super::{Result, SysError, fd};

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters a line.
    pub columns: u16,
}

/// Unlocks the other side of `master` and opens it, without a path.
///
/// # Errors
/// Those of ioctl_tty(2).
pub fn peer(master: &OwnedFd) -> Result<OwnedFd> {
    let unlocked: c_int = 0;
    // SAFETY: TIOCSPTLCK reads an int.
    let result = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlocked) };
    check(result, || format!("ioctl({}, TIOCSPTLCK)", fd(master)))?;
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a descriptor.
    let number = unsafe { libc::ioctl(master.as_raw_fd(), libc::TIOCGPTPEER, flags) };
    if number < 0 {
        return Err(SysError::new(format!("ioctl({}, TIOCGPTPEER)", fd(master)), Errno::last()));
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Changes the size; the foreground process group gets SIGWINCH.
///
/// # Errors
/// ENOTTY.
pub fn resize(terminal: impl AsFd, size: Size) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads a winsize.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    check(result, || format!("ioctl({}, TIOCSWINSZ)", fd(&terminal)))
}

/// The size; zeros where nobody has set one.
///
/// # Errors
/// ENOTTY.
pub fn size(terminal: impl AsFd) -> Result<Size> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ writes a winsize.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) };
    check(result, || format!("ioctl({}, TIOCGWINSZ)", fd(&terminal)))?;
    Ok(Size { rows: size.ws_row, columns: size.ws_col })
}

/// Makes `terminal` the controlling one of this session.
///
/// # Errors
/// EPERM when this is no session leader.
pub fn take_control(terminal: impl AsFd) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCSCTTY, 0) };
    check(result, || format!("ioctl({}, TIOCSCTTY)", fd(&terminal)))
}

fn check(result: c_int, call: impl FnOnce() -> String) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    let errno = Errno::last();
    Err(SysError::new(call(), errno))
}
