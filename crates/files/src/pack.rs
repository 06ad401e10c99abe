// SPDX-License-Identifier: Apache-2.0
//! A tree becomes an archive, while others may be changing it.
//!
//! What vanishes meanwhile is passed over, and a file has the size that it had
//! when it was opened. Nothing but regular files is ever opened for reading,
//! and not by name: whoever swaps a device in gains nothing.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs::File,
    io::Write,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, readlinkat},
    sys::{
        stat::{FileStat, Mode, SFlag, fstat, fstatat, major, minor},
        statfs::{self, FsType, fstatfs},
    },
    unistd::{Whence, lseek},
};

use crate::{
    error::{Context as _, Error, Result},
    kernel::{fs, paths},
    make::is_portable_attribute,
    tar::{Entry, Kind, Writer},
};

/// Longest name of an entry; nobody could unpack a longer one.
const PATH_MAX: usize = 4096;

/// Bytes of holes that are worth a map.
const SMALLEST_HOLES: u64 = 64 << 10;
/// Pieces that readers of archives take.
const MOST_PIECES: usize = 65_000;

/// What to do about other file systems that are mounted within the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mounts {
    /// They are part of it. Of those that hold no files but speak of the
    /// kernel (proc, sysfs, …) there is the directory alone.
    Cross,
    /// There is the directory alone.
    Stay,
}

/// How the tree is to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// As it is.
    Plain,
    /// As the upper directory of an overlay, which becomes a layer of an OCI
    /// image: a device 0:0 says that the name is deleted (`.wh.name`), an
    /// attribute that the directory hides what is below (`.wh..wh..opq`).
    Layer,
}

/// Marks a directory that hides the ones of its name below.
const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";
const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes trees and files to an archive.
#[derive(Debug)]
pub struct Packer<'a, W> {
    to: &'a mut Writer<W>,
    /// `/proc/self/fd`.
    descriptors: BorrowedFd<'a>,
    mounts: Mounts,
    dialect: Dialect,
    /// Ids here, ids in the archive, and how many.
    ids: Vec<(u32, u32, u32)>,
    entries: u64,
    /// Files with several names that are in the archive.
    links: Links,
}

/// The first names of files that have more: as long as more may come, and
/// within bounds. What there is no room for is a file of its own each time.
#[derive(Debug, Default)]
struct Links {
    names: HashMap<(u64, u64), (Vec<u8>, libc::nlink_t)>,
    bytes: usize,
}

impl Links {
    /// Most bytes of all names: some hundred thousand files.
    const MOST: usize = 64 << 20;
    /// What a name costs beside itself.
    const EACH: usize = 96;

    /// The first name of a file, if it has been seen.
    fn first(&mut self, stat: &FileStat) -> Option<Vec<u8>> {
        let key = (stat.st_dev, stat.st_ino);
        let (name, left) = self.names.get_mut(&key)?;
        let name = name.clone();
        *left = left.saturating_sub(1);
        if *left == 0 {
            self.bytes -= name.len() + Self::EACH;
            self.names.remove(&key);
        }
        Some(name)
    }

    fn remember(&mut self, stat: &FileStat, name: &[u8]) {
        let cost = name.len() + Self::EACH;
        if self.bytes + cost > Self::MOST {
            return;
        }
        self.bytes += cost;
        let others = stat.st_nlink.saturating_sub(1);
        self.names.insert((stat.st_dev, stat.st_ino), (name.to_vec(), others));
    }
}

impl<'a, W: Write> Packer<'a, W> {
    /// `descriptors` is what [`paths::descriptors`] gives.
    pub fn new(to: &'a mut Writer<W>, descriptors: BorrowedFd<'a>, mounts: Mounts) -> Self {
        let (dialect, ids) = (Dialect::Plain, Vec::new());
        Self { to, descriptors, mounts, dialect, ids, entries: 0, links: Links::default() }
    }

    /// Reads the tree so.
    #[must_use]
    pub fn dialect(self, dialect: Dialect) -> Self {
        Self { dialect, ..self }
    }

    /// Gives owners other numbers: for each range the first here, the first in
    /// the archive, and how many there are. Others stay.
    #[must_use]
    pub fn ids(self, ids: Vec<(u32, u32, u32)>) -> Self {
        Self { ids, ..self }
    }

    /// How many entries there are so far.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    /// Writes the directory `top` and what is in it, as `name`; with an empty
    /// name only what is in it.
    ///
    /// # Errors
    /// The host's and the archive's; not for what vanishes.
    pub fn directory(&mut self, top: BorrowedFd<'_>, name: &[u8]) -> Result<()> {
        let mut pending = vec![PathBuf::new()];
        while let Some(path) = pending.pop() {
            let archived = joined(name, &path)?;
            let Some((dir, lists)) = self.open(top, &path)? else { continue };
            let stat = fstat(&dir).with_context(|| format!("look at {}", show(&archived)))?;
            if !archived.is_empty() {
                let mut entry = described(&stat, Kind::Directory, [archived.as_slice(), b"/"].concat());
                entry.xattrs = xattrs(dir.as_fd()).with_context(|| format!("read {}", show(&archived)))?;
                self.append(&entry)?;
            }
            if !lists {
                continue;
            }
            if self.dialect == Dialect::Layer && is_opaque(&dir)? && !archived.is_empty() {
                self.whiteout([archived.as_slice(), b"/", WHITEOUT_OPAQUE].concat())?;
            }
            let mut names = fs::children(dir.as_fd()).with_context(|| format!("list {}", show(&archived)))?;
            names.sort();
            let mut below = Vec::new();
            for child in names {
                let child = OsStr::from_bytes(child.as_bytes());
                let here = path.join(child);
                let is_directory = self.child(dir.as_fd(), child, joined(name, &here)?)?;
                if is_directory {
                    below.push(here);
                }
            }
            pending.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Writes `child` of `dir` as `name`.
    ///
    /// # Errors
    /// `ENOENT`, the host's others and the archive's.
    pub fn file(&mut self, dir: BorrowedFd<'_>, child: &OsStr, name: &[u8]) -> Result<()> {
        let stat = fstatat(dir, child, AtFlags::AT_SYMLINK_NOFOLLOW);
        stat.with_context(|| format!("look at {}", show(name)))?;
        if !self.child(dir, child, name.to_vec())? {
            return Ok(());
        }
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
        let opened = paths::open_child(dir, Path::new(child), flags);
        let opened = opened.with_context(|| format!("open {}", show(name)))?;
        self.directory(opened.as_fd(), name)
    }

    /// The directory `path`, and whether what is in it belongs here; `None`
    /// when it is gone.
    fn open(&self, top: BorrowedFd<'_>, path: &Path) -> Result<Option<(OwnedFd, bool)>> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        if self.mounts == Mounts::Stay {
            match paths::open_beneath(top, path, flags, Mode::empty()) {
                Err(Errno::EXDEV) => {}
                opened => return present(opened, path).map(|dir| dir.map(|dir| (dir, true))),
            }
        }
        let Some(dir) = present(paths::open_child(top, path, flags), path)? else { return Ok(None) };
        let lists = self.mounts == Mounts::Cross && !is_the_kernels(&dir);
        Ok(Some((dir, lists)))
    }

    /// Writes what `child` is; `true` for a directory, which isn't written.
    fn child(&mut self, dir: BorrowedFd<'_>, child: &OsStr, name: Vec<u8>) -> Result<bool> {
        let handle = paths::open_child(dir, Path::new(child), OFlag::O_PATH);
        let Some(handle) = present(handle, Path::new(child))? else { return Ok(false) };
        let stat = fstat(&handle).with_context(|| format!("look at {}", show(&name)))?;
        if self.dialect == Dialect::Layer {
            if fs::is_whiteout(&stat) {
                let at = name.len() - child.len();
                let hidden = [&name[..at], WHITEOUT, &name[at..]].concat();
                return self.whiteout(hidden).map(|()| false);
            }
            if child.as_bytes().starts_with(WHITEOUT) {
                let what = "in an image's layer its name would mean that another file is deleted";
                return Err(Error::refused(format_args!("{}: {what}", show(&name))));
            }
        }
        let Some(kind) = kind_of(&stat) else { return Ok(false) };
        if kind == Kind::Directory {
            return Ok(true);
        }
        if stat.st_nlink > 1 {
            if let Some(link) = self.links.first(&stat) {
                let entry = Entry { link, size: 0, ..described(&stat, Kind::HardLink, name) };
                return self.append(&entry).map(|()| false);
            }
            self.links.remember(&stat, &name);
        }
        let mut entry = described(&stat, kind, name);
        match kind {
            Kind::File => {
                let file = paths::reopen(self.descriptors, handle.as_fd(), OFlag::O_RDONLY)
                    .with_context(|| format!("open {}", show(&entry.path)))?;
                entry.xattrs = xattrs(file.as_fd()).with_context(|| format!("read {}", show(&entry.path)))?;
                let mut file = File::from(file);
                let entry = self.owned(entry);
                self.entries += 1;
                let pieces = self.pieces(&file, &stat, entry.size);
                let done = match pieces.with_context(|| format!("read {}", show(&entry.path)))? {
                    Some(pieces) => self.to.append_sparse(&entry, &pieces, &mut file),
                    None => self.to.append_file(&entry, &mut file),
                };
                return done.map(|()| false).with_context(|| format!("archive {}", show(&entry.path)));
            }
            Kind::Symlink => match readlinkat(dir, child) {
                Ok(target) => entry.link = target.as_bytes().to_vec(),
                Err(Errno::EINVAL | Errno::ENOENT) => return Ok(false),
                Err(e) => return Err(Error::new(format!("read the link {}", show(&entry.path)), e)),
            },
            Kind::Character | Kind::Block => entry.device = device(&stat),
            _ => {}
        }
        self.append(&entry).map(|()| false)
    }

    /// Where a file has data, if it has holes worth mentioning. Layers have
    /// none: not everybody who reads them knows of holes.
    fn pieces(&self, file: &File, stat: &FileStat, size: u64) -> nix::Result<Option<Vec<(u64, u64)>>> {
        let on_disk = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if self.dialect == Dialect::Layer || size < on_disk.saturating_add(SMALLEST_HOLES) {
            return Ok(None);
        }
        let pieces = fs::pieces(file.as_fd(), size, MOST_PIECES)?;
        let data = |pieces: &Vec<(u64, u64)>| pieces.iter().map(|(_, length)| length).sum::<u64>();
        let pieces = pieces.filter(|pieces| data(pieces).saturating_add(SMALLEST_HOLES) <= size);
        if pieces.is_none() {
            // The look has moved it.
            lseek(file, 0, Whence::SeekSet)?;
        }
        Ok(pieces)
    }

    fn whiteout(&mut self, name: Vec<u8>) -> Result<()> {
        self.append(&Entry { path: name, ..Entry::new(Kind::File) })
    }

    fn owned(&self, mut entry: Entry) -> Entry {
        let there = |id: u32| {
            let range = self.ids.iter().find(|(here, _, size)| id >= *here && id - here < *size);
            range.map_or(id, |(here, there, _)| there + (id - here))
        };
        (entry.uid, entry.gid) = (there(entry.uid), there(entry.gid));
        entry
    }

    fn append(&mut self, entry: &Entry) -> Result<()> {
        let entry = &self.owned(entry.clone());
        self.entries += 1;
        self.to.append(entry).with_context(|| format!("archive {}", show(&entry.path)))
    }
}

fn is_opaque(dir: &OwnedFd) -> Result<bool> {
    let mark = fs::get_xattr(dir.as_fd(), OPAQUE).context("look at a directory")?;
    Ok(mark.is_some_and(|value| value == b"y"))
}

/// Something opened; `None` when it is gone, or is something else by now.
fn present(opened: nix::Result<OwnedFd>, path: &Path) -> Result<Option<OwnedFd>> {
    match opened {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        opened => opened.map(Some).with_context(|| format!("open {}", path.display())),
    }
}

fn joined(name: &[u8], path: &Path) -> Result<Vec<u8>> {
    let below = path.as_os_str().as_bytes();
    let whole = match (name, below) {
        (name, []) => name.to_vec(),
        ([], below) => below.to_vec(),
        (name, below) => [name, b"/", below].concat(),
    };
    if whole.len() >= PATH_MAX {
        return Err(Error::new(format!("archive {}", show(&whole)), Errno::ENAMETOOLONG));
    }
    Ok(whole)
}

/// What tar calls it; sockets are nothing without their process.
fn kind_of(stat: &FileStat) -> Option<Kind> {
    Some(match fs::file_type(stat) {
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFLNK => Kind::Symlink,
        SFlag::S_IFCHR => Kind::Character,
        SFlag::S_IFBLK => Kind::Block,
        SFlag::S_IFIFO => Kind::Fifo,
        _ => return None,
    })
}

/// An entry for what `stat` describes, without attributes, link and device.
#[must_use]
pub fn described(stat: &FileStat, kind: Kind, path: Vec<u8>) -> Entry {
    Entry {
        path,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0)),
        size: if kind == Kind::File { u64::try_from(stat.st_size).unwrap_or(0) } else { 0 },
        ..Entry::new(kind)
    }
}

/// The device numbers of a device.
#[must_use]
pub fn device(stat: &FileStat) -> (u32, u32) {
    let part = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    (part(major(stat.st_rdev)), part(minor(stat.st_rdev)))
}

/// The attributes that go with a file, in the order of their names.
///
/// # Errors
/// Those of the calls.
pub fn xattrs(file: BorrowedFd<'_>) -> nix::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in fs::list_xattrs(file)? {
        if is_portable_attribute(name.as_bytes())
            && let Some(value) = fs::get_xattr(file, &name)?
        {
            found.push((name.into_bytes(), value));
        }
    }
    found.sort();
    Ok(found)
}

/// File systems in which every file is a question to the kernel.
fn is_the_kernels(dir: &OwnedFd) -> bool {
    const KERNELS: [FsType; 11] = [
        statfs::PROC_SUPER_MAGIC,
        statfs::SYSFS_MAGIC,
        statfs::CGROUP_SUPER_MAGIC,
        statfs::CGROUP2_SUPER_MAGIC,
        statfs::DEVPTS_SUPER_MAGIC,
        statfs::DEBUGFS_MAGIC,
        statfs::TRACEFS_MAGIC,
        statfs::SECURITYFS_MAGIC,
        statfs::BPF_FS_MAGIC,
        statfs::NSFS_MAGIC,
        // mqueue, which libc has no name for (ipc/mqueue.c).
        FsType(0x1980_0202),
    ];
    fstatfs(dir).is_ok_and(|found| KERNELS.contains(&found.filesystem_type()))
}

fn show(name: &[u8]) -> String {
    crate::name::show(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_links_are_kept_while_more_may_come_and_within_bounds() {
        let dir = tempfile::tempdir().expect("tempdir");
        let file = dir.path().join("a");
        std::fs::write(&file, "").expect("write");
        for name in ["b", "c"] {
            std::fs::hard_link(&file, dir.path().join(name)).expect("link");
        }
        let mut stat = fstat(File::open(&file).expect("open")).expect("stat");
        let mut links = Links::default();
        assert_eq!(links.first(&stat), None);
        links.remember(&stat, b"a");
        assert_eq!(links.first(&stat).as_deref(), Some(&b"a"[..]));
        assert_eq!(links.first(&stat).as_deref(), Some(&b"a"[..]));
        // All three are told: it is forgotten.
        assert_eq!((links.first(&stat), links.bytes), (None, 0));

        let name = vec![b'x'; 4000];
        for inode in 0..100_000 {
            stat.st_ino = inode;
            links.remember(&stat, &name);
        }
        assert!(links.bytes <= Links::MOST, "{}", links.bytes);
        assert!(links.first(&stat).is_none(), "the last one had no place");
        stat.st_ino = 0;
        assert!(links.first(&stat).is_some());
    }
}
