// SPDX-License-Identifier: Apache-2.0
//! A process that the engine watches through its pidfd: a shim, or the first
//! process of a container.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use berth::bundle::ProcessIdentity;
use tokio::io::unix::AsyncFd;

use super::timeouts;
use crate::{
    error::{Context as _, Error, Kind, Result},
    kernel::{pidfd, readiness},
};

/// Kills a process that is known from a record alone, and waits for its end.
/// One that has ended is fine. Blocks.
///
/// # Errors
/// `Unavailable` when it survives for [`timeouts::KILLED`]; those of the host.
pub fn end(identity: &ProcessIdentity) -> Result<()> {
    let Some(pidfd) = pidfd::open_identified(identity).context("look for a process")? else { return Ok(()) };
    match pidfd::signal(pidfd.as_fd(), libc::SIGKILL) {
        Err(e) if e.raw_os_error() != Some(libc::ESRCH) => return Err(e).context("kill a process"),
        _ => {}
    }
    if pidfd::ends_within(pidfd.as_fd(), timeouts::KILLED).context("wait for a process")? {
        return pidfd::reap(pidfd.as_fd()).context("reap a process");
    }
    Err(Error::new(Kind::Unavailable, format!("process {} survives SIGKILL", identity.pid)))
}

/// A process, for ever: signals never reach another one.
#[derive(Debug)]
pub struct Process {
    identity: ProcessIdentity,
    pidfd: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes over a process that was opened and identified.
    ///
    /// # Errors
    /// Those of epoll(7). Must be called within a tokio runtime.
    pub fn new(identity: ProcessIdentity, pidfd: OwnedFd) -> Result<Self> {
        let pidfd = readiness::readable(pidfd).context("watch a process")?;
        Ok(Self { identity, pidfd })
    }

    /// Finds a process again; `None` when it is gone.
    ///
    /// # Errors
    /// When the kernel can't tell, which proves nothing.
    pub fn find(identity: &ProcessIdentity) -> Result<Option<Self>> {
        let found = pidfd::open_identified(identity).context("look for a process")?;
        found.map(|fd| Self::new(identity.clone(), fd)).transpose()
    }

    /// Who it is.
    #[must_use]
    pub fn identity(&self) -> &ProcessIdentity {
        &self.identity
    }

    /// A descriptor of it, to be joined, asked, or inherited.
    #[must_use]
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Waits for its end. A child of the engine is reaped.
    ///
    /// # Errors
    /// Those of epoll(7) and waitid(2).
    pub async fn ended(&self) -> Result<()> {
        let guard = self.pidfd.readable().await.context("watch a process")?;
        // Readable for good: it stays so for whoever asks next.
        drop(guard);
        pidfd::reap(self.pidfd.as_fd()).context("reap a process")
    }

    /// Kills it. One that has ended is fine.
    ///
    /// # Errors
    /// Those of pidfd_send_signal(2).
    pub fn kill(&self) -> Result<()> {
        match pidfd::signal(self.pidfd.as_fd(), libc::SIGKILL) {
            Err(e) if e.raw_os_error() != Some(libc::ESRCH) => Err(e).context("kill a process"),
            _ => Ok(()),
        }
    }

    /// Its wait status, if it has ended and the kernel still knows.
    ///
    /// # Errors
    /// Those of poll(2).
    pub fn wait_status(&self) -> io::Result<Option<i32>> {
        if !pidfd::has_ended(self.pidfd.as_fd())? {
            return Ok(None);
        }
        Ok(pidfd::wait_status(self.pidfd.as_fd(), &self.identity))
    }
}
