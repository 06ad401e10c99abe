// SPDX-License-Identifier: Apache-2.0
//! Waiting for a descriptor to become readable, within tokio.
#![allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Registers `fd`. Must be called within a tokio runtime.
///
/// # Errors
/// Those of epoll_ctl(2).
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor until it is dropped.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}
