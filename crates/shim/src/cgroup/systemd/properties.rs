// SPDX-License-Identifier: Apache-2.0
//! Limits as properties of a unit (systemd.resource-control(5)), so that
//! systemd knows what it would otherwise set back. What has no property is
//! only written to the cgroup.

use std::collections::BTreeMap;

use berth::cgroup::weight;

use super::wire::Value;
use crate::{
    cgroup::{Cpu, Limit, Resources, v2::memory::swap},
    runtime::{Error, Result},
};

/// The kernel's period of a quota, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;
/// systemd keeps a quota as whole percents of a processor: microseconds a
/// second.
const PERCENT: u64 = 10_000;
/// More processors than any kernel is built for (M06).
const MAX_BIT: usize = 8192;

/// Names and values; `v2` says whose names.
pub(super) fn of(resources: &Resources, v2: Names) -> Result<Vec<(&'static str, Value)>> {
    let mut all: BTreeMap<&'static str, Value> = BTreeMap::new();
    let mut set = |name, limit: Option<Limit>| {
        if let Some(limit) = limit {
            all.insert(name, Value::U64(infinite(limit)));
        }
    };
    match v2 {
        Names::V1 => set("MemoryLimit", resources.memory.limit),
        Names::V2 => {
            set("MemoryMax", resources.memory.limit);
            set("MemoryLow", resources.memory.reservation);
            set("MemorySwapMax", swap(&resources.memory));
        }
    }
    set("TasksMax", resources.pids.map(Limit::of_processes));
    match (v2, resources.cpu.shares) {
        // Idle is the weight of none.
        (Names::V2, _) if resources.cpu.idle == Some(1) => drop(all.insert("CPUWeight", Value::U64(0))),
        (Names::V2, Some(shares)) => drop(all.insert("CPUWeight", Value::U64(weight(shares)))),
        (Names::V1, Some(shares)) => drop(all.insert("CPUShares", Value::U64(shares))),
        (_, None) => {}
    }
    if let (Names::V1, Some(weight)) = (v2, resources.block_io.weight) {
        all.insert("BlockIOWeight", Value::U64(weight.into()));
    }
    quota(&resources.cpu, &mut all);
    for (name, list, field) in [
        ("AllowedCPUs", &resources.cpuset.cpus, "cpus"),
        ("AllowedMemoryNodes", &resources.cpuset.mems, "mems"),
    ] {
        if let Some(list) = list {
            let bits = bits(list).ok_or_else(|| {
                Error::invalid(format!("linux.resources.cpu.{field}: {list:?} is no list of numbers"))
            })?;
            all.insert(name, Value::Bytes(bits));
        }
    }
    if v2 == Names::V2 {
        unified(&resources.unified, &mut all)?;
    }
    Ok(all.into_iter().collect())
}

/// Whose names the properties have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    V1,
    V2,
}

fn infinite(limit: Limit) -> u64 {
    match limit {
        Limit::At(n) => n,
        Limit::Unlimited => u64::MAX,
    }
}

fn quota(cpu: &Cpu, all: &mut BTreeMap<&'static str, Value>) {
    if let Some(period) = cpu.period {
        all.insert("CPUQuotaPeriodUSec", Value::U64(period));
    }
    let Some(quota) = cpu.quota else { return };
    let per_second = match quota {
        Limit::Unlimited => u64::MAX,
        Limit::At(quota) => {
            let period = cpu.period.unwrap_or(DEFAULT_PERIOD).max(1);
            // Rounded up: systemd may not take away what the cgroup was given.
            (quota.saturating_mul(1_000_000) / period).next_multiple_of(PERCENT)
        }
    };
    all.insert("CPUQuotaPerSecUSec", Value::U64(per_second));
}

/// A list like `0-3,7` as bits, the first processor in the lowest bit of the
/// first byte.
fn bits(list: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    for part in list.split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if first > last || last >= MAX_BIT {
            return None;
        }
        bytes.resize(bytes.len().max(last / 8 + 1), 0);
        (first..=last).for_each(|n| bytes[n / 8] |= 1 << (n % 8));
    }
    (!bytes.is_empty()).then_some(bytes)
}

/// Those keys of `linux.resources.unified` that are properties.
fn unified(keys: &BTreeMap<String, String>, all: &mut BTreeMap<&'static str, Value>) -> Result<()> {
    for (key, text) in keys {
        let name = match key.as_str() {
            "memory.min" => "MemoryMin",
            "memory.low" => "MemoryLow",
            "memory.high" => "MemoryHigh",
            "memory.max" => "MemoryMax",
            "memory.swap.max" => "MemorySwapMax",
            "pids.max" => "TasksMax",
            "cpu.weight" => "CPUWeight",
            _ => continue,
        };
        let text = text.trim();
        let number = if text == "max" { Some(u64::MAX) } else { text.parse().ok() };
        let number = number.ok_or_else(|| {
            Error::invalid(format!("linux.resources.unified: {key}: {text:?} is no number"))
        })?;
        // systemd has no limit of no processes.
        let number = if name == "TasksMax" { number.max(1) } else { number };
        all.insert(name, Value::U64(number));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cgroup::{CpuSet, Memory};

    fn get(resources: &Resources, names: Names, name: &str) -> Option<Value> {
        of(resources, names)
            .expect("properties")
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn numbers_have_their_properties() {
        let resources = Resources {
            memory: Memory { limit: Some(Limit::At(100)), swap: Some(Limit::At(150)), ..Memory::default() },
            cpu: Cpu { shares: Some(1024), quota: Some(Limit::At(12_345)), ..Cpu::default() },
            cpuset: CpuSet { cpus: Some("0-2,9".to_owned()), mems: None },
            pids: Some(Limit::At(0)),
            unified: [("memory.high".to_owned(), "max".to_owned())].into(),
            ..Resources::default()
        };
        for (name, value) in [
            ("MemoryMax", Value::U64(100)),
            ("MemorySwapMax", Value::U64(50)),
            ("CPUWeight", Value::U64(100)),
            ("CPUQuotaPerSecUSec", Value::U64(130_000)),
            ("TasksMax", Value::U64(1)),
            ("AllowedCPUs", Value::Bytes(vec![0b111, 0b10])),
            ("MemoryHigh", Value::U64(u64::MAX)),
        ] {
            assert_eq!(get(&resources, Names::V2, name), Some(value), "{name}");
        }
        assert_eq!(get(&resources, Names::V1, "CPUShares"), Some(Value::U64(1024)));
        assert_eq!(get(&resources, Names::V1, "MemoryLimit"), Some(Value::U64(100)));
        assert_eq!(get(&resources, Names::V1, "MemoryMax"), None);
    }

    #[test]
    fn idle_is_the_weight_of_none() {
        let cpu = Cpu { shares: Some(2), idle: Some(1), ..Cpu::default() };
        let resources = Resources { cpu, ..Resources::default() };
        assert_eq!(get(&resources, Names::V2, "CPUWeight"), Some(Value::U64(0)));
        assert!(of(&Resources::default(), Names::V2).expect("properties").is_empty());
    }

    #[test]
    fn bad_lists_are_none() {
        for bad in ["", ",", "3-1", "a", "0-8192", "99999999999"] {
            assert_eq!(bits(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn systemd_never_allows_less_than_the_cgroup(quota in 1000..10_000_000_u64, period in 1000..1_000_000_u64) {
            let cpu = Cpu { quota: Some(Limit::At(quota)), period: Some(period), ..Cpu::default() };
            let mut all = BTreeMap::new();
            super::quota(&cpu, &mut all);
            let Value::U64(per_second) = all["CPUQuotaPerSecUSec"] else { panic!("a number") };
            prop_assert_eq!(per_second % PERCENT, 0);
            prop_assert!(per_second >= quota * 1_000_000 / period);
            prop_assert!(per_second < quota * 1_000_000 / period + PERCENT);
        }
    }
}
