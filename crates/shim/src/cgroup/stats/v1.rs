// SPDX-License-Identifier: Apache-2.0
//! Counters of v1, each in its controller's hierarchy; pressure comes from a
//! v2 tree beside them.

use std::path::Path;

use super::{
    Amount, BlockIo, Cpu, HugePages, Memory, MemoryEvents, PerCpu, Pids, Rdma, Stats, Version, parse,
};
use crate::{
    cgroup::{
        fs,
        v1::{Controller, oom_kills},
    },
    runtime::Result,
};

/// A tick of the times in cpuacct.stat, in nanoseconds: USER_HZ is 100 for
/// programs, whatever the kernel uses itself.
const TICK: u64 = 10_000_000;

pub(super) fn read<'a>(
    dir_of: impl Fn(Controller) -> Option<&'a Path>,
    unified: Option<&Path>,
) -> Result<Stats> {
    let of = |controller| dir_of(controller);
    Ok(Stats {
        version: Version::V1,
        cpu: cpu(of(Controller::CpuAcct), of(Controller::Cpu), unified),
        memory: of(Controller::Memory).map(|dir| memory(dir, unified)).transpose()?.unwrap_or_default(),
        pids: of(Controller::Pids).map(pids).unwrap_or_default(),
        block_io: block_io(of(Controller::BlkIo), unified),
        huge_pages: of(Controller::HugeTlb).map(huge_pages).unwrap_or_default(),
        rdma: of(Controller::Rdma).map(rdma).unwrap_or_default(),
    })
}

fn cpu(account: Option<&Path>, cpu: Option<&Path>, unified: Option<&Path>) -> Cpu {
    let pressure = unified.and_then(|dir| parse::pressure_file(dir, "cpu.pressure"));
    let mut stats = Cpu { pressure, ..Cpu::default() };
    if let Some(dir) = account {
        let times = parse::flat_file(dir, "cpuacct.stat");
        let time = |key: &str| times.get(key).map_or(0, |ticks| ticks.saturating_mul(TICK));
        stats.usage = fs::number(dir, "cpuacct.usage").unwrap_or(0);
        stats.user = time("user");
        stats.kernel = time("system");
        stats.per_cpu = fs::read(dir, "cpuacct.usage_all").map(|text| per_cpu(&text)).unwrap_or_default();
    } else if let Some(dir) = unified {
        // A v2 tree counts time without a controller.
        let times = parse::flat_file(dir, "cpu.stat");
        let time = |key: &str| times.get(key).map_or(0, |micros| micros.saturating_mul(1000));
        (stats.usage, stats.user, stats.kernel) =
            (time("usage_usec"), time("user_usec"), time("system_usec"));
    }
    if let Some(dir) = cpu {
        let counters = parse::flat_file(dir, "cpu.stat");
        let counter = |key: &str| counters.get(key).copied().unwrap_or(0);
        stats.periods = counter("nr_periods");
        stats.throttled_periods = counter("nr_throttled");
        stats.throttled = counter("throttled_time");
        stats.bursts = counter("nr_bursts");
        stats.burst = counter("burst_time");
    }
    stats
}

/// A heading, then `processor user kernel`.
fn per_cpu(text: &str) -> Vec<PerCpu> {
    let one = |line: &str| {
        let mut words = line.split_whitespace().skip(1);
        Some(PerCpu { user: words.next()?.parse().ok()?, kernel: words.next()?.parse().ok()? })
    };
    text.lines().filter_map(one).collect()
}

fn memory(dir: &Path, unified: Option<&Path>) -> Result<Memory> {
    let amount = |prefix: &str| {
        let number = |what: &str| fs::number(dir, &format!("{prefix}.{what}")).unwrap_or(0);
        Amount {
            usage: number("usage_in_bytes"),
            max_usage: number("max_usage_in_bytes"),
            limit: number("limit_in_bytes"),
            failures: number("failcnt"),
        }
    };
    let control = parse::flat_file(dir, "memory.oom_control");
    let event = |key: &str| control.get(key).copied().unwrap_or(0);
    Ok(Memory {
        usage: amount("memory"),
        swap: amount("memory.memsw"),
        kernel: amount("memory.kmem"),
        kernel_tcp: amount("memory.kmem.tcp"),
        detail: parse::flat(&fs::read(dir, "memory.stat")?),
        events: MemoryEvents {
            oom_kill: oom_kills(dir),
            under_oom: event("under_oom"),
            oom_kill_disable: event("oom_kill_disable"),
            ..MemoryEvents::default()
        },
        pressure: unified.and_then(|dir| parse::pressure_file(dir, "memory.pressure")),
    })
}

fn pids(dir: &Path) -> Pids {
    let limit = fs::number(dir, "pids.max").filter(|n| *n != u64::MAX);
    Pids { current: fs::number(dir, "pids.current").unwrap_or(0), limit: limit.unwrap_or(0) }
}

/// By BFQ where a device uses it, else by the throttling layer, which all
/// devices go through.
fn block_io(dir: Option<&Path>, unified: Option<&Path>) -> BlockIo {
    let read = |what: &str| {
        let text = |prefix: &str| fs::read(dir?, &format!("blkio.{prefix}.{what}")).ok();
        let by_bfq = text("bfq").map(|text| parse::io_v1(&text)).filter(|entries| !entries.is_empty());
        by_bfq.or_else(|| Some(parse::io_v1(&text("throttle")?))).unwrap_or_default()
    };
    BlockIo {
        bytes: read("io_service_bytes_recursive"),
        operations: read("io_serviced_recursive"),
        pressure: unified.and_then(|dir| parse::pressure_file(dir, "io.pressure")),
    }
}

fn huge_pages(dir: &Path) -> Vec<HugePages> {
    let one = |size: String| {
        let number = |what: &str| fs::number(dir, &format!("hugetlb.{size}.{what}")).unwrap_or(0);
        HugePages {
            usage: number("usage_in_bytes"),
            max: number("max_usage_in_bytes"),
            failures: number("failcnt"),
            size,
        }
    };
    parse::huge_page_sizes(dir, "usage_in_bytes").into_iter().map(one).collect()
}

pub(super) fn rdma(dir: &Path) -> Rdma {
    let entries = |file| fs::read(dir, file).map(|text| parse::rdma(&text)).unwrap_or_default();
    Rdma { current: entries("rdma.current"), limit: entries("rdma.max") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_hierarchy_counts_its_own() {
        let dir = tempfile::tempdir().expect("tempdir");
        let dir = dir.path();
        for (file, text) in [
            ("cpuacct.usage", "5000\n"),
            ("cpuacct.stat", "user 3\nsystem 2\n"),
            ("cpuacct.usage_all", "cpu user system\n0 10 20\n1 30 40\n"),
            ("cpu.stat", "nr_periods 9\nnr_throttled 4\nthrottled_time 77\n"),
            ("cpu.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=11\n"),
            ("memory.stat", "cache 1\nrss 2\n"),
            ("memory.usage_in_bytes", "100\n"),
            ("memory.max_usage_in_bytes", "200\n"),
            ("memory.limit_in_bytes", "300\n"),
            ("memory.failcnt", "6\n"),
            ("memory.oom_control", "oom_kill_disable 0\nunder_oom 1\noom_kill 2\n"),
            ("pids.current", "3\n"),
            ("pids.max", "max\n"),
            ("blkio.bfq.io_serviced_recursive", "Total 0\n"),
            ("blkio.throttle.io_serviced_recursive", "8:0 Read 1\nTotal 1\n"),
        ] {
            std::fs::write(dir.join(file), text).expect("write");
        }
        let stats = read(|_| Some(dir), Some(dir)).expect("stats");
        assert_eq!((stats.cpu.usage, stats.cpu.user, stats.cpu.kernel), (5000, 3 * TICK, 2 * TICK));
        assert_eq!(stats.cpu.per_cpu[1], PerCpu { user: 30, kernel: 40 });
        assert_eq!((stats.cpu.periods, stats.cpu.throttled_periods, stats.cpu.throttled), (9, 4, 77));
        assert_eq!(stats.cpu.pressure.expect("pressure").some.total, 11);
        let expected = Amount { usage: 100, max_usage: 200, limit: 300, failures: 6 };
        assert_eq!(stats.memory.usage, expected);
        assert_eq!((stats.memory.detail["rss"], stats.memory.events.oom_kill), (2, 2));
        assert_eq!(stats.pids, Pids { current: 3, limit: 0 });
        assert_eq!(stats.block_io.operations.len(), 1);
    }

    #[test]
    fn time_is_known_without_cpuacct() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("cpu.stat"), "usage_usec 7\nuser_usec 4\nsystem_usec 3\n")
            .expect("write");
        let stats = read(|_| None, Some(dir.path())).expect("stats");
        assert_eq!((stats.cpu.usage, stats.cpu.user, stats.cpu.kernel), (7000, 4000, 3000));
    }
}
