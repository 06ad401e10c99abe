// SPDX-License-Identifier: Apache-2.0
//! `tmpcopyup`: what an image has where a tmpfs is about to be mounted is
//! copied into that tmpfs, by [`super::mounts`] and before anything sees it.
//!
//! The image may change meanwhile: every name is one component, opened without
//! following a link, below a descriptor.

use std::{
    ffi::{CStr, OsStr},
    fs::File,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use nix::{
    dir::Dir,
    errno::Errno,
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstatat, mkdirat, mknodat},
    unistd::{Gid, Uid, fchownat, symlinkat},
};

use crate::{
    kernel::{SysError, fd, paths, sys},
    runtime::{During as _, Result},
};

/// What no sane image has: the copy is not to exhaust the stack.
const DEEPEST: usize = 128;

/// Copies all that is in the directory `from` into the directory `to`.
pub(super) fn copy(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    directory(from, to, 0)
}

fn directory(from: &OwnedFd, to: &OwnedFd, depth: usize) -> Result<()> {
    if depth > DEEPEST {
        return Err(SysError::new("tmpcopyup: directories are nested too deeply", Errno::ELOOP).into());
    }
    for name in names(from)? {
        entry(from, to, &name, depth).during(|| format!("copy {name:?} into the tmpfs"))?;
    }
    Ok(())
}

fn names(directory: &OwnedFd) -> Result<Vec<std::ffi::CString>> {
    let copy = directory.try_clone().map_err(|e| SysError::from_io("fcntl(F_DUPFD_CLOEXEC)", &e))?;
    let mut listing = sys(Dir::from_fd(copy), || format!("fdopendir({})", fd(directory)))?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = sys(entry, || format!("getdents64({})", fd(directory)))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

fn entry(from: &OwnedFd, to: &OwnedFd, name: &CStr, depth: usize) -> Result<()> {
    let stat = sys(fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW), || {
        format!("fstatat({}, {name:?}, AT_SYMLINK_NOFOLLOW)", fd(from))
    })?;
    let mode = Mode::from_bits_truncate(stat.st_mode & 0o7777);
    match paths::kind(&stat) {
        SFlag::S_IFDIR => {
            sys(mkdirat(to, name, Mode::S_IRWXU), || format!("mkdirat({}, {name:?})", fd(to)))?;
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
            directory(
                &open(from, name, flags, Mode::empty())?,
                &open(to, name, flags, Mode::empty())?,
                depth + 1,
            )?;
        }
        SFlag::S_IFREG => regular(from, to, name)?,
        SFlag::S_IFLNK => {
            let target = sys(readlinkat(from, name), || format!("readlinkat({}, {name:?})", fd(from)))?;
            sys(symlinkat(target.as_os_str(), to, name), || format!("symlinkat({}, {name:?})", fd(to)))?;
        }
        kind => {
            let made = mknodat(to, name, kind, Mode::empty(), stat.st_rdev);
            sys(made, || format!("mknodat({}, {name:?}, {kind:?})", fd(to)))?;
        }
    }
    own(to, name, &stat)?;
    if paths::kind(&stat) == SFlag::S_IFLNK {
        return Ok(());
    }
    // After the owner: a change of that clears set-user-id. The tmpfs is not
    // attached, so nobody else can have put a link at this name.
    Ok(sys(fchmodat(to, name, mode, FchmodatFlags::FollowSymlink), || {
        format!("fchmodat({}, {name:?}, {mode:?})", fd(to))
    })?)
}

fn own(to: &OwnedFd, name: &CStr, stat: &FileStat) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    Ok(sys(fchownat(to, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW), || {
        format!("fchownat({}, {name:?}, {uid}, {gid})", fd(to))
    })?)
}

/// A file that has become a pipe since it was looked at does not block.
fn regular(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<()> {
    let source = open(from, name, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty())?;
    if paths::kind(&paths::stat(&source)?) != SFlag::S_IFREG {
        return Err(SysError::new(format!("{name:?} has become another kind of file"), Errno::EINVAL).into());
    }
    let target = open(to, name, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL, Mode::S_IRUSR)?;
    std::io::copy(&mut File::from(source), &mut File::from(target))
        .map_err(|e| SysError::from_io(format!("copy {name:?}"), &e))?;
    Ok(())
}

fn open(directory: impl AsFd, name: &CStr, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(sys(openat(&directory, name, flags, mode), || {
        format!("openat({}, {:?}, O_NOFOLLOW)", fd(&directory), OsStr::from_bytes(name.to_bytes()))
    })?)
}
