// SPDX-License-Identifier: Apache-2.0
//! `pids`: how many processes and threads there may be.

use std::path::Path;

use super::super::{Limit, fs};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, limit: Option<Limit>) -> Result<()> {
    let Some(limit) = limit else { return Ok(()) };
    fs::set(dir, "pids.max", &limit.of_processes().or_max(), "linux.resources.pids.limit")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_limit_is_max() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("pids.max"), "as it was").expect("write");
        for (limit, text) in [
            (None, "as it was"),
            (Some(Limit::Unlimited), "max"),
            (Some(Limit::At(0)), "1"),
            (Some(Limit::At(9)), "9"),
        ] {
            apply(dir.path(), limit).expect("apply");
            assert_eq!(fs::read(dir.path(), "pids.max").expect("read"), text);
        }
    }
}
