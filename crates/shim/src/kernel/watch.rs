// SPDX-License-Identifier: Apache-2.0
//! Descriptors on the event loop.
#![allow(unsafe_code, reason = "tokio asks for I/O safety to be promised")]

use std::{io, os::fd::OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{Interest, unix::AsyncFd};

/// Makes `fd` non-blocking and watches it both ways.
///
/// # Errors
/// EPERM for a regular file; those of epoll_ctl(2).
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    // SAFETY: an OwnedFd is open and stays the same until it is dropped.
    Ok(unsafe { AsyncFd::register(fd) }?)
}

/// Watches a pidfd: it becomes readable when its process ends.
///
/// # Errors
/// Those of epoll_ctl(2).
pub fn watch_process(pidfd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: as above.
    Ok(unsafe { AsyncFd::register_with_interest(pidfd, Interest::READABLE) }?)
}
