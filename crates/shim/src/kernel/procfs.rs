// SPDX-License-Identifier: Apache-2.0
//! The host's procfs (D5, docs/adr/0017): known to be one before anything in it
//! is believed or written, and never left, nor entered by what is mounted over
//! a part of it.
//!
//! All of the runtime's reading and writing of /proc goes through here, but for
//! names that only the kernel resolves (`/proc/self/fd/N` as the address of a
//! socket, or a layer of an overlay).

use std::{
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, ResolveFlag},
    sys::stat::Mode,
};

use super::{
    Result, SysError, fd,
    paths::{self, PROC_ROOT, is_procfs, open_host, openat2, stat},
    sys,
};

/// Not out of it by any link or mount.
const INSIDE: ResolveFlag = ResolveFlag::RESOLVE_BENEATH
    .union(ResolveFlag::RESOLVE_NO_XDEV)
    .union(ResolveFlag::RESOLVE_NO_MAGICLINKS);

/// Largest file that is read: a table of mounts.
const MAX_FILE: u64 = 16 << 20;

/// The root of the host's procfs.
#[derive(Debug)]
pub struct Procfs(OwnedFd);

impl Procfs {
    /// Opens `/proc`, which a container may not have prepared: called before
    /// anything of one is mounted, or by a process that isn't in one.
    ///
    /// # Errors
    /// ENXIO when it is something else, or a part of a procfs.
    pub fn of_host() -> Result<Self> {
        let root = open_host(Path::new("/proc"), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW)?;
        if !is_procfs(&root)? || stat(&root)?.st_ino != PROC_ROOT {
            return Err(SysError::new("/proc is no procfs, or not all of one", Errno::ENXIO));
        }
        Ok(Self(root))
    }

    /// Opens a file or a directory in it. Its links `self` and `thread-self`
    /// are followed, those that lead elsewhere are not ([`Self::follow`]).
    ///
    /// # Errors
    /// EXDEV where something is mounted on the way; those of openat2(2).
    pub fn open(&self, path: impl AsRef<Path>, flags: OFlag) -> Result<OwnedFd> {
        openat2(&self.0, path.as_ref(), flags, Mode::empty(), INSIDE)
    }

    /// Opens what a link of a process leads to: a namespace, its root, a file
    /// that it has open.
    ///
    /// # Errors
    /// EXDEV where something is mounted on the way, or on the link; those of
    /// openat2(2) and openat(2).
    pub fn follow(&self, path: impl AsRef<Path>, flags: OFlag) -> Result<OwnedFd> {
        let path = path.as_ref();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(SysError::new(format!("follow({path:?})"), Errno::EINVAL));
        };
        let directory = self.open(parent, OFlag::O_PATH | OFlag::O_DIRECTORY)?;
        // The link itself: that it is one of this file system's.
        openat2(&directory, Path::new(name), OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty(), INSIDE)?;
        let opened = nix::fcntl::openat(&directory, name, flags | OFlag::O_CLOEXEC, Mode::empty());
        sys(opened, || format!("openat({}, {name:?})", fd(&directory)))
    }

    /// Reads a file in it.
    ///
    /// # Errors
    /// EFBIG for more than 16 MiB; those of openat2(2) and read(2).
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Vec<u8>> {
        paths::read_regular(self.open(path, OFlag::O_RDONLY)?, MAX_FILE)
    }

    /// Reads a file of text in it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_text(&self, path: impl AsRef<Path>) -> Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?).into_owned())
    }

    /// Writes `value` to a file in it, in one call.
    ///
    /// # Errors
    /// Those of openat2(2) and write(2).
    pub fn write(&self, path: impl AsRef<Path>, value: &[u8]) -> Result<()> {
        let file = self.open(path, OFlag::O_WRONLY)?;
        let text = || format!("write({}, {:?})", fd(file.as_fd()), String::from_utf8_lossy(value));
        sys(nix::unistd::write(&file, value), text).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_it_is_read_and_what_leads_out_is_not_opened() {
        let proc = Procfs::of_host().expect("procfs");
        assert!(proc.read_text("self/stat").expect("stat").starts_with(&std::process::id().to_string()));
        for link in ["self/root", "self/cwd", "self/fd/0", "self/ns/mnt", "self/exe"] {
            let e = proc.open(link, OFlag::O_PATH).expect_err(link);
            assert_eq!(e.errno(), Errno::ELOOP, "{link}");
        }
        for path in ["..", "/etc", "self/../../etc"] {
            let e = proc.open(path, OFlag::O_PATH).expect_err(path);
            assert_eq!(e.errno(), Errno::EXDEV, "{path}");
        }
        assert_eq!(proc.open("none", OFlag::O_PATH).expect_err("none").errno(), Errno::ENOENT);
    }

    #[test]
    fn links_are_followed_when_asked_to() {
        let proc = Procfs::of_host().expect("procfs");
        let root = proc.follow("self/root", OFlag::O_PATH | OFlag::O_DIRECTORY).expect("root");
        let host = open_host(Path::new("/"), OFlag::O_PATH).expect("/");
        let identity = |file: &OwnedFd| stat(file).map(|stat| (stat.st_dev, stat.st_ino)).expect("stat");
        assert_eq!(identity(&root), identity(&host));
        assert_eq!(proc.follow("self/ns/none", OFlag::O_RDONLY).expect_err("none").errno(), Errno::ENOENT);
        assert_eq!(proc.follow("..", OFlag::O_PATH).expect_err("out").errno(), Errno::EINVAL);
    }
}
