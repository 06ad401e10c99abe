// SPDX-License-Identifier: Apache-2.0
//! The layers below one, seen as overlayfs would show them.

use std::{
    ffi::OsString,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Component, Path},
};

use nix::{
    errno::Errno,
    fcntl::{AtFlags, readlinkat},
    sys::stat::{SFlag, fstatat},
};

use crate::kernel::{fs, paths};

/// Marks a directory that hides the ones of its name below.
pub(super) const OPAQUE: &std::ffi::CStr = c"trusted.overlay.opaque";

/// Layers, the nearest first.
#[derive(Debug)]
pub struct Lower {
    layers: Vec<OwnedFd>,
}

/// What the layers below have at a path.
#[derive(Debug)]
pub(super) enum Found {
    Directory(OwnedFd),
    Symlink(OsString),
    /// Nothing, or something that isn't of interest to a directory above it.
    Nothing,
}

enum Step {
    Found(Found),
    /// This layer says nothing about the path.
    Below,
}

impl Lower {
    /// From the nearest layer to the base.
    #[must_use]
    pub fn new(layers: Vec<OwnedFd>) -> Self {
        Self { layers }
    }

    /// Looks `path` up, whose parents are directories, no links.
    pub(super) fn find(&self, path: &Path) -> nix::Result<Found> {
        for layer in &self.layers {
            if let Step::Found(found) = find_in(layer.as_fd(), path)? {
                return Ok(found);
            }
        }
        Ok(Found::Nothing)
    }
}

fn find_in(layer: BorrowedFd<'_>, path: &Path) -> nix::Result<Step> {
    let mut here = paths::open_dir(layer, Path::new("."))?;
    let mut opaque = false;
    let mut components = path.components().filter(|c| matches!(c, Component::Normal(_))).peekable();
    while let Some(component) = components.next() {
        let name: &Path = component.as_ref();
        match paths::open_dir(here.as_fd(), name) {
            Ok(child) => here = child,
            Err(Errno::ENOENT) => return Ok(if opaque { Step::Found(Found::Nothing) } else { Step::Below }),
            Err(Errno::ENOTDIR | Errno::ELOOP) => {
                let last = components.peek().is_none();
                return Ok(Step::Found(if last { link_at(here.as_fd(), name)? } else { Found::Nothing }));
            }
            Err(e) => return Err(e),
        }
        opaque |= fs::get_xattr(here.as_fd(), OPAQUE)?.is_some_and(|value| value == b"y");
    }
    Ok(Step::Found(Found::Directory(here)))
}

fn link_at(dir: BorrowedFd<'_>, name: &Path) -> nix::Result<Found> {
    let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if fs::file_type(&stat) == SFlag::S_IFLNK {
        Ok(Found::Symlink(readlinkat(dir, name)?))
    } else {
        Ok(Found::Nothing)
    }
}
