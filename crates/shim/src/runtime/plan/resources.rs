// SPDX-License-Identifier: Apache-2.0
//! The limits of a specification, checked as far as no kernel is needed for
//! it. Zero means "not set" where the kernel has no use for a zero.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxHugepageLimit, LinuxMemory, LinuxNetwork, LinuxRdma, LinuxResources,
    LinuxThrottleDevice,
};

use super::super::error::{Error, Result};
use crate::cgroup::{
    BlockIo, Cpu, CpuSet, Device, DeviceWeight, HugePages, Limit, Memory, Network, OutOfMemory, Rdma,
    Resources, Throttle, Traffic,
};

/// Plans the limits of a container, and their update.
///
/// # Errors
/// `InvalidSpec` for what contradicts itself or can't be written.
pub(crate) fn plan(resources: Option<&LinuxResources>) -> Result<Resources> {
    let Some(resources) = resources else { return Ok(Resources::default()) };
    let (cpu, cpuset) = match resources.cpu() {
        Some(cpu) => (plan_cpu(cpu)?, plan_cpuset(cpu)?),
        None => (Cpu::default(), CpuSet::default()),
    };
    let huge_pages = resources.hugepage_limits().as_deref().unwrap_or_default();
    let rdma = resources.rdma().iter().flatten();
    Ok(Resources {
        memory: resources.memory().as_ref().map(plan_memory).transpose()?.unwrap_or_default(),
        cpu,
        cpuset,
        pids: resources.pids().as_ref().map(|pids| limit(pids.limit())),
        block_io: resources.block_io().as_ref().map(plan_block_io).transpose()?.unwrap_or_default(),
        huge_pages: huge_pages.iter().map(plan_huge_pages).collect::<Result<_>>()?,
        network: resources.network().as_ref().map(plan_network).transpose()?.unwrap_or_default(),
        rdma: rdma.map(|(device, limits)| plan_rdma(device, limits)).collect::<Result<_>>()?,
        unified: plan_unified(resources.unified().iter().flatten())?,
    })
}

/// A negative number is no limit.
fn limit(value: i64) -> Limit {
    u64::try_from(value).map_or(Limit::Unlimited, Limit::At)
}

fn plan_memory(memory: &LinuxMemory) -> Result<Memory> {
    let set = |value: Option<i64>| value.filter(|n| *n != 0).map(limit);
    let obsolete = [
        ("linux.resources.memory.kernel", memory.kernel().is_some_and(|n| n != 0)),
        ("linux.resources.memory.useHierarchy", memory.use_hierarchy() == Some(false)),
    ];
    let plan = Memory {
        limit: set(memory.limit()),
        reservation: set(memory.reservation()),
        swap: set(memory.swap()),
        tcp_buffers: set(memory.kernel_tcp()),
        // Go's -1, "not set", as an unsigned number.
        swappiness: memory.swappiness().filter(|n| *n != u64::MAX),
        oom: match memory.disable_oom_killer() {
            None => OutOfMemory::Unset,
            Some(false) => OutOfMemory::Kill,
            Some(true) => OutOfMemory::Wait,
        },
        check_before_update: memory.check_before_update().unwrap_or(false),
        obsolete: obsolete.into_iter().filter(|(_, asked)| *asked).map(|(field, _)| field).collect(),
    };
    if plan.swappiness.is_some_and(|n| n > 100) {
        return Err(Error::invalid("linux.resources.memory.swappiness: the range is 0 to 100"));
    }
    match (plan.limit, plan.swap) {
        (Some(Limit::At(memory)), Some(Limit::At(both))) if both < memory => Err(Error::invalid(
            "linux.resources.memory.swap: memory and swap together are below the memory limit",
        )),
        (Some(Limit::Unlimited), Some(Limit::At(_))) => {
            Err(Error::invalid("linux.resources.memory.swap: a swap limit needs a memory limit"))
        }
        _ => Ok(plan),
    }
}

fn plan_cpu(cpu: &LinuxCpu) -> Result<Cpu> {
    if cpu.idle().is_some_and(|idle| !(0..=1).contains(&idle)) {
        return Err(Error::invalid("linux.resources.cpu.idle: expected 0 or 1"));
    }
    Ok(Cpu {
        shares: cpu.shares().filter(|n| *n != 0),
        quota: cpu.quota().filter(|n| *n != 0).map(limit),
        period: cpu.period().filter(|n| *n != 0),
        burst: cpu.burst(),
        idle: cpu.idle(),
        realtime_runtime: cpu.realtime_runtime().filter(|n| *n != 0),
        realtime_period: cpu.realtime_period().filter(|n| *n != 0),
    })
}

fn plan_cpuset(cpu: &LinuxCpu) -> Result<CpuSet> {
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
    Ok(CpuSet { cpus: list(cpu.cpus(), "cpus")?, mems: list(cpu.mems(), "mems")? })
}

fn plan_block_io(block_io: &LinuxBlockIo) -> Result<BlockIo> {
    let in_range = |weight: Option<u16>, field: &str| match weight.filter(|n| *n != 0) {
        Some(weight) if !(10..=1000).contains(&weight) => {
            Err(Error::invalid(format!("linux.resources.blockIO.{field}: {weight} is not in 10 to 1000")))
        }
        weight => Ok(weight),
    };
    let mut device_weights = Vec::new();
    for device in block_io.weight_device().iter().flatten() {
        device_weights.push(DeviceWeight {
            device: plan_device(device.major(), device.minor(), "weightDevice")?,
            weight: in_range(device.weight(), "weightDevice")?,
            leaf_weight: in_range(device.leaf_weight(), "weightDevice")?,
        });
    }
    let lists = [
        (Traffic::ReadBytes, block_io.throttle_read_bps_device()),
        (Traffic::WriteBytes, block_io.throttle_write_bps_device()),
        (Traffic::ReadOperations, block_io.throttle_read_iops_device()),
        (Traffic::WriteOperations, block_io.throttle_write_iops_device()),
    ];
    let mut throttles = Vec::new();
    for (what, list) in lists {
        for throttle in list.iter().flatten() {
            throttles.push(plan_throttle(what, throttle)?);
        }
    }
    Ok(BlockIo {
        weight: in_range(block_io.weight(), "weight")?,
        leaf_weight: in_range(block_io.leaf_weight(), "leafWeight")?,
        device_weights,
        throttles,
    })
}

fn plan_throttle(what: Traffic, throttle: &LinuxThrottleDevice) -> Result<Throttle> {
    let device = plan_device(throttle.major(), throttle.minor(), "throttle")?;
    Ok(Throttle { device, what, rate: throttle.rate() })
}

fn plan_device(major: i64, minor: i64, field: &str) -> Result<Device> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(Device { major, minor }),
        _ => Err(Error::invalid(format!(
            "linux.resources.blockIO.{field}: {major}:{minor} is no device number"
        ))),
    }
}

/// The size becomes the name of a file: digits, and a unit.
fn plan_huge_pages(huge_pages: &LinuxHugepageLimit) -> Result<HugePages> {
    let size = huge_pages.page_size();
    let is_size = ["KB", "MB", "GB"].into_iter().any(|unit| {
        size.strip_suffix(unit).is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
    });
    if !is_size {
        return Err(Error::invalid(format!(
            "linux.resources.hugepageLimits: {size:?} is no page size: expected a number and KB, MB or GB"
        )));
    }
    Ok(HugePages { size: size.clone(), limit: limit(huge_pages.limit()) })
}

fn plan_network(network: &LinuxNetwork) -> Result<Network> {
    let mut priorities = Vec::new();
    for priority in network.priorities().iter().flatten() {
        check_name(priority.name(), "linux.resources.network.priorities")?;
        priorities.push((priority.name().clone(), priority.priority()));
    }
    Ok(Network { class_id: network.class_id().filter(|n| *n != 0), priorities })
}

fn plan_rdma(device: &str, limits: &LinuxRdma) -> Result<Rdma> {
    check_name(device, "linux.resources.rdma")?;
    if limits.hca_handles().is_none() && limits.hca_objects().is_none() {
        return Err(Error::invalid(format!("linux.resources.rdma: nothing is set for {device:?}")));
    }
    Ok(Rdma { device: device.to_owned(), handles: limits.hca_handles(), objects: limits.hca_objects() })
}

/// A name that is one word of a line that the kernel reads.
fn check_name(name: &str, field: &str) -> Result<()> {
    if name.is_empty() || name.len() > 64 || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid(format!("{field}: {name:?} is no name of a device")));
    }
    Ok(())
}

/// A key is the name of a controller's file, and of nothing else.
fn plan_unified<'a>(
    keys: impl Iterator<Item = (&'a String, &'a String)>,
) -> Result<BTreeMap<String, String>> {
    keys.map(|(key, value)| {
        let is_file = key.split_once('.').is_some_and(|(controller, _)| {
            !controller.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        });
        // What would move or end processes is no resource.
        let is_resource = !matches!(
            key.as_str(),
            "cgroup.procs" | "cgroup.threads" | "cgroup.kill" | "cgroup.freeze" | "cgroup.subtree_control"
        );
        if !is_file || !is_resource {
            return Err(Error::invalid(format!(
                "linux.resources.unified: {key:?} is no file of a controller"
            )));
        }
        Ok((key.clone(), value.clone()))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::{LinuxCpuBuilder, LinuxMemoryBuilder};
    use serde_json::{Value, json};

    use super::*;

    fn of(json: Value) -> Result<Resources> {
        plan(Some(&serde_json::from_value(json).expect("resources")))
    }

    #[test]
    fn zero_is_unset_and_negative_is_unlimited() {
        let memory = LinuxMemoryBuilder::default().limit(0_i64).swap(-1_i64).build().expect("memory");
        let planned = plan_memory(&memory).expect("plan");
        assert_eq!(planned, Memory { swap: Some(Limit::Unlimited), ..Memory::default() });
        for (given, expected) in [(-1, Limit::Unlimited), (0, Limit::At(0)), (7, Limit::At(7))] {
            assert_eq!(of(json!({"pids": {"limit": given}})).expect("plan").pids, Some(expected));
        }
        assert_eq!(of(json!({})).expect("plan"), Resources::default());
    }

    #[test]
    fn what_engines_send_for_nothing_is_nothing() {
        let nothing = json!({
            "memory": {"limit": 0}, "cpu": {"shares": 0, "quota": 0, "cpus": ""}, "network": {},
            "blockIO": {"weight": 0}, "hugepageLimits": [], "unified": {}
        });
        assert_eq!(of(nothing).expect("plan"), Resources::default());
    }

    #[test]
    fn memory_and_swap_fit_together() {
        let memory = |limit: i64, swap: i64| {
            plan_memory(&LinuxMemoryBuilder::default().limit(limit).swap(swap).build().expect("memory"))
        };
        assert!(memory(10, 5).is_err());
        assert!(memory(-1, 5).is_err());
        // The limit may be there already.
        assert!(memory(0, 5).is_ok());
        assert!(memory(10, 10).is_ok());
    }

    #[test]
    fn what_no_kernel_knows_is_remembered_for_a_warning() {
        let json = json!({"memory": {"kernel": 1, "useHierarchy": false}});
        let obsolete = of(json).expect("plan").memory.obsolete;
        assert_eq!(obsolete.len(), 2, "{obsolete:?}");
        assert!(of(json!({"memory": {"useHierarchy": true}})).expect("plan").memory.obsolete.is_empty());
    }

    #[test]
    fn a_list_of_processors_is_one_line() {
        for bad in ["0\n1", "0 1", "a", &"0,".repeat(4000)] {
            let cpu = LinuxCpuBuilder::default().cpus(bad).build().expect("cpu");
            assert!(plan_cpuset(&cpu).is_err());
        }
    }

    #[test]
    fn block_devices_and_their_limits() {
        let json = json!({"blockIO": {
            "weight": 20,
            "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
            "throttleReadBpsDevice": [{"major": 8, "minor": 16, "rate": 600}],
            "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
        }});
        let block_io = of(json).expect("plan").block_io;
        assert_eq!(block_io.weight, Some(20));
        assert_eq!(block_io.device_weights[0].weight, Some(500));
        let device = Device { major: 8, minor: 16 };
        let throttle = |what, rate| Throttle { device, what, rate };
        let expected = [throttle(Traffic::ReadBytes, 600), throttle(Traffic::WriteOperations, 300)];
        assert_eq!(block_io.throttles, expected);
    }

    #[test]
    fn what_would_be_more_than_a_value_is_refused() {
        for (json, field) in [
            (json!({"hugepageLimits": [{"pageSize": "../2MB", "limit": 1}]}), "hugepageLimits"),
            (json!({"hugepageLimits": [{"pageSize": "2M", "limit": 1}]}), "hugepageLimits"),
            (json!({"network": {"priorities": [{"name": "a b", "priority": 1}]}}), "network.priorities"),
            (json!({"rdma": {"mlx5_0\n": {"hcaHandles": 1}}}), "rdma"),
            (json!({"rdma": {"mlx5_0": {}}}), "rdma"),
            (json!({"unified": {"../memory.max": "1"}}), "unified"),
            (json!({"unified": {"memory": "1"}}), "unified"),
            (json!({"unified": {"cgroup.procs": "1"}}), "unified"),
            (json!({"cpu": {"idle": 2}}), "cpu.idle"),
            (json!({"memory": {"swappiness": 101}}), "memory.swappiness"),
            (json!({"blockIO": {"weight": 5}}), "blockIO.weight"),
            (json!({"blockIO": {"weightDevice": [{"major": -1, "minor": 0}]}}), "blockIO.weightDevice"),
        ] {
            let e = of(json.clone()).expect_err("refused").to_string();
            assert!(e.starts_with(&format!("linux.resources.{field}: ")), "{json}: {e}");
        }
    }
}
