// SPDX-License-Identifier: Apache-2.0
//! Our own stdin, stdout and stderr, without blocking and without a thread.
//!
//! Setting `O_NONBLOCK` would change the terminal or pipe for everyone who
//! shares it, the user's shell among them. So readiness is asked for with
//! poll(2), waited for with epoll, and each transfer kept so small that it
//! doesn't block. Files can't be waited for and never have to be.

use std::{
    io::{self, Stderr, Stdin, Stdout},
    os::fd::AsFd,
    sync::LazyLock,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{Interest, unix::AsyncFd};

use crate::kernel::events::{Standard, watch};

/// pipe(7): a pipe that is writable takes this much without blocking.
const CHUNK: usize = 4096;

static STDIN: LazyLock<Stdin> = LazyLock::new(io::stdin);
static STDOUT: LazyLock<Stdout> = LazyLock::new(io::stdout);
static STDERR: LazyLock<Stderr> = LazyLock::new(io::stderr);

/// One of the three, registered with the runtime when it can be.
#[derive(Debug)]
pub(super) struct Port {
    stream: Standard,
    events: Option<AsyncFd<Standard>>,
    interest: Interest,
    flags: PollFlags,
}

pub(super) fn stdin() -> Port {
    Port::new(Standard::of(&*STDIN), Interest::READABLE, PollFlags::POLLIN)
}

pub(super) fn stdout() -> Port {
    Port::new(Standard::of(&*STDOUT), Interest::WRITABLE, PollFlags::POLLOUT)
}

pub(super) fn stderr() -> Port {
    Port::new(Standard::of(&*STDERR), Interest::WRITABLE, PollFlags::POLLOUT)
}

impl Port {
    fn new(stream: Standard, interest: Interest, flags: PollFlags) -> Self {
        Self { stream, events: watch(stream, interest), interest, flags }
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
        let mut fds = [PollFd::new(self.stream.as_fd(), self.flags)];
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
            match nix::unistd::write(self.stream, &bytes[..length]) {
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
            match nix::unistd::read(self.stream, buffer) {
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
