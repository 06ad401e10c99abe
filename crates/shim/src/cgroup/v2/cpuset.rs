// SPDX-License-Identifier: Apache-2.0
//! `cpuset`: an empty file means what the directory above has.

use std::path::Path;

use super::super::{CpuSet, fs};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, cpuset: &CpuSet) -> Result<()> {
    for (file, value) in [("cpuset.cpus", &cpuset.cpus), ("cpuset.mems", &cpuset.mems)] {
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
    fn only_what_is_set_is_written() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("cpuset.cpus"), "").expect("write");
        apply(dir.path(), &CpuSet { cpus: Some("0-1".to_owned()), mems: None }).expect("apply");
        assert_eq!(fs::read(dir.path(), "cpuset.cpus").expect("read"), "0-1");
    }
}
