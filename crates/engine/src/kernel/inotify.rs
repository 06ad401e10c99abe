// SPDX-License-Identifier: Apache-2.0
//! Being told that something in a directory has changed: inotify(7).
//!
//! One instance serves the whole engine: a user may have only 128 of them.
#![allow(unsafe_code, reason = "inotify(7) without nix's feature")]

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use tokio::io::unix::AsyncFd;

use super::readiness;

/// An inotify instance.
#[derive(Debug)]
pub struct Inotify(AsyncFd<OwnedFd>);

/// What a change says; the name of the file doesn't matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Notice {
    /// Something in the watched directory has changed.
    Changed(i32),
    /// The watch is gone, or changes were lost: all may have changed.
    Lost,
}

/// What of a directory is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// That its files are written to, or new.
    Writes,
    /// That there are new ones, alone: however much is written, nobody wakes.
    Names,
}

const HEADER: usize = size_of::<libc::inotify_event>();

impl Inotify {
    /// Makes an instance.
    ///
    /// # Errors
    /// Those of inotify_init1(2). Must be called within a tokio runtime.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers; the descriptor is new.
        let fd = unsafe { libc::inotify_init1(libc::IN_NONBLOCK | libc::IN_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made it for us.
        readiness::readable(unsafe { OwnedFd::from_raw_fd(fd) }).map(Self)
    }

    /// Watches the files of `dir`; the same number for the same directory.
    ///
    /// # Errors
    /// Those of inotify_add_watch(2).
    pub fn watch(&self, dir: &Path, what: Watched) -> io::Result<i32> {
        let path = CString::new(dir.as_os_str().as_bytes())?;
        let names = libc::IN_CREATE | libc::IN_MOVED_TO | libc::IN_ONLYDIR;
        let mask = match what {
            Watched::Writes => names | libc::IN_MODIFY,
            Watched::Names => names,
        };
        // SAFETY: the string outlives the call.
        let watch = unsafe { libc::inotify_add_watch(self.0.as_raw_fd(), path.as_ptr(), mask) };
        if watch < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
    }

    /// Stops watching.
    ///
    /// # Errors
    /// `EINVAL` when the directory, and the watch with it, is gone.
    pub fn unwatch(&self, watch: i32) -> io::Result<()> {
        // SAFETY: plain numbers.
        let done = unsafe { libc::inotify_rm_watch(self.0.as_raw_fd(), watch) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Waits for something to happen.
    ///
    /// # Errors
    /// Those of read(2).
    pub async fn read(&self) -> io::Result<Vec<Notice>> {
        let mut buffer = [0_u8; 8192];
        loop {
            let mut ready = self.0.readable().await?;
            let read = ready.try_io(|fd| nix::unistd::read(fd, &mut buffer).map_err(io::Error::from));
            if let Ok(length) = read {
                return Ok(parse(&buffer[..length?]));
            }
        }
    }
}

/// `struct inotify_event`: watch, mask, cookie, length, name.
fn parse(mut bytes: &[u8]) -> Vec<Notice> {
    let mut notices = Vec::new();
    while let Some((header, rest)) = bytes.split_at_checked(HEADER) {
        let word = |at: usize| [header[at], header[at + 1], header[at + 2], header[at + 3]];
        let mask = u32::from_ne_bytes(word(4));
        let length = u32::from_ne_bytes(word(12)) as usize;
        let lost = mask & (libc::IN_Q_OVERFLOW | libc::IN_IGNORED) != 0;
        notices.push(if lost { Notice::Lost } else { Notice::Changed(i32::from_ne_bytes(word(0))) });
        bytes = rest.get(length..).unwrap_or_default();
    }
    notices
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_write_is_noticed_and_unwatching_ends_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let inotify = Inotify::new().expect("inotify");
        let watch = inotify.watch(dir.path(), Watched::Writes).expect("watch");
        assert_eq!(inotify.watch(dir.path(), Watched::Writes).expect("again"), watch);
        fs::write(dir.path().join("f"), "x").expect("write");
        assert!(inotify.read().await.expect("read").contains(&Notice::Changed(watch)));
        inotify.unwatch(watch).expect("unwatch");
        assert_eq!(inotify.read().await.expect("read"), [Notice::Lost]);
    }
}
