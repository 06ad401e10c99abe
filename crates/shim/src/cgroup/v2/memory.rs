// SPDX-License-Identifier: Apache-2.0
//! `memory`: swap has a limit of its own here, the specification counts it
//! with memory.

use std::path::Path;

use nix::errno::Errno;

use super::super::{Limit, Memory, OutOfMemory, fs};
use crate::runtime::{Error, Result};

pub(super) fn apply(dir: &Path, memory: &Memory, warnings: &mut Vec<String>) -> Result<()> {
    warn(memory, warnings);
    check_usage(dir, memory)?;
    // Swap first: a lower limit of memory pushes pages into it.
    let swap = match (memory.limit, memory.swap) {
        (None, Some(Limit::At(both))) => Some(above_limit(dir, both)?),
        _ => swap(memory),
    };
    if let Some(swap) = swap {
        set_swap(dir, swap, warnings)?;
    }
    if let Some(limit) = memory.limit {
        fs::set(dir, "memory.max", &limit.or_max(), "linux.resources.memory.limit")?;
    }
    if let Some(reservation) = memory.reservation {
        fs::set(dir, "memory.low", &reservation.or_max(), "linux.resources.memory.reservation")?;
    }
    Ok(())
}

fn warn(memory: &Memory, warnings: &mut Vec<String>) {
    let only_v1 = [
        ("linux.resources.memory.kernelTCP", memory.tcp_buffers.is_some()),
        ("linux.resources.memory.swappiness", memory.swappiness.is_some()),
        ("linux.resources.memory.disableOOMKiller", memory.oom == OutOfMemory::Wait),
    ];
    let asked = only_v1.into_iter().filter(|(_, asked)| *asked).map(|(field, _)| field);
    for field in asked.chain(memory.obsolete.iter().copied()) {
        warnings.push(format!("{field} is discarded: cgroup v2 does not have it"));
    }
}

/// Where v1 refuses a limit below what is in use, v2 kills.
fn check_usage(dir: &Path, memory: &Memory) -> Result<()> {
    if !memory.check_before_update {
        return Ok(());
    }
    let Some(used) = fs::number(dir, "memory.current") else { return Ok(()) };
    for (field, limit) in [("limit", memory.limit), ("swap", memory.swap)] {
        if let Some(Limit::At(limit)) = limit
            && limit < used
        {
            return Err(Error::invalid(format!(
                "linux.resources.memory.{field}: {limit} is below the {used} bytes in use"
            )));
        }
    }
    Ok(())
}

fn set_swap(dir: &Path, swap: Limit, warnings: &mut Vec<String>) -> Result<()> {
    match fs::try_write(dir, "memory.swap.max", &swap.or_max()) {
        Err(e) if e.errno() == Errno::ENOENT => {
            if swap != Limit::Unlimited {
                warnings.push("the kernel does not account swap: the swap limit is discarded".to_owned());
            }
            Ok(())
        }
        result => result.map_err(|e| fs::refused(&e, "linux.resources.memory.swap")),
    }
}

/// What is left for swap of `both` above the limit that is in force.
fn above_limit(dir: &Path, both: u64) -> Result<Limit> {
    match fs::number(dir, "memory.max") {
        Some(memory) if memory <= both => Ok(Limit::At(both - memory)),
        Some(memory) => Err(Error::invalid(format!(
            "linux.resources.memory.swap: memory and swap together are below the memory limit, {memory}"
        ))),
        None => Err(Error::invalid("linux.resources.memory.swap: a swap limit needs a memory limit")),
    }
}

/// Swap alone. Memory without a limit has swap without one. A limit of both
/// says nothing of swap where that of memory isn't known.
pub(in super::super) fn swap(memory: &Memory) -> Option<Limit> {
    match (memory.limit, memory.swap) {
        (Some(Limit::At(memory)), Some(Limit::At(both))) => Some(Limit::At(both.saturating_sub(memory))),
        (Some(Limit::Unlimited), None | Some(_)) | (None, Some(Limit::Unlimited)) => Some(Limit::Unlimited),
        (_, Some(Limit::Unlimited)) => Some(Limit::Unlimited),
        (Some(Limit::At(_)) | None, None) | (None, Some(Limit::At(_))) => None,
    }
}

/// How many processes of the tree the kernel has killed for want of memory.
pub(in super::super) fn oom_kills(dir: &Path) -> u64 {
    fs::counter(dir, "memory.events", "oom_kill").unwrap_or(0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_limit_of_both_counts_from_the_limit_in_force() {
        let dir = tempfile::tempdir().expect("tempdir");
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).expect("write");
        write("memory.swap.max", "max");
        let memory = Memory { swap: Some(Limit::At(150)), ..Memory::default() };
        for (now, left) in [("100\n", Some("50")), ("151\n", None), ("max\n", None)] {
            write("memory.max", now);
            let done = apply(dir.path(), &memory, &mut Vec::new());
            assert_eq!(done.is_ok(), left.is_some(), "{now}");
            assert!(left.is_none_or(|left| fs::read(dir.path(), "memory.swap.max").expect("read") == left));
        }
    }

    use proptest::prelude::*;

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
            ..Memory::default()
        };
        apply(dir.path(), &memory, &mut Vec::new()).expect("apply");
        let read = |file| fs::read(dir.path(), file).expect("read");
        assert_eq!(
            (read("memory.max"), read("memory.low"), read("memory.swap.max")),
            ("100".into(), "50".into(), "50".into())
        );
    }

    #[test]
    fn what_only_v1_has_is_a_warning() {
        let memory = Memory {
            swappiness: Some(1),
            oom: OutOfMemory::Wait,
            obsolete: vec!["linux.resources.memory.kernel"],
            ..Memory::default()
        };
        let mut warnings = Vec::new();
        apply(Path::new("/nowhere"), &memory, &mut warnings).expect("nothing is written");
        assert_eq!(warnings.len(), 3, "{warnings:?}");
    }

    #[test]
    fn a_limit_below_what_is_in_use_is_an_error_when_asked_for() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("memory.current"), "200\n").expect("write");
        std::fs::write(dir.path().join("memory.max"), "max").expect("write");
        let memory = Memory { limit: Some(Limit::At(100)), check_before_update: true, ..Memory::default() };
        let e = apply(dir.path(), &memory, &mut Vec::new()).expect_err("in use").to_string();
        assert!(e.contains("200 bytes in use"), "{e}");
        assert_eq!(fs::read(dir.path(), "memory.max").expect("read"), "max");
        let memory = Memory { check_before_update: false, ..memory };
        apply(dir.path(), &memory, &mut Vec::new()).expect("then the kernel kills");
    }

    #[test]
    fn kills_are_counted_by_the_kernel() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("memory.events"), "oom 3\noom_kill 2\noom_group_kill 1\n")
            .expect("write");
        assert_eq!(oom_kills(dir.path()), 2);
    }

    proptest! {
        #[test]
        fn memory_and_its_swap_add_up_to_both(memory in 1..u64::MAX / 2, more in 0..u64::MAX / 2) {
            let given =
                Memory { limit: Some(Limit::At(memory)), swap: Some(Limit::At(memory + more)), ..Memory::default() };
            prop_assert_eq!(swap(&given), Some(Limit::At(more)));
        }
    }
}
