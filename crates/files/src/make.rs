// SPDX-License-Identifier: Apache-2.0
//! One entry of an archive becomes one file in a directory that is held.
//!
//! Nothing here replaces anything or looks at names: callers have opened the
//! directory and made sure that the name is one component.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{BufRead, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{
        stat::{
            FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mknodat,
            utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat, symlinkat},
};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{fs, paths},
    tar::{Entry, Kind, Reader},
};

/// setuid and setgid.
const SET_ID: u32 = 0o6000;
/// Bytes of a file that are worth a request to the disk of their own.
const WRITEBACK: u64 = 1 << 20;
/// Longest target of a symbolic link: PATH_MAX.
const PATH_MAX: usize = 4096;

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// As the archive says.
    Archived,
    /// This user and group.
    Given(u32, u32),
    /// Whoever makes them.
    Maker,
}

/// Which extended attributes they get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attributes {
    /// Those that belong to a file wherever it is: of users, capabilities,
    /// access lists.
    All,
    /// Of users only.
    User,
}

/// What of an entry is believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Owner and group.
    pub owner: Owner,
    /// Extended attributes.
    pub attributes: Attributes,
}

impl Policy {
    /// Everything, as in a layer.
    pub const ALL: Self = Self { owner: Owner::Archived, attributes: Attributes::All };

    /// The permissions that `entry` gets. A file that is run with its owner's
    /// rights is so only for the owner that the archive says.
    fn mode(self, entry: &Entry) -> Mode {
        let kept = match self.owner {
            Owner::Archived => true,
            Owner::Given(uid, gid) => (uid, gid) == (entry.uid, entry.gid),
            Owner::Maker => false,
        };
        let drop = if kept || entry.kind == Kind::Directory { 0 } else { SET_ID };
        Mode::from_bits_truncate(entry.mode & !drop)
    }

    fn owner(self, entry: &Entry) -> Option<(Uid, Gid)> {
        let (uid, gid) = match self.owner {
            Owner::Archived => (entry.uid, entry.gid),
            Owner::Given(uid, gid) => (uid, gid),
            Owner::Maker => return None,
        };
        Some((Uid::from_raw(uid), Gid::from_raw(gid)))
    }

    fn keeps(self, name: &[u8]) -> bool {
        is_user_attribute(name) || self.attributes == Attributes::All && is_portable_attribute(name)
    }
}

/// Attributes that belong to a file wherever it is. Those of overlayfs and of
/// the host's security modules aren't an archive's to set.
#[must_use]
pub fn is_portable_attribute(name: &[u8]) -> bool {
    const OTHERS: [&[u8]; 3] =
        [b"security.capability", b"system.posix_acl_access", b"system.posix_acl_default"];
    is_user_attribute(name) || OTHERS.contains(&name)
}

fn is_user_attribute(name: &[u8]) -> bool {
    name.starts_with(b"user.") && name.len() > 5 && !name.starts_with(b"user.overlay.")
}

/// Makes an empty file that nobody else may open yet.
///
/// # Errors
/// `EEXIST`, and openat2's others.
pub fn create(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    paths::open_beneath(dir, Path::new(name), flags, Mode::from_bits_truncate(0o600))
}

/// Fills a file that was made with the data that `archive` is about to read,
/// and describes it.
///
/// # Errors
/// The archive's and the host's.
pub fn fill<R: BufRead>(made: OwnedFd, archive: &mut Reader<R>, entry: &Entry, policy: Policy) -> Result<()> {
    let mut file = File::from(made);
    data(archive, entry, &mut file)?;
    describe(file.as_fd(), entry, policy)?;
    let time = mtime(entry);
    futimens(&file, &time, &time).context("set its time")
}

/// Writes an entry's data to `file`, from its start.
///
/// # Errors
/// The archive's and the host's.
pub fn data<R: BufRead>(archive: &mut Reader<R>, entry: &Entry, file: &mut File) -> Result<()> {
    if entry.size == 0 {
        return Ok(());
    }
    match &entry.sparse {
        None => copy(archive, file, 0, entry.size),
        Some(pieces) => {
            file.set_len(entry.size).context("set its size")?;
            for &(offset, length) in pieces {
                file.seek(SeekFrom::Start(offset)).context("seek")?;
                copy(archive, file, offset, length)?;
            }
            Ok(())
        }
    }
}

/// At `offset`, where the file is.
fn copy<R: BufRead>(archive: &mut Reader<R>, file: &mut File, offset: u64, length: u64) -> Result<()> {
    let (mut left, mut writeback) = (length, fs::Writeback::new(offset, WRITEBACK));
    while left > 0 {
        let piece = archive.data().map_err(|e| Error::new("", e))?;
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(piece.len());
        if taken == 0 {
            return Err(Error::refused("a file shorter than its header says"));
        }
        file.write_all(&piece[..taken]).context("write")?;
        archive.consume(taken);
        left -= taken as u64;
        writeback.written(file.as_fd(), offset + (length - left));
    }
    Ok(())
}

/// The target of a link that `entry` is.
///
/// # Errors
/// A refusal.
pub fn link_target(entry: &Entry) -> Result<&OsStr> {
    if entry.link.is_empty() || entry.link.len() >= PATH_MAX {
        return Err(Error::refused("a symbolic link with a bad target"));
    }
    Ok(OsStr::from_bytes(&entry.link))
}

/// Makes a symbolic link, not yet described.
///
/// # Errors
/// `EEXIST`, and the call's others.
pub fn symlink(dir: BorrowedFd<'_>, name: &OsStr, target: &OsStr) -> nix::Result<()> {
    symlinkat(target, dir, name)
}

/// Makes a device or a pipe, not yet described.
///
/// # Errors
/// `EEXIST`, and the call's others.
pub fn node(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry) -> nix::Result<()> {
    let kind = match entry.kind {
        Kind::Character => SFlag::S_IFCHR,
        Kind::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let (major, minor) = entry.device;
    mknodat(dir, name, kind, Mode::from_bits_truncate(0o600), makedev(major.into(), minor.into()))
}

/// Owner, mode and times of a link, device or pipe that was made as `name`.
///
/// # Errors
/// The calls'.
pub fn describe_name(dir: BorrowedFd<'_>, name: &OsStr, entry: &Entry, policy: Policy) -> Result<()> {
    if let Some((uid, gid)) = policy.owner(entry) {
        fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).context("set its owner")?;
    }
    if entry.kind != Kind::Symlink {
        // Opening a device or a pipe could block, and a handle's mode can't be
        // set. Where others write too, a link could be there by now: what it
        // leads to is refused with it.
        chmod(dir, name, policy.mode(entry)).context("set its mode")?;
    }
    let time = mtime(entry);
    utimensat(dir, name, &time, &time, UtimensatFlags::NoFollowSymlink).context("set its time")
}

/// fchmodat2(2) where there is one (Linux 6.6): the C library needs `/proc`
/// to do without, which may be the container's.
fn chmod(dir: BorrowedFd<'_>, name: &OsStr, mode: Mode) -> nix::Result<()> {
    match fs::chmod_no_follow(dir, name, mode) {
        Err(Errno::ENOSYS) => {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
            let handle = paths::open_child(dir, Path::new(name), flags)?;
            let stat = nix::sys::stat::fstat(&handle)?;
            if fs::file_type(&stat) == SFlag::S_IFLNK {
                return Err(Errno::ELOOP);
            }
            fchmodat(dir, name, mode, FchmodatFlags::FollowSymlink)
        }
        result => result,
    }
}

/// Owner, mode and attributes of an open file or directory, in the order in
/// which the kernel doesn't take one away for another.
///
/// # Errors
/// The calls', and a refusal of an attribute that can't be.
pub fn describe(file: BorrowedFd<'_>, entry: &Entry, policy: Policy) -> Result<()> {
    if let Some((uid, gid)) = policy.owner(entry) {
        fchown(file, Some(uid), Some(gid)).context("set its owner")?;
    }
    fchmod(file, policy.mode(entry)).context("set its mode")?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| policy.keeps(name)) {
        let Ok(name) = CString::new(name.as_slice()) else {
            return Err(Error::refused("an attribute with a bad name"));
        };
        match fs::set_xattr(file, &name, value) {
            // The file system has no such attributes: the files are more use
            // without them than not at all.
            Ok(()) | Err(Errno::ENOTSUP) => {}
            Err(e) => return Err(e).with_context(|| format!("set its attribute {}", name.to_string_lossy())),
        }
    }
    Ok(())
}

/// An entry's time.
#[must_use]
pub fn mtime(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime.0, entry.mtime.1.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_user_bit_counts_for_the_archived_owner_alone() {
        let mut entry = Entry { mode: 0o4755, uid: 7, gid: 8, ..Entry::new(Kind::File) };
        let mode = |owner, entry: &Entry| Policy { owner, attributes: Attributes::All }.mode(entry).bits();
        assert_eq!(mode(Owner::Archived, &entry), 0o4755);
        assert_eq!(mode(Owner::Given(7, 8), &entry), 0o4755);
        assert_eq!(mode(Owner::Given(0, 0), &entry), 0o755);
        assert_eq!(mode(Owner::Maker, &entry), 0o755);
        entry.kind = Kind::Directory;
        entry.mode = 0o2775;
        assert_eq!(mode(Owner::Maker, &entry), 0o2775);
    }

    #[test]
    fn attributes_of_the_hosts_own_are_never_kept() {
        let user = Policy { owner: Owner::Maker, attributes: Attributes::User };
        for (name, all, users) in [
            (&b"user.x"[..], true, true),
            (b"security.capability", true, false),
            (b"system.posix_acl_access", true, false),
            (b"user.", false, false),
            (b"user.overlay.opaque", false, false),
            (b"trusted.overlay.opaque", false, false),
            (b"security.selinux", false, false),
            (b"security.ima", false, false),
        ] {
            assert_eq!((Policy::ALL.keeps(name), user.keeps(name)), (all, users), "{}", name.escape_ascii());
        }
    }
}
