// SPDX-License-Identifier: Apache-2.0
//! What a container may use: memory, CPU, processes, devices.

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxResources, LinuxThrottleDeviceBuilder,
    LinuxWeightDeviceBuilder,
};

use super::{BlockDevice, Given, devices, limits::Limit};
use crate::{domain::container::HostConfig, error::Result};

/// Microseconds; the kernel's default period.
const CPU_PERIOD: i64 = 100_000;
/// The kernel's default weight.
pub(super) const CPU_SHARES: u64 = 1024;
const NANOS_PER_CPU: i64 = 1_000_000_000;

/// Only the controllers that are asked for appear: the others cost time.
pub(super) fn of(host: &HostConfig, given: &Given) -> Result<LinuxResources> {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(Some(devices::rules(host.privileged, given, &host.devices.rules)?))
        .set_memory(memory(host))
        .set_cpu(cpu(host))
        .set_pids(most_pids(host).map(pids))
        .set_block_io(all_block_io(host.blkio_weight, given));
    Ok(resources)
}

fn all_block_io(weight: u16, given: &Given) -> Option<LinuxBlockIo> {
    let throttle = |all: &[BlockDevice]| {
        let one = |limit: &BlockDevice| {
            let device = LinuxThrottleDeviceBuilder::default().major(limit.major).minor(limit.minor);
            device.rate(limit.rate).build().ok()
        };
        Some(all.iter().filter_map(one).collect::<Vec<_>>()).filter(|all| !all.is_empty())
    };
    let weights = given.weights.iter().filter_map(|limit| {
        let device = LinuxWeightDeviceBuilder::default().major(limit.major).minor(limit.minor);
        device.weight(u16::try_from(limit.rate).ok()?).build().ok()
    });
    let mut all = LinuxBlockIo::default();
    all.set_weight(Some(weight).filter(|weight| *weight > 0))
        .set_weight_device(Some(weights.collect::<Vec<_>>()).filter(|all| !all.is_empty()))
        .set_throttle_read_bps_device(throttle(&given.read_bps))
        .set_throttle_write_bps_device(throttle(&given.write_bps))
        .set_throttle_read_iops_device(throttle(&given.read_iops))
        .set_throttle_write_iops_device(throttle(&given.write_iops));
    (all != LinuxBlockIo::default()).then_some(all)
}

/// What changes for a container that runs: only that, and what is no limit any
/// more in so many words.
#[must_use]
pub fn change(before: &HostConfig, after: &HostConfig) -> LinuxResources {
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(memory_change(before, after))
        .set_cpu(cpu_change(before, after))
        .set_pids((most_pids(before) != most_pids(after)).then(|| pids(most_pids(after).unwrap_or(-1))))
        .set_block_io((before.blkio_weight != after.blkio_weight).then(|| block_io(after.blkio_weight)));
    resources
}

fn memory(host: &HostConfig) -> Option<LinuxMemory> {
    let of_v1 = host.oom_kill_disable || host.memory_swappiness.is_some();
    if host.memory == 0 && host.memory_reservation == 0 && !of_v1 {
        return None;
    }
    let mut memory = LinuxMemory::default();
    memory.set_swappiness(host.memory_swappiness);
    memory.set_disable_oom_killer(host.oom_kill_disable.then_some(true));
    if host.memory > 0 {
        memory.set_limit(Some(host.memory)).set_swap(Some(memory_and_swap(host)));
    }
    if host.memory_reservation > 0 {
        memory.set_reservation(Some(host.memory_reservation));
    }
    Some(memory)
}

/// -1 is no limit.
pub(super) fn memory_and_swap(host: &HostConfig) -> i64 {
    match (host.memory, host.memory_swap) {
        (0, _) => -1,
        (memory, 0) => memory.saturating_mul(2),
        (_, given) => given,
    }
}

fn memory_change(before: &HostConfig, after: &HostConfig) -> Option<LinuxMemory> {
    set_memory(after, |limit| match limit {
        Limit::Memory | Limit::MemoryAndSwap => memory_limits(before) != memory_limits(after),
        Limit::Reservation => before.memory_reservation != after.memory_reservation,
        _ => false,
    })
}

/// Of memory, and of memory and swap; -1 is no limit.
fn memory_limits(host: &HostConfig) -> (i64, i64) {
    (or_minus_one(host.memory), memory_and_swap(host))
}

fn or_minus_one(bytes: i64) -> i64 {
    if bytes == 0 { -1 } else { bytes }
}

fn set_memory(host: &HostConfig, is_meant: impl Fn(Limit) -> bool) -> Option<LinuxMemory> {
    let mut memory = LinuxMemory::default();
    if is_meant(Limit::Memory) || is_meant(Limit::MemoryAndSwap) {
        let (limit, swap) = memory_limits(host);
        memory.set_limit(Some(limit)).set_swap(Some(swap));
    }
    if is_meant(Limit::Reservation) {
        memory.set_reservation(Some(or_minus_one(host.memory_reservation)));
    }
    memory.set_swappiness(host.memory_swappiness.filter(|_| is_meant(Limit::Swappiness)));
    memory.set_disable_oom_killer(is_meant(Limit::OomKiller).then_some(host.oom_kill_disable));
    (memory != LinuxMemory::default()).then_some(memory)
}

/// Period and quota; `None` is no limit.
pub(super) fn bandwidth(host: &HostConfig) -> Option<(u64, i64)> {
    let period = CPU_PERIOD.unsigned_abs();
    if host.nano_cpus > 0 {
        return Some((period, host.nano_cpus / (NANOS_PER_CPU / CPU_PERIOD)));
    }
    match (host.cpu_period.unsigned_abs(), host.cpu_quota) {
        (0, ..=0) => None,
        (0, quota) => Some((period, quota)),
        (given, ..=0) => Some((given, -1)),
        (given, quota) => Some((given, quota)),
    }
}

fn cpu(host: &HostConfig) -> Option<LinuxCpu> {
    let text = |list: &String| Some(list.clone()).filter(|list| !list.is_empty());
    let (cpus, mems, bandwidth) = (text(&host.cpuset_cpus), text(&host.cpuset_mems), bandwidth(host));
    if bandwidth.is_none() && host.cpu_shares == 0 && cpus.is_none() && mems.is_none() {
        return None;
    }
    let mut cpu = LinuxCpu::default();
    if let Some((period, quota)) = bandwidth {
        cpu.set_period(Some(period)).set_quota(Some(quota));
    }
    cpu.set_shares(Some(host.cpu_shares).filter(|shares| *shares > 0)).set_cpus(cpus).set_mems(mems);
    Some(cpu)
}

fn cpu_change(before: &HostConfig, after: &HostConfig) -> Option<LinuxCpu> {
    set_cpu(after, |limit| match limit {
        Limit::Cpu => bandwidth(before) != bandwidth(after),
        Limit::CpuShares => before.cpu_shares != after.cpu_shares,
        Limit::Cpus => before.cpuset_cpus != after.cpuset_cpus,
        Limit::Mems => before.cpuset_mems != after.cpuset_mems,
        _ => false,
    })
}

fn set_cpu(host: &HostConfig, is_meant: impl Fn(Limit) -> bool) -> Option<LinuxCpu> {
    let mut cpu = LinuxCpu::default();
    if is_meant(Limit::Cpu) {
        let (period, quota) = bandwidth(host).unwrap_or((CPU_PERIOD.unsigned_abs(), -1));
        cpu.set_period(Some(period)).set_quota(Some(quota));
    }
    if is_meant(Limit::CpuShares) {
        cpu.set_shares(Some(if host.cpu_shares == 0 { CPU_SHARES } else { host.cpu_shares }));
    }
    cpu.set_cpus(is_meant(Limit::Cpus).then(|| host.cpuset_cpus.clone()));
    cpu.set_mems(is_meant(Limit::Mems).then(|| host.cpuset_mems.clone()));
    (cpu != LinuxCpu::default()).then_some(cpu)
}

/// Some of the limits, in so many words, whatever is in force.
#[must_use]
pub fn again(host: &HostConfig, limits: &[Limit]) -> LinuxResources {
    let is_meant = |limit| limits.contains(&limit);
    let mut resources = LinuxResources::default();
    resources
        .set_devices(None)
        .set_memory(set_memory(host, is_meant))
        .set_cpu(set_cpu(host, is_meant))
        .set_pids(is_meant(Limit::Pids).then(|| pids(most_pids(host).unwrap_or(-1))))
        .set_block_io(is_meant(Limit::BlockIo).then(|| block_io(host.blkio_weight)));
    resources
}

pub(super) fn most_pids(host: &HostConfig) -> Option<i64> {
    host.pids_limit.filter(|limit| *limit > 0)
}

fn pids(limit: i64) -> LinuxPids {
    let mut pids = LinuxPids::default();
    pids.set_limit(limit);
    pids
}

fn block_io(weight: u16) -> LinuxBlockIo {
    let mut block_io = LinuxBlockIo::default();
    block_io.set_weight(Some(weight));
    block_io
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(set: impl FnOnce(&mut HostConfig)) -> HostConfig {
        let mut host = HostConfig::default();
        set(&mut host);
        host
    }

    #[test]
    fn only_what_changes_is_told() {
        let none = HostConfig::default();
        let unchanged = change(&none, &none);
        assert!(unchanged.memory().is_none() && unchanged.cpu().is_none() && unchanged.pids().is_none());
        assert!(unchanged.devices().is_none(), "no rule of devices changes");

        let limited = with(|host| {
            host.memory = 8 << 20;
            host.nano_cpus = 500_000_000;
            host.pids_limit = Some(5);
        });
        let set = change(&none, &limited);
        let memory = set.memory().expect("memory");
        assert_eq!(
            (memory.limit(), memory.swap(), memory.reservation()),
            (Some(8 << 20), Some(16 << 20), None)
        );
        let cpu = set.cpu().clone().expect("cpu");
        assert_eq!((cpu.period(), cpu.quota(), cpu.shares()), (Some(100_000), Some(50_000), None));
        assert_eq!(set.pids().expect("pids").limit(), 5);

        let lifted = change(&limited, &none);
        let memory = lifted.memory().expect("memory");
        assert_eq!((memory.limit(), memory.swap()), (Some(-1), Some(-1)));
        assert_eq!(lifted.cpu().clone().expect("cpu").quota(), Some(-1));
        assert_eq!(lifted.pids().expect("pids").limit(), -1);
    }

    #[test]
    fn a_quota_may_have_a_period_of_its_own() {
        let show = |period, quota| {
            bandwidth(&with(|host| {
                host.cpu_period = period;
                host.cpu_quota = quota;
            }))
        };
        assert_eq!(show(0, -1), None);
        assert_eq!(show(0, 5000), Some((100_000, 5000)));
        assert_eq!(show(20_000, 0), Some((20_000, -1)));
        assert_eq!(show(20_000, 5000), Some((20_000, 5000)));
    }
}
