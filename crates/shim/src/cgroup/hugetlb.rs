// SPDX-License-Identifier: Apache-2.0
//! `hugetlb`, which differs between v1 and v2 by the ending of its files.

use std::path::Path;

use super::{HugePages, Limit, fs};
use crate::runtime::Result;

const FIELD: &str = "linux.resources.hugepageLimits";

/// `ending` is `limit_in_bytes` or `max`.
pub(super) fn apply(dir: &Path, limits: &[HugePages], ending: &str) -> Result<()> {
    for HugePages { size, limit } in limits {
        let value = if ending == "max" { limit.or_max() } else { limit.or_minus_one() };
        fs::set(dir, &format!("hugetlb.{size}.{ending}"), &value, FIELD)?;
        // Pages are reserved by mmap and used by the first access: without
        // this limit (Linux 5.7) a program dies of SIGBUS instead of ENOMEM.
        let reserved = format!("hugetlb.{size}.rsvd.{ending}");
        if *limit != Limit::Unlimited || fs::has(dir, &reserved) {
            set_if_there(dir, &reserved, &value)?;
        }
    }
    Ok(())
}

fn set_if_there(dir: &Path, file: &str, value: &str) -> Result<()> {
    match fs::try_write(dir, file, value) {
        Err(e) if e.errno() == nix::errno::Errno::ENOENT => Ok(()),
        result => result.map_err(|e| fs::refused(&e, FIELD)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_in_use_and_reserved_are_limited() {
        let limits = [HugePages { size: "2MB".to_owned(), limit: Limit::At(4 << 20) }];
        for ending in ["max", "limit_in_bytes"] {
            let dir = tempfile::tempdir().expect("tempdir");
            let names = [format!("hugetlb.2MB.{ending}"), format!("hugetlb.2MB.rsvd.{ending}")];
            apply(dir.path(), &limits, ending).expect_err("no such size");
            std::fs::write(dir.path().join(&names[0]), "").expect("write");
            apply(dir.path(), &limits, ending).expect("an older kernel");
            std::fs::write(dir.path().join(&names[1]), "").expect("write");
            apply(dir.path(), &limits, ending).expect("apply");
            for name in names {
                assert_eq!(fs::read(dir.path(), &name).expect("read"), "4194304");
            }
        }
    }
}
