// SPDX-License-Identifier: Apache-2.0
//! `memory`: swap has a limit of its own here, the specification counts it
//! with memory.

use std::path::Path;

use nix::errno::Errno;

use super::super::{Limit, Memory, fs};
use crate::runtime::Result;

pub(super) fn apply(dir: &Path, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    if let Some(limit) = memory.limit {
        fs::write(dir, "memory.max", &limit.or_max())?;
    }
    if let Some(reservation) = memory.reservation {
        fs::write(dir, "memory.low", &reservation.or_max())?;
    }
    let Some(swap) = swap(memory) else { return Ok(()) };
    match fs::try_write(dir, "memory.swap.max", &swap.or_max()) {
        Err(e) if e.errno() == Errno::ENOENT => {
            if swap != Limit::Unlimited {
                warnings.push("the kernel does not account swap: the swap limit is discarded".to_owned());
            }
            Ok(())
        }
        result => Ok(result?),
    }
}

/// Swap alone.
fn swap(memory: &Memory) -> Option<Limit> {
    match (memory.swap?, memory.limit) {
        (Limit::At(both), Some(Limit::At(memory))) => Some(Limit::At(both.saturating_sub(memory))),
        _ => Some(Limit::Unlimited),
    }
}

/// How many processes of the tree the kernel has killed for want of memory.
pub(in super::super) fn oom_kills(dir: &Path) -> u64 {
    fs::counter(dir, "memory.events", "oom_kill").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swap_is_what_is_left_above_memory() {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in ["memory.max", "memory.low", "memory.swap.max"] {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        let memory = Memory {
            limit: Some(Limit::At(100)),
            reservation: Some(Limit::At(50)),
            swap: Some(Limit::At(150)),
        };
        apply(dir.path(), &memory, &mut Vec::new()).expect("apply");
        let read = |file| fs::read(dir.path(), file).expect("read");
        assert_eq!(
            (read("memory.max"), read("memory.low"), read("memory.swap.max")),
            ("100".into(), "50".into(), "50".into())
        );
    }

    #[test]
    fn kills_are_counted_by_the_kernel() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("memory.events"), "oom 3\noom_kill 2\noom_group_kill 1\n")
            .expect("write");
        assert_eq!(oom_kills(dir.path()), 2);
    }
}
