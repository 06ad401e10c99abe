// SPDX-License-Identifier: Apache-2.0
//! `memory`: limits in bytes, and the count of out-of-memory kills.

use std::path::Path;

use nix::errno::Errno;

use super::super::{Limit, Memory, fs};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(limit) = memory.limit {
        fs::write(dir, "memory.limit_in_bytes", &limit.or_minus_one())?;
    }
    if let Some(reservation) = memory.reservation {
        fs::write(dir, "memory.soft_limit_in_bytes", &reservation.or_minus_one())?;
    }
    // After the limit: the sum of memory and swap may never be below it.
    match memory.swap.map(|swap| fs::try_write(dir, "memory.memsw.limit_in_bytes", &swap.or_minus_one())) {
        Some(Err(e)) if matches!(e.errno(), Errno::ENOENT | Errno::EOPNOTSUPP) => {
            if memory.swap != Some(Limit::Unlimited) {
                warnings.push("the kernel does not account swap: the swap limit is discarded".to_owned());
            }
            Ok(())
        }
        Some(result) => Ok(result?),
        None => Ok(()),
    }
}

/// How many processes of the cgroup the kernel has killed for want of memory.
pub(in super::super) fn oom_kills(dir: &Path) -> u64 {
    fs::counter(dir, "memory.oom_control", "oom_kill").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_bytes() {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in ["memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes"] {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        let memory = Memory {
            limit: Some(Limit::At(1024)),
            reservation: Some(Limit::At(512)),
            swap: Some(Limit::Unlimited),
        };
        apply(dir.path(), &memory, &mut Vec::new()).expect("apply");
        let read = |file| fs::read(dir.path(), file).expect("read");
        assert_eq!(read("memory.limit_in_bytes"), "1024");
        assert_eq!(read("memory.soft_limit_in_bytes"), "512");
        assert_eq!(read("memory.memsw.limit_in_bytes"), "-1");
    }

    #[test]
    fn a_kernel_without_swap_accounting_is_a_warning() {
        let dir = tempfile::tempdir().expect("tempdir");
        let memory = Memory { swap: Some(Limit::At(1)), ..Memory::default() };
        let mut warnings = Vec::new();
        apply(dir.path(), &memory, &mut warnings).expect("apply");
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn kills_are_counted_by_the_kernel() {
        let dir = tempfile::tempdir().expect("tempdir");
        assert_eq!(oom_kills(dir.path()), 0);
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        std::fs::write(dir.path().join("memory.oom_control"), text).expect("write");
        assert_eq!(oom_kills(dir.path()), 3);
    }
}
