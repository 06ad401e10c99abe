// SPDX-License-Identifier: Apache-2.0
//! How the kernel is to run the process: `process.scheduler`, `ioPriority` and
//! `execCPUAffinity`, `linux.personality` and `memoryPolicy`, as the numbers
//! that the system calls take.

use std::{
    collections::BTreeSet,
    ffi::{c_int, c_ulong},
};

use oci_spec::runtime::{
    ExecCPUAffinity, IOPriorityClass, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain,
    LinuxSchedulerFlag, LinuxSchedulerPolicy, MemoryPolicyFlagType, MemoryPolicyModeType, Process, Spec,
};

use super::super::error::{Error, Kind, Result};
use crate::kernel::scheduling::SchedAttr;

/// More processors and nodes than Linux can have (NR_CPUS, MAX_NUMNODES).
const MAX_NUMBER: usize = 8192;

/// Everything but the affinity, which only `exec` has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Execution {
    pub(crate) scheduler: Option<SchedAttr>,
    pub(crate) io_priority: Option<IoPriority>,
    /// The domain that personality(2) takes.
    pub(crate) personality: Option<c_ulong>,
    pub(crate) memory_policy: Option<MemoryPolicy>,
}

/// What ioprio_set(2) takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct IoPriority {
    /// `IOPRIO_CLASS_*`.
    pub(crate) class: u32,
    /// 0, the highest, to 7.
    pub(crate) priority: u32,
}

/// What set_mempolicy(2) takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemoryPolicy {
    /// `MPOL_*`, with the flags.
    pub(crate) mode: c_int,
    /// Bit n for node n.
    pub(crate) nodes: Vec<u64>,
}

/// On which processors a process that joins the container begins, and runs;
/// bit n for processor n, empty for "as it is".
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Affinity {
    /// Before it enters the container's cgroups.
    pub(crate) initial: Vec<u64>,
    /// Once it is in them.
    pub(crate) last: Vec<u64>,
}

pub(super) fn plan(spec: &Spec, process: &Process) -> Result<Execution> {
    let linux = spec.linux().as_ref();
    Ok(Execution {
        scheduler: process.scheduler().as_ref().map(scheduler).transpose()?,
        io_priority: process.io_priority().as_ref().map(io_priority).transpose()?,
        personality: linux.and_then(|l| l.personality().as_ref()).map(personality).transpose()?,
        memory_policy: linux.and_then(|l| l.memory_policy().as_ref()).map(memory_policy).transpose()?,
    })
}

fn scheduler(scheduler: &oci_spec::runtime::Scheduler) -> Result<SchedAttr> {
    use LinuxSchedulerPolicy as Policy;
    let wrong = |text: String| Error::invalid(format!("process.scheduler.{text}"));
    let policy = *scheduler.policy();
    let nice = scheduler.nice().unwrap_or(0);
    if matches!(policy, Policy::SchedOther | Policy::SchedBatch) && !(-20..=19).contains(&nice) {
        return Err(wrong(format!("nice: {nice} is not between -20 and 19")));
    }
    let priority = scheduler.priority().unwrap_or(0);
    if priority != 0 && !matches!(policy, Policy::SchedFifo | Policy::SchedRr) {
        return Err(wrong(format!("priority: {policy} has none, only SCHED_FIFO and SCHED_RR have")));
    }
    let times = [scheduler.runtime(), scheduler.deadline(), scheduler.period()].map(|t| t.unwrap_or(0));
    if times != [0; 3] && policy != Policy::SchedDeadline {
        return Err(wrong(format!("runtime, deadline, period: {policy} has none, only SCHED_DEADLINE has")));
    }
    let flags = scheduler.flags().iter().flatten().fold(0, |bits, flag| bits | scheduler_flag(*flag));
    Ok(SchedAttr {
        size: 0,
        // linux/sched.h
        policy: match policy {
            Policy::SchedOther => 0,
            Policy::SchedFifo => 1,
            Policy::SchedRr => 2,
            Policy::SchedBatch => 3,
            Policy::SchedIso => 4,
            Policy::SchedIdle => 5,
            Policy::SchedDeadline => 6,
        },
        flags,
        nice,
        priority: u32::try_from(priority)
            .map_err(|_| wrong(format!("priority: {priority} is below zero")))?,
        runtime: times[0],
        deadline: times[1],
        period: times[2],
    })
}

/// linux/sched.h
fn scheduler_flag(flag: LinuxSchedulerFlag) -> u64 {
    match flag {
        LinuxSchedulerFlag::SchedResetOnFork => 0x01,
        LinuxSchedulerFlag::SchedFlagReclaim => 0x02,
        LinuxSchedulerFlag::SchedFlagDLOverrun => 0x04,
        LinuxSchedulerFlag::SchedFlagKeepPolicy => 0x08,
        LinuxSchedulerFlag::SchedFlagKeepParams => 0x10,
        LinuxSchedulerFlag::SchedFlagUtilClampMin => 0x20,
        LinuxSchedulerFlag::SchedFlagUtilClampMax => 0x40,
    }
}

fn io_priority(priority: &oci_spec::runtime::LinuxIOPriority) -> Result<IoPriority> {
    // linux/ioprio.h
    let class = match priority.class() {
        IOPriorityClass::IoprioClassRt => 1,
        IOPriorityClass::IoprioClassBe => 2,
        IOPriorityClass::IoprioClassIdle => 3,
    };
    match u32::try_from(priority.priority()) {
        Ok(priority @ 0..=7) => Ok(IoPriority { class, priority }),
        _ => Err(Error::invalid(format!(
            "process.ioPriority.priority: {} is not between 0 and 7",
            priority.priority()
        ))),
    }
}

fn personality(personality: &LinuxPersonality) -> Result<c_ulong> {
    if let Some(flag) = personality.flags().iter().flatten().next() {
        let why = format!("linux.personality.flags: {flag:?}: the specification has no flags yet");
        return Err(Error::new(Kind::Unsupported, why));
    }
    // linux/personality.h
    Ok(match personality.domain() {
        LinuxPersonalityDomain::PerLinux => 0x0000,
        LinuxPersonalityDomain::PerLinux32 => 0x0008,
    })
}

fn memory_policy(policy: &LinuxMemoryPolicy) -> Result<MemoryPolicy> {
    use MemoryPolicyModeType as Mode;
    let wrong = |what: &str| Error::invalid(format!("linux.memoryPolicy.nodes: {} {what}", policy.mode()));
    let field = "linux.memoryPolicy.nodes: invalid memory policy node";
    let nodes = numbers(policy.nodes().as_deref().unwrap_or_default(), field)?;
    match policy.mode() {
        Mode::MpolDefault | Mode::MpolLocal if !nodes.is_empty() => {
            let given: u32 = nodes.iter().map(|word| word.count_ones()).sum();
            return Err(wrong(&format!("mode requires 0 nodes but got {given}")));
        }
        Mode::MpolBind | Mode::MpolInterleave | Mode::MpolWeightedInterleave | Mode::MpolPreferredMany
            if nodes.is_empty() =>
        {
            return Err(wrong("needs at least one node"));
        }
        _ => {}
    }
    // linux/mempolicy.h, as the flags.
    let mode = match policy.mode() {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flags = policy.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
            MemoryPolicyFlagType::MpolFRelativeNodes => 1 << 14,
            MemoryPolicyFlagType::MpolFStaticNodes => 1 << 15,
        }
    });
    Ok(MemoryPolicy { mode: mode | flags, nodes })
}

/// The processors of a process that joins a container.
pub(crate) fn affinity(affinity: Option<&ExecCPUAffinity>) -> Result<Affinity> {
    let Some(affinity) = affinity else { return Ok(Affinity::default()) };
    let list = |list: &Option<String>, field: &str| {
        numbers(list.as_deref().unwrap_or_default(), &format!("process.execCPUAffinity.{field}"))
    };
    Ok(Affinity {
        initial: list(affinity.initial(), "initial")?,
        last: list(affinity.cpu_affinity_final(), "final")?,
    })
}

/// `0-3,7` as a mask; the last word is not zero.
fn numbers(list: &str, field: &str) -> Result<Vec<u64>> {
    let wrong = |part: &str| Error::invalid(format!("{field}: {part:?} in {list:?} is no number or range"));
    let mut all = BTreeSet::new();
    for part in list.split(',').filter(|_| !list.trim().is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<usize>().ok().filter(|n| digits && *n < MAX_NUMBER).ok_or_else(|| wrong(part))
        };
        let range = number(first.trim())?..=number(last.trim())?;
        if range.is_empty() {
            return Err(wrong(part));
        }
        all.extend(range);
    }
    let mut mask = vec![0; all.last().map_or(0, |last| last / 64 + 1)];
    all.iter().for_each(|n| mask[n / 64] |= 1 << (n % 64));
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    /// A field of `process` or `linux`, planned.
    fn of(object: &str, field: &str, value: Value) -> Result<Execution> {
        let mut spec = serde_json::to_value(Spec::default()).expect("spec");
        spec[object][field] = value;
        let spec: Spec = serde_json::from_value(spec).expect("a specification");
        plan(&spec, spec.process().as_ref().expect("process"))
    }

    fn refusal(object: &str, field: &str, value: Value) -> String {
        of(object, field, value).expect_err("refused").to_string()
    }

    #[test]
    fn schedulers_are_those_of_the_kernel() {
        let planned = of(
            "process",
            "scheduler",
            json!({"policy": "SCHED_DEADLINE", "runtime": 1, "deadline": 2, "period": 3, "flags": ["SCHED_FLAG_RECLAIM"]}),
        );
        let expected =
            SchedAttr { policy: 6, flags: 2, runtime: 1, deadline: 2, period: 3, ..SchedAttr::default() };
        assert_eq!(planned.expect("deadline").scheduler, Some(expected));
        let fifo = of("process", "scheduler", json!({"policy": "SCHED_FIFO", "priority": 9})).expect("fifo");
        assert_eq!(fifo.scheduler, Some(SchedAttr { policy: 1, priority: 9, ..SchedAttr::default() }));
        for (value, expected) in [
            (json!({"policy": "SCHED_OTHER", "nice": 20}), "nice: 20 is not between -20 and 19"),
            (
                json!({"policy": "SCHED_BATCH", "priority": 1}),
                "priority: SCHED_BATCH has none, only SCHED_FIFO and SCHED_RR have",
            ),
            (json!({"policy": "SCHED_RR", "priority": -1}), "priority: -1 is below zero"),
            (
                json!({"policy": "SCHED_RR", "period": 1}),
                "runtime, deadline, period: SCHED_RR has none, only SCHED_DEADLINE has",
            ),
        ] {
            assert_eq!(refusal("process", "scheduler", value), format!("process.scheduler.{expected}"));
        }
    }

    #[test]
    fn priorities_of_input_and_output() {
        let of = |priority: i64| {
            of("process", "ioPriority", json!({"class": "IOPRIO_CLASS_IDLE", "priority": priority}))
        };
        assert_eq!(of(4).expect("idle").io_priority, Some(IoPriority { class: 3, priority: 4 }));
        for priority in [-1, 8] {
            let expected = format!("process.ioPriority.priority: {priority} is not between 0 and 7");
            assert_eq!(of(priority).expect_err("range").to_string(), expected);
        }
    }

    #[test]
    fn personalities() {
        assert_eq!(
            of("linux", "personality", json!({"domain": "LINUX32"})).expect("32").personality,
            Some(8)
        );
        let flags = json!({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]});
        assert!(refusal("linux", "personality", flags).starts_with("linux.personality.flags"));
    }

    #[test]
    fn memory_policies() {
        let of = |mode: &str, nodes: &str, flags: &[&str]| {
            of("linux", "memoryPolicy", json!({"mode": mode, "nodes": nodes, "flags": flags}))
                .map(|planned| planned.memory_policy)
        };
        let expected = MemoryPolicy { mode: 2 | 1 << 15, nodes: vec![0b1011] };
        assert_eq!(of("MPOL_BIND", "0-1,3", &["MPOL_F_STATIC_NODES"]), Ok(Some(expected)));
        assert_eq!(of("MPOL_PREFERRED", "", &[]), Ok(Some(MemoryPolicy { mode: 1, nodes: Vec::new() })));
        for (mode, nodes, expected) in [
            ("MPOL_DEFAULT", "0", "linux.memoryPolicy.nodes: MPOL_DEFAULT mode requires 0 nodes but got 1"),
            ("MPOL_INTERLEAVE", "", "linux.memoryPolicy.nodes: MPOL_INTERLEAVE needs at least one node"),
            (
                "MPOL_BIND",
                "1-0",
                r#"linux.memoryPolicy.nodes: invalid memory policy node: "1-0" in "1-0" is no number or range"#,
            ),
        ] {
            assert_eq!(of(mode, nodes, &[]).expect_err(mode).to_string(), expected);
        }
    }

    #[test]
    fn lists_of_numbers() {
        assert_eq!(numbers("", "f"), Ok(vec![]));
        assert_eq!(numbers("0, 2-3", "f"), Ok(vec![0b1101]));
        assert_eq!(numbers("64", "f"), Ok(vec![0, 1]));
        for wrong in ["x", "1-", "-1", "1,,2", "0-8192", "+1", "1-2-3"] {
            assert!(numbers(wrong, "f").is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_mask_has_the_numbers_of_its_list(all in prop::collection::btree_set(0_usize..200, 0..20)) {
            let list = all.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
            let mask = numbers(&list, "f").expect("list");
            let back: BTreeSet<_> = (0..mask.len() * 64).filter(|n| mask[n / 64] & 1 << (n % 64) != 0).collect();
            prop_assert_eq!(back, all);
        }
    }
}
