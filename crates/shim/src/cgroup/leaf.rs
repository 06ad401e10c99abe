// SPDX-License-Identifier: Apache-2.0
//! Where a process that joins a container goes in the v2 tree: a cgroup of its
//! own below the container's, or one that the container has.
//!
//! A leaf has no controllers: it is counted and limited with its parent. It is
//! there to be killed and watched as a whole.

use std::path::{Path, PathBuf};

use nix::errno::Errno;

use super::{Group, fs};
use crate::{
    kernel::{SysError, paths},
    runtime::Result,
};

/// Largest `/proc/<pid>/cgroup`.
const MAX_FILE: u64 = 64 << 10;

impl Group {
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
        let path = format!("/proc/{pid}/cgroup");
        let file = paths::open_host(Path::new(&path), nix::fcntl::OFlag::O_RDONLY)?;
        let text = paths::read_regular(file, MAX_FILE)?;
        let inside = own(&String::from_utf8_lossy(&text)).map(|path| self.unified_root().join(path));
        Ok(inside.filter(|path| path.starts_with(dir)).or_else(|| Some(dir.to_owned())))
    }
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
    fn the_v2_line_is_found() {
        assert_eq!(own("9:cpu:/a\n0::/b/c\n"), Some("b/c"));
        assert_eq!(own("0::/\n"), Some(""));
        assert_eq!(own("9:cpu:/a\n"), None);
    }
}
