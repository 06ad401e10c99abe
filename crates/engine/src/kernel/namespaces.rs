// SPDX-License-Identifier: Apache-2.0
//! Namespaces of processes, held by descriptor: they stay what they are when
//! the process ends and its pid is another's.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd as _, BorrowedFd, OwnedFd},
    path::PathBuf,
};

use super::pidfd;

/// A namespace that stays as long as this value does.
#[derive(Debug)]
pub struct Namespace(OwnedFd);

impl Namespace {
    /// That of the process `pid`, which `pidfd` is of; `name` as in
    /// /proc/PID/ns: `net`, `pid`, `ipc`.
    ///
    /// # Errors
    /// `ESRCH` when the process has ended; those of procfs.
    pub fn of(pidfd: BorrowedFd<'_>, pid: u32, name: &str) -> io::Result<Self> {
        let namespace = File::open(format!("/proc/{pid}/ns/{name}"))?;
        // Opened first, asked after: the pid can't have been another's.
        pidfd::signal(pidfd, 0)?;
        Ok(Self(namespace.into()))
    }

    /// Where other processes of the same pid namespace find it, as long as
    /// this value and this process live.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd as _, unix::fs::MetadataExt as _};

    use super::*;

    #[test]
    fn a_namespace_is_found_by_its_path() {
        let me = std::process::id();
        let pidfd = pidfd::open(me).expect("open");
        let namespace = Namespace::of(pidfd.as_fd(), me, "net").expect("namespace");
        let inode = |path: &str| std::fs::metadata(path).expect("stat").ino();
        assert_eq!(inode(namespace.path().to_str().expect("text")), inode("/proc/self/ns/net"));
        assert!(Namespace::of(pidfd.as_fd(), me, "nothing").is_err());
    }
}
