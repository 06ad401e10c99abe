// SPDX-License-Identifier: Apache-2.0
//! Our own stdin, stdout and stderr, without blocking and without a thread.
//!
//! Setting `O_NONBLOCK` would change the terminal or pipe for everyone who
//! shares it, the user's shell among them. So readiness is asked for with
//! poll(2), waited for with epoll, and each transfer kept so small that it
//! doesn't block. Files can't be waited for and never have to be.

use std::{
    io::{self, Stderr, Stdin, Stdout},
    os::fd::{AsFd, AsRawFd},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{Interest, unix::AsyncFd};

/// pipe(7): a pipe that is writable takes this much without blocking.
const CHUNK: usize = 4096;

/// One of the three, registered with the runtime when it can be.
#[derive(Debug)]
pub(super) struct Port<T: AsRawFd + AsFd> {
    file: T,
    events: Option<AsyncFd<T>>,
    interest: Interest,
    flags: PollFlags,
}

pub(super) fn stdin() -> Port<Stdin> {
    Port::new(io::stdin(), io::stdin(), Interest::READABLE, PollFlags::POLLIN)
}

pub(super) fn stdout() -> Port<Stdout> {
    Port::new(io::stdout(), io::stdout(), Interest::WRITABLE, PollFlags::POLLOUT)
}

pub(super) fn stderr() -> Port<Stderr> {
    Port::new(io::stderr(), io::stderr(), Interest::WRITABLE, PollFlags::POLLOUT)
}

impl<T: AsRawFd + AsFd> Port<T> {
    fn new(file: T, same: T, interest: Interest, flags: PollFlags) -> Self {
        // EPERM: a file, which is always ready.
        Self { file, events: AsyncFd::register_with_interest(same, interest).ok(), interest, flags }
    }

    /// Returns once a small transfer won't block. Cancel-safe.
    async fn ready(&self) -> io::Result<()> {
        let Some(events) = &self.events else { return Ok(()) };
        while !self.is_ready()? {
            let mut guard = events.ready(self.interest).await?;
            // epoll tells of changes; the state may be an older one.
            if !self.is_ready()? {
                guard.clear_ready();
            }
        }
        Ok(())
    }

    fn is_ready(&self) -> io::Result<bool> {
        let mut fds = [PollFd::new(self.file.as_fd(), self.flags)];
        match poll(&mut fds, PollTimeout::ZERO) {
            // Errors and hang-ups are found by the transfer itself.
            Ok(count) => Ok(count > 0),
            Err(nix::errno::Errno::EINTR) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes some of `bytes`. Cancel-safe: nothing is written after an await.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            self.ready().await?;
            let length = if self.events.is_some() { bytes.len().min(CHUNK) } else { bytes.len() };
            match nix::unistd::write(&self.file, &bytes[..length]) {
                Ok(written) => return Ok(written),
                Err(nix::errno::Errno::EINTR) => {}
                // Somebody else made it non-blocking.
                Err(nix::errno::Errno::EAGAIN) => tokio::task::yield_now().await,
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Reads into `buffer`; 0 at the end. Cancel-safe.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.ready().await?;
            match nix::unistd::read(&self.file, buffer) {
                Ok(length) => return Ok(length),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => tokio::task::yield_now().await,
                // The other end of a terminal is closed.
                Err(nix::errno::Errno::EIO) => return Ok(0),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
