// SPDX-License-Identifier: Apache-2.0
//! Counters of v2, all in one directory.

use std::path::Path;

use super::{Amount, BlockIo, Cpu, HugePages, Memory, MemoryEvents, Pids, Stats, Version, parse, v1::rdma};
use crate::{
    cgroup::{fs, tree},
    runtime::Result,
};

pub(super) fn read(dir: &Path) -> Result<Stats> {
    Ok(Stats {
        version: Version::V2,
        cpu: cpu(dir)?,
        memory: memory(dir),
        pids: pids(dir),
        block_io: block_io(dir),
        huge_pages: huge_pages(dir),
        rdma: rdma(dir),
    })
}

/// Every cgroup has this file, whichever controllers are enabled.
fn cpu(dir: &Path) -> Result<Cpu> {
    let counters = parse::flat(&fs::read(dir, "cpu.stat")?);
    let counter = |key: &str| counters.get(key).copied().unwrap_or(0);
    let time = |key: &str| counter(key).saturating_mul(1000);
    Ok(Cpu {
        usage: time("usage_usec"),
        user: time("user_usec"),
        kernel: time("system_usec"),
        per_cpu: Vec::new(),
        periods: counter("nr_periods"),
        throttled_periods: counter("nr_throttled"),
        throttled: time("throttled_usec"),
        bursts: counter("nr_bursts"),
        burst: time("burst_usec"),
        pressure: parse::pressure_file(dir, "cpu.pressure"),
    })
}

fn memory(dir: &Path) -> Memory {
    let amount = |prefix: &str| {
        let number = |what: &str| fs::number(dir, &format!("{prefix}.{what}")).unwrap_or(0);
        Amount { usage: number("current"), max_usage: number("peak"), limit: number("max"), failures: 0 }
    };
    let events = parse::flat_file(dir, "memory.events");
    let event = |key: &str| events.get(key).copied().unwrap_or(0);
    Memory {
        usage: Amount { failures: event("max"), ..amount("memory") },
        swap: amount("memory.swap"),
        kernel: Amount::default(),
        kernel_tcp: Amount::default(),
        detail: parse::flat_file(dir, "memory.stat"),
        events: MemoryEvents {
            low: event("low"),
            high: event("high"),
            max: event("max"),
            oom: event("oom"),
            oom_kill: event("oom_kill"),
            oom_group_kill: event("oom_group_kill"),
            ..MemoryEvents::default()
        },
        pressure: parse::pressure_file(dir, "memory.pressure"),
    }
}

fn pids(dir: &Path) -> Pids {
    let limit = fs::number(dir, "pids.max").filter(|n| *n != u64::MAX);
    // Without the controller they are counted by hand.
    let count = || tree::processes(dir).map_or(0, |pids| u64::try_from(pids.len()).unwrap_or(0));
    Pids { current: fs::number(dir, "pids.current").unwrap_or_else(count), limit: limit.unwrap_or(0) }
}

fn block_io(dir: &Path) -> BlockIo {
    let (bytes, operations) = fs::read(dir, "io.stat").map(|text| parse::io_v2(&text)).unwrap_or_default();
    BlockIo { bytes, operations, pressure: parse::pressure_file(dir, "io.pressure") }
}

fn huge_pages(dir: &Path) -> Vec<HugePages> {
    let one = |size: String| {
        let number = |what: &str| fs::number(dir, &format!("hugetlb.{size}.{what}"));
        HugePages {
            // What is reserved includes what is in use.
            usage: number("rsvd.current").or_else(|| number("current")).unwrap_or(0),
            max: number("max").unwrap_or(0),
            failures: fs::counter(dir, &format!("hugetlb.{size}.events"), "max").unwrap_or(0),
            size,
        }
    };
    parse::huge_page_sizes(dir, "current").into_iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_directory_has_it_all() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        read(dir).expect_err("no cgroup");
        for (file, text) in [
            ("cpu.stat", "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 2\nthrottled_usec 3\n"),
            ("memory.current", "100\n"),
            ("memory.max", "max\n"),
            ("memory.peak", "200\n"),
            ("memory.swap.max", "50\n"),
            ("memory.stat", "anon 1\nfile 2\n"),
            ("memory.events", "low 0\nhigh 1\nmax 2\noom 3\noom_kill 4\noom_group_kill 5\n"),
            ("memory.pressure", "some avg10=9.10 avg60=0.00 avg300=0.00 total=8\n"),
            ("pids.current", "3\n"),
            ("pids.max", "64\n"),
            ("io.stat", "8:0 rbytes=1 wbytes=2 rios=3 wios=4\n"),
            ("hugetlb.2MB.current", "0\n"),
            ("hugetlb.2MB.max", "4096\n"),
            ("hugetlb.2MB.events", "max 7\n"),
        ] {
            std::fs::write(dir.join(file), text).expect("write");
        }
        let stats = read(dir).expect("stats");
        assert_eq!((stats.cpu.usage, stats.cpu.periods, stats.cpu.throttled), (9000, 2, 3000));
        let expected = Amount { usage: 100, max_usage: 200, limit: u64::MAX, failures: 2 };
        assert_eq!(stats.memory.usage, expected);
        assert_eq!(stats.memory.swap.limit, 50);
        assert_eq!((stats.memory.events.oom, stats.memory.events.oom_group_kill), (3, 5));
        assert!((stats.memory.pressure.expect("pressure").some.avg10 - 9.1).abs() < 1e-9);
        assert_eq!(stats.pids, Pids { current: 3, limit: 64 });
        assert_eq!(stats.block_io.bytes.len(), 2);
        let pages = HugePages { size: "2MB".to_owned(), usage: 0, max: 4096, failures: 7 };
        assert_eq!(stats.huge_pages, [pages]);
    }
}
