// SPDX-License-Identifier: Apache-2.0
//! A shim's answer to Stats: containerd's messages, one for each version of
//! cgroups, as the counters that we show.

use berth::api::metrics::{v1, v2};
use prost::Message as _;
use prost_types::Any;

use crate::{
    domain::usage::Usage,
    error::{Error, Kind, Result},
};

/// The counters in `any`.
///
/// # Errors
/// `Internal` for a message of another kind, and a malformed one.
pub(super) fn decode(any: Option<Any>) -> Result<Usage> {
    let any = any.unwrap_or_default();
    let malformed =
        |e: prost::DecodeError| Error::new(Kind::Internal, "decode what a container uses").with_source(e);
    match any.type_url.rsplit('/').next() {
        Some("io.containerd.cgroups.v1.Metrics") => {
            v1::Metrics::decode(&*any.value).map(of_v1).map_err(malformed)
        }
        Some("io.containerd.cgroups.v2.Metrics") => {
            v2::Metrics::decode(&*any.value).map(of_v2).map_err(malformed)
        }
        _ => Err(Error::new(Kind::Internal, format!("the shim counts in {:?}", any.type_url))),
    }
}

fn of_v1(metrics: v1::Metrics) -> Usage {
    let cpu = metrics.cpu.and_then(|cpu| cpu.usage).unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let used = memory.usage.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let io = metrics.blkio.unwrap_or_default().io_service_bytes_recursive;
    let sum = |operation: &str| {
        let found = io.iter().filter(|entry| entry.op.eq_ignore_ascii_case(operation));
        found.map(|entry| entry.value).fold(0, u64::saturating_add)
    };
    Usage {
        cpu: cpu.total,
        cpu_user: cpu.user,
        cpu_system: cpu.kernel,
        memory: used.usage,
        idle_cache: memory.total_inactive_file,
        memory_limit: used.limit,
        pids: pids.current,
        pids_limit: pids.limit,
        block_read: sum("read"),
        block_written: sum("write"),
    }
}

fn of_v2(metrics: v2::Metrics) -> Usage {
    let cpu = metrics.cpu.unwrap_or_default();
    let memory = metrics.memory.unwrap_or_default();
    let pids = metrics.pids.unwrap_or_default();
    let io = metrics.io.unwrap_or_default().usage;
    let sum = |of: fn(&v2::IoEntry) -> u64| io.iter().map(of).fold(0, u64::saturating_add);
    Usage {
        cpu: cpu.usage_usec.saturating_mul(1000),
        cpu_user: cpu.user_usec.saturating_mul(1000),
        cpu_system: cpu.system_usec.saturating_mul(1000),
        memory: memory.usage,
        idle_cache: memory.inactive_file,
        memory_limit: memory.usage_limit,
        pids: pids.current,
        // containerd's "max".
        pids_limit: if pids.limit == u64::MAX { 0 } else { pids.limit },
        block_read: sum(|entry| entry.rbytes),
        block_written: sum(|entry| entry.wbytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn any(name: &str, value: Vec<u8>) -> Option<Any> {
        Some(Any { type_url: name.to_owned(), value })
    }

    #[test]
    fn both_versions_say_the_same() {
        let entry = |op: &str, value| v1::BlkIoEntry { op: op.to_owned(), value, ..Default::default() };
        let first = v1::Metrics {
            cpu: Some(v1::CpuStat {
                usage: Some(v1::CpuUsage { total: 5_000, user: 3_000, kernel: 2_000, ..Default::default() }),
                ..Default::default()
            }),
            memory: Some(v1::MemoryStat {
                usage: Some(v1::MemoryEntry { usage: 10, limit: 30, ..Default::default() }),
                total_inactive_file: 4,
                ..Default::default()
            }),
            pids: Some(v1::PidsStat { current: 2, limit: 0 }),
            blkio: Some(v1::BlkIoStat {
                io_service_bytes_recursive: vec![entry("Read", 1), entry("Write", 7), entry("Read", 2)],
                ..Default::default()
            }),
            ..Default::default()
        };
        let second = v2::Metrics {
            cpu: Some(v2::CpuStat { usage_usec: 5, user_usec: 3, system_usec: 2, ..Default::default() }),
            memory: Some(v2::MemoryStat {
                usage: 10,
                usage_limit: 30,
                inactive_file: 4,
                ..Default::default()
            }),
            pids: Some(v2::PidsStat { current: 2, limit: u64::MAX }),
            io: Some(v2::IoStat {
                usage: vec![v2::IoEntry { rbytes: 3, wbytes: 7, ..Default::default() }],
                ..Default::default()
            }),
            ..Default::default()
        };
        let first = decode(any("io.containerd.cgroups.v1.Metrics", first.encode_to_vec())).expect("v1");
        let second = decode(any("x/io.containerd.cgroups.v2.Metrics", second.encode_to_vec())).expect("v2");
        assert_eq!(first, second);
        assert_eq!((first.cpu, first.memory_in_use(), first.block_read), (5_000, 6, 3));
    }

    #[test]
    fn other_messages_are_refused() {
        assert!(decode(None).is_err());
        assert!(decode(any("io.containerd.cgroups.v1.Metrics", vec![0xff])).is_err());
    }
}
