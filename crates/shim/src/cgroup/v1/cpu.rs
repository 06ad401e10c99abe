// SPDX-License-Identifier: Apache-2.0
//! `cpu`: shares, quota per period, and the time of realtime processes.

use std::path::Path;

use nix::errno::Errno;

use super::super::{Cpu, fs};
use crate::runtime::Result;

/// What the kernel makes of any other number, without a word.
const SHARES: std::ops::RangeInclusive<u64> = 2..=262_144;

pub(super) fn apply(dir: &Path, cpu: &Cpu, warnings: &mut Vec<String>) -> Result<()> {
    // Time of realtime processes has to be there before one enters.
    in_either_order(
        dir,
        [
            ("cpu.rt_period_us", cpu.realtime_period.map(|n| n.to_string()), "realtimePeriod"),
            ("cpu.rt_runtime_us", cpu.realtime_runtime.map(|n| n.to_string()), "realtimeRuntime"),
        ],
    )?;
    // An idle cgroup has no shares: out of it first, and into it last.
    if cpu.idle == Some(0) && fs::has(dir, "cpu.idle") {
        fs::set(dir, "cpu.idle", "0", "linux.resources.cpu.idle")?;
    }
    if let Some(shares) = cpu.shares {
        if !SHARES.contains(&shares) {
            let what = "the kernel takes the nearest of 2 to 262144";
            warnings.push(format!("linux.resources.cpu.shares: {shares}: {what}"));
        }
        fs::set(dir, "cpu.shares", &shares.to_string(), "linux.resources.cpu.shares")?;
    }
    let burst = cpu.burst.filter(|burst| *burst != 0 || fs::has(dir, "cpu.cfs_burst_us"));
    in_either_order(
        dir,
        [
            ("cpu.cfs_period_us", cpu.period.map(|n| n.to_string()), "period"),
            ("cpu.cfs_burst_us", burst.map(|n| n.to_string()), "burst"),
            ("cpu.cfs_quota_us", cpu.quota.map(super::super::Limit::or_minus_one), "quota"),
        ],
    )?;
    match cpu.idle {
        Some(idle) if idle != 0 => fs::set(dir, "cpu.idle", &idle.to_string(), "linux.resources.cpu.idle"),
        _ => Ok(()),
    }
}

/// Writes values that the kernel judges by each other: one that it refuses is
/// tried again after the last, which is decisive.
fn in_either_order<const N: usize>(dir: &Path, values: [(&str, Option<String>, &str); N]) -> Result<()> {
    let last = values.len() - 1;
    let decisive = values[last].1.is_some();
    let mut again = Vec::new();
    for (position, (file, value, field)) in values.iter().enumerate() {
        let Some(value) = value else { continue };
        match fs::try_write(dir, file, value) {
            Err(e) if e.errno() == Errno::EINVAL && decisive && position != last => {
                again.push((file, value, field));
            }
            result => result.map_err(|e| fs::refused(&e, &format!("linux.resources.cpu.{field}")))?,
        }
    }
    again.into_iter().try_for_each(|(file, value, field)| {
        fs::set(dir, file, value, &format!("linux.resources.cpu.{field}"))
    })
}

#[cfg(test)]
mod tests {
    use super::{super::super::Limit, *};

    #[test]
    fn each_value_has_its_file() {
        let dir = tempfile::tempdir().expect("tempdir");
        let files = [
            ("cpu.shares", "512"),
            ("cpu.cfs_period_us", "100000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_burst_us", "1000"),
            ("cpu.rt_period_us", "1000000"),
            ("cpu.rt_runtime_us", "9000"),
            ("cpu.idle", "1"),
        ];
        for (file, _) in files {
            std::fs::write(dir.path().join(file), "").expect("write");
        }
        let cpu = Cpu {
            shares: Some(512),
            quota: Some(Limit::At(50_000)),
            period: Some(100_000),
            burst: Some(1000),
            idle: Some(1),
            realtime_runtime: Some(9000),
            realtime_period: Some(1_000_000),
        };
        apply(dir.path(), &cpu, &mut Vec::new()).expect("apply");
        for (file, text) in files {
            assert_eq!(fs::read(dir.path(), file).expect("read"), text, "{file}");
        }
    }

    #[test]
    fn what_the_kernel_has_not_is_named_as_in_the_specification() {
        let dir = tempfile::tempdir().expect("tempdir");
        let cpu = Cpu { realtime_runtime: Some(1), ..Cpu::default() };
        let e = apply(dir.path(), &cpu, &mut Vec::new()).expect_err("no such file").to_string();
        assert!(e.starts_with("linux.resources.cpu.realtimeRuntime: "), "{e}");
        // Without a burst nothing is missed.
        apply(dir.path(), &Cpu { burst: Some(0), ..Cpu::default() }, &mut Vec::new()).expect("apply");
    }

    #[test]
    fn shares_that_the_kernel_changes_are_a_warning() {
        let dir = tempfile::tempdir().expect("tempdir");
        std::fs::write(dir.path().join("cpu.shares"), "").expect("write");
        let mut warnings = Vec::new();
        apply(dir.path(), &Cpu { shares: Some(1), ..Cpu::default() }, &mut warnings).expect("apply");
        assert_eq!(warnings.len(), 1);
    }
}
