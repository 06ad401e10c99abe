// SPDX-License-Identifier: Apache-2.0
//! A container's counters in containerd's messages, one for each version of
//! cgroups; its clients know no others.

use berth::api::metrics::{v1, v2};
use prost::Message as _;
use prost_types::Any;

use crate::runtime::stats::{Amount, IoEntry, Memory, Pressure, Rdma, Stall, Stats, Version};

/// As the answer to `Stats` carries it.
pub(super) fn encode(stats: &Stats) -> Any {
    match stats.version {
        Version::V1 => any("io.containerd.cgroups.v1.Metrics", &to_v1(stats).encode_to_vec()),
        Version::V2 => any("io.containerd.cgroups.v2.Metrics", &to_v2(stats).encode_to_vec()),
    }
}

fn any(type_url: &str, value: &[u8]) -> Any {
    Any { type_url: type_url.to_owned(), value: value.to_vec() }
}

fn to_v1(stats: &Stats) -> v1::Metrics {
    let cpu = &stats.cpu;
    let events = stats.memory.events;
    v1::Metrics {
        hugetlb: stats
            .huge_pages
            .iter()
            .map(|p| v1::HugetlbStat {
                usage: p.usage,
                max: p.max,
                failcnt: p.failures,
                pagesize: p.size.clone(),
            })
            .collect(),
        pids: Some(v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit }),
        cpu: Some(v1::CpuStat {
            usage: Some(v1::CpuUsage {
                total: cpu.usage,
                kernel: cpu.kernel,
                user: cpu.user,
                per_cpu: cpu.per_cpu.iter().map(|one| one.user.saturating_add(one.kernel)).collect(),
            }),
            throttling: Some(v1::Throttle {
                periods: cpu.periods,
                throttled_periods: cpu.throttled_periods,
                throttled_time: cpu.throttled,
            }),
        }),
        memory: Some(memory_v1(&stats.memory)),
        blkio: Some(v1::BlkIoStat {
            io_service_bytes_recursive: stats.block_io.bytes.iter().map(block_io_v1).collect(),
            io_serviced_recursive: stats.block_io.operations.iter().map(block_io_v1).collect(),
            ..Default::default()
        }),
        rdma: rdma(&stats.rdma, |(device, hca_handles, hca_objects)| v1::RdmaEntry {
            device,
            hca_handles,
            hca_objects,
        })
        .map(|(current, limit)| v1::RdmaStat { current, limit }),
        memory_oom_control: Some(v1::MemoryOomControl {
            oom_kill_disable: events.oom_kill_disable,
            under_oom: events.under_oom,
            oom_kill: events.oom_kill,
        }),
        ..Default::default()
    }
}

fn memory_v1(memory: &Memory) -> v1::MemoryStat {
    let get = |key: &str| memory.detail.get(key).copied().unwrap_or(0);
    let entry = |amount: Amount| {
        let Amount { usage, max_usage, limit, failures } = amount;
        Some(v1::MemoryEntry { limit, usage, max: max_usage, failcnt: failures })
    };
    v1::MemoryStat {
        cache: get("cache"),
        rss: get("rss"),
        rss_huge: get("rss_huge"),
        mapped_file: get("mapped_file"),
        dirty: get("dirty"),
        writeback: get("writeback"),
        pg_pg_in: get("pgpgin"),
        pg_pg_out: get("pgpgout"),
        pg_fault: get("pgfault"),
        pg_maj_fault: get("pgmajfault"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        hierarchical_memory_limit: get("hierarchical_memory_limit"),
        hierarchical_swap_limit: get("hierarchical_memsw_limit"),
        total_cache: get("total_cache"),
        total_rss: get("total_rss"),
        total_rss_huge: get("total_rss_huge"),
        total_mapped_file: get("total_mapped_file"),
        total_dirty: get("total_dirty"),
        total_writeback: get("total_writeback"),
        total_pg_pg_in: get("total_pgpgin"),
        total_pg_pg_out: get("total_pgpgout"),
        total_pg_fault: get("total_pgfault"),
        total_pg_maj_fault: get("total_pgmajfault"),
        total_inactive_anon: get("total_inactive_anon"),
        total_active_anon: get("total_active_anon"),
        total_inactive_file: get("total_inactive_file"),
        total_active_file: get("total_active_file"),
        total_unevictable: get("total_unevictable"),
        usage: entry(memory.usage),
        swap: entry(memory.swap),
        kernel: entry(memory.kernel),
        kernel_tcp: entry(memory.kernel_tcp),
    }
}

fn block_io_v1(entry: &IoEntry) -> v1::BlkIoEntry {
    v1::BlkIoEntry {
        op: entry.operation.clone(),
        device: String::new(),
        major: entry.device.major.into(),
        minor: entry.device.minor.into(),
        value: entry.value,
    }
}

/// Both lists of RDMA devices; `None` on a host without.
fn rdma<T>(rdma: &Rdma, entry: impl Fn((String, u32, u32)) -> T) -> Option<(Vec<T>, Vec<T>)> {
    if *rdma == Rdma::default() {
        return None;
    }
    let list = |entries: &[crate::runtime::stats::RdmaEntry]| {
        entries.iter().map(|e| entry((e.device.clone(), e.handles, e.objects))).collect()
    };
    Some((list(&rdma.current), list(&rdma.limit)))
}

fn to_v2(stats: &Stats) -> v2::Metrics {
    let cpu = &stats.cpu;
    let events = stats.memory.events;
    v2::Metrics {
        // containerd says "max" for no limit.
        pids: Some(v2::PidsStat {
            current: stats.pids.current,
            limit: if stats.pids.limit == 0 { u64::MAX } else { stats.pids.limit },
        }),
        cpu: Some(v2::CpuStat {
            usage_usec: cpu.usage / 1000,
            user_usec: cpu.user / 1000,
            system_usec: cpu.kernel / 1000,
            nr_periods: cpu.periods,
            nr_throttled: cpu.throttled_periods,
            throttled_usec: cpu.throttled / 1000,
            psi: cpu.pressure.map(psi),
            nr_bursts: cpu.bursts,
            burst_usec: cpu.burst / 1000,
        }),
        memory: Some(memory_v2(&stats.memory)),
        rdma: rdma(&stats.rdma, |(device, hca_handles, hca_objects)| v2::RdmaEntry {
            device,
            hca_handles,
            hca_objects,
        })
        .map(|(current, limit)| v2::RdmaStat { current, limit }),
        io: Some(v2::IoStat { usage: block_io_v2(stats), psi: stats.block_io.pressure.map(psi) }),
        hugetlb: stats
            .huge_pages
            .iter()
            .map(|p| v2::HugeTlbStat {
                current: p.usage,
                max: p.max,
                pagesize: p.size.clone(),
                failcnt: p.failures,
            })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            low: events.low,
            high: events.high,
            max: events.max,
            oom: events.oom,
            oom_kill: events.oom_kill,
            oom_group_kill: events.oom_group_kill,
        }),
        network: Vec::new(),
    }
}

fn memory_v2(memory: &Memory) -> v2::MemoryStat {
    let get = |key: &str| memory.detail.get(key).copied().unwrap_or(0);
    v2::MemoryStat {
        anon: get("anon"),
        file: get("file"),
        kernel_stack: get("kernel_stack"),
        slab: get("slab"),
        sock: get("sock"),
        shmem: get("shmem"),
        file_mapped: get("file_mapped"),
        file_dirty: get("file_dirty"),
        file_writeback: get("file_writeback"),
        anon_thp: get("anon_thp"),
        inactive_anon: get("inactive_anon"),
        active_anon: get("active_anon"),
        inactive_file: get("inactive_file"),
        active_file: get("active_file"),
        unevictable: get("unevictable"),
        slab_reclaimable: get("slab_reclaimable"),
        slab_unreclaimable: get("slab_unreclaimable"),
        pgfault: get("pgfault"),
        pgmajfault: get("pgmajfault"),
        workingset_refault: get("workingset_refault"),
        workingset_activate: get("workingset_activate"),
        workingset_nodereclaim: get("workingset_nodereclaim"),
        pgrefill: get("pgrefill"),
        pgscan: get("pgscan"),
        pgsteal: get("pgsteal"),
        pgactivate: get("pgactivate"),
        pgdeactivate: get("pgdeactivate"),
        pglazyfree: get("pglazyfree"),
        pglazyfreed: get("pglazyfreed"),
        thp_fault_alloc: get("thp_fault_alloc"),
        thp_collapse_alloc: get("thp_collapse_alloc"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        swap_usage: memory.swap.usage,
        swap_limit: memory.swap.limit,
        max_usage: memory.usage.max_usage,
        swap_max_usage: memory.swap.max_usage,
        psi: memory.pressure.map(psi),
        workingset_refault_anon: get("workingset_refault_anon"),
        workingset_refault_file: get("workingset_refault_file"),
        workingset_activate_anon: get("workingset_activate_anon"),
        workingset_activate_file: get("workingset_activate_file"),
    }
}

/// A line per device again, as the kernel has it.
fn block_io_v2(stats: &Stats) -> Vec<v2::IoEntry> {
    let mut devices: Vec<v2::IoEntry> = Vec::new();
    let bytes = stats.block_io.bytes.iter().map(|entry| (entry, true));
    let operations = stats.block_io.operations.iter().map(|entry| (entry, false));
    for (entry, is_bytes) in bytes.chain(operations) {
        let (major, minor) = (entry.device.major.into(), entry.device.minor.into());
        let known = devices.iter().position(|device| (device.major, device.minor) == (major, minor));
        let position = known.unwrap_or_else(|| {
            devices.push(v2::IoEntry { major, minor, ..Default::default() });
            devices.len() - 1
        });
        let device = &mut devices[position];
        match (entry.operation.as_str(), is_bytes) {
            ("Read", true) => device.rbytes = entry.value,
            ("Write", true) => device.wbytes = entry.value,
            ("Read", false) => device.rios = entry.value,
            ("Write", false) => device.wios = entry.value,
            _ => {}
        }
    }
    devices
}

fn psi(pressure: Pressure) -> v2::PsiStats {
    let data = |stall: Stall| {
        let Stall { avg10, avg60, avg300, total } = stall;
        Some(v2::PsiData { avg10, avg60, avg300, total })
    };
    v2::PsiStats { some: data(pressure.some), full: data(pressure.full) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::stats::Device;

    fn stats(version: Version) -> Stats {
        let mut stats = Stats { version, ..Stats::default() };
        stats.cpu.usage = 5_000_000;
        stats.cpu.throttled = 3000;
        stats.memory.usage = Amount { usage: 10, max_usage: 20, limit: 30, failures: 4 };
        stats.memory.events.oom_kill = 1;
        stats.memory.detail.insert("pgfault".to_owned(), 7);
        stats.memory.pressure = Some(Pressure::default());
        stats.pids.current = 2;
        let device = Device { major: 8, minor: 16 };
        let entry = |operation: &str, value| IoEntry { device, operation: operation.to_owned(), value };
        stats.block_io.bytes = vec![entry("Read", 100), entry("Write", 200)];
        stats.block_io.operations = vec![entry("Read", 1)];
        stats
    }

    #[test]
    fn v1_says_what_was_counted() {
        let any = encode(&stats(Version::V1));
        assert_eq!(any.type_url, "io.containerd.cgroups.v1.Metrics");
        let metrics = v1::Metrics::decode(&*any.value).expect("Metrics");
        assert_eq!(metrics.cpu.expect("cpu").usage.expect("usage").total, 5_000_000);
        let memory = metrics.memory.expect("memory");
        assert_eq!(memory.usage, Some(v1::MemoryEntry { limit: 30, usage: 10, max: 20, failcnt: 4 }));
        assert_eq!(memory.pg_fault, 7);
        assert_eq!(metrics.memory_oom_control.expect("oom").oom_kill, 1);
        assert_eq!(metrics.blkio.expect("blkio").io_service_bytes_recursive[1].value, 200);
        assert_eq!(metrics.rdma, None);
    }

    #[test]
    fn v2_says_what_was_counted() {
        let any = encode(&stats(Version::V2));
        assert_eq!(any.type_url, "io.containerd.cgroups.v2.Metrics");
        let metrics = v2::Metrics::decode(&*any.value).expect("Metrics");
        let cpu = metrics.cpu.expect("cpu");
        assert_eq!((cpu.usage_usec, cpu.throttled_usec), (5000, 3));
        let memory = metrics.memory.expect("memory");
        assert_eq!((memory.usage, memory.usage_limit, memory.max_usage, memory.pgfault), (10, 30, 20, 7));
        assert!(memory.psi.is_some());
        let io = metrics.io.expect("io").usage;
        let disk = v2::IoEntry { major: 8, minor: 16, rbytes: 100, wbytes: 200, rios: 1, wios: 0 };
        assert_eq!(io, [disk]);
        assert_eq!(metrics.pids.expect("pids").limit, u64::MAX);
        assert_eq!(metrics.memory_events.expect("events").oom_kill, 1);
    }
}
