// SPDX-License-Identifier: Apache-2.0
//! The counters in the shape of `runc events --stats`: the names are runc's,
//! and so is what is left out when it's zero.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{Amount, Device, IoEntry, MemoryEvents, Pressure, Stall, Stats, Version};

/// `data` of an event of the type `stats`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    cpu: Cpu,
    cpuset: CpuSet,
    memory: Memory,
    pids: Pids,
    blkio: BlkIo,
    hugetlb: BTreeMap<String, HugeTlb>,
    intel_rdt: BTreeMap<String, ()>,
    network_interfaces: Option<()>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Cpu {
    usage: CpuUsage,
    throttling: Throttling,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct CpuUsage {
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    percpu_user: Vec<u64>,
    kernel: u64,
    user: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Throttling {
    #[serde(skip_serializing_if = "is_zero")]
    periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_periods: u64,
    #[serde(skip_serializing_if = "is_zero")]
    throttled_time: u64,
}

/// Nothing that a container uses up: runc has it on v1, and zeros on v2.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
struct CpuSet {
    cpu_exclusive: u64,
    mem_hardwall: u64,
    mem_exclusive: u64,
    memory_migrate: u64,
    memory_spread_page: u64,
    memory_spread_slab: u64,
    memory_pressure: u64,
    sched_load_balance: u64,
    sched_relax_domain_level: i64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Memory {
    #[serde(skip_serializing_if = "is_zero")]
    cache: u64,
    usage: MemoryEntry,
    swap: MemoryEntry,
    kernel: MemoryEntry,
    #[serde(rename = "kernelTCP")]
    kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
    event_count: EventCount,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct MemoryEntry {
    limit: u64,
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct EventCount {
    #[serde(skip_serializing_if = "is_zero")]
    low: u64,
    #[serde(skip_serializing_if = "is_zero")]
    high: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    #[serde(skip_serializing_if = "is_zero")]
    oom: u64,
    #[serde(skip_serializing_if = "is_zero")]
    oom_kill: u64,
    #[serde(skip_serializing_if = "is_zero")]
    oom_group_kill: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Pids {
    #[serde(skip_serializing_if = "is_zero")]
    current: u64,
    #[serde(skip_serializing_if = "is_zero")]
    limit: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct BlkIo {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_service_bytes_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    io_serviced_recursive: Vec<BlkIoEntry>,
    #[serde(skip_serializing_if = "Option::is_none")]
    psi: Option<Psi>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct BlkIoEntry {
    #[serde(skip_serializing_if = "is_zero_device")]
    major: u32,
    #[serde(skip_serializing_if = "is_zero_device")]
    minor: u32,
    op: String,
    #[serde(skip_serializing_if = "is_zero")]
    value: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct HugeTlb {
    #[serde(skip_serializing_if = "is_zero")]
    usage: u64,
    #[serde(skip_serializing_if = "is_zero")]
    max: u64,
    failcnt: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Psi {
    some: PsiData,
    full: PsiData,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct PsiData {
    avg10: f64,
    avg60: f64,
    avg300: f64,
    total: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(n: &u64) -> bool {
    *n == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero_device(n: &u32) -> bool {
    *n == 0
}

impl From<&Stats> for Report {
    fn from(stats: &Stats) -> Self {
        let per_cpu = |time: fn(&super::PerCpu) -> u64| stats.cpu.per_cpu.iter().map(time).collect();
        Self {
            cpu: Cpu {
                usage: CpuUsage {
                    total: stats.cpu.usage,
                    percpu: per_cpu(|cpu| cpu.user.saturating_add(cpu.kernel)),
                    percpu_kernel: per_cpu(|cpu| cpu.kernel),
                    percpu_user: per_cpu(|cpu| cpu.user),
                    kernel: stats.cpu.kernel,
                    user: stats.cpu.user,
                },
                throttling: Throttling {
                    periods: stats.cpu.periods,
                    throttled_periods: stats.cpu.throttled_periods,
                    throttled_time: stats.cpu.throttled,
                },
                psi: stats.cpu.pressure.map(psi),
            },
            cpuset: CpuSet::default(),
            memory: memory(stats),
            pids: Pids { current: stats.pids.current, limit: stats.pids.limit },
            blkio: BlkIo {
                io_service_bytes_recursive: stats.block_io.bytes.iter().map(entry).collect(),
                io_serviced_recursive: stats.block_io.operations.iter().map(entry).collect(),
                psi: stats.block_io.pressure.map(psi),
            },
            hugetlb: stats
                .huge_pages
                .iter()
                .map(|p| (p.size.clone(), HugeTlb { usage: p.usage, max: p.max, failcnt: p.failures }))
                .collect(),
            intel_rdt: BTreeMap::new(),
            network_interfaces: None,
        }
    }
}

fn memory(stats: &Stats) -> Memory {
    let memory = &stats.memory;
    let cache = match stats.version {
        Version::V1 => "cache",
        Version::V2 => "file",
    };
    let MemoryEvents { low, high, max, oom, oom_kill, oom_group_kill, .. } = memory.events;
    Memory {
        cache: memory.detail.get(cache).copied().unwrap_or(0),
        usage: amount(memory.usage),
        swap: amount(memory.both(stats.version)),
        kernel: amount(memory.kernel),
        kernel_tcp: amount(memory.kernel_tcp),
        raw: memory.detail.clone(),
        psi: memory.pressure.map(psi),
        event_count: EventCount { low, high, max, oom, oom_kill, oom_group_kill },
    }
}

impl super::Memory {
    /// Memory and swap together, as v1 counts them.
    fn both(&self, version: Version) -> Amount {
        if version == Version::V1 {
            return self.swap;
        }
        Amount {
            usage: self.swap.usage.saturating_add(self.usage.usage),
            limit: self.swap.limit.saturating_add(self.usage.limit),
            // Their peaks were at different times.
            max_usage: 0,
            failures: self.swap.failures,
        }
    }
}

fn amount(amount: Amount) -> MemoryEntry {
    let Amount { usage, max_usage, limit, failures } = amount;
    MemoryEntry { limit, usage, max: max_usage, failcnt: failures }
}

fn entry(entry: &IoEntry) -> BlkIoEntry {
    let Device { major, minor } = entry.device;
    BlkIoEntry { major, minor, op: entry.operation.clone(), value: entry.value }
}

fn psi(pressure: Pressure) -> Psi {
    let data = |stall: Stall| {
        let Stall { avg10, avg60, avg300, total } = stall;
        PsiData { avg10, avg60, avg300, total }
    };
    Psi { some: data(pressure.some), full: data(pressure.full) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn runcs_names_and_omissions() {
        let mut stats = Stats::default();
        stats.cpu.usage = 5;
        stats.cpu.pressure = Some(Pressure::default());
        stats.memory.usage = Amount { usage: 10, max_usage: 0, limit: 100, failures: 0 };
        stats.memory.swap = Amount { usage: 1, max_usage: 2, limit: 50, failures: 0 };
        stats.memory.detail.insert("file".to_owned(), 7);
        let device = Device { major: 8, minor: 0 };
        stats.block_io.bytes.push(IoEntry { device, operation: "Read".to_owned(), value: 3 });
        let json = serde_json::to_value(Report::from(&stats)).expect("JSON");
        assert_eq!(json["cpu"]["usage"], json!({"total": 5, "kernel": 0, "user": 0}));
        assert_eq!(json["cpu"]["psi"]["some"]["total"], 0);
        assert_eq!(json["memory"]["usage"], json!({"limit": 100, "usage": 10, "failcnt": 0}));
        assert_eq!(json["memory"]["swap"], json!({"limit": 150, "usage": 11, "failcnt": 0}));
        assert_eq!(json["memory"]["cache"], 7);
        let read = json!([{"major": 8, "op": "Read", "value": 3}]);
        assert_eq!(json["blkio"], json!({"ioServiceBytesRecursive": read}));
        assert_eq!(json["pids"], json!({}));
        assert_eq!(json["network_interfaces"], serde_json::Value::Null);
    }
}
