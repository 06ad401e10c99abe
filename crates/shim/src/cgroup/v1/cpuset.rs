// SPDX-License-Identifier: Apache-2.0
//! `cpuset`: a new directory of it allows nothing, and nothing can enter it,
//! until it has processors and memory nodes. So has each directory above.

use std::path::Path;

use super::super::{CpuSet, fs};
use crate::runtime::Result;

const FILES: [&str; 2] = ["cpuset.cpus", "cpuset.mems"];

/// Gives each directory on the way what the one above it has.
pub(super) fn inherit(hierarchy: &Path, path: &Path) -> Result<()> {
    let mut dir = hierarchy.to_owned();
    for name in path {
        let parent = dir.clone();
        dir.push(name);
        for file in FILES {
            if fs::read(&dir, file)?.trim().is_empty() {
                fs::write(&dir, file, fs::read(&parent, file)?.trim())?;
            }
        }
    }
    Ok(())
}

pub(super) fn apply(dir: &Path, cpuset: &CpuSet) -> Result<()> {
    for (file, value) in FILES.iter().zip([&cpuset.cpus, &cpuset.mems]) {
        if let Some(value) = value {
            fs::set(dir, file, value, &file.replace("cpuset.", "linux.resources.cpu."))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_inherit_what_they_lack() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::create_dir_all(dir.path().join("berth/x")).expect("mkdir");
        for (sub, cpus) in [("", "0-3\n"), ("berth", "\n"), ("berth/x", "\n")] {
            std::fs::write(dir.path().join(sub).join("cpuset.cpus"), cpus).expect("write");
            std::fs::write(dir.path().join(sub).join("cpuset.mems"), cpus.replace("0-3", "0"))
                .expect("write");
        }
        let cpuset = CpuSet { cpus: Some("1".to_owned()), mems: None };
        inherit(dir.path(), Path::new("berth/x")).expect("inherit");
        apply(&dir.path().join("berth/x"), &cpuset).expect("apply");
        assert_eq!(fs::read(&dir.path().join("berth"), "cpuset.cpus").expect("read"), "0-3");
        assert_eq!(fs::read(&dir.path().join("berth/x"), "cpuset.cpus").expect("read"), "1");
        assert_eq!(fs::read(&dir.path().join("berth/x"), "cpuset.mems").expect("read"), "0");
    }
}
