// SPDX-License-Identifier: Apache-2.0
//! Which hierarchies a host has, and where.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use crate::runtime::{Error, Kind, Result};

/// Where hosts mount their hierarchies.
const MOUNT_POINT: &str = "/sys/fs/cgroup";

/// The cgroup hierarchies of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Layout {
    /// One tree with all controllers.
    V2(PathBuf),
    /// A tree per controller.
    V1 {
        /// The directory that the trees are mounted in, by controller.
        root: PathBuf,
        /// A v2 tree without controllers.
        unified: Option<PathBuf>,
    },
}

impl Layout {
    /// Looks at the host.
    ///
    /// # Errors
    /// When no cgroup file system is mounted where it is expected.
    pub fn of_host() -> Result<Self> {
        Self::detect(Path::new(MOUNT_POINT), |path| statfs(path).ok().map(|s| s.filesystem_type()))
    }

    fn detect(root: &Path, kind: impl Fn(&Path) -> Option<FsType>) -> Result<Self> {
        let is = |path: &Path, wanted| kind(path) == Some(wanted);
        if is(root, CGROUP2_SUPER_MAGIC) {
            return Ok(Self::V2(root.to_owned()));
        }
        let has_v1 =
            ["devices", "memory", "pids", "cpu"].iter().any(|name| is(&root.join(name), CGROUP_SUPER_MAGIC));
        if !has_v1 {
            return Err(Error::new(
                Kind::Os,
                format!("no cgroup file system is mounted at {}", root.display()),
            ));
        }
        let unified = Some(root.join("unified")).filter(|path| is(path, CGROUP2_SUPER_MAGIC));
        Ok(Self::V1 { root: root.to_owned(), unified })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_layouts() {
        let root = Path::new("/c");
        let v2 = Layout::detect(root, |_| Some(CGROUP2_SUPER_MAGIC)).expect("v2");
        assert_eq!(v2, Layout::V2(root.to_owned()));
        let hybrid = |path: &Path| match path.strip_prefix("/c").ok()?.to_str()? {
            "memory" => Some(CGROUP_SUPER_MAGIC),
            "unified" => Some(CGROUP2_SUPER_MAGIC),
            _ => None,
        };
        let expected = Layout::V1 { root: root.to_owned(), unified: Some("/c/unified".into()) };
        assert_eq!(Layout::detect(root, hybrid).expect("hybrid"), expected);
        let v1 = |path: &Path| (path == Path::new("/c/pids")).then_some(CGROUP_SUPER_MAGIC);
        let expected = Layout::V1 { root: root.to_owned(), unified: None };
        assert_eq!(Layout::detect(root, v1).expect("v1"), expected);
        assert!(Layout::detect(root, |_| None).is_err());
    }
}
