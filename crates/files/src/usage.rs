// SPDX-License-Identifier: Apache-2.0
//! What files take of their disk, as du(1) counts: blocks, a file with several
//! names once, and nothing beyond the file system that it began on.

use std::{
    collections::HashSet,
    ffi::OsStr,
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag},
    sys::stat::{FileStat, Mode, SFlag, fstatat},
};

use crate::kernel::{fs, paths};

/// Bytes of a block, whatever the file system's own are.
const BLOCK: u64 = 512;

/// Counts trees that may have files in common.
#[derive(Debug, Default)]
pub struct Usage {
    /// Files with several names, and whatever was asked for.
    seen: HashSet<(u64, u64)>,
}

impl Usage {
    /// Bytes that `name` in `dir` takes with all that is below it, without
    /// what was counted before. What vanishes meanwhile counts nothing.
    ///
    /// # Errors
    /// Those of the host.
    pub fn add(&mut self, dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<u64> {
        let Some(stat) = look(dir, name)? else { return Ok(0) };
        if self.seen.contains(&(stat.st_dev, stat.st_ino)) {
            return Ok(0);
        }
        let mut total = self.count(&stat);
        self.seen.insert((stat.st_dev, stat.st_ino));
        let mut pending = Vec::new();
        if fs::file_type(&stat) == SFlag::S_IFDIR {
            pending.push(PathBuf::from(name));
        }
        while let Some(path) = pending.pop() {
            let Some(here) = open(dir, &path)? else { continue };
            for name in children(&here)? {
                let name = OsStr::from_bytes(name.to_bytes());
                let Some(inner) = look(here.as_fd(), name)? else { continue };
                if inner.st_dev != stat.st_dev || self.seen.contains(&(inner.st_dev, inner.st_ino)) {
                    continue;
                }
                total = total.saturating_add(self.count(&inner));
                if fs::file_type(&inner) == SFlag::S_IFDIR {
                    pending.push(path.join(name));
                }
            }
        }
        Ok(total)
    }

    /// Once: the caller has looked.
    fn count(&mut self, stat: &FileStat) -> u64 {
        let several = stat.st_nlink > 1 && fs::file_type(stat) != SFlag::S_IFDIR;
        if several {
            self.seen.insert((stat.st_dev, stat.st_ino));
        }
        u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(BLOCK)
    }
}

fn look(dir: BorrowedFd<'_>, name: &OsStr) -> nix::Result<Option<FileStat>> {
    match fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::ENOENT | Errno::ENOTDIR) => Ok(None),
        Err(e) => Err(e),
    }
}

fn open(dir: BorrowedFd<'_>, path: &std::path::Path) -> nix::Result<Option<OwnedFd>> {
    match paths::open_beneath(dir, path, OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty()) {
        Ok(here) => Ok(Some(here)),
        // Gone, replaced, or too deep for a name.
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ENAMETOOLONG) => Ok(None),
        Err(e) => Err(e),
    }
}

fn children(dir: &OwnedFd) -> nix::Result<Vec<std::ffi::CString>> {
    match fs::children(dir.as_fd()) {
        Err(Errno::ENOENT) => Ok(Vec::new()),
        names => names,
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::File, os::unix::fs::symlink, process::Command};

    use super::*;

    #[test]
    fn it_is_what_du_says() {
        let base = tempfile::tempdir().expect("tempdir");
        let tree = base.path().join("tree");
        fs::create_dir_all(tree.join("a/b")).expect("mkdir");
        fs::write(tree.join("a/large"), vec![1; 300_000]).expect("write");
        fs::write(tree.join("a/b/small"), b"x").expect("write");
        fs::hard_link(tree.join("a/large"), tree.join("a/b/again")).expect("link");
        symlink("/", tree.join("a/out")).expect("symlink");
        File::create(tree.join("sparse")).and_then(|file| file.set_len(1 << 30)).expect("sparse");
        let out = Command::new("du").args(["-s", "-B1"]).arg(&tree).output().expect("du");
        let said = String::from_utf8(out.stdout).expect("text");
        let said: u64 = said.split_whitespace().next().and_then(|n| n.parse().ok()).expect("a number");
        let dir: OwnedFd = File::open(base.path()).expect("open").into();
        let mut usage = Usage::default();
        // A part first, then the rest.
        let part = usage.add(dir.as_fd(), OsStr::new("tree/a")).expect("part");
        assert!(part > 300_000, "{part}");
        assert_eq!(usage.add(dir.as_fd(), OsStr::new("tree")).expect("rest"), said - part);
        for nothing in ["tree", "tree/a", "none"] {
            assert_eq!(usage.add(dir.as_fd(), OsStr::new(nothing)), Ok(0));
        }
    }
}
