// SPDX-License-Identifier: Apache-2.0
//! One entry at a time, written into the tree.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{Read, Seek as _, SeekFrom, Write as _},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::{
        stat::{
            FchmodatFlags, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, futimens, makedev, mkdirat,
            mknodat, utimensat,
        },
        time::TimeSpec,
    },
    unistd::{Gid, Uid, fchown, fchownat, linkat, symlinkat},
};

use super::{
    lower::OPAQUE,
    path::{Name, show},
    refused, stream_error,
    tree::{Missing, Tree},
};
use crate::{
    error::{Context as _, Result},
    image::tar::{Entry, Kind, Reader},
    kernel::{fs, paths},
};

/// Data are copied in pieces of this size.
const CHUNK: usize = 256 << 10;

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes `entry`, whose data `archive` is about to read.
pub(super) fn entry<R: Read>(
    tree: &mut Tree,
    archive: &mut Reader<R>,
    entry: &Entry,
    name: &Name,
) -> Result<()> {
    let Some((last, above)) = name.split() else {
        return root(tree, entry);
    };
    if let Some(hidden) = last.as_bytes().strip_prefix(WHITEOUT) {
        tree.enter(above, Missing::Make)?;
        return whiteout(tree, last.as_bytes(), hidden);
    }
    match entry.kind {
        // The target first: entering the parent is what the creation needs.
        Kind::HardLink => hard_link(tree, entry, last, above),
        Kind::Directory => {
            tree.enter(above, Missing::Make)?;
            directory(tree, entry, last)
        }
        Kind::Character if entry.device == (0, 0) => {
            // Overlayfs would take it for a whiteout that no whiteout entry
            // asked for.
            Ok(())
        }
        _ => {
            tree.enter(above, Missing::Make)?;
            match entry.kind {
                Kind::File => file(tree, archive, entry, last),
                Kind::Symlink => symlink(tree, entry, last),
                _ => node(tree, entry, last),
            }
        }
    }
    .with_context_of(entry)
}

/// The layer's root is ours; an entry can only describe it.
fn root(tree: &mut Tree, entry: &Entry) -> Result<()> {
    if entry.kind != Kind::Directory {
        return Err(refused(format_args!("the layer's root {:?} isn't a directory", show(&entry.path))));
    }
    tree.enter(&[], Missing::Refuse)?;
    describe(tree.here(), entry)?;
    tree.described(std::path::PathBuf::new(), mtime(entry));
    Ok(())
}

fn whiteout(tree: &mut Tree, whole: &[u8], hidden: &[u8]) -> Result<()> {
    if whole == WHITEOUT_OPAQUE {
        return fs::set_xattr(tree.here(), OPAQUE, b"y").context("mark a directory opaque");
    }
    if whole.starts_with(WHITEOUT_META) {
        // aufs's own bookkeeping, which says nothing to us.
        return Ok(());
    }
    if matches!(hidden, b"" | b"." | b"..") {
        return Err(refused(format_args!("bad whiteout {:?}", show(whole))));
    }
    let name = OsStr::from_bytes(hidden);
    match mknodat(tree.here(), name, SFlag::S_IFCHR, Mode::empty(), 0) {
        Ok(()) => Ok(()),
        // A whiteout speaks of the layers below; what this layer has stays,
        // wherever in the archive it came. Only a directory lets them through.
        Err(Errno::EEXIST) => {
            if fs::file_type(&tree.stat(name)?) == SFlag::S_IFDIR {
                let dir = paths::open_dir(tree.here(), Path::new(name)).context("open a directory")?;
                fs::set_xattr(dir.as_fd(), OPAQUE, b"y").context("mark a directory opaque")?;
            }
            Ok(())
        }
        Err(e) => Err(e).with_context(|| format!("hide {}", tree.path_of(name).display())),
    }
}

fn directory(tree: &mut Tree, entry: &Entry, name: &OsStr) -> Result<()> {
    let make = |tree: &Tree| mkdirat(tree.here(), name, Mode::from_bits_truncate(0o700));
    let mut opaque = false;
    match make(tree) {
        Ok(()) => {}
        Err(Errno::EEXIST) => {
            let stat = tree.stat(name)?;
            if fs::file_type(&stat) != SFlag::S_IFDIR {
                opaque = fs::is_whiteout(&stat);
                tree.remove(name)?;
                make(tree).context("make directory")?;
            }
        }
        Err(e) => return Err(e).context("make directory"),
    }
    let dir = paths::open_dir(tree.here(), Path::new(name)).context("open directory")?;
    describe(dir.as_fd(), entry)?;
    if opaque {
        fs::set_xattr(dir.as_fd(), OPAQUE, b"y").context("mark a directory opaque")?;
    }
    tree.described(tree.path_of(name), mtime(entry));
    Ok(())
}

/// Makes something new, replacing what has its name.
fn replace<T>(tree: &mut Tree, name: &OsStr, make: impl Fn(BorrowedFd<'_>) -> nix::Result<T>) -> Result<T> {
    match make(tree.here()) {
        Err(Errno::EEXIST) => {
            tree.remove(name)?;
            make(tree.here()).context("create")
        }
        result => result.context("create"),
    }
}

fn file<R: Read>(tree: &mut Tree, archive: &mut Reader<R>, entry: &Entry, name: &OsStr) -> Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    let mode = Mode::from_bits_truncate(0o600);
    let made = replace(tree, name, |dir| paths::open_beneath(dir, Path::new(name), flags, mode))?;
    let made = copy_data(archive, entry, File::from(made))?;
    describe(made.as_fd(), entry)?;
    let time = mtime(entry);
    futimens(&made, &time, &time).context("set its time")?;
    tree.size = tree.size.saturating_add(entry.size);
    Ok(())
}

fn copy_data<R: Read>(archive: &mut Reader<R>, entry: &Entry, mut file: File) -> Result<OwnedFd> {
    if entry.size > 0 {
        let mut buffer = vec![0_u8; CHUNK.min(usize::try_from(entry.size).unwrap_or(CHUNK))];
        match &entry.sparse {
            None => copy(archive, &mut file, &mut buffer, entry.size)?,
            Some(pieces) => {
                file.set_len(entry.size).context("set its size")?;
                for &(offset, length) in pieces {
                    file.seek(SeekFrom::Start(offset)).context("seek")?;
                    copy(archive, &mut file, &mut buffer, length)?;
                }
            }
        }
    }
    Ok(file.into())
}

fn copy<R: Read>(archive: &mut Reader<R>, file: &mut File, buffer: &mut [u8], length: u64) -> Result<()> {
    let mut left = length;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = archive.read_data(&mut buffer[..wanted]).map_err(|e| stream_error(&e))?;
        if read == 0 {
            return Err(refused("a file shorter than its header says"));
        }
        file.write_all(&buffer[..read]).context("write")?;
        left -= read as u64;
    }
    Ok(())
}

fn hard_link(tree: &mut Tree, entry: &Entry, name: &OsStr, above: &[std::ffi::OsString]) -> Result<()> {
    let target = Name::of_entry(&entry.link)?;
    let Some((target_name, target_above)) = target.split() else {
        return Err(refused("a hard link to the layer's root"));
    };
    tree.enter(target_above, Missing::Refuse)?;
    let target_dir = paths::open_dir(tree.here(), Path::new(".")).context("open the target's directory")?;
    let Ok(stat) = tree.stat(target_name) else {
        return Err(refused(format_args!("hard link to {:?}, which isn't in the layer", show(&entry.link))));
    };
    if fs::is_whiteout(&stat) || fs::file_type(&stat) == SFlag::S_IFDIR {
        return Err(refused(format_args!("hard link to {:?}, which is no file", show(&entry.link))));
    }
    let itself = tree.path_of(target_name);
    tree.enter(above, Missing::Make)?;
    if tree.path_of(name) == itself {
        return Ok(());
    }
    replace(tree, name, |dir| linkat(&target_dir, target_name, dir, name, AtFlags::empty()))
}

fn symlink(tree: &mut Tree, entry: &Entry, name: &OsStr) -> Result<()> {
    if entry.link.is_empty() || entry.link.len() >= 4096 {
        return Err(refused("a symbolic link with a bad target"));
    }
    let target = OsStr::from_bytes(&entry.link);
    replace(tree, name, |dir| symlinkat(target, dir, name))?;
    own_by_name(tree, entry, name)
}

fn node(tree: &mut Tree, entry: &Entry, name: &OsStr) -> Result<()> {
    let kind = match entry.kind {
        Kind::Character => SFlag::S_IFCHR,
        Kind::Block => SFlag::S_IFBLK,
        _ => SFlag::S_IFIFO,
    };
    let (major, minor) = entry.device;
    let device = makedev(major.into(), minor.into());
    let mode = Mode::from_bits_truncate(entry.mode);
    replace(tree, name, |dir| mknodat(dir, name, kind, mode, device))?;
    own_by_name(tree, entry, name)?;
    // The name is what was just made, in a directory that is only ours: no
    // link could be followed here. (Opening a device or a pipe could block.)
    fchmodat(tree.here(), name, mode, FchmodatFlags::FollowSymlink).context("set its mode")
}

fn own_by_name(tree: &Tree, entry: &Entry, name: &OsStr) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchownat(tree.here(), name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        .context("set its owner")?;
    let time = mtime(entry);
    utimensat(tree.here(), name, &time, &time, UtimensatFlags::NoFollowSymlink).context("set its time")
}

/// Owner, mode and attributes of an open file or directory, in the order in
/// which the kernel doesn't take one away for another.
fn describe(file: BorrowedFd<'_>, entry: &Entry) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    fchown(file, Some(uid), Some(gid)).context("set its owner")?;
    fchmod(file, Mode::from_bits_truncate(entry.mode)).context("set its mode")?;
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| is_kept(name)) {
        let Ok(name) = CString::new(name.as_slice()) else {
            return Err(refused("an attribute with a bad name"));
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

/// Attributes that belong to a file wherever it is. Those of overlayfs and of
/// the host's security modules aren't a layer's to set.
fn is_kept(name: &[u8]) -> bool {
    let user = name.starts_with(b"user.") && name.len() > 5 && !name.starts_with(b"user.overlay.");
    user || matches!(name, b"security.capability" | b"system.posix_acl_access" | b"system.posix_acl_default")
}

fn mtime(entry: &Entry) -> TimeSpec {
    TimeSpec::new(entry.mtime.0, entry.mtime.1.into())
}

trait ContextOf {
    fn with_context_of(self, entry: &Entry) -> Self;
}

impl ContextOf for Result<()> {
    /// Says which entry it was.
    fn with_context_of(self, entry: &Entry) -> Self {
        self.map_err(|e| {
            crate::error::Error::new(e.kind(), format!("unpack {:?}", show(&entry.path))).with_source(e)
        })
    }
}
