// SPDX-License-Identifier: Apache-2.0
//! The one way to open something below a directory that others filled.
//!
//! Only `openat2(2)`: the kernel refuses to leave the directory, so that no
//! check can be raced. Results are descriptors; a path is never resolved twice.

use std::{
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, OpenHow, ResolveFlag, openat2},
    sys::stat::Mode,
};

/// How long a resolution is repeated that renames elsewhere on the machine
/// disturb (`EAGAIN`): a count would fail under load.
const RACE_DEADLINE: Duration = Duration::from_millis(50);

/// Opens `path` below `dir` without following any symbolic link.
///
/// # Errors
/// `ELOOP` for a link on the way, `EXDEV` for a way out, and openat2's others.
pub fn open_beneath(dir: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: Mode) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV;
    open(dir, path, flags, mode, resolve)
}

/// Opens the directory `name` in `dir`, itself no link.
///
/// # Errors
/// `ENOTDIR` or `ELOOP` for something else, and openat2's others.
pub fn open_dir(dir: BorrowedFd<'_>, name: &Path) -> nix::Result<OwnedFd> {
    open_beneath(dir, name, OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW, Mode::empty())
}

/// Opens `name` in `dir`, itself no link and not the way up; a mount may be
/// crossed.
///
/// # Errors
/// `ELOOP` for a link, and openat2's others.
pub fn open_child(dir: BorrowedFd<'_>, name: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open(dir, name, flags | OFlag::O_NOFOLLOW, Mode::empty(), resolve)
}

/// Opens `path` as a process would see it whose root is `root`.
///
/// # Errors
/// Those of openat2.
pub fn open_in_root(root: BorrowedFd<'_>, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
    let resolve = ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS;
    open(root, path, flags, Mode::empty(), resolve)
}

/// Opens what `handle` (`O_PATH`) refers to, once it is known to be harmless:
/// opening a device by its name would have effects before it could be looked
/// at. `descriptors` is `/proc/self/fd`, opened where that is ours.
///
/// # Errors
/// Those of openat(2).
pub fn reopen(descriptors: BorrowedFd<'_>, handle: BorrowedFd<'_>, flags: OFlag) -> nix::Result<OwnedFd> {
    let name = handle.as_raw_fd().to_string();
    let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    nix::fcntl::openat(descriptors, name.as_str(), flags, Mode::empty())
}

/// `/proc/self/fd`, for [`reopen`].
///
/// # Errors
/// Those of open(2), and `ENOTSUP` when it isn't procfs that is mounted there.
pub fn descriptors() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let opened = nix::fcntl::open("/proc/self/fd", flags, Mode::empty())?;
    let kind = nix::sys::statfs::fstatfs(&opened)?.filesystem_type();
    if kind == nix::sys::statfs::PROC_SUPER_MAGIC { Ok(opened) } else { Err(Errno::ENOTSUP) }
}

fn open(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlag,
    mode: Mode,
    resolve: ResolveFlag,
) -> nix::Result<OwnedFd> {
    let deadline = Instant::now() + RACE_DEADLINE;
    loop {
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).mode(mode).resolve(resolve);
        match openat2(dir.as_fd(), path, how) {
            Err(Errno::EAGAIN) if Instant::now() < deadline => std::thread::yield_now(),
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_and_nothing_behind_a_link_is_opened() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(dir.path().join("in/sub")).expect("mkdir");
        std::fs::write(dir.path().join("secret"), "x").expect("write");
        symlink("..", dir.path().join("in/up")).expect("symlink");
        symlink("/", dir.path().join("in/root")).expect("symlink");
        symlink("sub", dir.path().join("in/same")).expect("symlink");
        let root = std::fs::File::open(dir.path().join("in")).expect("open");
        assert!(open_dir(root.as_fd(), Path::new("sub")).is_ok());
        for (path, errno) in [
            ("../secret", Errno::EXDEV),
            ("/etc", Errno::EXDEV),
            ("up/secret", Errno::ELOOP),
            ("root/etc", Errno::ELOOP),
            ("same", Errno::ELOOP),
        ] {
            let opened = open_beneath(root.as_fd(), Path::new(path), OFlag::O_RDONLY, Mode::empty());
            assert_eq!(opened.expect_err(path), errno, "{path}");
        }
    }
}
