// SPDX-License-Identifier: Apache-2.0
//! `memory`: limits in bytes, and the count of out-of-memory kills.

use std::path::Path;

use nix::errno::Errno;

use super::super::{Limit, Memory, OutOfMemory, fs, tree};
use crate::runtime::{Error, Kind, Result};

const LIMIT: &str = "memory.limit_in_bytes";
const BOTH: &str = "memory.memsw.limit_in_bytes";
const FIELD: &str = "linux.resources.memory.limit";

pub(super) fn apply(dir: &Path, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    for field in &memory.obsolete {
        warnings.push(format!("{field} is discarded: kernels have it no more"));
    }
    // Memory without a limit has swap without one: they are counted together.
    let without_limit = memory.limit == Some(Limit::Unlimited) && fs::has(dir, BOTH);
    let swap = memory.swap.or(without_limit.then_some(Limit::Unlimited));
    match (memory.limit, swap) {
        (Some(limit), Some(swap)) if swap_first(fs::number(dir, LIMIT), swap) => {
            set_swap(dir, swap, warnings)?;
            set_limit(dir, limit)?;
        }
        (limit, swap) => {
            limit.map(|limit| set_limit(dir, limit)).transpose()?;
            swap.map(|swap| set_swap(dir, swap, warnings)).transpose()?;
        }
    }
    if let Some(reservation) = memory.reservation {
        let field = "linux.resources.memory.reservation";
        fs::set(dir, "memory.soft_limit_in_bytes", &reservation.or_minus_one(), field)?;
    }
    if let Some(buffers) = memory.tcp_buffers {
        let field = "linux.resources.memory.kernelTCP";
        fs::set(dir, "memory.kmem.tcp.limit_in_bytes", &buffers.or_minus_one(), field)?;
    }
    if let Some(swappiness) = memory.swappiness {
        let field = "linux.resources.memory.swappiness";
        fs::set(dir, "memory.swappiness", &swappiness.to_string(), field)?;
    }
    let field = "linux.resources.memory.disableOOMKiller";
    match memory.oom {
        OutOfMemory::Wait => fs::set(dir, "memory.oom_control", "1", field),
        // Nearly always as it is: then it's not written.
        OutOfMemory::Kill if fs::counter(dir, "memory.oom_control", "oom_kill_disable") == Some(1) => {
            fs::set(dir, "memory.oom_control", "0", field)
        }
        OutOfMemory::Kill | OutOfMemory::Unset => Ok(()),
    }
}

/// The kernel keeps the memory limit at or below the limit of both. Whichever
/// order keeps to that between the two writes is taken.
fn swap_first(limit_now: Option<u64>, both: Limit) -> bool {
    match both {
        Limit::Unlimited => true,
        Limit::At(both) => limit_now.is_some_and(|now| now <= both),
    }
}

fn set_limit(dir: &Path, limit: Limit) -> Result<()> {
    let Err(e) = fs::try_write(dir, LIMIT, &limit.or_minus_one()) else { return Ok(()) };
    let now = |file| fs::number(dir, file).map_or_else(|| "unknown".to_owned(), |n| n.to_string());
    let hint = match e.errno() {
        Errno::EBUSY => format!("; in use: {} bytes", now("memory.usage_in_bytes")),
        Errno::EINVAL => format!("; memory and swap together are limited to {} bytes", now(BOTH)),
        _ => return Err(fs::refused(&e, FIELD)),
    };
    Err(Error::new(Kind::InvalidSpec, format!("{FIELD}: {e}{hint}")))
}

fn set_swap(dir: &Path, swap: Limit, warnings: &mut Vec<String>) -> Result<()> {
    match fs::try_write(dir, BOTH, &swap.or_minus_one()) {
        Err(e) if matches!(e.errno(), Errno::ENOENT | Errno::EOPNOTSUPP) => {
            if swap != Limit::Unlimited {
                warnings.push("the kernel does not account swap: the swap limit is discarded".to_owned());
            }
            Ok(())
        }
        result => result.map_err(|e| fs::refused(&e, "linux.resources.memory.swap")),
    }
}

/// How many processes of the tree the kernel has killed for want of memory;
/// each cgroup counts only its own.
pub(in super::super) fn oom_kills(dir: &Path) -> u64 {
    tree::sum(dir, "memory.oom_control", "oom_kill").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fake(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("tempdir");
        for file in files {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        dir
    }

    #[test]
    fn limits_are_written_as_bytes() {
        let dir = fake(&[
            LIMIT,
            "memory.soft_limit_in_bytes",
            BOTH,
            "memory.kmem.tcp.limit_in_bytes",
            "memory.swappiness",
            "memory.oom_control",
        ]);
        let memory = Memory {
            limit: Some(Limit::At(1024)),
            reservation: Some(Limit::At(512)),
            swap: Some(Limit::Unlimited),
            tcp_buffers: Some(Limit::At(256)),
            swappiness: Some(7),
            oom: OutOfMemory::Wait,
            ..Memory::default()
        };
        apply(dir.path(), &memory, &mut Vec::new()).expect("apply");
        let read = |file| fs::read(dir.path(), file).expect("read");
        assert_eq!(read(LIMIT), "1024");
        assert_eq!(read("memory.soft_limit_in_bytes"), "512");
        assert_eq!(read(BOTH), "-1");
        assert_eq!(read("memory.kmem.tcp.limit_in_bytes"), "256");
        assert_eq!(read("memory.swappiness"), "7");
        assert_eq!(read("memory.oom_control"), "1");
    }

    #[test]
    fn memory_without_a_limit_frees_swap_too() {
        let dir = fake(&[LIMIT, BOTH]);
        let memory = Memory { limit: Some(Limit::Unlimited), ..Memory::default() };
        apply(dir.path(), &memory, &mut Vec::new()).expect("apply");
        assert_eq!(fs::read(dir.path(), BOTH).expect("read"), "-1");
    }

    #[test]
    fn killing_is_switched_on_only_where_it_is_off() {
        let dir = fake(&[]);
        let memory = Memory { oom: OutOfMemory::Kill, ..Memory::default() };
        for (text, after) in [("oom_kill_disable 0\n", "oom_kill_disable 0\n"), ("oom_kill_disable 1\n", "0")]
        {
            std::fs::write(dir.path().join("memory.oom_control"), text).expect("write");
            apply(dir.path(), &memory, &mut Vec::new()).expect("apply");
            assert_eq!(fs::read(dir.path(), "memory.oom_control").expect("read"), after);
        }
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

    proptest! {
        /// Between any two states that the kernel accepts, it accepts the
        /// state after the first write, too.
        #[test]
        fn every_update_passes_through_states_that_the_kernel_accepts(
            (memory_now, more_now, memory, more) in (1..9_u64, 0..9_u64, 1..9_u64, 0..9_u64),
        ) {
            let (both_now, both) = (memory_now + more_now, memory + more);
            let between = if swap_first(Some(memory_now), Limit::At(both)) {
                (memory_now, both)
            } else {
                (memory, both_now)
            };
            prop_assert!(between.0 <= between.1, "{between:?}");
        }
    }
}
