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
    fn a_limit_is_a_number_or_max() {
        let dir = tempfile::tempdir().expect("tempdir");
        apply(dir.path(), None).expect("nothing to write");
        std::fs::write(dir.path().join("pids.max"), "").expect("write");
        apply(dir.path(), Some(Limit::At(3))).expect("apply");
        assert_eq!(fs::read(dir.path(), "pids.max").expect("read"), "3");
    }
}
