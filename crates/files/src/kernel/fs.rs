// SPDX-License-Identifier: Apache-2.0
//! File system calls that the libraries lack: extended attributes by
//! descriptor, and the removal and measuring of whole trees.
#![allow(unsafe_code, reason = "nix has no extended attributes")]

use std::{
    ffi::{CStr, CString},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, renameat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
    unistd::{UnlinkatFlags, Whence, lseek, unlinkat},
};

use super::paths;

/// Largest attribute value that Linux takes (`XATTR_SIZE_MAX`).
const XATTR_SIZE_MAX: usize = 65536;

/// How deep a removal holds descriptors; deeper trees are lifted up first, so
/// that no tree can use up the descriptors of the process.
const MAX_DEPTH: usize = 24;

/// Names that a removal holds of a directory: it may have millions.
const AT_ONCE: usize = 8192;

/// Has the kernel begin to write a file to its disk while more of it is written
/// (`sync_file_range(2)`), so that there is little left to do for the `fsync`
/// or `syncfs` that waits for it, and tells the errors.
#[derive(Debug)]
pub struct Writeback {
    begun: u64,
    /// Bytes that are worth a request of their own.
    each: u64,
}

impl Writeback {
    /// Of what is written from `offset` on, in requests of `each` bytes.
    #[must_use]
    pub fn new(offset: u64, each: u64) -> Self {
        Self { begun: offset, each }
    }

    /// `file` is written up to `offset`.
    pub fn written(&mut self, file: BorrowedFd<'_>, offset: u64) {
        let length = offset - self.begun;
        let (Ok(from), Ok(bytes)) = (self.begun.try_into(), length.try_into()) else { return };
        if length >= self.each {
            // SAFETY: takes numbers only.
            unsafe { libc::sync_file_range(file.as_raw_fd(), from, bytes, libc::SYNC_FILE_RANGE_WRITE) };
            self.begun = offset;
        }
    }
}

/// `fsetxattr(2)`.
///
/// # Errors
/// The call's.
pub fn set_xattr(file: BorrowedFd<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    // SAFETY: `name` is NUL-terminated and `value` has the length given; both
    // outlive the call, and the kernel only reads them.
    let done =
        unsafe { libc::fsetxattr(file.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    Errno::result(done).map(drop)
}

/// `fgetxattr(2)`; `None` when there is no such attribute.
///
/// # Errors
/// The call's.
pub fn get_xattr(file: BorrowedFd<'_>, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut value = vec![0_u8; XATTR_SIZE_MAX];
    // SAFETY: the kernel writes at most `value.len()` bytes into `value`.
    let length =
        unsafe { libc::fgetxattr(file.as_raw_fd(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match Errno::result(length) {
        Ok(length) => {
            value.truncate(usize::try_from(length).unwrap_or(0));
            Ok(Some(value))
        }
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The names of all attributes, `flistxattr(2)`.
///
/// # Errors
/// The call's.
pub fn list_xattrs(file: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    let mut names = vec![0_u8; XATTR_SIZE_MAX];
    // SAFETY: the kernel writes at most `names.len()` bytes into `names`.
    let length = unsafe { libc::flistxattr(file.as_raw_fd(), names.as_mut_ptr().cast(), names.len()) };
    let length = match Errno::result(length) {
        Ok(length) => usize::try_from(length).unwrap_or(0),
        Err(Errno::ENOTSUP) => 0,
        Err(e) => return Err(e),
    };
    names.truncate(length);
    Ok(names.split(|&b| b == 0).filter(|n| !n.is_empty()).filter_map(|n| CString::new(n).ok()).collect())
}

/// `fchmodat2(2)` without following a link (Linux 6.6).
///
/// # Errors
/// `ENOSYS` before, and the call's.
pub fn chmod_no_follow(dir: BorrowedFd<'_>, name: &std::ffi::OsStr, mode: Mode) -> nix::Result<()> {
    /// The same number on every architecture; libc has none yet.
    const FCHMODAT2: libc::c_long = 452;
    let name = CString::new(name.as_bytes()).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `name` ends with NUL and outlives the call; the rest are integers.
    let done = unsafe {
        libc::syscall(FCHMODAT2, dir.as_raw_fd(), name.as_ptr(), mode.bits(), libc::AT_SYMLINK_NOFOLLOW)
    };
    Errno::result(done).map(drop)
}

/// Whether the lock on the open file (flock(2)) could be had; it is kept until
/// the last descriptor of this opening is closed, whichever process has it.
///
/// # Errors
/// The call's, but for `EWOULDBLOCK`.
pub fn try_lock(file: BorrowedFd<'_>, lock: Lock) -> nix::Result<bool> {
    let how = match lock {
        Lock::Shared => libc::LOCK_SH,
        Lock::Exclusive => libc::LOCK_EX,
    };
    // SAFETY: only integers are passed.
    match Errno::result(unsafe { libc::flock(file.as_raw_fd(), how | libc::LOCK_NB) }) {
        Ok(_) => Ok(true),
        Err(Errno::EWOULDBLOCK) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Who else may have a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Others that share it.
    Shared,
    /// Nobody.
    Exclusive,
}

/// Removes `name` in `dir` and everything below it; nothing there is fine.
/// Never follows a link, never recurses without bound.
///
/// # Errors
/// Those of the calls; what could be removed is gone.
pub fn remove_tree(dir: BorrowedFd<'_>, name: &Path) -> nix::Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => return Ok(()),
        Err(Errno::EISDIR | Errno::EPERM) => {}
        Err(e) => return Err(e),
    }
    let top = match paths::open_dir(dir, name) {
        // Another remover was faster.
        Err(Errno::ENOENT) => return Ok(()),
        top => top?,
    };
    let mut lifted = 0_u64;
    // Lifting moves directories into the top, whose next pass finds them.
    while !empty(top.as_fd(), top.as_fd(), 0, &mut lifted)? {}
    gone(unlinkat(dir, name, UnlinkatFlags::RemoveDir))
}

/// That it isn't there is what was wanted.
fn gone(result: nix::Result<()>) -> nix::Result<()> {
    if result == Err(Errno::ENOENT) { Ok(()) } else { result }
}

/// Empties `dir`; `false` when something was moved up into `top` meanwhile.
fn empty(dir: BorrowedFd<'_>, top: BorrowedFd<'_>, depth: usize, lifted: &mut u64) -> nix::Result<bool> {
    let mut whole = true;
    loop {
        let names = some_children(dir, AT_ONCE)?;
        let last = names.len() < AT_ONCE;
        whole &= remove_all(dir, &names, top, depth, lifted)?;
        if last {
            return Ok(whole);
        }
    }
}

fn remove_all(
    dir: BorrowedFd<'_>,
    names: &[CString],
    top: BorrowedFd<'_>,
    depth: usize,
    lifted: &mut u64,
) -> nix::Result<bool> {
    let mut whole = true;
    for name in names {
        let name = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes())).to_owned();
        match unlinkat(dir, &name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR | Errno::EPERM) => {}
            Err(e) => return Err(e),
        }
        if depth >= MAX_DEPTH {
            lift(dir, &name, top, lifted)?;
            whole = false;
            continue;
        }
        let child = match paths::open_dir(dir, &name) {
            Err(Errno::ENOENT) => continue,
            child => child?,
        };
        whole &= empty(child.as_fd(), top, depth + 1, lifted)?;
        drop(child);
        gone(unlinkat(dir, &name, UnlinkatFlags::RemoveDir))?;
    }
    Ok(whole)
}

fn lift(dir: BorrowedFd<'_>, name: &Path, top: BorrowedFd<'_>, lifted: &mut u64) -> nix::Result<()> {
    loop {
        *lifted += 1;
        match renameat(dir, name, top, format!(".lifted-{lifted}").as_str()) {
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => {}
            result => return result,
        }
    }
}

/// The names in a directory, without `.` and `..`.
///
/// # Errors
/// Those of the calls.
pub fn children(dir: BorrowedFd<'_>) -> nix::Result<Vec<CString>> {
    some_children(dir, usize::MAX)
}

fn some_children(dir: BorrowedFd<'_>, most: usize) -> nix::Result<Vec<CString>> {
    // A descriptor of its own: reading moves the position that a copy shares.
    let fresh =
        paths::open_beneath(dir, Path::new("."), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(fresh)?.iter() {
        if names.len() == most {
            break;
        }
        let entry = entry?;
        let name = entry.file_name();
        if name.to_bytes() != b"." && name.to_bytes() != b".." {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// Bytes of the regular files below `dir`, whatever its depth. What lies
/// deeper than a path can name isn't counted.
///
/// # Errors
/// Those of the calls, except for what vanishes meanwhile.
pub fn tree_size(dir: BorrowedFd<'_>) -> nix::Result<u64> {
    let mut total = 0_u64;
    let mut pending = vec![PathBuf::from(".")];
    while let Some(path) = pending.pop() {
        let here = match paths::open_beneath(dir, &path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
        {
            Ok(here) => here,
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => continue,
            Err(e) => return Err(e),
        };
        for name in children(here.as_fd())? {
            let stat = match fstatat(&here, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT) => continue,
                Err(e) => return Err(e),
            };
            match file_type(&stat) {
                SFlag::S_IFREG => total = total.saturating_add(u64::try_from(stat.st_size).unwrap_or(0)),
                SFlag::S_IFDIR => pending.push(path.join(std::ffi::OsStr::from_bytes(name.as_bytes()))),
                _ => {}
            }
        }
    }
    Ok(total)
}

/// The type bits of a mode.
#[must_use]
pub fn file_type(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

/// Whether it is what overlayfs takes for "deleted here": character device 0:0.
#[must_use]
pub fn is_whiteout(stat: &FileStat) -> bool {
    file_type(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// The owner, group, permissions and times of `from`, given to `to`.
///
/// # Errors
/// Those of the calls.
pub fn copy_ownership(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> nix::Result<FileStat> {
    use nix::{
        sys::{
            stat::{fchmod, futimens},
            time::TimeSpec,
        },
        unistd::{Gid, Uid, fchown},
    };
    let stat = fstat(from)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, Mode::from_bits_truncate(stat.st_mode & 0o7777))?;
    futimens(
        to,
        &TimeSpec::new(stat.st_atime, stat.st_atime_nsec),
        &TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec),
    )?;
    Ok(stat)
}

/// Where a file of `size` bytes has data: offsets and lengths, in order. `None`
/// where its file system doesn't know, or when there are more than `most`.
///
/// # Errors
/// Those of lseek(2).
pub fn pieces(file: BorrowedFd<'_>, size: u64, most: usize) -> nix::Result<Option<Vec<(u64, u64)>>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < size {
        let from = i64::try_from(at).map_err(|_| Errno::EOVERFLOW)?;
        let start = match lseek(file, from, Whence::SeekData) {
            // There is nothing after it.
            Err(Errno::ENXIO) => break,
            Err(Errno::EINVAL | Errno::EOPNOTSUPP) => return Ok(None),
            found => found?,
        };
        let end = lseek(file, start, Whence::SeekHole)?;
        let (start, end) = (start.unsigned_abs().min(size), end.unsigned_abs().min(size));
        // One that others are changing isn't followed for ever.
        if end <= at || found.len() == most {
            return Ok(None);
        }
        if end > start {
            found.push((start, end - start));
        }
        at = end;
    }
    Ok(Some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deep_tree_is_removed_and_its_links_are_not_followed() {
        let base = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir(base.path().join("canary")).expect("mkdir");
        std::fs::write(base.path().join("canary/keep"), "x").expect("write");
        let mut deep = base.path().join("tree");
        for _ in 0..200 {
            deep.push("d");
        }
        std::fs::create_dir_all(&deep).expect("mkdir");
        std::fs::write(deep.join("leaf"), "12345").expect("write");
        std::os::unix::fs::symlink(base.path().join("canary"), base.path().join("tree/link"))
            .expect("symlink");
        let dir = std::fs::File::open(base.path()).expect("open");
        let tree = paths::open_dir(dir.as_fd(), Path::new("tree")).expect("open");
        assert_eq!(tree_size(tree.as_fd()), Ok(5));
        remove_tree(dir.as_fd(), Path::new("tree")).expect("remove");
        remove_tree(dir.as_fd(), Path::new("tree")).expect("again");
        assert!(!base.path().join("tree").exists());
        assert!(base.path().join("canary/keep").exists());
    }

    #[test]
    fn a_directory_of_more_names_than_are_held_is_removed() {
        let base = tempfile::tempdir().expect("tempdir");
        let tree = base.path().join("tree");
        std::fs::create_dir(&tree).expect("mkdir");
        for name in 0..2 * AT_ONCE {
            std::fs::write(tree.join(name.to_string()), "").expect("write");
        }
        std::fs::create_dir(tree.join("dir")).expect("mkdir");
        let dir = std::fs::File::open(base.path()).expect("open");
        remove_tree(dir.as_fd(), Path::new("tree")).expect("remove");
        assert!(!tree.exists());
    }

    #[test]
    fn attributes_are_read_back() {
        let file = tempfile::NamedTempFile::new().expect("file");
        let value = get_xattr(file.as_file().as_fd(), c"user.berth").expect("get");
        assert_eq!(value, None);
        if let Err(Errno::ENOTSUP) = set_xattr(file.as_file().as_fd(), c"user.berth", b"a\nb") {
            eprintln!("skipped: the temporary directory takes no user attributes");
            return;
        }
        let value = get_xattr(file.as_file().as_fd(), c"user.berth").expect("get");
        assert_eq!(value.as_deref(), Some(&b"a\nb"[..]));
        assert_eq!(list_xattrs(file.as_file().as_fd()).expect("list"), [c"user.berth".to_owned()]);
    }
}
