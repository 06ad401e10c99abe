// SPDX-License-Identifier: Apache-2.0
//! `linux.resources.unified`: files of cgroup v2 by their names.

use std::{collections::BTreeMap, path::Path};

use nix::errno::Errno;

use super::super::fs;
use crate::runtime::{Error, Kind, Result};

pub(super) fn apply(dir: &Path, unified: &BTreeMap<String, String>) -> Result<()> {
    for (key, value) in unified {
        let field = format!("linux.resources.unified: {key}");
        // Files with a line per device take one line a write.
        match fs::try_write_each(dir, key, value.lines()) {
            Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::EACCES) && !fs::has(dir, key) => {
                let why = format!("{field}: no controller of the host has this file");
                return Err(Error::new(Kind::Unsupported, why));
            }
            result => result.map_err(|e| fs::refused(&e, &field))?,
        }
    }
    Ok(())
}

/// The controller that a key belongs to; `None` for those of every cgroup.
pub(super) fn controller(key: &str) -> Option<&str> {
    key.split('.').next().filter(|name| *name != "cgroup")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(key: &str, value: &str) -> BTreeMap<String, String> {
        BTreeMap::from([(key.to_owned(), value.to_owned())])
    }

    #[test]
    fn a_file_is_written_as_it_is_named() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("memory.high"), "").expect("write");
        apply(dir.path(), &one("memory.high", "1000")).expect("apply");
        assert_eq!(fs::read(dir.path(), "memory.high").expect("read"), "1000");
        let e = apply(dir.path(), &one("memory.hihg", "1")).expect_err("no such file");
        assert_eq!(e.kind(), Kind::Unsupported);
        assert!(e.to_string().starts_with("linux.resources.unified: memory.hihg: "), "{e}");
    }

    #[test]
    fn a_key_begins_with_its_controller() {
        assert_eq!(controller("hugetlb.2MB.max"), Some("hugetlb"));
        assert_eq!(controller("cgroup.max.depth"), None);
    }
}
