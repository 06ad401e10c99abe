// SPDX-License-Identifier: Apache-2.0
//! Where a process that joins a container goes in the v2 tree: a cgroup of its
//! own below the container's, or one that the container has.
//!
//! A leaf has no controllers: it is counted and limited with its parent. It is
//! there to be killed and watched as a whole.

use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;

use super::{Group, fs};
use crate::{
    kernel::{Procfs, SysError},
    runtime::{Error, Result},
};

impl Group {
    /// The same container's, but for some that lie below: a controller of
    /// version 1, or nothing for all hierarchies, and a relative path.
    ///
    /// # Errors
    /// `InvalidSpec` for a path that leaves the container's, and a controller
    /// that it hasn't.
    pub fn inside(mut self, all: &[(String, PathBuf)]) -> Result<Self> {
        for (controller, path) in all {
            let mut known = controller.is_empty();
            for member in &mut self.v1 {
                if controller.is_empty() || member.controller.name() == controller {
                    member.dir = below(&member.dir, path)?;
                    // One that is another's mount as well may be named alone.
                    member.entered &= controller.is_empty();
                    known = true;
                }
            }
            if controller.is_empty()
                && let Some(dir) = &mut self.unified
            {
                *dir = below(dir, path)?;
                self.placed = true;
            }
            if !known {
                return Err(Error::invalid(format!("unknown controller {controller}")));
            }
        }
        Ok(self)
    }

    /// Makes a leaf; `None` where there is no v2 tree, or no room in it because
    /// the container has made its own cgroup a threaded one.
    ///
    /// # Errors
    /// Those of mkdir(2).
    pub fn make_leaf(&self, name: &str) -> Result<Option<PathBuf>> {
        let Some(dir) = self.unified_dir() else { return Ok(None) };
        let leaf = dir.join(name);
        fs::make(&leaf)?;
        let kind = fs::read(&leaf, "cgroup.type").unwrap_or_default();
        if matches!(kind.trim(), "" | "domain") {
            return Ok(Some(leaf));
        }
        remove_leaf(&leaf)?;
        Ok(None)
    }

    /// The v2 directory that a process may be put into: the container's, or
    /// that of its first process `pid` when it has made cgroups with
    /// controllers below its own.
    ///
    /// # Errors
    /// Those of reading `/proc/<pid>/cgroup`.
    pub fn enterable(&self, pid: u32) -> Result<Option<PathBuf>> {
        let Some(dir) = self.unified_dir() else { return Ok(None) };
        // Who has asked for it shall have it, or hear why not.
        if self.placed {
            return Ok(Some(dir.to_owned()));
        }
        let divided = fs::read(dir, "cgroup.subtree_control").is_ok_and(|text| !text.trim().is_empty());
        if !divided {
            return Ok(Some(dir.to_owned()));
        }
        let text = Procfs::of_host()?.read_text(format!("{pid}/cgroup"))?;
        let inside = own(&text).map(|path| self.unified_root().join(path));
        Ok(inside.filter(|path| path.starts_with(dir)).or_else(|| Some(dir.to_owned())))
    }
}

/// `path` below `dir`, taken by its names alone.
fn below(dir: &Path, path: &Path) -> Result<PathBuf> {
    let mut inside = PathBuf::new();
    for part in path.components() {
        let left = match part {
            Component::Normal(name) => {
                inside.push(name);
                false
            }
            Component::ParentDir => !inside.pop(),
            _ => false,
        };
        if left {
            return Err(Error::invalid(format!("bad sub cgroup path: {}", path.display())));
        }
    }
    Ok(if inside.as_os_str().is_empty() { dir.to_owned() } else { dir.join(inside) })
}

/// The path in the v2 tree, relative to its root.
fn own(cgroups: &str) -> Option<&str> {
    cgroups.lines().find_map(|line| line.strip_prefix("0::/"))
}

/// Kills all processes of a leaf.
///
/// # Errors
/// Those of the write; ENOENT before Linux 5.14.
pub fn kill_leaf(leaf: &Path) -> Result<()> {
    Ok(fs::try_write(leaf, "cgroup.kill", "1")?)
}

/// Removes a leaf that is empty.
///
/// # Errors
/// EBUSY when it isn't.
pub fn remove_leaf(leaf: &Path) -> Result<()> {
    match std::fs::remove_dir(leaf) {
        Err(e) if e.raw_os_error() != Some(Errno::ENOENT as i32) => {
            Err(SysError::from_io(format!("rmdir({leaf:?})"), &e).into())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_inside_stays_inside() {
        let below = |path: &str| below(Path::new("/c"), Path::new(path)).ok();
        for (path, wanted) in
            [("/", "/c"), ("a/b", "/c/a/b"), ("/a/../b", "/c/b"), ("", "/c"), ("./a", "/c/a")]
        {
            assert_eq!(below(path).as_deref(), Some(Path::new(wanted)), "{path}");
        }
        for path in ["..", "a/../..", "../c/a"] {
            assert_eq!(below(path), None, "{path}");
        }
    }

    #[test]
    fn the_v2_line_is_found() {
        assert_eq!(own("9:cpu:/a\n0::/b/c\n"), Some("b/c"));
        assert_eq!(own("0::/\n"), Some(""));
        assert_eq!(own("9:cpu:/a\n"), None);
    }
}
