// SPDX-License-Identifier: Apache-2.0
//! Paths that a container must not read, or not write (D8).
//!
//! Only a path that isn't there is skipped. What hides a file comes from the
//! host and has been checked, never from the container's own /dev.

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    sys::stat::{SFlag, makedev},
};

use crate::{
    kernel::{
        SysError,
        mount::{self, Attributes, FileSystem, Reach, attr},
        paths::{self, Root},
    },
    runtime::{During as _, Result},
};

/// A detached mount of the host's /dev/null.
pub(super) fn host_null() -> Result<OwnedFd> {
    let directory = paths::open_host(Path::new("/dev"), OFlag::O_PATH | OFlag::O_DIRECTORY)?;
    let null = mount::clone_mount(directory, Path::new("null"), Reach::Mount)?;
    let stat = paths::stat(&null)?;
    if paths::kind(&stat) != SFlag::S_IFCHR || stat.st_rdev != makedev(1, 3) {
        return Err(SysError::new("the host's /dev/null is not device 1:3", Errno::ENODEV).into());
    }
    Ok(null)
}

/// Makes trees of mounts read-only, in place.
pub(super) fn read_only(root: &Root, list: &[PathBuf]) -> Result<()> {
    for path in list {
        let Some(target) = existing(root, path)? else { continue };
        let protect = || {
            let tree = mount::clone_mount(&target, Path::new(""), Reach::Tree)?;
            mount::set_attributes(&tree, Reach::Tree, Attributes::set(attr::RDONLY))?;
            mount::attach(tree, &target)
        };
        protect().during(|| format!("make {} read-only", path.display()))?;
    }
    Ok(())
}

/// Hides files behind `null`, and directories behind one empty directory.
pub(super) fn hide(root: &Root, list: &[PathBuf], null: OwnedFd) -> Result<()> {
    let mut cover = Cover::Detached(null);
    let mut empty: Option<Cover> = None;
    for path in list {
        let Some(target) = existing(root, path)? else { continue };
        let mut hide = || -> Result<()> {
            if !paths::is_directory(&target)? {
                return cover.put_on(&target);
            }
            if empty.is_none() {
                empty = Some(Cover::Detached(empty_directory()?));
            }
            empty.as_mut().map_or(Ok(()), |empty| empty.put_on(&target))
        };
        hide().during(|| format!("mask {}", path.display()))?;
    }
    Ok(())
}

/// A mount that is put on several targets: itself on the first, since a
/// detached mount can't be copied before Linux 6.15, and copies on the others.
enum Cover {
    Detached(OwnedFd),
    Attached(OwnedFd),
}

impl Cover {
    fn put_on(&mut self, target: &OwnedFd) -> Result<()> {
        match self {
            Self::Detached(mount) => {
                mount::attach(&*mount, target)?;
                *self = Self::Attached(
                    mount.try_clone().map_err(|e| SysError::from_io("fcntl(F_DUPFD_CLOEXEC)", &e))?,
                );
            }
            Self::Attached(mount) => {
                mount::attach(mount::clone_mount(&*mount, Path::new(""), Reach::Mount)?, target)?;
            }
        }
        Ok(())
    }
}

/// One inode is all that an empty directory needs.
fn empty_directory() -> Result<OwnedFd> {
    let file_system = FileSystem::open("tmpfs")?;
    file_system.string("source", "tmpfs")?;
    file_system.string("nr_inodes", "1")?;
    file_system.string("mode", "555")?;
    Ok(file_system.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)?)
}

fn existing(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    match root.handle(path) {
        Err(e) if e.errno() == Errno::ENOENT => Ok(None),
        result => Ok(Some(result?)),
    }
}
