// SPDX-License-Identifier: Apache-2.0
//! What a container may use: memory, CPU, processes, devices.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxPids, LinuxResources};

use super::devices;
use crate::domain::container::HostConfig;

/// Microseconds; the kernel's default period.
const CPU_PERIOD: i64 = 100_000;
const NANOS_PER_CPU: i64 = 1_000_000_000;

/// Only the controllers that are asked for appear: the others cost time.
pub(super) fn of(host: &HostConfig) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(devices::rules(host.privileged)))
        .set_memory(memory(host))
        .set_cpu(cpu(host))
        .set_pids(host.pids_limit.filter(|limit| *limit > 0).map(pids));
    resources
}

fn memory(host: &HostConfig) -> Option<LinuxMemory> {
    if host.memory == 0 {
        return None;
    }
    let swap = match host.memory_swap {
        0 => host.memory.saturating_mul(2),
        given => given,
    };
    let mut memory = LinuxMemory::default();
    memory.set_limit(Some(host.memory)).set_swap(Some(swap));
    Some(memory)
}

fn cpu(host: &HostConfig) -> Option<LinuxCpu> {
    if host.nano_cpus == 0 && host.cpu_shares == 0 && host.cpuset_cpus.is_empty() {
        return None;
    }
    let mut cpu = LinuxCpu::default();
    if host.nano_cpus > 0 {
        let quota = host.nano_cpus / (NANOS_PER_CPU / CPU_PERIOD);
        cpu.set_period(Some(CPU_PERIOD.unsigned_abs())).set_quota(Some(quota));
    }
    if host.cpu_shares > 0 {
        cpu.set_shares(Some(host.cpu_shares));
    }
    if !host.cpuset_cpus.is_empty() {
        cpu.set_cpus(Some(host.cpuset_cpus.clone()));
    }
    Some(cpu)
}

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
}
