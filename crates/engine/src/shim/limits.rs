// SPDX-License-Identifier: Apache-2.0
//! The limits that are in a cgroup's files, of either version. Everything here
//! blocks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::{SysconfVar, sysconf};

use super::cgroup;
use crate::{
    domain::spec::limits::{InForce, Weight},
    error::{Context as _, Result},
};

/// cgroup v1 has a number for no limit: the largest that is whole pages.
const NO_LIMIT: u64 = 1 << 62;

/// What the kernel holds `cgroup` to (a path below each hierarchy).
///
/// # Errors
/// Those of the host.
pub fn in_force(cgroup: &str) -> Result<InForce> {
    let page = sysconf(SysconfVar::PAGE_SIZE).context("ask for the size of a page")?;
    let page = page.and_then(|page| u64::try_from(page).ok()).unwrap_or(1);
    Ok(InForce { page, ..read(&cgroup::existing(cgroup)?) })
}

/// A file that isn't there is of a controller that holds it to nothing.
fn read(dirs: &[PathBuf]) -> InForce {
    let text = |name: &str| {
        let read = |dir: &PathBuf| fs::read_to_string(Path::new(dir).join(name)).ok();
        dirs.iter().find_map(read).map(|text| text.trim().to_owned())
    };
    let memory = text("memory.limit_in_bytes").or_else(|| text("memory.max"));
    let memory = memory.as_deref().and_then(limit);
    let of_v1 = text("memory.memsw.limit_in_bytes").map(|both| limit(&both));
    let of_v2 = || {
        let swap = text("memory.swap.max")?;
        Some(memory.and_then(|memory| Some(memory.saturating_add(limit(&swap)?))))
    };
    let reservation = text("memory.soft_limit_in_bytes").or_else(|| text("memory.low"));
    let quota = text("cpu.cfs_quota_us").zip(text("cpu.cfs_period_us"));
    let bandwidth =
        quota.or_else(|| text("cpu.max")?.split_once(' ').map(|(a, b)| (a.to_owned(), b.to_owned())));
    let number = |name| text(name)?.parse().ok();
    let shares = number("cpu.shares").map(Weight::V1);
    let killer = text("memory.oom_control");
    // BFQ has v1's numbers in either version; it goes first, as where they are
    // written. Weights of devices are on lines of their own.
    let io = |name| text(name)?.lines().next()?.trim_start_matches("default ").parse().ok();
    let of_bfq = ["blkio.weight", "blkio.bfq.weight", "io.bfq.weight"].into_iter().find_map(io);
    let list = |name| text(name).filter(|list| !list.is_empty());
    InForce {
        page: 1,
        memory,
        memory_and_swap: of_v1.or_else(of_v2),
        swappiness: number("memory.swappiness"),
        oom_kill_disabled: killer.map(|text| text.lines().any(|line| line == "oom_kill_disable 1")),
        reservation: reservation.as_deref().and_then(limit).filter(|bytes| *bytes > 0),
        bandwidth: bandwidth.and_then(|(quota, period)| Some((limit(&quota)?, period.parse().ok()?))),
        weight: shares.or_else(|| number("cpu.weight").map(Weight::V2)),
        cpus: list("cpuset.cpus"),
        mems: list("cpuset.mems"),
        pids: text("pids.max").as_deref().and_then(limit),
        block_io: of_bfq.map(Weight::V1).or_else(|| io("io.weight").map(Weight::V2)),
    }
}

/// `max`, -1 and what no memory has are no limit.
fn limit(text: &str) -> Option<u64> {
    text.parse().ok().filter(|n| *n < NO_LIMIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(files: &[(&str, &str)]) -> InForce {
        let dir = tempfile::tempdir().expect("tempdir");
        for (name, text) in files {
            fs::write(dir.path().join(name), format!("{text}\n")).expect("write");
        }
        let other = tempfile::tempdir().expect("tempdir");
        read(&[other.path().to_owned(), dir.path().to_owned()])
    }

    #[test]
    fn both_versions_say_the_same() {
        let expected = InForce {
            page: 1,
            memory: Some(8192),
            memory_and_swap: Some(Some(12_288)),
            reservation: Some(4096),
            bandwidth: Some((5000, 10_000)),
            swappiness: Some(60),
            oom_kill_disabled: Some(true),
            weight: Some(Weight::V1(2)),
            cpus: Some("0-1".to_owned()),
            mems: Some("0".to_owned()),
            pids: Some(9),
            block_io: Some(Weight::V1(300)),
        };
        let v1 = with(&[
            ("memory.limit_in_bytes", "8192"),
            ("memory.memsw.limit_in_bytes", "12288"),
            ("memory.soft_limit_in_bytes", "4096"),
            ("memory.swappiness", "60"),
            ("memory.oom_control", "oom_kill_disable 1\nunder_oom 0\noom_kill 0"),
            ("blkio.bfq.weight", "300"),
            ("cpu.cfs_quota_us", "5000"),
            ("cpu.cfs_period_us", "10000"),
            ("cpu.shares", "2"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("pids.max", "9"),
        ]);
        assert_eq!(v1, expected);
        let v2 = with(&[
            ("memory.max", "8192"),
            ("memory.swap.max", "4096"),
            ("memory.low", "4096"),
            ("cpu.max", "5000 10000"),
            ("cpu.weight", "1"),
            ("cpuset.cpus", "0-1"),
            ("cpuset.mems", "0"),
            ("pids.max", "9"),
            ("io.weight", "default 2930\n8:0 100"),
        ]);
        let of_v2 = InForce {
            weight: Some(Weight::V2(1)),
            swappiness: None,
            oom_kill_disabled: None,
            block_io: Some(Weight::V2(2930)),
            ..expected
        };
        assert_eq!(v2, of_v2);
    }

    #[test]
    fn the_weight_of_block_io_is_its_schedulers() {
        for (file, text, weight) in [
            ("blkio.weight", "500", Weight::V1(500)),
            ("blkio.bfq.weight", "100", Weight::V1(100)),
            ("io.bfq.weight", "default 200\n8:0 300", Weight::V1(200)),
            ("io.weight", "default 100", Weight::V2(100)),
        ] {
            assert_eq!(with(&[(file, text)]).block_io, Some(weight), "{file}");
        }
        let both = with(&[("io.weight", "default 100"), ("io.bfq.weight", "default 7")]);
        assert_eq!(both.block_io, Some(Weight::V1(7)));
    }

    #[test]
    fn no_limit_has_many_words() {
        let nothing = InForce { page: 1, ..InForce::default() };
        assert_eq!(with(&[]), nothing);
        let v1 = with(&[
            ("memory.limit_in_bytes", "9223372036854771712"),
            ("memory.memsw.limit_in_bytes", "9223372036854771712"),
            ("memory.soft_limit_in_bytes", "9223372036854771712"),
            ("cpu.cfs_quota_us", "-1"),
            ("cpu.cfs_period_us", "100000"),
            ("pids.max", "max"),
        ]);
        assert_eq!(v1, InForce { memory_and_swap: Some(None), ..nothing.clone() });
        let v2 = with(&[
            ("memory.max", "max"),
            ("memory.swap.max", "max"),
            ("memory.low", "0"),
            ("cpu.max", "max 100000"),
            ("cpuset.cpus", ""),
        ]);
        assert_eq!(v2, InForce { memory_and_swap: Some(None), ..nothing });
    }
}
