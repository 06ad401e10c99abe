// SPDX-License-Identifier: Apache-2.0
#![allow(unsafe_code, reason = "tokio can't know that a descriptor stays open")]
//! Readiness of our own standard streams.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

use tokio::io::{Interest, unix::AsyncFd};

/// One of the descriptors 0, 1 and 2.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Standard(BorrowedFd<'static>);

impl Standard {
    /// Our stdin, stdout or stderr.
    pub(crate) fn of(stream: &'static impl AsFd) -> Self {
        Self(stream.as_fd())
    }
}

impl AsFd for Standard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0
    }
}

impl AsRawFd for Standard {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// Has the runtime watch `stream`. `None` for a file, which is always ready.
pub(crate) fn watch(stream: Standard, interest: Interest) -> Option<AsyncFd<Standard>> {
    // SAFETY: the descriptor is borrowed for 'static: nobody closes it before
    // the AsyncFd is dropped, and it is always the same one.
    unsafe { AsyncFd::register_with_interest(stream, interest) }.ok()
}
