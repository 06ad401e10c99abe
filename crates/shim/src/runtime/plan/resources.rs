// SPDX-License-Identifier: Apache-2.0
//! The limits of a specification. Zero means "not set" where the kernel has
//! no use for a zero.

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::super::error::{Error, Result};
use crate::cgroup::{Cpu, CpuSet, Limit, Memory, Resources};

pub(super) fn plan(resources: Option<&LinuxResources>) -> Result<Resources> {
    let Some(resources) = resources else { return Ok(Resources::default()) };
    let filled = [
        ("linux.resources.blockIO", resources.block_io().as_ref().is_some_and(|b| *b != Default::default())),
        (
            "linux.resources.hugepageLimits",
            resources.hugepage_limits().as_ref().is_some_and(|l| !l.is_empty()),
        ),
        ("linux.resources.network", resources.network().as_ref().is_some_and(|n| *n != Default::default())),
        ("linux.resources.rdma", resources.rdma().as_ref().is_some_and(|r| !r.is_empty())),
        ("linux.resources.unified", resources.unified().as_ref().is_some_and(|u| !u.is_empty())),
    ];
    refuse(&filled)?;
    let (cpu, cpuset) = match resources.cpu() {
        Some(cpu) => plan_cpu(cpu)?,
        None => (Cpu::default(), CpuSet::default()),
    };
    Ok(Resources {
        memory: resources.memory().as_ref().map(plan_memory).transpose()?.unwrap_or_default(),
        cpu,
        cpuset,
        pids: resources.pids().as_ref().map(|pids| limit(pids.limit())),
    })
}

fn refuse(fields: &[(&str, bool)]) -> Result<()> {
    match fields.iter().find(|(_, asked)| *asked) {
        Some((field, _)) => Err(Error::unsupported(field)),
        None => Ok(()),
    }
}

/// A negative number is no limit.
fn limit(value: i64) -> Limit {
    u64::try_from(value).map_or(Limit::Unlimited, Limit::At)
}

fn plan_memory(memory: &LinuxMemory) -> Result<Memory> {
    refuse(&[
        ("linux.resources.memory.kernel", memory.kernel().is_some_and(|n| n > 0)),
        ("linux.resources.memory.kernelTCP", memory.kernel_tcp().is_some_and(|n| n > 0)),
        ("linux.resources.memory.swappiness", memory.swappiness().is_some()),
        ("linux.resources.memory.disableOOMKiller", memory.disable_oom_killer() == Some(true)),
    ])?;
    let set = |value: Option<i64>| value.filter(|n| *n != 0).map(limit);
    let plan = Memory {
        limit: set(memory.limit()),
        reservation: set(memory.reservation()),
        swap: set(memory.swap()),
    };
    match (plan.limit, plan.swap) {
        (Some(Limit::At(memory)), Some(Limit::At(both))) if both < memory => Err(Error::invalid(
            "linux.resources.memory.swap: memory and swap together are below the memory limit",
        )),
        (None | Some(Limit::Unlimited), Some(Limit::At(_))) => {
            Err(Error::invalid("linux.resources.memory.swap: a swap limit needs a memory limit"))
        }
        _ => Ok(plan),
    }
}

fn plan_cpu(cpu: &LinuxCpu) -> Result<(Cpu, CpuSet)> {
    refuse(&[
        ("linux.resources.cpu.idle", cpu.idle().is_some_and(|n| n != 0)),
        ("linux.resources.cpu.burst", cpu.burst().is_some_and(|n| n != 0)),
        ("linux.resources.cpu.realtimeRuntime", cpu.realtime_runtime().is_some_and(|n| n != 0)),
        ("linux.resources.cpu.realtimePeriod", cpu.realtime_period().is_some_and(|n| n != 0)),
    ])?;
    let list = |text: &Option<String>, field: &str| -> Result<Option<String>> {
        let Some(text) = text.clone().filter(|t| !t.is_empty()) else { return Ok(None) };
        // The kernel parses it; here only what could be more than one list.
        if text.len() > 4096 || !text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b',' | b'-')) {
            return Err(Error::invalid(format!(
                "linux.resources.cpu.{field}: {text:?} is no list of numbers"
            )));
        }
        Ok(Some(text))
    };
    let plan = Cpu {
        shares: cpu.shares().filter(|n| *n != 0),
        quota: cpu.quota().filter(|n| *n != 0).map(limit),
        period: cpu.period().filter(|n| *n != 0),
    };
    Ok((plan, CpuSet { cpus: list(cpu.cpus(), "cpus")?, mems: list(cpu.mems(), "mems")? }))
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResourcesBuilder};

    use super::*;

    #[test]
    fn zero_is_unset_and_negative_is_unlimited() {
        let memory = LinuxMemoryBuilder::default().limit(0_i64).swap(-1_i64).build().expect("memory");
        let planned = plan_memory(&memory).expect("plan");
        assert_eq!(planned, Memory { limit: None, reservation: None, swap: Some(Limit::Unlimited) });
        for (given, expected) in [(-1, Limit::Unlimited), (0, Limit::At(0)), (7, Limit::At(7))] {
            let pids = LinuxPidsBuilder::default().limit(given).build().expect("pids");
            let all = LinuxResourcesBuilder::default().pids(pids).build().expect("resources");
            assert_eq!(plan(Some(&all)).expect("plan").pids, Some(expected));
        }
    }

    #[test]
    fn memory_and_swap_fit_together() {
        let memory = |limit: i64, swap: i64| {
            plan_memory(&LinuxMemoryBuilder::default().limit(limit).swap(swap).build().expect("memory"))
        };
        assert!(memory(10, 5).is_err());
        assert!(memory(0, 5).is_err());
        assert!(memory(10, 10).is_ok());
    }

    #[test]
    fn a_list_of_processors_is_one_line() {
        for bad in ["0\n1", "0 1", "a", &"0,".repeat(4000)] {
            let cpu = LinuxCpuBuilder::default().cpus(bad).build().expect("cpu");
            assert!(plan_cpu(&cpu).is_err());
        }
    }
}
