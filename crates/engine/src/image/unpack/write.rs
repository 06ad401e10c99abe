// SPDX-License-Identifier: Apache-2.0
//! One entry at a time, written into the tree.

use std::{
    ffi::{OsStr, OsString},
    io::BufRead,
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use berth_files::{
    make::{self, Policy, mtime},
    name::{Name, show},
    tar::{Entry, Kind, Reader},
};
use nix::{
    errno::Errno,
    fcntl::AtFlags,
    sys::stat::{Mode, SFlag, mkdirat, mknodat},
    unistd::linkat,
};

use super::{
    lower::OPAQUE,
    of_files, refused,
    tree::{Missing, Tree},
};
use crate::{
    error::{Context as _, Result},
    kernel::{fs, paths},
};

const WHITEOUT: &[u8] = b".wh.";
const WHITEOUT_META: &[u8] = b".wh..wh.";
const WHITEOUT_OPAQUE: &[u8] = b".wh..wh..opq";

/// Writes `entry`, whose data `archive` is about to read.
pub(super) fn entry<R: BufRead>(
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
    make::describe(tree.here(), entry, Policy::ALL).map_err(of_files)?;
    tree.described(std::path::PathBuf::new(), mtime(entry))
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
    make::describe(dir.as_fd(), entry, Policy::ALL).map_err(of_files)?;
    if opaque {
        fs::set_xattr(dir.as_fd(), OPAQUE, b"y").context("mark a directory opaque")?;
    }
    tree.described(tree.path_of(name), mtime(entry))
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

fn file<R: BufRead>(tree: &mut Tree, archive: &mut Reader<R>, entry: &Entry, name: &OsStr) -> Result<()> {
    let made = replace(tree, name, |dir| make::create(dir, name))?;
    make::fill(made, archive, entry, Policy::ALL).map_err(of_files)?;
    tree.size = tree.size.saturating_add(entry.size);
    Ok(())
}

fn hard_link(tree: &mut Tree, entry: &Entry, name: &OsStr, above: &[OsString]) -> Result<()> {
    let target = Name::of_entry(&entry.link).map_err(of_files)?;
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
    let target = make::link_target(entry).map_err(of_files)?;
    replace(tree, name, |dir| make::symlink(dir, name, target))?;
    make::describe_name(tree.here(), name, entry, Policy::ALL).map_err(of_files)
}

fn node(tree: &mut Tree, entry: &Entry, name: &OsStr) -> Result<()> {
    replace(tree, name, |dir| make::node(dir, name, entry))?;
    make::describe_name(tree.here(), name, entry, Policy::ALL).map_err(of_files)
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
