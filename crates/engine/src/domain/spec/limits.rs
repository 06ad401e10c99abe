// SPDX-License-Identifier: Apache-2.0
//! What the kernel holds a container to beside what its configuration says.
//! Pure; what is in the kernel's files is read by the shim layer.

use std::{collections::BTreeSet, fmt};

use berth::cgroup::{io_weight, weight};

use super::resources::{CPU_SHARES, bandwidth, memory_and_swap, most_pids};
use crate::domain::container::HostConfig;

/// A limit that a container may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Of memory.
    Memory,
    /// Of memory and swap together.
    MemoryAndSwap,
    /// What is left to it when memory runs out.
    Reservation,
    /// How readily its memory is swapped out.
    Swappiness,
    /// Whether it is killed, or waits, when its memory runs out.
    OomKiller,
    /// Time in each period.
    Cpu,
    /// Weight.
    CpuShares,
    /// CPUs to run on.
    Cpus,
    /// Memory nodes to use.
    Mems,
    /// Number of processes.
    Pids,
    /// Weight of block I/O.
    BlockIo,
}

/// A container's weight among its siblings, in the numbers of one version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// Of cgroup v1, which configurations have: of CPU, 1024 is normal.
    V1(u64),
    /// Of cgroup v2: 100 is normal.
    V2(u64),
}

impl Weight {
    /// Its number, and the one for `given`, which `to_v2` converts.
    fn beside(self, given: u64, to_v2: fn(u64) -> u64) -> [String; 2] {
        match self {
            Self::V1(found) => [found, given],
            Self::V2(found) => [found, to_v2(given)],
        }
        .map(|n| n.to_string())
    }
}

/// What the kernel's files say; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InForce {
    /// Bytes of a page: the kernel counts memory in whole ones.
    pub page: u64,
    /// Bytes.
    pub memory: Option<u64>,
    /// Bytes; the outer `None`: swap isn't counted.
    pub memory_and_swap: Option<Option<u64>>,
    /// Bytes.
    pub reservation: Option<u64>,
    /// 0 to 100; `None` where the kernel has no such number for each cgroup.
    pub swappiness: Option<u64>,
    /// Nothing of it is killed when its memory runs out; `None` where the
    /// kernel knows no such choice.
    pub oom_kill_disabled: Option<bool>,
    /// Microseconds in each period, and the period.
    pub bandwidth: Option<(u64, u64)>,
    /// `None` is the normal one.
    pub weight: Option<Weight>,
    /// CPUs, as the kernel lists them.
    pub cpus: Option<String>,
    /// Memory nodes, as the kernel lists them.
    pub mems: Option<String>,
    /// Processes.
    pub pids: Option<u64>,
    /// `None` where nothing weighs block I/O.
    pub block_io: Option<Weight>,
}

/// A limit that isn't as the configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Which.
    pub limit: Limit,
    /// The kernel's.
    pub found: String,
    /// The configuration's.
    pub expected: String,
}

impl InForce {
    /// In what the kernel doesn't do as `host` says.
    #[must_use]
    pub fn differences(&self, host: &HostConfig) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut compare = |limit, found: String, expected: String| {
            if found != expected {
                all.push(Difference { limit, found, expected });
            }
        };
        let bytes = |n: Option<u64>| limited(n.map(|n| self.whole_pages(n)), "bytes");
        let given = |n: i64| u64::try_from(n).ok().filter(|n| *n > 0);
        compare(Limit::Memory, bytes(self.memory), bytes(given(host.memory)));
        if let Some(both) = self.memory_and_swap {
            compare(Limit::MemoryAndSwap, bytes(both), bytes(given(memory_and_swap(host))));
        }
        compare(Limit::Reservation, bytes(self.reservation), bytes(given(host.memory_reservation)));
        if let Some((found, wanted)) = self.swappiness.zip(host.memory_swappiness) {
            compare(Limit::Swappiness, found.to_string(), wanted.to_string());
        }
        if let Some(disabled) = self.oom_kill_disabled {
            let word = |disabled: bool| if disabled { "disabled" } else { "enabled" }.to_owned();
            compare(Limit::OomKiller, word(disabled), word(host.oom_kill_disable));
        }
        let time = |given: Option<(u64, u64)>| match given {
            Some((quota, period)) => format!("{quota} of {period} microseconds"),
            None => NONE.to_owned(),
        };
        let quota = bandwidth(host).and_then(|(period, quota)| Some((given(quota)?, period)));
        compare(Limit::Cpu, time(self.bandwidth), time(quota));
        let shares = if host.cpu_shares == 0 { CPU_SHARES } else { host.cpu_shares };
        let [found, wanted] = self.weight.unwrap_or(Weight::V1(CPU_SHARES)).beside(shares, weight);
        compare(Limit::CpuShares, found, wanted);
        // Without a word it has what the one above it has, which may change, as
        // it does of swappiness; or, of block I/O, what the scheduler gives it.
        for (limit, found, wanted) in
            [(Limit::Cpus, &self.cpus, &host.cpuset_cpus), (Limit::Mems, &self.mems, &host.cpuset_mems)]
        {
            let found = found.as_deref().unwrap_or_default();
            if !wanted.is_empty() && members(found) != members(wanted) {
                let shown = if found.is_empty() { "all" } else { found };
                compare(limit, shown.to_owned(), wanted.clone());
            }
        }
        let processes = |n| limited(n, "processes");
        compare(Limit::Pids, processes(self.pids), processes(most_pids(host).and_then(given)));
        if let Some(found) = self.block_io.filter(|_| host.blkio_weight > 0) {
            let [found, wanted] = found.beside(host.blkio_weight.into(), io_weight);
            compare(Limit::BlockIo, found, wanted);
        }
        all
    }

    fn whole_pages(&self, bytes: u64) -> u64 {
        bytes / self.page.max(1) * self.page.max(1)
    }
}

const NONE: &str = "no limit";

fn limited(limit: Option<u64>, unit: &str) -> String {
    limit.map_or_else(|| NONE.to_owned(), |n| format!("{n} {unit}"))
}

/// The numbers of a list like `0-2,4`; what can't be read is in none.
fn members(list: &str) -> BTreeSet<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::MemoryAndSwap => "memory and swap",
            Self::Reservation => "reserved memory",
            Self::Swappiness => "swappiness",
            Self::OomKiller => "out-of-memory killer",
            Self::Cpu => "CPU time",
            Self::CpuShares => "weight of CPU",
            Self::Cpus => "CPUs",
            Self::Mems => "memory nodes",
            Self::Pids => "processes",
            Self::BlockIo => "weight of block I/O",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::spec::resources;

    fn all() -> HostConfig {
        HostConfig {
            memory: (8 << 20) + 5,
            memory_reservation: 4 << 20,
            nano_cpus: 500_000_000,
            cpu_shares: 512,
            cpuset_cpus: "0-1,3".to_owned(),
            cpuset_mems: "0".to_owned(),
            pids_limit: Some(7),
            memory_swappiness: Some(10),
            oom_kill_disable: true,
            blkio_weight: 100,
            ..HostConfig::default()
        }
    }

    fn kept() -> InForce {
        InForce {
            page: 4096,
            memory: Some(8 << 20),
            memory_and_swap: Some(Some(16 << 20)),
            reservation: Some(4 << 20),
            bandwidth: Some((50_000, 100_000)),
            swappiness: Some(10),
            oom_kill_disabled: Some(true),
            weight: Some(Weight::V1(512)),
            cpus: Some("0,1,3".to_owned()),
            mems: Some("0".to_owned()),
            pids: Some(7),
            block_io: Some(Weight::V1(100)),
        }
    }

    #[test]
    fn what_is_kept_differs_in_nothing() {
        assert_eq!(kept().differences(&all()), []);
        let v2 = InForce {
            weight: Some(Weight::V2(59)),
            memory_and_swap: None,
            swappiness: None,
            oom_kill_disabled: None,
            block_io: Some(Weight::V2(910)),
            ..kept()
        };
        assert_eq!(v2.differences(&all()), []);
        // Without a limit, a container may be in a hierarchy or not.
        assert_eq!(InForce::default().differences(&HostConfig::default()), []);
        let normal = InForce {
            weight: Some(Weight::V1(1024)),
            cpus: Some("0-7".to_owned()),
            memory_and_swap: Some(None),
            swappiness: Some(60),
            oom_kill_disabled: Some(false),
            block_io: Some(Weight::V1(500)),
            ..InForce::default()
        };
        assert_eq!(normal.differences(&HostConfig::default()), []);
    }

    #[test]
    fn each_limit_that_is_not_kept_is_named_and_can_be_set_again() {
        let nothing = InForce {
            memory_and_swap: Some(None),
            swappiness: Some(60),
            oom_kill_disabled: Some(false),
            block_io: Some(Weight::V1(500)),
            ..InForce::default()
        };
        let differences = nothing.differences(&all());
        let limits: Vec<_> = differences.iter().map(|one| one.limit).collect();
        let every = [
            Limit::Memory,
            Limit::MemoryAndSwap,
            Limit::Reservation,
            Limit::Swappiness,
            Limit::OomKiller,
            Limit::Cpu,
            Limit::CpuShares,
            Limit::Cpus,
            Limit::Mems,
            Limit::Pids,
            Limit::BlockIo,
        ];
        assert_eq!(limits, every);
        let said: Vec<_> =
            differences.iter().map(|one| (one.found.as_str(), one.expected.as_str())).collect();
        assert_eq!(said[3..5], [("60", "10"), ("enabled", "disabled")]);
        assert_eq!(said[9..], [("no limit", "7 processes"), ("500", "100")]);

        let set = resources::again(&all(), &limits);
        let (memory, cpu) = (set.memory().expect("memory"), set.cpu().clone().expect("cpu"));
        assert_eq!(memory.swap(), Some(2 * ((8 << 20) + 5)));
        assert_eq!((memory.swappiness(), memory.disable_oom_killer()), (Some(10), Some(true)));
        assert_eq!(set.block_io().as_ref().expect("block I/O").weight(), Some(100));
        assert_eq!(
            (cpu.quota(), cpu.shares(), cpu.cpus().as_deref()),
            (Some(50_000), Some(512), Some("0-1,3"))
        );
        assert_eq!(set.pids().expect("pids").limit(), 7);

        let unasked = kept().differences(&HostConfig::default());
        let limits: Vec<_> = unasked.iter().map(|one| one.limit).collect();
        let set = resources::again(&HostConfig::default(), &limits);
        let (memory, cpu) = (set.memory().expect("memory"), set.cpu().clone().expect("cpu"));
        assert_eq!((memory.limit(), memory.swap(), memory.reservation()), (Some(-1), Some(-1), Some(-1)));
        assert_eq!((memory.swappiness(), memory.disable_oom_killer()), (None, Some(false)));
        assert!(set.block_io().is_none(), "what was never asked for is as it may be");
        assert_eq!((cpu.quota(), cpu.shares(), cpu.cpus()), (Some(-1), Some(1024), &None));
        assert_eq!(set.pids().expect("pids").limit(), -1);
        assert!(resources::again(&all(), &[]).memory().is_none());
    }

    #[test]
    fn lists_are_compared_by_what_they_name() {
        for (one, other, same) in
            [("0-2", "0,1,2", true), ("2,0", "0,2", true), ("0-1", "0", false), ("x", "", true)]
        {
            assert_eq!(members(one) == members(other), same, "{one} {other}");
        }
    }
}
